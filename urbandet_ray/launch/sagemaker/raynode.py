"""This host's Ray node: started and ended as a process of its own, and what the cluster has."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from urbandet_ray.errors import RunError

PORT = 6379
_SIOCGIFADDR = 0x8915
_NODES_TIMEOUT_S = 300.0
_TERM_S = 8.0
_STARTS = 3
_IS_UP = "Ray runtime started"


def own_address(interface: str, host: str) -> str:
    """This host's IPv4 address: the interface's, or what its name resolves to.

    Raises:
        RunError: neither is known.
    """
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack("256s", interface.encode()[:15])
        answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
        return socket.inet_ntoa(answer[20:24])
    try:
        return socket.gethostbyname(host)
    except OSError as error:
        raise RunError(
            f"no address for this host: there is no interface {interface!r}, and {host} does not "
            f"resolve ({error})"
        ) from None


def node_env(token: str, address: str, interface: str) -> dict[str, str]:
    """Variables of this host's Ray processes, and of the job."""
    env = dict(os.environ)
    env |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_ADDRESS": f"{address}:{PORT}",
        "RAY_USAGE_STATS_ENABLED": "0",
        "TF_USE_LEGACY_KERAS": "1",
        "PYTHONUNBUFFERED": "1",
    }
    if interface:  # else both may choose one that no other host reaches
        env |= {"NCCL_SOCKET_IFNAME": interface, "GLOO_SOCKET_IFNAME": interface}
    return env


def start_node(
    env: Mapping[str, str],
    *,
    own: str,
    is_head: bool,
    object_store_mb: int,
    cpus: int | None,
    gpus: int | None,
) -> subprocess.Popen[str]:
    """Start `ray start --block` and wait until it is up; it ends when Ray on this host is lost.

    Ray gives a node 30 s to come up, which a busy machine may need more than once.

    Args:
        env: from node_env; a worker joins at its RAY_ADDRESS.
        own: this host's address.
        cpus, gpus: None lets Ray count them.

    Raises:
        RunError: it did not come up.
    """
    command = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start"]
    command += ["--block", "--disable-usage-stats", f"--node-ip-address={own}"]
    command += [f"--object-store-memory={object_store_mb << 20}"]
    if is_head:
        command += ["--head", f"--port={PORT}", "--include-dashboard=false"]
    else:
        command += [f"--address={env['RAY_ADDRESS']}"]
    command += [f"--num-cpus={cpus}"] if cpus is not None else []
    command += [f"--num-gpus={gpus}"] if gpus is not None else []
    # what a driver without an address would take; `ray start` refuses to see it
    clean = {key: value for key, value in env.items() if key != "RAY_ADDRESS"}
    for _ in range(_STARTS):
        process = subprocess.Popen(
            command, env=clean, start_new_session=True, stdout=subprocess.PIPE, text=True
        )
        try:
            if _comes_up(process):
                return process
        except BaseException:
            end(process)
            raise
        end(process)
    raise RunError(f"Ray did not start in {_STARTS} tries (exit code {process.returncode})")


def _comes_up(process: subprocess.Popen[str]) -> bool:
    """Read what it prints until it is up; the rest goes nowhere."""
    for line in process.stdout or ():
        if _IS_UP in line:
            drain = threading.Thread(target=deque, args=(process.stdout, 0), daemon=True)
            drain.start()
            return True
    return False


def wait_for_nodes(count: int, timeout_s: float = _NODES_TIMEOUT_S) -> int:
    """Wait until so many nodes are in the cluster that this process is connected to.

    Returns:
        GPUs of all of them.

    Raises:
        RunError: not all came in time.
    """
    import ray

    until = time.monotonic() + timeout_s
    while True:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        if len(nodes) >= count:
            return int(ray.cluster_resources().get("GPU", 0))
        if time.monotonic() > until:
            there = ", ".join(str(node["NodeManagerAddress"]) for node in nodes)
            raise RunError(
                f"{len(nodes)} of {count} hosts joined the Ray cluster in {timeout_s:.0f} s "
                f"({there}): see the others' logs"
            )
        time.sleep(1)


def answers(address: str, port: int) -> bool:
    """Whether somebody listens there."""
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=2):
        return True
    return False


def end(
    process: subprocess.Popen[str] | subprocess.Popen[bytes] | None, wait_s: float = _TERM_S
) -> None:
    """End a process and all that it started, at first kindly."""
    if process is None:
        return
    family = descendants(process.pid)
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait_s)
    for pid, started in {**family, **descendants(process.pid)}.items():
        if _stat(pid)[1] == started:  # the number may be somebody else's by now
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    if process.poll() is None:
        process.kill()
        process.wait()


def descendants(pid: int) -> dict[int, str]:
    """All processes below one, with the times they started at, as /proc shows them now."""
    children: dict[int, dict[int, str]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            parent, started = _stat(int(folder.name))
            children.setdefault(parent, {})[int(folder.name)] = started
    found: dict[int, str] = {}
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), {})
        waiting += below.keys() - found.keys()
        found |= below
    return found


def _stat(pid: int) -> tuple[int, str]:
    """Parent and start time of a process; (-1, "") where it is gone (proc(5))."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return -1, ""
    return int(after_name[1]), after_name[19]
