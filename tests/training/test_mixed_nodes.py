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
from urbandet_ray.errors import RunError
from urbandet_ray.labels import STREET_LABELS
from urbandet_ray.storage import Storage
from urbandet_ray.training import trainer
from urbandet_ray.training.optimisation.rates import PlannedRate
from urbandet_ray.training.plan import TrainPlan

train_on_worker = trainer.train_on_worker

def tiny(settings):
    import ray, ray.train
    context = ray.train.get_context()
    ray.get(settings["notices"].post.remote({
        "kind": "started",
        "rank": context.get_world_rank(),
        "world": context.get_world_size(),
        "cpus": ray.get_runtime_context().get_assigned_resources()["CPU"],
    }))
    from urbandet_ray.errors import RunError
    from urbandet_ray.training import loop
    def train(plan, place):
        if place.rank == 0:
            raise RunError("step 3: lower the rate")
    loop.train = train
    train_on_worker(settings)

store = {"object_store_memory": 100 << 20}
cluster = Cluster(
    initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False, **store}
)
try:
    cluster.add_node(num_cpus=16, **store)
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    trainer.train_on_worker = tiny
    told = {}
    for place in sys.argv[2:]:
        config = TrainConfig(
            output=f"{sys.argv[1]}/{place}",
            pipeline="none",
            workers={"count": 2, "max_failures": 3, "first_here": place == "first here"},
        )
        plan = TrainPlan(
            run_uri=config.output, storage=Storage(), config=config, pipeline=None, data=None,
            labels=STREET_LABELS, train=(), val=(), steps=1, batch_size=1, evaluate_every=1,
            rate=PlannedRate(0.1, "of this test", "momentum_optimizer"),
            checkpoint_every=1, clip_norm=0.0, fine_tune=None,
        )
        told[place] = []
        try:
            trainer.run_workers(plan, told[place].append)
        except RunError as error:
            told[place].append({"kind": "ended", "text": str(error)})
    print(json.dumps(told))
finally:
    ray.shutdown()
    cluster.shutdown()
"""


PLACES = [
    pytest.param(("anywhere", 8), id="anywhere"),
    pytest.param(("first here", 4), id="first here", marks=pytest.mark.long),
]


@pytest.fixture(scope="module", params=PLACES)
def told(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[int, list[dict[str, Any]]]:
    """How many cores each worker should get, and what was said of a training that a person has to
    mend: by its workers, which may be placed anywhere or one beside the driver, and by its end.

    What the trainer starts is its own, but for the training itself.
    """
    place, cpus = request.param
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "TF_"))}
    env = {**clean, **OPEN, "RAY_USAGE_STATS_ENABLED": "0", "TF_USE_LEGACY_KERAS": "1"}
    with tempfile.TemporaryDirectory(prefix="ray-") as own:  # short, as paths of sockets have to be
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(tmp_path_factory.mktemp("runs")), place],
            cwd=REPOSITORY,
            env=env | {"RAY_TMPDIR": own},
            capture_output=True,
            text=True,
            check=False,
            timeout=END_S,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, list[dict[str, Any]]] = json.loads(done.stdout.splitlines()[-1])
    return cpus, answer[place]


def test_two_workers_start_on_nodes_of_4_and_16_cores(
    told: tuple[int, list[dict[str, Any]]],
) -> None:
    """Each asks for cores that the other leaves; a half of all, ten, would fit but once."""
    cpus, notices = told
    workers = {(one["rank"], one["world"], one["cpus"]) for one in notices if "rank" in one}
    assert workers == {(0, 2, cpus), (1, 2, cpus)}


def test_what_a_person_has_to_mend_is_not_tried_again(
    told: tuple[int, list[dict[str, Any]]],
) -> None:
    """Three lost workers would be made up for. The advice comes alone, without a trace."""
    _, notices = told
    assert [one["text"] for one in notices if one["kind"] == "ended"] == ["step 3: lower the rate"]
    assert [one["kind"] for one in notices].count("start") == 1
