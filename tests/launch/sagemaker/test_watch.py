"""How hosts of a job hear of each other, over HTTP on loopback."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from urbandet_ray.errors import RunError
from urbandet_ray.launch.sagemaker import watch
from urbandet_ray.launch.sagemaker.watch import Board, HeadLink, serve_board

Serve = Callable[..., Board]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Serves a head's board to algo-2 at 127.0.0.1; peers' addresses can be given."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setattr(watch, "PORT", port)
    servers = []

    def start(address_of_peers: str = "127.0.0.1") -> Board:
        board = Board(["algo-2"], tmp_path / "run")
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
    """The link counts the seconds."""
    one = link()
    assert one.beat("joining") is None
    assert one.silent_s() > 0


def test_a_stranger_gets_nothing(serve: Serve) -> None:
    """Neither by its address nor by its name."""
    serve("198.51.100.7")
    with pytest.raises(RunError, match="does not take this host"):
        link().beat("up")
    with pytest.raises(HTTPError, match="403"):
        urlopen(f"http://127.0.0.1:{watch.PORT}/last")


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
