"""A run that was frozen and wakes when another host has taken over and finished."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from drives import write_drive
from waiting import END_S, wait_for

pytestmark = [pytest.mark.ray, pytest.mark.chaos, pytest.mark.long]


def contents(run: Path) -> dict[str, tuple[bytes, int]]:
    """Bytes and times of all files but the timings of the tries."""
    return {
        str(path.relative_to(run)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in run.rglob("*")
        if path.is_file() and "attempts" not in path.parts
    }


def started(host: str, drives: Path, run: Path, log: Path) -> "subprocess.Popen[bytes]":
    """An inference on a machine of this name, with a Ray of its own."""
    command = [sys.executable, "-m", "urbandet_ray.cli", "infer", str(drives), "--out", str(run)]
    command += ["--track", "--actors", "1", "--set", "shard.frames=4"]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    with log.open("wb") as out:
        return subprocess.Popen(
            ["unshare", "--uts", "sh", "-c", f'hostname {host} && exec "$@"', "sh", *command],
            env=clean | {"RAY_ADDRESS": "local"},
            stdout=out,
            stderr=subprocess.STDOUT,
        )


def family(pid: int) -> list[int]:
    """A process and all that it started, the youngest last."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                status = (folder / "stat").read_text()
            except OSError:
                continue  # it has ended meanwhile
            parents[int(folder.name)] = int(status.rpartition(")")[2].split()[1])
    found = [pid]
    for one in found:
        found += sorted(child for child, parent in parents.items() if parent == one)
    return found


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare"), reason="host names need root and unshare"
)
def test_a_writer_that_wakes_leaves_the_finished_run_as_it_is(tmp_path: Path) -> None:
    """Its actors were within a shard; the other host's run is whole, with its track ids."""
    drives, run = tmp_path / "drives", tmp_path / "run"
    for name in ("street-0001", "street-0002"):
        write_drive(drives / f"{name}.tfrecord", 40)
    first = started("host-a", drives, run, tmp_path / "a.log")
    frozen: list[int] = []
    try:
        wait_for(
            lambda: len(list(run.glob("commit/*.json"))) >= 2 or first.poll() is not None,
            "two shards of the first",
        )
        frozen = family(first.pid)
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        assert first.poll() is None
        assert len(list(run.glob("commit/*.json"))) < 20, "it was done before it was frozen"
        second = started("host-b", drives, run, tmp_path / "b.log")
        assert second.wait(END_S) == 0, (tmp_path / "b.log").read_text()
        whole = contents(run)
        assert "tracks.json" in whole
        assert len([name for name in whole if name.startswith("commit/")]) == 20
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
        assert first.wait(END_S) == 1, (tmp_path / "a.log").read_text()
        time.sleep(2)  # its actors may live a moment longer
        assert contents(run) == whole
        assert "lock" in (tmp_path / "a.log").read_text().splitlines()[-1]
    finally:
        for pid in frozen[::-1]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
