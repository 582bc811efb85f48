"""How many actors a cluster has room for, and what is said where there is no cluster."""

import socket
import subprocess
import sys

import pytest

from urbandet_ray.errors import RunError
from urbandet_ray.inference.pipeline import ActorPool, _pool_size


@pytest.mark.parametrize(
    ("pool", "resources", "size"),
    [
        (ActorPool(), {"CPU": 8.0}, (8, 8)),
        (ActorPool(min=2), {"CPU": 8.0}, (2, 2)),
        (ActorPool(min=2, max=6), {"CPU": 8.0}, (2, 6)),
        (ActorPool(gpus=1), {"CPU": 8.0, "GPU": 4.0}, (4, 4)),
        (ActorPool(gpus=0.5), {"CPU": 8.0, "GPU": 4.0}, (8, 8)),
        (ActorPool(gpus=1, min=1, max=8), {"CPU": 8.0}, (1, 8)),
    ],
)
def test_pool_size(pool: ActorPool, resources: dict[str, float], size: tuple[int, int]) -> None:
    """One actor a core or a GPU's share, unless told otherwise; an autoscaler may bring GPUs."""
    assert _pool_size(pool, resources) == size


def test_no_gpu_is_said_before_anything_waits() -> None:
    """Without `min` a pool that can never start would hang."""
    with pytest.raises(RunError, match="each actor wants 1 GPU and the cluster has none: set"):
        _pool_size(ActorPool(gpus=1), {"CPU": 8.0})


def test_an_address_where_nothing_listens_is_said_at_once() -> None:
    """Ray itself tries for minutes. In a process of its own: this one may have a Ray already."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound, not listening: nobody else gets the port either
        address = f"127.0.0.1:{held.getsockname()[1]}"
        code = (
            f"from urbandet_ray.inference.session import ray_session as r\nwith r({address!r}): 0"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
        )
    assert f"RunError: no Ray cluster answers at {address}" in done.stderr
