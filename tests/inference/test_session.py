"""What a person is told where Ray does not start, or is not where it was looked for."""

import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import ray

from urbandet_ray.config import RayConfig
from urbandet_ray.errors import RunError
from urbandet_ray.inference.session import ray_session


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """No Ray is connected, and none is started; the calls of ray.init."""
    calls: list[dict[str, Any]] = []
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "init", lambda **given: calls.append(given))
    return calls


def told(address: str | None = None) -> str:
    """The error of a session."""
    with pytest.raises(RunError) as raised, ray_session(RayConfig(address=address)):
        pass
    return str(raised.value)


def fail(monkeypatch: pytest.MonkeyPatch, error: Exception, written: bytes = b"") -> None:
    """Let ray.init fail, as it does where its core writes to stderr."""

    def init(**_: object) -> None:
        os.write(2, written)
        raise error

    monkeypatch.setattr(ray, "init", init)


@pytest.fixture
def listener() -> Iterator[str]:
    """Something that is no Ray; its host:port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    line, _ = server.accept()
                except OSError:
                    return
                with line:
                    line.recv(1 << 12)
                    line.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("address", ["http://head:8265", "https://ray.example.com"])
def test_a_dashboard_s_address_takes_jobs(
    address: str, nobody: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """RAY_ADDRESS of `ray job submit` is another than that of a driver."""
    monkeypatch.setenv("RAY_ADDRESS", address)
    message = told()
    assert f"{address} is the address of a cluster's dashboard" in message
    assert f"urbandet submit ... --address {address}" in message
    assert not nobody


@pytest.mark.parametrize("address", ["head", "head:", "6379", "tcp://head:6379", "a b:1"])
def test_what_is_no_address_is_refused(address: str, nobody: list[Any]) -> None:
    """With the forms that there are."""
    assert f"{address!r} is no address of a Ray cluster" in told(address)
    assert not nobody


def test_something_else_at_the_port_is_told(listener: str, nobody: list[Any]) -> None:
    """A dashboard's port without http://, say: Ray itself would try for minutes."""
    message = told(listener)
    assert message.startswith(f"no Ray cluster answers at {listener}: something else than Ray")
    assert not nobody


def test_nobody_at_the_port_is_told(nobody: list[Any]) -> None:
    """At once."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert f"no Ray cluster answers at 127.0.0.1:{port}: " in told(f"127.0.0.1:{port}")
    assert not nobody


def test_a_wrong_token_is_no_missing_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray says it on stderr alone."""
    fail(
        monkeypatch, ConnectionError("Failed to connect"), b"x Unauthenticated: InvalidAuthToken y"
    )
    message = told("auto")
    assert "at auto wants a token, and this process has none or another" in message
    assert "no Ray cluster answers" not in message


def test_an_unreadable_token_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's first sentence, and what helps."""
    said = "RAY_AUTH_TOKEN_PATH is set but file cannot be opened or is empty: /x. Ensure more"
    fail(monkeypatch, ray.exceptions.AuthenticationError(said))
    message = told()
    assert message.startswith(
        "Ray finds no token (RAY_AUTH_MODE=token): RAY_AUTH_TOKEN_PATH is set"
    )
    assert "Ensure more" not in message


def test_a_long_folder_for_temporary_files_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets have names of at most 107 bytes."""
    monkeypatch.setenv("RAY_TMPDIR", "/long")
    fail(monkeypatch, OSError("validate_socket_filename failed: AF_UNIX path length cannot exceed"))
    assert "too long a name for Ray's sockets (/long): set RAY_TMPDIR=/tmp" in told()


def test_a_slow_start_gets_a_second_try(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And the run says so."""
    tries: list[object] = []

    def init(**given: object) -> None:
        tries.append(given)
        if len(tries) == 1:
            raise RuntimeError("The current node timed out during startup")

    monkeypatch.setattr(ray, "init", init)
    with ray_session(RayConfig()):
        assert len(tries) == 2
    assert "Ray did not start (The current node timed out during startup): a second" in caplog.text


def test_a_ray_that_never_starts_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """After two tries, with the place of its logs."""
    fail(monkeypatch, RuntimeError("Failed to start GCS"))
    message = told()
    assert "Ray did not start on this machine, twice: Failed to start GCS" in message
    assert "/tmp/ray/session_latest/logs" in message
