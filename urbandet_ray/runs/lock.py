"""Keeps a second live writer out of a run folder, on local disks and on S3.

The lock is a small file that its owner rewrites every few seconds. Each write is conditional, so
two claimants can't both win, and an owner that lost its file learns so with its next heartbeat.
Whose the file is, its token says: a write whose answer got lost is not another writer's.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import socket
import threading
import time
import uuid
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from urbandet_ray.errors import AccessError, ConflictError, NotFoundError, RunError, StorageError
from urbandet_ray.storage.files import Storage

LOCK_NAME = "writer.json"

_CLAIM_TRIES = 5
_CLAIM_HOLDS_S = 5.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Owner:
    """What the lock file says about who holds it.

    Attributes:
        token: unique to one WriterLock.
        label: for people, such as "urbandet infer".
        host, pid, boot_id, pid_started: tell whether the process lives, on its own host.
        since_s, beat_s: Unix times of the claim and of the last heartbeat, by the owner's clock.
        beats: heartbeats so far.
    """

    token: str
    label: str
    host: str
    pid: int
    boot_id: str
    pid_started: str
    since_s: float
    beat_s: float
    beats: int = 0

    def to_json(self) -> bytes:
        """The content of the lock file."""
        return json.dumps(asdict(self), indent=1).encode() + b"\n"

    @classmethod
    def parse(cls, text: bytes) -> Owner | None:
        """Read a lock file; None where it is no such thing (then only its age counts)."""
        try:
            data: dict[str, Any] = json.loads(text)
            owner = cls(**{field.name: data[field.name] for field in fields(cls)})
            return replace(
                owner,
                pid=int(owner.pid),
                since_s=float(owner.since_s),
                beat_s=float(owner.beat_s),
                beats=int(owner.beats),
            )
        except (ValueError, TypeError, KeyError):
            return None

    def lives(self) -> bool | None:
        """Whether its process runs; None where this host cannot know."""
        if not self.boot_id or (self.host, self.boot_id) != (socket.gethostname(), _boot_id()):
            return None
        return bool(self.pid_started) and _pid_started(self.pid) == self.pid_started

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since_s, UTC).isoformat(" ", "seconds")
        return f"{self.label!r} on host {self.host}, pid {self.pid}, since {since}"


class Claim:
    """One writer's hold on a lock, for its other processes; it travels to them.

    A process that stood still (a suspended laptop, SIGSTOP) may wake when another writer has taken
    over and finished. It looks before it writes.
    """

    def __init__(self, storage: Storage, uri: str, token: str) -> None:
        self._storage, self._uri, self._token = storage, uri, token
        self._seen_at_s = -math.inf

    def __reduce__(self) -> tuple[Any, ...]:
        return Claim, (self._storage, self._uri, self._token)  # clocks are each machine's own

    def check(self, *, now: bool = False) -> None:
        """Look whether the lock is still this writer's, if it was not seen a moment ago.

        Args:
            now: look in any case.

        Raises:
            RunError: another writer has it, or nobody.
            StorageError: nobody can tell.
        """
        at_s = _clock_s()
        if not now and at_s - self._seen_at_s < _CLAIM_HOLDS_S:
            return
        owner = None
        with contextlib.suppress(NotFoundError):
            owner = Owner.parse(self._storage.read_bytes(self._uri))
        if owner is None or owner.token != self._token:
            whose = "is gone" if owner is None else f"is now that of {owner}"
            raise RunError(
                f"the lock {self._uri} {whose}: this process stood still for too long, and writes "
                "nothing more"
            )
        self._seen_at_s = at_s


class WriterLock:
    """Context manager: one live writer for what `uri` guards.

        with WriterLock(storage, join_uri(run, "writer.json"), "urbandet infer") as lock:
            ...
            lock.check()   # before each commit

    A dead owner on this host is replaced at once; one elsewhere when its heartbeat stood still
    for `stale_after_s` by OUR clock (clocks of two hosts need not agree), or when its last beat
    is that old by the stated time and a shorter watch of two heartbeats sees no new one.

    Raises:
        RunError: on entering, another writer is live; by `check`, the lock was lost meanwhile.
    """

    def __init__(
        self,
        storage: Storage,
        uri: str,
        owner_label: str,
        *,
        heartbeat_s: float = 10,
        stale_after_s: float = 60,
    ) -> None:
        if not 0 < heartbeat_s < stale_after_s:
            raise ValueError(
                f"heartbeat_s {heartbeat_s} must be below stale_after_s {stale_after_s}"
            )
        self._storage, self._uri = storage, uri
        self._heartbeat_s, self._stale_after_s = heartbeat_s, stale_after_s
        self._owner = _new_owner(owner_label)
        self._version = ""
        self._beaten_at_s = 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._lost_to = ""

    @property
    def claim(self) -> Claim:
        """For the processes that write on this writer's behalf."""
        return Claim(self._storage, self._uri, self._owner.token)

    @property
    def lost_message(self) -> str:
        """Why the lock was lost; "" while it is held."""
        silent_s = self._silent_s()
        if not self._lost_to and self._beaten_at_s and silent_s > self._stale_after_s:
            self._lost_to = (
                f"no heartbeat could be written to {self._uri} for {silent_s:.0f} s, so another "
                "writer may have taken over: check the storage, then resume the run"
            )
        return self._lost_to

    @property
    def lost(self) -> bool:
        """Whether another writer may have taken over: stop writing."""
        return bool(self.lost_message)

    def check(self) -> None:
        """Raise RunError if the lock was lost."""
        if self.lost:
            raise RunError(self.lost_message)

    def __enter__(self) -> WriterLock:
        try:
            self._claim()
        except BaseException:
            self._remove()  # a claim that landed without an answer would keep this process out
            raise
        self._thread = threading.Thread(target=self._beat, name="writer-lock", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(self._stale_after_s)
        if not self.lost:
            self._remove()

    def _remove(self) -> None:
        """Delete the file if it is ours; left behind, it goes stale by itself."""
        with contextlib.suppress(StorageError):
            if self._is_ours(Owner.parse(self._storage.read_bytes(self._uri))):
                self._storage.delete(self._uri)

    def _claim(self) -> None:
        for _ in range(_CLAIM_TRIES):
            with contextlib.suppress(NotFoundError, ConflictError):  # it changed: look again
                self._claim_once()
                if self._silent_s() <= self._stale_after_s:
                    return
                # answered so late that others may have taken it: the next write tells
        if self._beaten_at_s:
            raise RunError(
                f"{self._uri} takes {self._silent_s():.0f} s to write, but a writer's lock is "
                f"stale after {self._stale_after_s:.0f} s: check the storage, then try again"
            )
        raise RunError(
            f"{self._uri} keeps changing hands: several writers start at once; try again"
        )

    def _claim_once(self) -> None:
        with contextlib.suppress(ConflictError):
            self._write(if_absent=True)
            return
        version, owner = self._look()
        if not self._is_ours(owner):
            self._await_stale(version, owner)
        self._write(if_version=version)

    def _is_ours(self, owner: Owner | None) -> bool:
        return owner is not None and owner.token == self._owner.token

    def _silent_s(self) -> float:
        return _clock_s() - self._beaten_at_s

    def _look(self) -> tuple[str, Owner | None]:
        version = self._storage.info(self._uri).version
        try:
            with self._storage.open_read(self._uri, expect_version=version) as stream:
                return version, Owner.parse(stream.read())
        except (NotFoundError, AccessError):
            raise
        except StorageError as error:  # rewritten between the two calls
            raise ConflictError(str(error)) from error

    def _await_stale(self, version: str, owner: Owner | None) -> None:
        """Return once the owner is known or seen to be dead.

        Raises:
            RunError: it is alive.
            NotFoundError: it released the lock.
        """
        alive = owner.lives() if owner else None
        if alive is False:
            return
        if alive:
            raise self._live(owner)
        watch_s = self._stale_after_s
        if owner and time.time() - owner.beat_s > self._stale_after_s:
            watch_s = min(watch_s, 2 * self._heartbeat_s)
        _log.warning("%s: watching up to %.0f s whether %s lives", self._uri, watch_s, owner)
        until = _clock_s() + watch_s
        while (left_s := until - _clock_s()) > 0:
            time.sleep(min(left_s, self._heartbeat_s / 2))
            if self._storage.info(self._uri).version != version:
                raise self._live(owner)

    def _live(self, owner: Owner | None) -> RunError:
        return RunError(
            f"another writer is live in {self._uri}: {owner or 'unknown'}; "
            "wait until it ends or stop it, then start again"
        )

    def _write(self, *, if_absent: bool = False, if_version: str | None = None) -> None:
        now_s = time.time()
        beats = self._owner.beats + 1 if self._version else 0
        since_s = self._owner.since_s if self._version else now_s
        owner = replace(self._owner, since_s=since_s, beat_s=now_s, beats=beats)
        begun_s = _clock_s()
        self._version = self._storage.write_bytes(
            self._uri, owner.to_json(), if_absent=if_absent, if_version=if_version
        )
        self._owner, self._beaten_at_s = owner, begun_s

    def _beat(self) -> None:
        while not self._stop.wait(self._heartbeat_s) and not self.lost:
            try:
                self._write_on()
            except ConflictError as error:
                self._lost_to = (
                    f"this writer lost its lock ({error}): it was silent for too long and another "
                    "writer took over, or the file was removed; end this one"
                )
            except StorageError as error:  # may pass; silence for too long counts as lost
                _log.warning("no heartbeat written: %s", error)

    def _write_on(self) -> None:
        """Write a heartbeat over the last one, or over one whose answer got lost."""
        try:
            self._write(if_version=self._version)
        except ConflictError as error:
            try:
                version, owner = self._look()
            except NotFoundError:
                raise error from None
            if not self._is_ours(owner):
                raise
            self._write(if_version=version)


def _clock_s() -> float:
    """Seconds by a clock that goes on while the machine is suspended, where there is one."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def _new_owner(label: str) -> Owner:
    pid = os.getpid()
    return Owner(
        token=uuid.uuid4().hex,
        label=label,
        host=socket.gethostname(),
        pid=pid,
        boot_id=_boot_id(),
        pid_started=_pid_started(pid),
        since_s=0.0,
        beat_s=0.0,
    )


def _boot_id() -> str:
    """The running kernel and pid namespace; "" where there is no /proc.

    Containers of one machine share the kernel's boot id but not their pids.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _pid_started(pid: int) -> str:
    """Start time of a process in clock ticks since boot; "" when it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    after_name = stat.rpartition(")")[2].split()  # proc(5): the name may hold anything
    return "" if after_name[0] in "ZX" else after_name[19]
