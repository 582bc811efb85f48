"""How many processes a run starts, and what each asks of Ray: from its config and the nodes.

The run itself and `urbandet preflight` both ask here, so that what is predicted is what is asked.
Nodes are Ray's resources of each node alive, {"CPU": cores, "GPU": GPUs}.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from urbandet_ray.config.inference_config import ActorConfig, ShardConfig
from urbandet_ray.config.training_config import WorkersConfig
from urbandet_ray.errors import RunError

Nodes = Sequence[Mapping[str, float]]

READER_CPUS = 0.1
"""A reader waits for the network or copies bytes; ten share a core."""

ACTORS_PER_READER = {"cpu": 4, "gpu": 1}
"""How many actors one reader keeps busy; each reader is a process that takes a second to start."""

SHARDS_WAITING = 2
"""Shards that wait at an actor: Ray Data looks for finished work ten times a second only."""

SHARD_FRAMES = 64
"""Records of a shard at most where shard.frames does not say."""

GPU_ACTOR_THREADS = 4
"""Threads that decode, and as many that draw, beside a GPU, or to hide the latency of S3."""


@dataclass(frozen=True)
class PoolSize:
    """The actors of an inference as Ray gets them.

    Attributes:
        smallest, largest: actors.
        cores: that each fills; 0 beside a GPU.
        cpus: that each asks for: a little less, which leaves room for the readers.
        gpus: that each asks for.
        readers: read tasks at a time.
    """

    smallest: int
    largest: int
    cores: int
    cpus: float
    gpus: float
    readers: int


def fit_actors(actors: ActorConfig, threads: int, nodes: Nodes) -> PoolSize:
    """Fit a pool of actors into a cluster.

    Args:
        actors: what is asked for.
        threads: of the model in each of them.
        nodes: each node alive.

    Raises:
        RunError: GPU actors, no GPU, and no `min` to wait for an autoscaler with.
    """
    if actors.gpus:
        room = sum(fitting({"GPU": actors.gpus}, node) for node in nodes)
        if room < 1 and actors.min is None:
            raise RunError(
                f"each actor wants {actors.gpus:g} GPU and the cluster has none: "
                "set actors.min (to wait for an autoscaler) or actors.gpus=0"
            )
        return _sized(actors, room, 0, 0.0, ACTORS_PER_READER["gpu"])
    cores = [int(node.get("CPU", 0)) for node in nodes]
    # an actor with more threads than any node has cores would wait for ever
    own = min(threads, max(cores, default=0) or threads)
    hosted = [one // own for one in cores if one >= own]
    room, least = sum(hosted), min(hosted, default=1)
    each = ACTORS_PER_READER["cpu"]
    # a node full of actors has room for its share of the readers and one task more
    spare = READER_CPUS * (1 + ceil(least / each)) / least
    return _sized(actors, room, own, own - spare, each)


def _sized(
    actors: ActorConfig, room: int, cores: int, cpus: float, actors_per_reader: int
) -> PoolSize:
    smallest = actors.min or max(1, room)
    largest = max(smallest, actors.max or smallest)
    readers = ceil(largest / actors_per_reader)
    return PoolSize(smallest, largest, cores, cpus, actors.gpus, readers)


def fitting(bundle: Mapping[str, float], node: Mapping[str, float]) -> int:
    """How many of the bundle fit on one empty node."""
    wanted = [(name, amount) for name, amount in bundle.items() if amount > 0]
    if not wanted:
        return 0
    return min(int(node.get(name, 0) / amount + 1e-9) for name, amount in wanted)


def shards_in_flight(actors: ActorConfig) -> int:
    """Shards an actor works on at a time."""
    return actors.shards_in_flight or (2 if actors.gpus else 1)


def shards_at_an_actor(actors: ActorConfig) -> int:
    """Shards that an actor works on and those that wait at it."""
    working = shards_in_flight(actors)
    # Ray Data lets a pool grow from 1.75 shards at hand for each one in work
    return max(working + SHARDS_WAITING, 2 * working)


def shard_bytes(shard: ShardConfig, frame_bytes: int) -> int:
    """The most that a shard of frames of this encoded size holds."""
    return min(shard.megabytes << 20, (shard.frames or SHARD_FRAMES) * frame_bytes)


def decode_threads(actors: ActorConfig) -> int:
    """Threads an actor decodes with; 0 decodes in turn with the model."""
    given, otherwise = actors.decode_threads, GPU_ACTOR_THREADS if actors.gpus else 0
    return otherwise if given is None else given


def draw_threads(actors: ActorConfig, *, remote: bool) -> int:
    """Threads an actor draws, encodes and writes with.

    Args:
        remote: it writes to S3, whose latency threads hide.
    """
    given, otherwise = actors.draw_threads, GPU_ACTOR_THREADS if actors.gpus or remote else 0
    return otherwise if given is None else given


def worker_bundle(workers: WorkersConfig, nodes: Nodes) -> dict[str, float]:
    """What each worker of a training asks of Ray.

    Without `workers.cpus` it is the most cores with which all workers find room at once. Where
    the nodes have no room for all, GPUs are left out of the count, then it is one core.

    Args:
        workers: what is asked for.
        nodes: each node alive, the driver's first: with `first_here` a worker has to fit there.
    """
    gpus = {"GPU": workers.gpus} if workers.gpus else {}
    if workers.cpus:
        return {"CPU": float(workers.cpus), **gpus}
    most = int(max((node.get("CPU", 0) for node in nodes), default=0))
    for beside in (gpus, {}):
        for cores in range(most, 0, -1):
            hosted = [fitting({"CPU": cores, **beside}, node) for node in nodes]
            here = hosted[0] > 0 or not workers.first_here
            if here and sum(hosted) >= workers.count:
                return {"CPU": float(cores), **gpus}
    return {"CPU": 1.0, **gpus}


def lacking_room(workers: WorkersConfig, bundle: Mapping[str, float], nodes: Nodes) -> str | None:
    """What the nodes lack for a training to start; None where it can."""
    wanted = workers.min or workers.count
    hosted = sum(fitting(bundle, node) for node in nodes)
    if hosted >= wanted:
        return None
    each = " and ".join(f"{amount:g} {name}" for name, amount in bundle.items())
    held = {name: sum(node.get(name, 0) for node in nodes) for name in bundle}
    there = " and ".join(f"{amount:g} {name}" for name, amount in held.items())
    return (
        f"{wanted} {'workers want' if wanted > 1 else 'worker wants'} {each} each, and Ray has "
        f"{there} on {len(nodes)} {'nodes' if len(nodes) > 1 else 'node'}"
    )
