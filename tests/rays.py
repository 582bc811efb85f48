"""A Ray beside others on this machine: all of its fixed ports are its own."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from waiting import wait_for

RAY = str(Path(sys.executable).parent / "ray")
OPEN = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_worker_niceness": "0",
    "RAY_enable_metrics_collection": "0",
    "REPORTER_UPDATE_INTERVAL_MS": "600000",
}
"""No token to ask for; workers that get their share of a busy machine, as the tests do; and no
figures of processes for a dashboard at which nobody looks."""


@dataclass(frozen=True)
class Head:
    """Where a Ray answers: `ray.init(address)`, and its dashboard's URL."""

    address: str
    dashboard: str


@contextmanager
def ray_head(env: Mapping[str, str], *options: str) -> Iterator[Head]:
    """A Ray of two cores that knows nothing of this project.

    Args:
        env: beside the process's own, without what that tells Ray and TensorFlow.
        options: more of `ray start`.
    """
    ports = free_ports(4)
    names = ("port", "dashboard-port", "dashboard-agent-listen-port", "ray-client-server-port")
    command = [RAY, "start", "--head", "--block", "--num-cpus=2", "--include-dashboard=true"]
    command += ["--include-log-monitor=false"]  # nobody reads the workers' lines here
    command += ["--object-store-memory=100000000", "--disable-usage-stats", *options]
    command += [f"--{name}={port}" for name, port in zip(names, ports, strict=True)]
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "TF_"))}
    process = subprocess.Popen(
        command,
        env={**clean, **env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(ports[0], process)
        yield Head(f"127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}")
    finally:
        process.kill()  # asked to end, it can take half a minute; its processes follow it
        process.wait()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at."""
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    def listens() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"`ray start` ended before it listened at {port}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return False
        return True

    wait_for(listens, f"`ray start` to listen at {port}")
