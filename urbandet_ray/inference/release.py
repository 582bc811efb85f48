"""GPU nodes go back as soon as a run has no work for them, not when it ends.

Ray Data asks the cluster for up to twice what it has while half of that is held by actors, and
then repeats its largest request until the run is over: nodes whose actors are gone stay, and cost,
through the last slow file. This asks for more only while shards wait, and for nothing once none has
waited for a while: nodes with actors are busy and stay, the autoscaler ends the others.

Source: RateBasedClusterAutoscaler of Ray 2.60 (ray.data._internal.cluster_autoscaler), to which
Ray leaves no public way in; Ray is pinned.
"""

from __future__ import annotations

import time
from functools import cache
from typing import Any

RELEASE_AFTER_S = 30.0
"""So long no shard may wait before nodes go: a lull is no reason to start them anew."""

BACKLOG = 1.75
"""Shards at hand for each one in work, from which a pool is short of actors; Ray Data's own. Seen
twice in turn, for two small files that end together are no backlog."""


def release_idle_nodes() -> None:
    """Have the runs of this process give nodes back."""
    from ray.data._internal.execution import streaming_executor

    streaming_executor.create_cluster_autoscaler = _create


def _create(topology: Any, resources: Any, context: Any, *, execution_id: str) -> Any:
    """What Ray Data calls for each run."""
    return releasing_autoscaler().create(
        topology, context.execution_options, resources, execution_id=execution_id
    )


@cache
def releasing_autoscaler() -> Any:
    """Ray Data's autoscaler with another end to its requests; a class."""
    from ray.data._internal.cluster_autoscaler import RateBasedClusterAutoscaler

    class ReleasingAutoscaler(RateBasedClusterAutoscaler):  # type: ignore[misc]
        """Asked every few seconds while a run goes on."""

        _idle_since: float | None = None
        _waited_before = False
        _last_resource_request: list[dict[str, float]]

        def _is_cluster_utilization_low(self, utilization: Any) -> bool:
            pools = [
                one for op in self._non_shuffle_ops for one in op.get_autoscaling_actor_pools()
            ]
            waiting = not pools or any(pool.get_pool_util() >= BACKLOG for pool in pools)
            lasting, self._waited_before = waiting and self._waited_before, waiting
            low = bool(super()._is_cluster_utilization_low(utilization)) or not lasting
            now = time.monotonic()
            self._idle_since = (self._idle_since or now) if low else None
            if self._idle_since is not None and now - self._idle_since >= RELEASE_AFTER_S:
                self._last_resource_request = []
            return low

    return ReleasingAutoscaler
