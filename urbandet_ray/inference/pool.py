"""How many actors the nodes have room for, and what each of them holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from urbandet_ray.errors import RunError

READER_CPUS = 0.1
"""A reader waits for the network or copies bytes; ten share a core."""

ACTORS_PER_READER = {"cpu": 4, "gpu": 1}
"""How many actors one reader keeps busy; each reader is a process that takes a second to start."""


@dataclass(frozen=True)
class ActorPool:
    """How many actors, and what each holds.

    Attributes:
        min, max: size of the pool; None is what the cluster has room for.
        gpus: GPUs an actor; 0 is a CPU actor.
        cpus: cores a CPU actor; a little less is asked for, which leaves room for the readers.
        shards_in_flight: shards an actor works on at a time.
    """

    min: int | None = None
    max: int | None = None
    gpus: float = 0.0
    cpus: int = 1
    shards_in_flight: int = 1


@dataclass(frozen=True)
class PoolSize:
    """A pool as Ray gets it.

    Attributes:
        smallest, largest: actors.
        cpus: that each asks for.
        readers: read tasks at a time.
    """

    smallest: int
    largest: int
    cpus: float
    readers: int


def fit_pool(pool: ActorPool, nodes: Sequence[Mapping[str, float]]) -> PoolSize:
    """Fit a pool into a cluster.

    Args:
        pool: what is asked for.
        nodes: resources of each node alive, {"CPU": cores, "GPU": GPUs}.

    Raises:
        RunError: GPU actors, no GPU, and no `min` to wait for an autoscaler with.
    """
    if pool.gpus:
        room = sum(int(node.get("GPU", 0) / pool.gpus) for node in nodes)
        if room < 1 and pool.min is None:
            raise RunError(
                f"each actor wants {pool.gpus} GPU and the cluster has none: "
                "set actors.min (to wait for an autoscaler) or actors.gpus=0"
            )
        return _sized(pool, room, 0.0, ACTORS_PER_READER["gpu"])
    cores = [int(node.get("CPU", 0)) for node in nodes]
    # an actor with more threads than any node has cores would wait for ever
    own = min(pool.cpus, max(cores, default=0) or pool.cpus)
    hosted = [one // own for one in cores if one >= own]
    room, least = sum(hosted), min(hosted, default=1)
    each = ACTORS_PER_READER["cpu"]
    # a node full of actors has room for its share of the readers and one task more
    spare = READER_CPUS * (1 + ceil(least / each)) / least
    return _sized(pool, room, own - spare, each)


def _sized(pool: ActorPool, room: int, cpus: float, actors_per_reader: int) -> PoolSize:
    smallest = pool.min or max(1, room)
    largest = max(smallest, pool.max or smallest)
    return PoolSize(smallest, largest, cpus, ceil(largest / actors_per_reader))
