"""Workers of a training on nodes of different sizes: real Ray nodes on this machine."""

import json
import os
import subprocess
import sys
import tempfile
from typing import Any

import pytest
from conftest import REPOSITORY
from rays import OPEN
from waiting import END_S

pytestmark = [pytest.mark.ray, pytest.mark.train]

SCRIPT = """
import json, sys
import ray
from ray.cluster_utils import Cluster
from urbandet_ray.config import TrainConfig
from urbandet_ray.labels import STREET_LABELS
from urbandet_ray.storage import Storage
from urbandet_ray.training import trainer
from urbandet_ray.training.optimisation.rates import PlannedRate
from urbandet_ray.training.plan import TrainPlan

def tiny(settings):
    import ray, ray.train
    context = ray.train.get_context()
    ray.get(settings["notices"].post.remote({
        "kind": "started",
        "rank": context.get_world_rank(),
        "world": context.get_world_size(),
        "cpus": ray.get_runtime_context().get_assigned_resources()["CPU"],
    }))

store = {"object_store_memory": 100 << 20}
cluster = Cluster(
    initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False, **store}
)
try:
    cluster.add_node(num_cpus=16, **store)
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    trainer.train_on_worker = tiny
    told = {}
    for place in ("anywhere", "first here"):
        config = TrainConfig(
            output=f"{sys.argv[1]}/{place}",
            pipeline="none",
            workers={"count": 2, "max_failures": 0, "first_here": place == "first here"},
        )
        plan = TrainPlan(
            run_uri=config.output, storage=Storage(), config=config, pipeline=None, data=None,
            labels=STREET_LABELS, train=(), val=(), steps=1, batch_size=1, evaluate_every=1,
            rate=PlannedRate(0.1, "of this test", "momentum_optimizer"),
            checkpoint_every=1, clip_norm=0.0, fine_tune=None,
        )
        told[place] = []
        trainer.run_workers(plan, told[place].append)
    print(json.dumps(told))
finally:
    ray.shutdown()
    cluster.shutdown()
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What the workers of a training without a place, and of one that is tied to its driver's
    node, said at their start.

    What the trainer starts is its own, but for the training itself.
    """
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "TF_"))}
    env = {**clean, **OPEN, "RAY_USAGE_STATS_ENABLED": "0", "TF_USE_LEGACY_KERAS": "1"}
    with tempfile.TemporaryDirectory(prefix="ray-") as own:  # short, as paths of sockets have to be
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(tmp_path_factory.mktemp("runs"))],
            cwd=REPOSITORY,
            env=env | {"RAY_TMPDIR": own},
            capture_output=True,
            text=True,
            check=False,
            timeout=END_S,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, list[dict[str, Any]]] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.mark.parametrize(("place", "cpus"), [("anywhere", 8), ("first here", 4)])
def test_two_workers_start_on_nodes_of_4_and_16_cores(
    told: dict[str, list[dict[str, Any]]], place: str, cpus: int
) -> None:
    """Each asks for cores that the other leaves; a half of all, ten, would fit but once."""
    workers = sorted((one["rank"], one["world"], one["cpus"]) for one in told[place])
    assert workers == [(0, 2, cpus), (1, 2, cpus)]
