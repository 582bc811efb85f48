"""How the hosts of a job know of each other: the head serves a status, the others ask for it.

    POST /beat   {"host", "state": joining | up | failed | leaving, "reason"}
                 -> {"phase": starting | running | done | failed, "reason", "token"}
    GET  /last, /last/NAME   the head's checkpoint, which the others start from

Ray alone does not tell them enough: a worker node that loses its head ends the same way (exit
code 1, some 54 s later) whether the job ended well or the head died.
"""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.error import HTTPError
from urllib.parse import quote, unquote
from urllib.request import Request, urlopen

from urbandet_ray.errors import RunError
from urbandet_ray.launch.sagemaker.staging import checkpoint_files

PORT = 7811
BEAT_EVERY_S = 2.0
LOST_AFTER_S = 20.0
"""A host that says nothing for so long is lost."""
JOIN_TIMEOUT_S = 900.0
"""Hosts of a job start at different times: each pulls the image first."""
FAREWELL_S = 30.0
"""So long the head waits for the others to hear how the job ended."""

_ASK_TIMEOUT_S = 3.0
_MOST_BYTES = 1 << 16

Phase = Literal["starting", "running", "done", "failed"]
HostState = Literal["joining", "up", "failed", "leaving"]


@dataclass(frozen=True)
class Status:
    """What the head says of the job.

    Attributes:
        reason: why it failed.
        token: what Ray's processes show each other.
    """

    phase: Phase
    reason: str = ""
    token: str = ""


@dataclass(frozen=True)
class Peer:
    """The last word of another host, and when it came."""

    state: HostState = "joining"
    reason: str = ""
    at_s: float | None = None


class HostBoard:
    """The head's knowledge of the job, shared by the server's threads.

    Args:
        peers: names of the other hosts.
        run: the run folder, whose last/ the others copy.
    """

    def __init__(self, peers: Sequence[str], run: Path) -> None:
        self.run = run
        self.token = secrets.token_hex(32)
        self._lock = threading.Lock()
        self._peers = {name: Peer() for name in peers}
        self._status = Status("starting", token=self.token)

    def beat(self, host: str, state: HostState, reason: str) -> Status:
        """Take another host's word, and answer it."""
        with self._lock:
            self._peers[host] = Peer(state, reason, time.monotonic())
            return self._status

    def say(self, phase: Phase, reason: str = "") -> None:
        """What the others are told from now on."""
        with self._lock:
            self._status = Status(phase, reason, self.token)

    def knows(self, host: object) -> bool:
        """Whether it is a host of this job."""
        return host in self._peers

    def all_up(self) -> bool:
        """Whether all other hosts have started Ray."""
        with self._lock:
            return all(peer.state == "up" for peer in self._peers.values())

    def all_gone(self) -> bool:
        """Whether all other hosts know how the job ended, or say nothing any more."""
        with self._lock:
            return all(
                peer.state in ("leaving", "failed") or _is_silent(peer)
                for peer in self._peers.values()
            )

    def absent(self) -> list[str]:
        """Hosts that have not started Ray yet."""
        with self._lock:
            return [name for name, peer in self._peers.items() if peer.state != "up"]

    def trouble(self) -> str:
        """What is wrong with the other hosts; "" while nothing is."""
        with self._lock:
            for name, peer in self._peers.items():
                if peer.state == "failed":
                    return f"host {name} failed: {peer.reason}"
            for name, peer in self._peers.items():
                if peer.at_s is not None and _is_silent(peer):
                    return (
                        f"host {name} is lost: it has not answered for {LOST_AFTER_S:.0f} s (taken "
                        "away, out of memory, or cut off the network)"
                    )
        return ""


def _is_silent(peer: Peer) -> bool:
    return peer.at_s is None or time.monotonic() - peer.at_s > LOST_AFTER_S


def serve_board(board: HostBoard, address: str, peers: Sequence[str]) -> ThreadingHTTPServer:
    """Serve a board on this host's address, to the job's own hosts alone, until shut down."""

    class BoardHandler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            if self.path != "/beat" or not self._may_ask() or length > _MOST_BYTES:
                return self.send_error(403)
            try:
                said = json.loads(self.rfile.read(length))
                host, state, reason = said["host"], said["state"], str(said["reason"])
            except (ValueError, KeyError, TypeError):
                return self.send_error(400)
            if not board.knows(host):
                return self.send_error(403)
            return self._send_json(asdict(board.beat(host, state, reason)))

        def do_GET(self) -> None:
            if not self._may_ask():
                return self.send_error(403)
            names = checkpoint_files(board.run)
            if self.path == "/last":
                return self._send_json(names)
            name = unquote(self.path.removeprefix("/last/"))
            if name not in names:
                return self.send_error(404)
            return self._send_file(board.run / "last" / name)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: it is asked every two seconds."""

        def _may_ask(self) -> bool:
            return self.client_address[0] in _addresses(peers)

        def _send_json(self, value: Any) -> None:
            body = json.dumps(value).encode()
            self._send_head(len(body))
            self.wfile.write(body)

        def _send_file(self, path: Path) -> None:
            with path.open("rb") as stream:
                self._send_head(path.stat().st_size)
                shutil.copyfileobj(stream, self.wfile)

        def _send_head(self, length: int) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(length))
            self.end_headers()

    server = ThreadingHTTPServer((address, PORT), BoardHandler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="status", daemon=True).start()
    return server


def _addresses(hosts: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for host in hosts:
        try:
            found.update(str(one[4][0]) for one in socket.getaddrinfo(host, None, socket.AF_INET))
        except OSError:
            continue  # its name is not known yet
    return found


class HeadLink:
    """Another host's way to the head.

    Args:
        head: its name.
        host: this host's name.

    Attributes:
        last: what the head last said; None before it answered.
    """

    def __init__(self, head: str, host: str) -> None:
        self._head, self._host = head, host
        self.last: Status | None = None
        self._heard_s = time.monotonic()

    def beat(self, state: HostState, reason: str = "") -> Status | None:
        """Tell the head how this host is; None where it did not answer.

        Raises:
            RunError: the head answers, but not to this host.
        """
        said = json.dumps({"host": self._host, "state": state, "reason": reason}).encode()
        try:
            answer = json.loads(self._ask("/beat", said))
            status = Status(**answer)
        except HTTPError as error:
            raise RunError(
                f"the head {self._head} does not take this host ({error.code}): its address is not "
                f"what {self._host} resolves to there"
            ) from None
        except (OSError, HTTPException, ValueError, TypeError):
            return None
        self._heard_s = time.monotonic()
        self.last = status
        return status

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Tell the head that this host is joining, again and again, while the block runs."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(BEAT_EVERY_S):
                with suppress(RunError):
                    self.beat("joining")

        thread = threading.Thread(target=beat, name="beat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def silent_s(self) -> float:
        """Seconds since the head last answered, or since this link was made."""
        return time.monotonic() - self._heard_s

    def copy_last(self, run: Path) -> int:
        """Bring the head's last/ here; how many files it has.

        Raises:
            RunError: the head does not answer.
        """
        try:
            names = json.loads(self._ask("/last"))
            shutil.rmtree(run / "last", ignore_errors=True)
            for name in names:
                (run / "last").mkdir(parents=True, exist_ok=True)
                with (
                    urlopen(self._url(f"/last/{quote(name)}"), timeout=60) as answer,
                    (run / "last" / Path(name).name).open("wb") as out,
                ):
                    shutil.copyfileobj(answer, out)
        except (OSError, HTTPException, ValueError) as error:
            raise RunError(f"the head's checkpoint could not be copied: {error}") from None
        return len(names)

    def _ask(self, path: str, body: bytes | None = None) -> bytes:
        request = Request(self._url(path), data=body)
        with urlopen(request, timeout=_ASK_TIMEOUT_S) as answer:
            read: bytes = answer.read()
            return read

    def _url(self, path: str) -> str:
        return f"http://{self._head}:{PORT}{path}"
