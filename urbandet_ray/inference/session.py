"""The Ray a run works on: a cluster where there is one, else a small one of its own."""

from __future__ import annotations

import os
import socket
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
    address = config.address or os.environ.get("RAY_ADDRESS") or "local"
    own: dict[str, Any] = {}
    if address == "local":
        own = {
            "num_cpus": config.num_cpus,
            "object_store_memory": store_mb(config) << 20,
            "include_dashboard": False,
            "_system_config": _WITHOUT_REPORTS,
        }
    try:
        _knock(address)
        with stderr_held():
            ray.init(address=address, logging_level="ERROR", log_to_driver=False, **own)
    except OSError as error:  # ConnectionError is one
        raise RunError(
            f"no Ray cluster answers at {address}: {error}. Start one (`ray start --head`), "
            "or unset RAY_ADDRESS and ray.address to let the run start its own"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError where nothing listens at host:port; Ray itself tries for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "://" not in address:
        socket.create_connection((host, int(port)), timeout=REACH_TIMEOUT_S).close()
