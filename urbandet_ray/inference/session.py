"""The Ray a run works on: a cluster where there is one, else a small one of its own."""

from __future__ import annotations

import logging
import os
import re
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from urbandet_ray.chatter import lower_log_level, stderr_held
from urbandet_ray.config import RayConfig
from urbandet_ray.errors import RunError

REACH_TIMEOUT_S = 10.0

LOST_NODE_RETRY_MS = "1000"
"""Wait before an unreachable actor is asked again, doubled each time. A cluster takes 12 to 25 s to
declare a node dead and start its actors elsewhere; by Ray's default all of a shard's retries are
gone after 9 s. Ray reads it in the driver, when it connects."""

_WITHOUT_REPORTS = {
    "enable_metrics_collection": False,
    "task_events_report_interval_ms": 0,
    "idle_worker_killing_time_threshold_ms": 60_000,
}
"""A Ray of our own has no dashboard to report to, and lives too short to stop idle workers: a
reader that pauses would be stopped after a second and cost another second of CPU to start again."""


def store_mb(config: RayConfig) -> int:
    """Object store of a Ray of its own: as the config says, else for so many cores.

    Ray Data fills half of it, and up to four shards of 8 MB are with an actor or on their way to
    it: of 8 GPU actors on 16 cores, 256 MB kept half idle.
    """
    return config.object_store_mb or max(256, 64 * (config.num_cpus or os.cpu_count() or 1))


_SETTINGS = 4
_NO_SETTINGS = bytes([0, 0, 0, _SETTINGS, 0, 0, 0, 0, 0])
"""A frame of HTTP/2 and its type."""


def starts_its_own(config: RayConfig) -> bool:
    """Whether `ray_session` would start a Ray of this machine alone, which no node joins."""
    import ray

    return not ray.is_initialized() and _address(config) == "local"


def _address(config: RayConfig) -> str:
    return config.address or os.environ.get("RAY_ADDRESS") or "local"


@contextmanager
def ray_session(config: RayConfig) -> Iterator[None]:
    """Connect to Ray, or start one, for as long as the block runs.

    A Ray that this process is connected to already is used and left running.

    Raises:
        RunError: no cluster answers at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    lower_log_level("ray")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_task_actor_unavailable_retry_delay_base_ms", LOST_NODE_RETRY_MS)
    import ray

    if ray.is_initialized():
        yield
        return
    address = _address(config)
    own: dict[str, Any] = {}
    if address == "local":
        own = {
            "num_cpus": config.num_cpus,
            "object_store_memory": store_mb(config) << 20,
            "include_dashboard": False,
            "_system_config": _WITHOUT_REPORTS,
        }
    _check_form(address)
    _connect(address, own)
    try:
        yield
    finally:
        ray.shutdown()


def _check_form(address: str) -> None:
    """Refuse what Ray cannot connect to.

    Raises:
        RunError: a dashboard's address, or none at all.
    """
    if re.match(r"https?://", address):
        raise RunError(
            f"{address} is the address of a cluster's dashboard (RAY_ADDRESS, or ray.address), "
            f"which takes jobs: `urbandet submit ... --address {address}`. To run on this machine "
            "instead, unset RAY_ADDRESS; on a node of the cluster, ray.address=auto"
        )
    if address not in ("local", "auto") and not re.fullmatch(r"(ray://)?[^/:\s]+:\d+", address):
        raise RunError(
            f"{address!r} is no address of a Ray cluster (RAY_ADDRESS, or ray.address): expected "
            "HOST:6379 of its head, `auto` on one of its nodes, or `local` for a Ray of its own"
        )


def _connect(address: str, own: dict[str, Any]) -> None:
    """ray.init; a Ray of its own that starts too slowly gets a second try.

    Raises:
        RunError: what Ray said, and what helps.
    """
    import ray

    held: list[str] = []
    for last in (False, True):
        try:
            _knock(address)
            with stderr_held(show_on_failure=False) as held:
                ray.init(address=address, logging_level="ERROR", log_to_driver=False, **own)
            return
        except Exception as error:  # Ray's own are of many kinds, RuntimeError and ValueError too
            said = " ".join(str(error).split())
            advice = _advice(said, "".join(held), address)
            if advice is None and last:
                advice = (
                    f"Ray did not start on this machine, twice: {said[:500]}. The machine may be "
                    "very busy or short of memory; Ray's logs are in /tmp/ray/session_latest/logs"
                )
            if advice is not None:
                raise RunError(advice) from None
            ray.shutdown()
            logging.getLogger(__name__).warning("Ray did not start (%s): a second try", said[:200])


def _advice(said: str, written: str, address: str) -> str | None:
    """What a person can do; None where it may have been a matter of time.

    Args:
        said: the error's own words.
        written: what Ray's core wrote to stderr meanwhile, which tells more.
    """
    if "InvalidAuthToken" in written:
        return (
            f"the Ray cluster at {address} wants a token, and this process has none or another: "
            "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's"
        )
    if "RAY_AUTH" in said:
        return (
            f"Ray finds no token (RAY_AUTH_MODE=token): {said.split('. ', maxsplit=1)[0]}. Set "
            "RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's; `ray get-auth-token "
            "--generate` makes one for a Ray of your own"
        )
    if "AF_UNIX path" in said:
        folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
        return (
            f"the folder for temporary files has too long a name for Ray's sockets ({folder}): set "
            "RAY_TMPDIR=/tmp"
        )
    if address != "local":
        return (
            f"no Ray cluster answers at {address}: {said}. Start one (`ray start --head`), "
            "or unset RAY_ADDRESS and ray.address to let the run start its own"
        )
    return None


def _knock(address: str) -> None:
    """Raise OSError where no Ray listens at host:port; Ray itself tries for minutes.

    A Ray's head speaks gRPC, so HTTP/2: it begins with a SETTINGS frame (RFC 9113, 3.4).
    """
    host, colon, port = address.rpartition(":")
    if not colon or "://" in address:
        return
    with socket.create_connection((host, int(port)), timeout=REACH_TIMEOUT_S) as line:
        if os.environ.get("RAY_USE_TLS") == "1":
            return
        line.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _NO_SETTINGS)
        head = line.recv(9)
    if len(head) < 4 or head[3] != _SETTINGS:
        raise OSError("something else than Ray listens there (the head's port is 6379, by default)")
