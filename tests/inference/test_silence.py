"""A silent run: what it waits for is said, and it ends where nothing can come."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from drives import write_drive
from waiting import END_S, wait_for

from urbandet_ray.errors import RunError
from urbandet_ray.inference import silence as module
from urbandet_ray.inference.silence import SilenceWatch, heard


def test_items_come_in_their_order() -> None:
    """With nobody asked about silence."""
    assert list(heard(iter(range(5)), refuse)) == [0, 1, 2, 3, 4]


def refuse(silent_s: float) -> None:
    raise AssertionError(f"there was no silence, and {silent_s} s were told")


def test_an_error_of_the_items_comes_through() -> None:
    """After the items before it."""

    def items() -> Iterator[int]:
        yield 1
        raise RunError("an actor died")

    found = heard(items(), refuse)
    assert next(found) == 1
    with pytest.raises(RunError, match="an actor died"):
        next(found)


def test_silence_is_told_since_the_last_item() -> None:
    """Again and again, until an item comes."""
    goes_on, told = threading.Event(), []

    def items() -> Iterator[int]:
        yield 1
        goes_on.wait(END_S)
        yield 2

    def hear(silent_s: float) -> None:
        told.append(silent_s)
        if len(told) == 3:
            goes_on.set()

    assert list(heard(items(), hear, every_s=0.05)) == [1, 2]
    assert told[:3] == sorted(told[:3])
    assert 0.04 < told[0] < told[2]


def test_what_is_raised_of_silence_ends_the_waiting() -> None:
    """And whoever asks for items stops with the next one."""
    goes_on, closed = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        try:
            goes_on.wait(END_S)
            while True:
                yield 1
        finally:
            closed.set()

    def end(silent_s: float) -> None:
        raise RunError("nothing can come")

    with pytest.raises(RunError, match="nothing can come"):
        next(heard(items(), end, every_s=0.05))
    goes_on.set()
    assert closed.wait(END_S)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What Ray would say: living nodes, and whether the driver's is one."""
    found: dict[str, object] = {"nodes": (2, True)}
    monkeypatch.setattr(module, "_living_nodes", lambda: found["nodes"])
    monkeypatch.setattr(module, "_actors", lambda nodes: f"1 of 2 actors are up on {nodes} nodes")
    return found


def test_silence_is_said_each_minute(
    cluster: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    """With the stage that most time went into; anew after shards have come."""
    watch = SilenceWatch(None, lambda: "model")
    for silent_s in (10, 59, 61, 70, 115, 122, 10, 61):
        watch(silent_s)
    assert [one.getMessage().partition(":")[0] for one in caplog.records] == [
        "no shard for 61 s",
        "no shard for 122 s",
        "no shard for 61 s",
    ]
    assert caplog.records[0].getMessage() == (
        "no shard for 61 s: 1 of 2 actors are up on 2 nodes; most time went into model until then"
    )


@pytest.mark.parametrize(
    ("nodes", "told"),
    [((0, False), "no node of the Ray cluster is alive"), ((1, False), "given up the node that")],
)
def test_a_cluster_that_is_gone_ends_the_run(
    cluster: dict[str, object], nodes: tuple[int, bool], told: str
) -> None:
    """Not at once: a head that restarts has none for a moment."""
    watch = SilenceWatch(None, str)
    for seen in (nodes, nodes, (2, True), nodes, nodes):
        cluster["nodes"] = seen
        watch(10)
    with pytest.raises(RunError, match=rf"{told} .*what is committed is kept, run it again to res"):
        watch(10)


def test_too_long_a_silence_ends_the_run(cluster: dict[str, object]) -> None:
    """With the key that allows more."""
    watch = SilenceWatch(600, str)
    watch(600)
    with pytest.raises(RunError, match=r"for 11 minutes \(1 of 2 actors .*max_silence_minutes"):
        watch(660)


@pytest.mark.ray
@pytest.mark.chaos
@pytest.mark.long
def test_a_raylet_that_stood_still_ends_the_run(tmp_path: Path) -> None:
    """Ray has given its node up when it comes back; nothing will ever come from there."""
    run = tmp_path / "run"
    write_drive(tmp_path / "drives/street.tfrecord", 200)
    command = [sys.executable, "-m", "urbandet_ray.cli", "infer", str(tmp_path / "drives")]
    command += ["--out", str(run), "--set", "shard.frames=4", "--actors", "1"]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    driver = subprocess.Popen(
        command, env=clean | {"RAY_ADDRESS": "local"}, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: any(run.glob("commit/*.json")) or driver.poll() is not None, "a shard")
    raylet = wait_for(lambda: _child(driver.pid, "raylet"), "the raylet")
    os.kill(raylet, signal.SIGSTOP)
    time.sleep(100)
    os.kill(raylet, signal.SIGCONT)
    _, told = driver.communicate(timeout=END_S)
    assert driver.returncode == 1, told
    assert "run it again to resume" in told


def _child(parent: int, name: str) -> int | None:
    """A child process of this name."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                status = (folder / "stat").read_text()
            except OSError:
                continue
            after = status.rpartition(")")
            if f"({name}" in after[0] and int(after[2].split()[1]) == parent:
                return int(folder.name)
    return None
