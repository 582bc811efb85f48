"""How hosts of a job hear of each other, over HTTP on loopback."""

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from urbandet_ray.entrypoints import sagemaker_container as entry
from urbandet_ray.errors import RunError
from urbandet_ray.launch.sagemaker import raynode, watch
from urbandet_ray.launch.sagemaker.watch import HeadLink, HostBoard, serve_board

Serve = Callable[..., HostBoard]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Serves a head's board to algo-2 at 127.0.0.1; peers' addresses can be given."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setattr(watch, "PORT", port)
    servers = []

    def start(address_of_peers: str = "127.0.0.1") -> HostBoard:
        board = HostBoard(["algo-2"], tmp_path / "run")
        servers.append(serve_board(board, "127.0.0.1", [address_of_peers]))
        return board

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def link() -> HeadLink:
    """algo-2's way to the head."""
    return HeadLink("127.0.0.1", "algo-2")


def test_a_host_learns_the_phase_and_the_token(serve: Serve) -> None:
    """And the head that the host is up."""
    board = serve()
    assert not board.all_up()
    assert board.absent() == ["algo-2"]
    told = link().beat("up")
    assert told is not None
    assert (told.phase, told.token) == ("starting", board.token)
    assert board.all_up()
    board.say("failed", "host algo-1: out of memory")
    told = link().beat("up")
    assert told is not None
    assert (told.phase, told.reason) == ("failed", "host algo-1: out of memory")


def test_a_failed_host_is_named(serve: Serve) -> None:
    """With its own words."""
    board = serve()
    link().beat("failed", "its Ray node ended with exit code 1")
    assert board.trouble() == "host algo-2 failed: its Ray node ended with exit code 1"


def test_a_silent_host_is_lost(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it has spoken; before that it may still be pulling its image."""
    board = serve()
    assert board.trouble() == ""
    link().beat("up")
    assert board.trouble() == ""
    monkeypatch.setattr(watch, "LOST_AFTER_S", -1.0)
    assert "host algo-2 is lost" in board.trouble()
    assert board.all_gone()  # nobody waits for it


def test_a_head_that_is_not_there_is_no_answer(serve: Serve) -> None:
    """The link counts the seconds from when it was last heard."""
    one = link()
    board = serve()
    one._heard_s -= 100
    assert one.silent_s() >= 100
    assert one.beat("joining") == one.last == board.beat("algo-2", "joining", "")
    assert one.silent_s() < 50
    gone = HeadLink("127.0.0.2", "algo-2")
    assert gone.beat("joining") is None
    assert gone.last is None


def test_a_stranger_gets_nothing(serve: Serve) -> None:
    """Neither by its address nor by its name."""
    serve("198.51.100.7")
    with pytest.raises(RunError, match="does not take this host"):
        link().beat("up")
    with pytest.raises(HTTPError, match="403"):
        urlopen(f"http://127.0.0.1:{watch.PORT}/last")


@pytest.fixture
def resolving(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[str]]:
    """algo-2 resolves from a call on; the calls before it are noted."""
    real = socket.getaddrinfo
    monkeypatch.setattr(entry, "BEAT_EVERY_S", 0.01)

    def from_call(number: int) -> list[str]:
        missed: list[str] = []

        def resolve(host: Any, *more: Any, **named: Any) -> Any:
            if host != "algo-2":
                return real(host, *more, **named)
            if len(missed) < number - 1:
                missed.append(host)
                raise socket.gaierror("Name or service not known")
            return real("127.0.0.1", *more, **named)

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        return missed

    return from_call


def test_a_host_joins_once_its_name_is_known(
    serve: Serve, resolving: Callable[[int], list[str]]
) -> None:
    """The head refuses it until then, which may take a while after the start."""
    board, missed = serve("algo-2"), resolving(3)
    assert entry._join(link()).token == board.token
    assert len(missed) == 2


def test_a_host_that_stays_refused_says_so(
    serve: Serve, resolving: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what the head answered, not that it did not."""
    serve("algo-2")
    resolving(10_000)
    monkeypatch.setattr(entry, "JOIN_TIMEOUT_S", 0.1)
    with pytest.raises(RunError, match="does not take this host"):
        entry._join(link())


def test_a_head_that_fails_early_ends_the_wait_for_its_ray(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its reason, not after a quarter of an hour."""
    monkeypatch.setattr(watch, "BEAT_EVERY_S", 0.01)
    monkeypatch.setattr(entry, "_LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(entry, "JOIN_TIMEOUT_S", 20.0)
    monkeypatch.setattr(raynode, "answers", lambda *_: False)
    serve().say("failed", "host algo-1: no such channel")
    one = link()
    with one.beating(), pytest.raises(entry.NobodyToTellError, match="algo-1: no such channel"):
        entry._wait_for_ray("127.0.0.1", "algo-1", one)


def test_an_unknown_name_gets_nothing(serve: Serve) -> None:
    """Even from the right address."""
    serve()
    with pytest.raises(RunError, match="does not take this host"):
        HeadLink("127.0.0.1", "algo-9").beat("up")
    bad = Request(f"http://127.0.0.1:{watch.PORT}/beat", data=b"[]")
    with pytest.raises(HTTPError, match="400"):
        urlopen(bad)


def test_the_heads_checkpoint_is_copied_whole(serve: Serve, tmp_path: Path) -> None:
    """In place of what was there; nothing else of the head's files can be had."""
    board = serve()
    last = board.run / "last"
    last.mkdir(parents=True)
    (last / "state.json").write_text(json.dumps({"checkpoint": "ckpt-4"}))
    (last / "ckpt-4.data-00000-of-00001").write_bytes(b"x" * 100_000)
    (board.run / "secret").write_text("no")
    mine = tmp_path / "mine"
    (mine / "last").mkdir(parents=True)
    (mine / "last" / "ckpt-2.index").write_text("old")
    assert link().copy_last(mine) == 2
    assert sorted(path.name for path in (mine / "last").iterdir()) == [
        "ckpt-4.data-00000-of-00001",
        "state.json",
    ]
    with pytest.raises(HTTPError, match="404"):
        urlopen(f"http://127.0.0.1:{watch.PORT}/last/..%2Fsecret")
