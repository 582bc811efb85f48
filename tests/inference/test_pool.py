"""How many actors the nodes have room for."""

from math import floor

import pytest

from urbandet_ray.errors import RunError
from urbandet_ray.inference.pool import READER_CPUS, ActorPool, fit_pool

EIGHT = {"CPU": 8.0}


@pytest.mark.parametrize(
    ("pool", "nodes", "size"),
    [
        (ActorPool(), [EIGHT], (8, 8)),
        (ActorPool(min=2), [EIGHT], (2, 2)),
        (ActorPool(min=2, max=6), [EIGHT], (2, 6)),
        (ActorPool(cpus=2), [EIGHT], (4, 4)),
        (ActorPool(cpus=4), [{"CPU": 6.0}, {"CPU": 6.0}], (2, 2)),
        (ActorPool(), [{"CPU": 0.0}, {}], (1, 1)),
        (ActorPool(gpus=1), [EIGHT | {"GPU": 4.0}], (4, 4)),
        (ActorPool(gpus=0.5), [EIGHT | {"GPU": 4.0}], (8, 8)),
        (ActorPool(gpus=2), [{"GPU": 3.0}, {"GPU": 3.0}], (2, 2)),
        (ActorPool(gpus=1, min=1, max=8), [EIGHT], (1, 8)),
    ],
)
def test_pool_size(pool: ActorPool, nodes: list[dict[str, float]], size: tuple[int, int]) -> None:
    """As many as fit into the nodes one by one, unless told otherwise."""
    found = fit_pool(pool, nodes)
    assert (found.smallest, found.largest) == size


def test_more_threads_than_any_node_has_still_start() -> None:
    """Asked for to the letter, such an actor would wait for ever."""
    found = fit_pool(ActorPool(cpus=4), [{"CPU": 2.0}, {"CPU": 2.0}])
    assert found.cpus < 2
    assert found.smallest == 2


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("cores", [4, 6, 8, 16, 64])
@pytest.mark.parametrize("count", [1, 2, 3, 8, 50])
def test_readers_fit_beside_a_full_pool(threads: int, cores: int, count: int) -> None:
    """Actors start first: without room for a single reader a run would stand still for ever."""
    found = fit_pool(ActorPool(cpus=threads), [{"CPU": float(cores)}] * count)
    actors = cores // threads
    rest = cores - actors * found.cpus
    assert found.smallest == actors * count
    assert floor(rest / READER_CPUS + 1e-6) * count >= found.readers
    assert rest < 2 * found.cpus or cores % threads  # and hardly for an actor more


def test_no_gpu_is_said_before_anything_waits() -> None:
    """Without `min` a pool that can never start would hang."""
    with pytest.raises(RunError, match="each actor wants 1 GPU and the cluster has none: set"):
        fit_pool(ActorPool(gpus=1), [EIGHT])
