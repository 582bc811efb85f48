"""The lock against a second live writer of a run folder."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from urbandet_ray.errors import RunError
from urbandet_ray.runs.lock import Owner, WriterLock
from urbandet_ray.storage import Storage

Place = tuple[Storage, str]
QUICK = {"heartbeat_s": 0.1, "stale_after_s": 0.6}


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Storage and URI of a lock file, on a local disk and on S3."""
    if request.param == "local":
        return Storage(), str(tmp_path / "run" / "writer.json")
    server = request.getfixturevalue("s3_server")
    bucket = server.make_bucket(f"b-{uuid.uuid4().hex[:12]}")
    return Storage(server.options), f"{bucket}/run/writer.json"


def _lock(place: Place, label: str = "urbandet infer") -> WriterLock:
    return WriterLock(*place, label, **QUICK)


def _leave_behind(place: Place, **changes: object) -> None:
    """A lock file as a writer leaves it that died."""
    storage, uri = place
    with _lock(place):
        held = json.loads(storage.read_bytes(uri))
    storage.write_bytes(uri, json.dumps({**held, **changes}).encode())


def _dead_pid() -> tuple[int, str]:
    """Pid and start time of a process that was there and is gone."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        started = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
        process.communicate(b"\n")
    return process.pid, started


def test_is_there_while_held_and_gone_after(place: Place) -> None:
    """The file says who holds it, its heartbeat counts up, and the end removes it."""
    storage, uri = place
    with _lock(place) as lock:
        time.sleep(0.5)
        lock.check()
        owner = Owner.parse(storage.read_bytes(uri))
    assert owner is not None
    assert (owner.label, owner.host, owner.pid) == (
        "urbandet infer",
        socket.gethostname(),
        os.getpid(),
    )
    assert owner.beats >= 1
    assert not storage.exists(uri)


def test_a_second_live_writer_is_refused(place: Place) -> None:
    """On the same host at once, with host, pid and start of the other."""
    with _lock(place, "first") as lock:
        message = (
            rf"another writer is live in {place[1]}: 'first' on host {socket.gethostname()}, "
            rf"pid {os.getpid()}, since 20\d\d-.*; wait until it ends or stop it"
        )
        begun_s = time.monotonic()
        with pytest.raises(RunError, match=message), WriterLock(*place, "second"):
            pass
        assert time.monotonic() - begun_s < 5
        lock.check()


def test_a_dead_writer_of_this_host_is_replaced_at_once(place: Place) -> None:
    """No waiting for a process that is gone."""
    pid, started = _dead_pid()
    _leave_behind(place, pid=pid, pid_started=started, beat_s=time.time())
    with WriterLock(*place, "next") as lock:  # with default times: it must not wait
        assert not lock.lost


def test_a_reused_pid_is_not_the_dead_writer(place: Place) -> None:
    """A process of the same number that started at another time is somebody else."""
    _leave_behind(place, pid=os.getpid(), pid_started="1", beat_s=time.time())
    with WriterLock(*place, "next") as lock:
        assert not lock.lost


def test_a_writer_killed_for_real_is_replaced(place: Place) -> None:
    """SIGKILL leaves the file behind; the next writer finds the process gone."""
    storage, uri = place
    program = (
        "import sys; from urbandet_ray.config import StorageConfig\n"
        "from urbandet_ray.runs.lock import WriterLock; from urbandet_ray.storage import Storage\n"
        "storage = Storage(StorageConfig(endpoint_url=sys.argv[2] or None))\n"
        "lock = WriterLock(storage, sys.argv[1], 'x')\n"
        "lock.__enter__(); print('held', flush=True); input()"
    )
    command = [sys.executable, "-c", program, uri, storage.s3.endpoint_url or ""]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(RunError, match=f"pid {process.pid}, since"), _lock(place):
            pass
        process.kill()
    with WriterLock(*place, "next") as lock:
        assert not lock.lost


@pytest.mark.parametrize("clock_ahead_s", [0, 3600])
def test_a_silent_writer_elsewhere_is_replaced_after_a_watch(
    place: Place, clock_ahead_s: float
) -> None:
    """Its heartbeat stood still by our clock; what its own clock says does not matter."""
    _leave_behind(place, host="elsewhere", beat_s=time.time() + clock_ahead_s)
    begun_s = time.monotonic()
    with _lock(place):
        assert time.monotonic() - begun_s >= QUICK["stale_after_s"]


def test_a_long_silent_writer_elsewhere_is_replaced_sooner(place: Place) -> None:
    """Silent for hours by its own clock, two heartbeats are watched to be sure."""
    _leave_behind(place, host="elsewhere", beat_s=time.time() - 7200)
    begun_s = time.monotonic()
    with WriterLock(*place, "next", heartbeat_s=0.1, stale_after_s=30):
        assert 0.2 <= time.monotonic() - begun_s < 10


@pytest.mark.parametrize("clock_behind_s", [0, 7200])
def test_a_beating_writer_elsewhere_is_respected(place: Place, clock_behind_s: float) -> None:
    """A heartbeat seen within the watch means alive, even with a clock hours behind."""
    storage, uri = place
    _leave_behind(place, host="elsewhere", beat_s=time.time() - clock_behind_s)
    beating = json.loads(storage.read_bytes(uri))
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(0.05):
            beating["beats"] += 1
            storage.write_bytes(uri, json.dumps(beating).encode())

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        lock = WriterLock(*place, "next", heartbeat_s=0.3, stale_after_s=5)
        with pytest.raises(RunError, match=r"another writer is live .* on host elsewhere"), lock:
            pass
    finally:
        stop.set()
        thread.join()


def test_a_damaged_lock_file_goes_stale(place: Place) -> None:
    """Half a file keeps nobody out for ever."""
    storage, uri = place
    storage.write_bytes(uri, b'{"token": "')
    with _lock(place) as lock:
        assert not lock.lost


@pytest.mark.parametrize("thief", ["writes", "deletes"])
def test_a_lost_lock_is_noticed_and_not_taken_back(place: Place, thief: str) -> None:
    """Who lost the file is told with the next heartbeat, and leaves the new one alone."""
    storage, uri = place
    with _lock(place) as lock:
        if thief == "writes":
            storage.write_bytes(uri, b"another's")
        else:
            storage.delete(uri)
        until = time.monotonic() + 10
        while not lock.lost and time.monotonic() < until:
            time.sleep(0.02)
        with pytest.raises(RunError, match=r"this writer lost its lock .*end this one"):
            lock.check()
    assert storage.exists(uri) is (thief == "writes")


def test_a_writer_that_cannot_beat_counts_as_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silent for longer than others wait, it must stop by itself."""
    storage = Storage()
    with _lock((storage, str(tmp_path / "writer.json"))) as lock:
        monkeypatch.setattr(storage, "write_bytes", lambda *_, **__: time.sleep(2))
        time.sleep(0.9)
        with pytest.raises(RunError, match=r"no heartbeat could be written to .* for \d+ s"):
            lock.check()


def test_of_many_writers_at_once_one_wins(place: Place) -> None:
    """Six claims in the same moment, on a fresh folder and over a dead writer's file."""
    pid, started = _dead_pid()
    for prepare in (lambda: None, lambda: _leave_behind(place, pid=pid, pid_started=started)):
        prepare()
        assert _claim_at_once(place, 6) == 1


def _claim_at_once(place: Place, count: int) -> int:
    start, done = threading.Barrier(count), threading.Barrier(count)

    def attempt(number: int) -> bool:
        start.wait()
        try:
            with _lock(place, str(number)) as lock:
                done.wait()
                return not lock.lost
        except RunError:
            done.wait()
            return False

    with ThreadPoolExecutor(count) as pool:
        return sum(pool.map(attempt, range(count)))


def test_times_must_make_sense() -> None:
    """A lock that goes stale between two heartbeats is refused."""
    with pytest.raises(ValueError, match="heartbeat_s 60 must be below stale_after_s 60"):
        WriterLock(Storage(), "x", "x", heartbeat_s=60)


@given(st.one_of(st.binary(), st.text().map(str.encode), st.just(b'{"token": 1, "pid": {}}')))
def test_parsing_never_crashes(text: bytes) -> None:
    """Whatever lies there is an owner or none."""
    assert Owner.parse(text) is None
