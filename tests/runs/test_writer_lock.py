"""The lock against a second live writer of a run folder."""

import json
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting import wait_for

from urbandet_ray.errors import ConflictError, RunError, StorageError
from urbandet_ray.runs import lock as lock_module
from urbandet_ray.runs.lock import Owner, WriterLock
from urbandet_ray.storage import Storage

Place = tuple[Storage, str]


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Storage and URI of a lock file, on a local disk and on S3."""
    if request.param == "local":
        return Storage(), str(tmp_path / "run" / "writer.json")
    server = request.getfixturevalue("s3_server")
    bucket = server.make_bucket(f"b-{uuid.uuid4().hex[:12]}")
    return Storage(server.options), f"{bucket}/run/writer.json"


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A lock file on a local disk."""
    return str(tmp_path / "writer.json")


class Clock:
    """Stands in for the module `time`: it moves when it is slept by, and each sleep can be seen."""

    def __init__(self) -> None:
        self.now = time.time()
        self.on_sleep: Callable[[], object] = lambda: None

    def monotonic(self) -> float:
        return self.now

    time = monotonic

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.on_sleep()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that locks see: it stands still but for what they sleep."""
    seen = Clock()
    monkeypatch.setattr(lock_module, "time", seen)
    return seen


def _lock(place: Place, label: str = "urbandet infer") -> WriterLock:
    return WriterLock(*place, label)


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

    def beaten() -> Owner | None:
        owner = Owner.parse(storage.read_bytes(uri))
        return owner if owner and owner.beats else None

    with WriterLock(*place, "urbandet infer", heartbeat_s=0.1) as lock:
        owner = wait_for(beaten, "a heartbeat")
        lock.check()
    assert (owner.label, owner.host, owner.pid) == (
        "urbandet infer",
        socket.gethostname(),
        os.getpid(),
    )
    assert not storage.exists(uri)


def test_a_second_live_writer_is_refused(place: Place, clock: Clock) -> None:
    """On the same host at once, with host, pid and start of the other."""
    begun_s = clock.now
    with _lock(place, "first") as lock:
        message = (
            rf"another writer is live in {place[1]}: 'first' on host {socket.gethostname()}, "
            rf"pid {os.getpid()}, since 20\d\d-.*; wait until it ends or stop it"
        )
        with pytest.raises(RunError, match=message), _lock(place, "second"):
            pass
        assert clock.now == begun_s
        lock.check()


def test_a_dead_writer_of_this_host_is_replaced_at_once(place: Place, clock: Clock) -> None:
    """No waiting for a process that is gone."""
    pid, started = _dead_pid()
    _leave_behind(place, pid=pid, pid_started=started)
    begun_s = clock.now
    with _lock(place, "next") as lock:
        assert clock.now == begun_s
        lock.check()


def test_a_reused_pid_is_not_the_dead_writer(place: Place, clock: Clock) -> None:
    """A process of the same number that started at another time is somebody else."""
    _leave_behind(place, pid=os.getpid(), pid_started="1")
    begun_s = clock.now
    with _lock(place, "next") as lock:
        assert clock.now == begun_s
        lock.check()


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
    with _lock(place, "next") as lock:
        lock.check()


@pytest.mark.parametrize("clock_ahead_s", [0, 3600])
def test_a_silent_writer_elsewhere_is_replaced_after_a_watch(
    place: Place, clock: Clock, clock_ahead_s: float
) -> None:
    """Its heartbeat stood still by our clock; what its own clock says does not matter."""
    _leave_behind(place, host="elsewhere", beat_s=clock.now + clock_ahead_s)
    begun_s = clock.now
    with _lock(place) as lock:
        assert clock.now - begun_s == pytest.approx(60)
        lock.check()


def test_a_long_silent_writer_elsewhere_is_replaced_sooner(place: Place, clock: Clock) -> None:
    """Silent for hours by its own clock, two heartbeats are watched to be sure."""
    _leave_behind(place, host="elsewhere", beat_s=clock.now - 7200)
    begun_s = clock.now
    with _lock(place) as lock:
        assert clock.now - begun_s == pytest.approx(20)
        lock.check()


@pytest.mark.parametrize("clock_behind_s", [0, 7200])
def test_a_beating_writer_elsewhere_is_respected(
    place: Place, clock: Clock, clock_behind_s: float
) -> None:
    """A heartbeat seen within the watch means alive, even with a clock hours behind."""
    storage, uri = place
    _leave_behind(place, host="elsewhere", beat_s=clock.now - clock_behind_s)
    beating = json.loads(storage.read_bytes(uri)) | {"beats": 7}
    clock.on_sleep = lambda: storage.write_bytes(uri, json.dumps(beating).encode())
    with (
        pytest.raises(RunError, match=r"another writer is live .* on host elsewhere"),
        _lock(place, "next"),
    ):
        pass
    assert json.loads(storage.read_bytes(uri)) == beating


def test_a_damaged_lock_file_goes_stale(place: Place, clock: Clock) -> None:
    """Half a file keeps nobody out for ever."""
    storage, uri = place
    storage.write_bytes(uri, b'{"token": "')
    begun_s = clock.now
    with _lock(place) as lock:
        assert clock.now - begun_s == pytest.approx(60)
        lock.check()


@pytest.mark.parametrize("thief", ["writes", "deletes"])
def test_a_lost_lock_is_noticed_and_not_taken_back(place: Place, thief: str) -> None:
    """Who lost the file is told with the next heartbeat, and leaves the new one alone."""
    storage, uri = place
    with WriterLock(*place, "x", heartbeat_s=0.1) as lock:
        if thief == "writes":
            storage.write_bytes(uri, b"another's")
        else:
            storage.delete(uri)
        wait_for(lambda: lock.lost, "a heartbeat that finds the file gone")
        with pytest.raises(RunError, match=r"this writer lost its lock .*end this one"):
            lock.check()
    assert storage.exists(uri) is (thief == "writes")


def test_a_writer_that_cannot_beat_counts_as_lost(
    clock: Clock, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silent for longer than others wait, it must stop by itself; until then it goes on."""
    storage, refused = Storage(), threading.Event()

    def refuse(*_: object, **__: object) -> str:
        refused.set()
        raise StorageError("the server is gone")

    with WriterLock(storage, file, "x", heartbeat_s=0.01) as lock:
        monkeypatch.setattr(storage, "write_bytes", refuse)
        wait_for(refused.is_set, "a heartbeat")
        clock.sleep(59)
        lock.check()
        clock.sleep(2)
        with pytest.raises(RunError, match=r"no heartbeat could be written to .* for 61 s"):
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


class SlowStorage(Storage):
    """Answers the first writes after so many seconds each, by a clock of its own."""

    def __init__(self, clock: Clock, *answer_s: float) -> None:
        super().__init__()
        self.clock, self.answer_s = clock, list(answer_s)

    def write_bytes(self, uri: str, data: bytes, **guard: object) -> str:
        version = super().write_bytes(uri, data, **guard)  # type: ignore[arg-type]
        if self.answer_s:
            self.clock.sleep(self.answer_s.pop(0))
        return version


def test_a_claim_that_was_answered_late_is_held(clock: Clock, file: str) -> None:
    """100 s on its way, others could have taken it for dead: a second write shows that none did."""
    with WriterLock(SlowStorage(clock, 100), file, "next") as lock:
        lock.check()
        owner = Owner.parse(Path(file).read_bytes())
    assert owner is not None
    assert owner.beat_s == clock.now
    assert not Path(file).exists()


def test_a_claim_that_was_taken_over_before_its_answer_came_is_lost(
    clock: Clock, file: str
) -> None:
    """Who took over is live, and keeps the file."""

    class TakenOver(SlowStorage):
        def write_bytes(self, uri: str, data: bytes, **guard: object) -> str:
            version = super().write_bytes(uri, data, **guard)
            Path(uri).write_text(json.dumps({**json.loads(data), "token": "other", "label": "b"}))
            return version

    lock = WriterLock(TakenOver(clock, 100), file, "a")
    with pytest.raises(RunError, match=rf"another writer is live in {file}: 'b' on host"), lock:
        pass
    assert "other" in Path(file).read_text()


def test_a_storage_too_slow_for_a_lock_is_named(clock: Clock, file: str) -> None:
    """Each answer takes longer than others wait for a heartbeat."""
    lock = WriterLock(SlowStorage(clock, *[100] * 9), file, "next")
    message = rf"{file} takes 100 s to write, .* stale after 60 s: check the storage, then try"
    with pytest.raises(RunError, match=message), lock:
        pass
    assert not Path(file).exists()


def test_a_file_that_keeps_changing_hands_is_told(file: str) -> None:
    """Whenever it is looked at, it is another's that has just gone."""

    class Crowded(Storage):
        def write_bytes(self, uri: str, data: bytes, **guard: object) -> str:
            raise ConflictError(f"{uri} exists already")

    message = rf"{file} keeps changing hands: several writers start at once; try again"
    with pytest.raises(RunError, match=message), WriterLock(Crowded(), file, "x"):
        pass


def test_a_claim_that_landed_without_an_answer_keeps_nobody_out(file: str) -> None:
    """In a notebook the next try is the same process: it would be refused because of itself."""

    class Unheard(Storage):
        def write_bytes(self, uri: str, data: bytes, **guard: object) -> str:
            super().write_bytes(uri, data, **guard)  # type: ignore[arg-type]
            raise StorageError("the connection failed after retries")

    with pytest.raises(StorageError, match="after retries"), WriterLock(Unheard(), file, "first"):
        pass
    with WriterLock(Storage(), file, "second") as lock:
        lock.check()


def test_a_heartbeat_whose_answer_was_lost_is_not_another_writer(file: str) -> None:
    """It was written, its writer never heard of it, and the next one meets it: still ours."""

    class Deaf(Storage):
        writes = 0

        def write_bytes(self, uri: str, data: bytes, **guard: object) -> str:
            version = super().write_bytes(uri, data, **guard)  # type: ignore[arg-type]
            self.writes += 1
            if self.writes == 2:
                raise StorageError("the connection failed after retries")
            return version

    storage = Deaf()
    with WriterLock(storage, file, "x", heartbeat_s=0.01) as lock:
        wait_for(lambda: storage.writes >= 4 or lock.lost, "heartbeats after the lost answer")
        lock.check()


def test_a_claim_travels_and_tells_when_the_lock_is_another_s(place: Place) -> None:
    """A process that stood still looks before it writes; in between it trusts what it saw."""
    storage, uri = place
    with WriterLock(storage, uri, "a") as lock:
        claim = pickle.loads(pickle.dumps(lock.claim))
        claim.check()
        other = replace(Owner.parse(storage.read_bytes(uri)), token="another", label="b")
        storage.write_bytes(uri, other.to_json())
        claim.check()
        with pytest.raises(RunError, match=r"is now that of 'b' on host .*writes nothing more"):
            claim.check(now=True)
        with pytest.raises(RunError, match="is now that of 'b'"):
            pickle.loads(pickle.dumps(claim)).check()  # what one process saw, another did not
        storage.delete(uri)
        with pytest.raises(RunError, match=r"writer\.json is gone: this process stood still"):
            claim.check(now=True)


def test_a_claim_is_looked_at_again_after_a_while(clock: Clock, file: str) -> None:
    """Long before another could take the lock of a writer that stood still."""
    with WriterLock(Storage(), file, "a") as lock:
        claim = lock.claim
        claim.check()
        Path(file).write_text("{}")
        claim.check()
        clock.now += 6
        with pytest.raises(RunError, match="is gone"):
            claim.check()


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="no clock counts suspended time")
def test_a_suspended_machine_s_time_counts(monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    """Linux' monotonic clock stands still meanwhile, and a lock lost in a nap would seem held."""
    napped_s = 0.0
    read = time.clock_gettime
    monkeypatch.setattr(time, "clock_gettime", lambda which: read(which) + napped_s)
    with WriterLock(Storage(), file, "a", heartbeat_s=20, stale_after_s=60) as lock:
        lock.check()
        napped_s = 3600.0
        with pytest.raises(RunError, match="no heartbeat could be written"):
            lock.check()


def test_times_must_make_sense() -> None:
    """A lock that goes stale between two heartbeats is refused."""
    with pytest.raises(ValueError, match="heartbeat_s 60 must be below stale_after_s 60"):
        WriterLock(Storage(), "x", "x", heartbeat_s=60)


@given(st.one_of(st.binary(), st.text().map(str.encode), st.just(b'{"token": 1, "pid": {}}')))
def test_parsing_never_crashes(text: bytes) -> None:
    """Whatever lies there is an owner or none."""
    assert Owner.parse(text) is None
