"""Asks a cluster's autoscaler for workers, and says what it makes of that."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from urbandet_ray.config.sizing import fitting
from urbandet_ray.errors import RunError
from urbandet_ray.launch.nodes import HEAD, is_head, node_kinds
from urbandet_ray.launch.room import NodeKind, describe

REQUESTER = "urbandet-scale"
"""Our name among those who ask the autoscaler."""

_LOOK_EVERY_S = 2.0
_SETTLE_S = 6.0
"""The autoscaler looks every few seconds: what it has not seen is not yet pending."""


@dataclass(frozen=True)
class Standing:
    """A cluster at one moment.

    Attributes:
        up: nodes that are there, "2 x gpu [8 CPU, 1 GPU]".
        pending: nodes on their way.
        infeasible: what no node type of the cluster can ever give, whoever asks for it.
        unmade: of that, the autoscaler's lower bounds, of which `request_workers` sets one.
        failed: launches that failed, with the cloud's reason.
        gpu_nodes, cpu_nodes: workers that are up, with and without GPUs.
    """

    up: tuple[str, ...]
    pending: tuple[str, ...]
    infeasible: tuple[str, ...]
    unmade: tuple[str, ...]
    failed: tuple[str, ...]
    gpu_nodes: int
    cpu_nodes: int

    def to_text(self) -> str:
        """A line of each."""
        lines = [f"up: {', '.join(self.up) or 'nothing'}"]
        lines += [f"pending: {', '.join(self.pending)}"] if self.pending else []
        lines += [f"infeasible: {', '.join(self.infeasible)}"] if self.infeasible else []
        lines += [f"failed: {one}" for one in self.failed]
        return "\n".join(lines)


def request_workers(gpu_workers: int, cpu_workers: int) -> int:
    """Ask the autoscaler of the Ray that is initialised for at least so many workers.

    The request stands until the next one, also when this process has ended; 0 and 0 take it back,
    and nodes without work go after the cluster's idle timeout. Nodes that jobs need come anyway.

    Ray's `request_resources` holds one request for the whole cluster, and Ray Data's coordinator
    repeats its own there every 20 s. So ours goes through the coordinator, which adds up what it is
    asked for.

    Returns:
        How many bundles were asked for, one a worker.

    Raises:
        RunError: the cluster can never make so many; nothing was asked for.
    """
    kinds, unseen = node_kinds()
    gpu, cpu = _bundle(kinds, gpu=True), _bundle(kinds, gpu=False)
    for bundle, wanted in ((gpu, gpu_workers), (cpu, cpu_workers)):
        room = sum(fitting(bundle, kind.resources) * kind.most for kind in kinds)
        if room < wanted and not unseen:
            there = "; ".join(kind.to_text() for kind in kinds)
            raise RunError(
                f"the cluster cannot make {wanted} workers of {describe(bundle)}: it has, or can "
                f"have, {there}. Ask for fewer, or change the cluster's node types or max_workers"
            )
    bundles = [gpu] * gpu_workers + [cpu] * cpu_workers
    _ask_coordinator(bundles)
    return len(bundles)


def _ask_coordinator(bundles: Sequence[dict[str, float]]) -> None:
    """Put our request among the others.

    The coordinator also deals out the nodes to those who ask; a job would be left with what ours
    leaves over. It deals by subcluster, a label of nodes. Our label is "any other than ours": every
    node has it for the autoscaler, and no node is dealt to it.
    """
    import ray
    from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
        SUBCLUSTER_LABEL_KEY,
        get_or_create_autoscaling_coordinator,
    )

    coordinator = get_or_create_autoscaling_coordinator()
    if not bundles:
        ray.get(coordinator.cancel_request.remote(REQUESTER))
        return
    ray.get(
        coordinator.request_resources.remote(
            requester_id=REQUESTER,
            resources=list(bundles),
            expire_after_s=float("inf"),
            subcluster_selector={SUBCLUSTER_LABEL_KEY: f"!{REQUESTER}"},
        )
    )


def _bundle(kinds: Sequence[NodeKind], *, gpu: bool) -> dict[str, float]:
    """All cores and GPUs of the smallest such node, so that a bundle is a node."""
    shapes = [
        {name: float(kind.resources[name]) for name in ("CPU", "GPU") if kind.resources.get(name)}
        for kind in kinds
        if kind.name != HEAD
    ]
    fitting_shapes = [shape for shape in shapes if shape and ("GPU" in shape) == gpu]
    if fitting_shapes:
        return min(fitting_shapes, key=lambda shape: sorted(shape.items(), reverse=True))
    return {"GPU": 1.0} if gpu else {"CPU": 1.0}


def standing() -> Standing:
    """How the Ray that is initialised stands."""
    import ray
    from ray._raylet import GcsClient
    from ray.autoscaler.v2.sdk import get_cluster_status
    from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply

    address = ray.get_runtime_context().gcs_address
    status = get_cluster_status(address)
    reply = GetClusterStatusReply()
    reply.ParseFromString(GcsClient(address).get_cluster_status(timeout_s=10))
    nodes = [*status.active_nodes, *status.idle_nodes]
    workers = [node for node in nodes if not is_head(node.total_resources())]
    bounds = _refused_bounds(reply.autoscaling_state)
    return Standing(
        up=_counted(
            f"{one.ray_node_type_name} [{describe(one.total_resources())}]" for one in nodes
        ),
        pending=_pending(status),
        infeasible=_counted([*_refused(reply.autoscaling_state), *bounds]),
        unmade=_counted(bounds),
        failed=tuple(
            f"{one.ray_node_type_name}: {one.details or 'no reason given'}"
            for one in status.failed_launches
        ),
        gpu_nodes=sum(one.total_resources().get("GPU", 0) > 0 for one in workers),
        cpu_nodes=sum(one.total_resources().get("GPU", 0) == 0 for one in workers),
    )


def _pending(status: Any) -> tuple[str, ...]:
    coming = [one.ray_node_type_name for one in status.pending_nodes]
    for launch in status.pending_launches:
        coming += [launch.ray_node_type_name] * launch.count
    return _counted(coming)


def _refused(state: Any) -> list[str]:
    """What the autoscaler says it cannot make for tasks and actors; its words are per request."""
    found: list[str] = []
    for one in state.infeasible_resource_requests:
        found.append(describe(dict(one.resources_bundle)))
    for gang in state.infeasible_gang_resource_requests:
        found += [describe(dict(one.resources_bundle)) for one in gang.requests]
    return found


def _refused_bounds(state: Any) -> list[str]:
    """What it cannot make of the lower bounds that it was asked for."""
    found: list[str] = []
    for constraint in state.infeasible_cluster_resource_constraints:
        for one in constraint.resource_requests:
            found += [describe(dict(one.request.resources_bundle))] * max(1, one.count)
    return found


def _counted(names: Any) -> tuple[str, ...]:
    return tuple(f"{count} x {name}" for name, count in sorted(Counter(names).items()))


def wait_for_workers(
    gpu_workers: int,
    cpu_workers: int,
    say: Callable[[str], None],
    *,
    timeout_s: float = 900,
) -> Standing:
    """Until so many are up, saying what changes.

    Raises:
        RunError: they can never all be, or are not within `timeout_s`.
    """
    begun, told = time.monotonic(), ""
    while True:
        now, waited = standing(), time.monotonic() - begun
        text = now.to_text()
        if text != told:
            say(text)
            told = text
        if now.gpu_nodes >= gpu_workers and now.cpu_nodes >= cpu_workers:
            return now
        if now.unmade and not now.pending and waited > _SETTLE_S:
            raise RunError(
                f"the cluster can never make {', '.join(now.unmade)}: its node types, or their "
                "max_workers, do not allow it. The request stands: ask for fewer, or change the "
                "cluster's config"
            )
        if waited > timeout_s:
            raise RunError(
                f"after {timeout_s:.0f} s {now.gpu_nodes} of {gpu_workers} GPU workers and "
                f"{now.cpu_nodes} of {cpu_workers} CPU workers are up; the request stands, "
                "`urbandet scale` shows how it goes on"
            )
        time.sleep(_LOOK_EVERY_S)
