"""How many processes the nodes have room for, and what each of them asks for."""

from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from urbandet_ray.config import ActorConfig, WorkersConfig
from urbandet_ray.config.sizing import (
    READER_CPUS,
    decode_threads,
    draw_threads,
    fit_actors,
    fitting,
    lacking_room,
    shards_at_an_actor,
    shards_in_flight,
    worker_bundle,
)
from urbandet_ray.errors import RunError

EIGHT = {"CPU": 8.0}
GPU = ActorConfig(gpus=1)


@pytest.mark.parametrize(
    ("actors", "threads", "nodes", "size"),
    [
        (ActorConfig(), 1, [EIGHT], (8, 8)),
        (ActorConfig(min=2), 1, [EIGHT], (2, 2)),
        (ActorConfig(min=2, max=6), 1, [EIGHT], (2, 6)),
        (ActorConfig(), 2, [EIGHT], (4, 4)),
        (ActorConfig(), 4, [{"CPU": 6.0}, {"CPU": 6.0}], (2, 2)),
        (ActorConfig(), 1, [{"CPU": 4.0}, {"CPU": 16.0}], (20, 20)),
        (ActorConfig(), 1, [{"CPU": 0.0}, {}], (1, 1)),
        (GPU, 1, [EIGHT | {"GPU": 4.0}], (4, 4)),
        (ActorConfig(gpus=0.5), 1, [EIGHT | {"GPU": 4.0}], (8, 8)),
        (ActorConfig(gpus=2), 1, [{"GPU": 3.0}, {"GPU": 3.0}], (2, 2)),
        (ActorConfig(gpus=1, min=1, max=8), 1, [EIGHT], (1, 8)),
    ],
)
def test_pool_size(
    actors: ActorConfig, threads: int, nodes: list[dict[str, float]], size: tuple[int, int]
) -> None:
    """As many actors as fit into the nodes one by one, unless told otherwise."""
    found = fit_actors(actors, threads, nodes)
    assert (found.smallest, found.largest) == size


def test_more_threads_than_any_node_has_still_start() -> None:
    """Asked for to the letter, such an actor would wait for ever."""
    found = fit_actors(ActorConfig(), 4, [{"CPU": 2.0}, {"CPU": 2.0}])
    assert found.cpus < 2
    assert found.smallest == 2


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("cores", [4, 6, 8, 16, 64])
@pytest.mark.parametrize("count", [1, 2, 3, 8, 50])
def test_readers_fit_beside_a_full_pool(threads: int, cores: int, count: int) -> None:
    """Actors start first: without room for a single reader a run would stand still for ever."""
    found = fit_actors(ActorConfig(), threads, [{"CPU": float(cores)}] * count)
    actors = cores // threads
    rest = cores - actors * found.cpus
    assert found.smallest == actors * count
    assert floor(rest / READER_CPUS + 1e-6) * count >= found.readers
    assert rest < 2 * found.cpus or cores % threads  # and hardly for an actor more


def test_no_gpu_is_said_before_anything_waits() -> None:
    """Without `min` a pool that can never start would hang."""
    with pytest.raises(RunError, match="each actor wants 1 GPU and the cluster has none: set"):
        fit_actors(GPU, 1, [EIGHT])


@pytest.mark.parametrize(
    ("actors", "remote", "shards", "threads"),
    [
        (ActorConfig(), False, (1, 3), (0, 0)),
        (ActorConfig(), True, (1, 3), (0, 4)),
        (GPU, False, (2, 4), (4, 4)),
        (ActorConfig(gpus=1, shards_in_flight=3), False, (3, 6), (4, 4)),
        (ActorConfig(shards_in_flight=2, decode_threads=1), False, (2, 4), (1, 0)),
        (ActorConfig(gpus=1, decode_threads=0, draw_threads=0), True, (2, 4), (0, 0)),
    ],
)
def test_what_an_actor_has_at_a_time(
    actors: ActorConfig, remote: bool, shards: tuple[int, int], threads: tuple[int, int]
) -> None:
    """Its shards, in work and in all; threads that decode and that draw."""
    assert (shards_in_flight(actors), shards_at_an_actor(actors)) == shards
    assert (decode_threads(actors), draw_threads(actors, remote=remote)) == threads


@pytest.mark.parametrize(
    ("workers", "nodes", "cores"),
    [
        (WorkersConfig(count=2), [4, 16], 8),
        (WorkersConfig(count=2), [16, 4], 8),
        (WorkersConfig(count=3), [4, 16], 5),
        (WorkersConfig(count=5), [4, 16], 4),
        (WorkersConfig(count=2, first_here=True), [4, 16], 4),
        (WorkersConfig(count=2, first_here=True), [16, 4], 8),
        (WorkersConfig(count=1), [4, 16], 16),
        (WorkersConfig(count=2), [8, 8], 8),
        (WorkersConfig(count=2), [2], 1),
        (WorkersConfig(count=9), [4, 4], 1),
        (WorkersConfig(count=1), [0, 4], 4),
        (WorkersConfig(count=2, cpus=6), [4, 16], 6),
        (WorkersConfig(count=1), [], 1),
    ],
)
def test_cores_of_a_worker(workers: WorkersConfig, nodes: list[int], cores: int) -> None:
    """The most with which all find room at once; one where the nodes are too small."""
    assert worker_bundle(workers, [{"CPU": float(one)} for one in nodes]) == {"CPU": cores}


def test_a_worker_with_a_gpu_shares_the_cores_of_gpu_nodes() -> None:
    """Nodes without a GPU lend it none; where none is up yet, cores alone are counted."""
    workers, head = WorkersConfig(count=2, gpus=1), {"CPU": 64.0}
    two = [head, {"CPU": 16.0, "GPU": 2.0}]
    assert worker_bundle(workers, two) == {"CPU": 8, "GPU": 1}
    assert worker_bundle(workers, [head]) == {"CPU": 32, "GPU": 1}


@given(
    st.lists(st.integers(1, 96), min_size=1, max_size=6),
    st.integers(1, 12),
    st.booleans(),
)
def test_all_workers_find_room_and_none_could_have_more(
    cores: list[int], count: int, first_here: bool
) -> None:
    """Whatever the nodes, where there is a core for each."""
    nodes = [{"CPU": float(one)} for one in cores]
    bundle = worker_bundle(WorkersConfig(count=count, first_here=first_here), nodes)

    def fits(more: int) -> bool:
        hosted = [fitting({"CPU": bundle["CPU"] + more}, node) for node in nodes]
        return sum(hosted) >= count and (hosted[0] > 0 or not first_here)

    assert fits(0) == (sum(cores) >= count)
    assert not fits(1)


@pytest.mark.parametrize(
    ("workers", "nodes", "lacks"),
    [
        ({"count": 2}, [{"CPU": 2.0}], None),
        ({"count": 4, "min": 2}, [{"CPU": 2.0}], None),
        (
            {"count": 1, "gpus": 1},
            [{"CPU": 2.0}],
            "1 worker wants 1 CPU and 1 GPU each, and Ray has 2 CPU and 0 GPU on 1 node",
        ),
        (
            {"count": 4, "cpus": 2},
            [{"CPU": 2.0}, {"CPU": 3.0}],
            "4 workers want 2 CPU each, and Ray has 5 CPU on 2 nodes",
        ),
    ],
)
def test_a_training_without_room_says_what_is_lacking(
    workers: dict[str, int], nodes: list[dict[str, float]], lacks: str | None
) -> None:
    """Ray itself would wait without a word for a GPU that nobody brings."""
    asked = WorkersConfig(**workers)
    bundle = {"CPU": float(asked.cpus or 1), **({"GPU": asked.gpus} if asked.gpus else {})}
    assert lacking_room(asked, bundle, nodes) == lacks
