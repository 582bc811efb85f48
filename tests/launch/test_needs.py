"""What runs ask of a cluster and of storage; preflight predicts what the run then asks for."""

from pathlib import Path

import pytest
from conftest import REPOSITORY
from hypothesis import example, given
from hypothesis import strategies as st

from urbandet_ray.commands.preflight import preflight_here
from urbandet_ray.config import (
    ActorConfig,
    EvalConfig,
    InferConfig,
    StorageConfig,
    TrainConfig,
    VideoConfig,
    WorkersConfig,
    load_config,
)
from urbandet_ray.config.sizing import fit_actors, worker_bundle
from urbandet_ray.errors import RunError
from urbandet_ray.launch.needs import (
    LARGE_FRAME_BYTES,
    Need,
    object_store_bytes,
    places_of,
    processes_of,
    results_of,
)
from urbandet_ray.launch.nodes import look_here
from urbandet_ray.launch.order import Order
from urbandet_ray.launch.room import NodeKind, check_room
from urbandet_ray.launch.verdicts import fail, ok


def test_what_runs_ask_of_a_cluster() -> None:
    """By their configs."""
    folder = REPOSITORY / "configs/runs"
    train = load_config(TrainConfig, folder / "train-efficientdet-d1-gpu.yaml", ["workers.cpus=6"])
    assert processes_of(train, []) == Need("worker", {"CPU": 6.0, "GPU": 1.0}, 2, 4)
    infer = load_config(InferConfig, folder / "infer-gpu.yaml")
    assert processes_of(infer, []) == Need("actor", {"GPU": 1.0}, 1, 8)
    assert processes_of(load_config(EvalConfig, folder / "eval.yaml"), []) is None


nodes_of_clusters = st.lists(
    st.fixed_dictionaries(
        {
            "CPU": st.integers(0, 64).map(float),
            "GPU": st.sampled_from([0.0, 0.0, 1.0, 4.0]),
        }
    ),
    max_size=6,
)


@given(
    nodes_of_clusters,
    st.none() | st.integers(1, 9),
    st.none() | st.integers(9, 40),
    st.integers(1, 8),
    st.sampled_from([0.0, 0.5, 1.0]),
)
@example([{"CPU": 16.0}], None, None, 1, 0.0)
@example([{"CPU": 4.0}, {"CPU": 16.0}], None, None, 2, 0.0)
@example([{"CPU": 4.0}], None, None, 1, 1.0)
def test_preflight_predicts_the_pool_that_the_run_asks_for(
    nodes: list[dict[str, float]],
    least: int | None,
    most: int | None,
    threads: int,
    gpus: float,
) -> None:
    """Both are the same numbers, and a refusal is the same words, whatever the cluster."""
    actors = ActorConfig(min=least, max=most, gpus=gpus)
    config = InferConfig(input="a", output="b", model={"threads": threads}, actors=actors)
    try:
        size = fit_actors(actors, threads, nodes)
    except RunError as refusal:
        with pytest.raises(RunError) as caught:
            processes_of(config, nodes)
        assert str(caught.value) == str(refusal)
        return
    need = processes_of(config, nodes)
    assert need is not None
    assert (need.least, need.most) == (size.smallest, size.largest)
    assert need.bundle == ({"GPU": gpus} if gpus else {"CPU": size.cpus})
    if least is None and sum(need.room(node) for node in nodes):
        assert sum(need.room(node) for node in nodes) == size.smallest


@given(nodes_of_clusters, st.integers(1, 9), st.sampled_from([0.0, 0.5, 1.0]), st.booleans())
def test_preflight_predicts_the_workers_that_a_training_asks_for(
    nodes: list[dict[str, float]], count: int, gpus: float, first_here: bool
) -> None:
    """By the same rule as the trainer."""
    workers = WorkersConfig(count=count, gpus=gpus, first_here=first_here)
    config = TrainConfig(output="a", pipeline="b", workers=workers)
    bundle = worker_bundle(workers, nodes)
    assert processes_of(config, nodes) == Need("worker", bundle, count, count)


def test_sixteen_cores_are_sixteen_actors() -> None:
    """An actor asks for a little less than a core, which makes no room for a seventeenth."""
    config, node = InferConfig(input="a", output="b"), {"CPU": 16.0}
    need = processes_of(config, [node])
    assert need is not None
    assert (need.least, need.most, need.room(node)) == (16, 16, 16)
    assert need.bundle["CPU"] < 1
    room = check_room(need, [NodeKind("node", node, 1, 1)], can_grow_unseen=False)
    assert room == ok("resources", "each actor needs 1 CPU; room for 16 now (1 x node [16 CPU])")


def test_an_actor_and_its_shards_wait_in_the_object_store() -> None:
    """As many as Ray Data is told to have at each actor."""
    config = InferConfig(input="a", output="b", shard={"frames": 10})
    assert object_store_bytes(config) == 3 * 10 * LARGE_FRAME_BYTES
    on_gpus = InferConfig(input="a", output="b", shard={"megabytes": 2}, actors={"gpus": 1})
    assert object_store_bytes(on_gpus) == 4 * (2 << 20)


def test_what_runs_read_and_write() -> None:
    """Every place of a config that is one."""
    train = TrainConfig(output="s3://b/run", data="s3://b/data", pipeline="efficientdet_d1_640")
    assert [(one.key, one.write) for one in places_of(train)] == [("data", False), ("output", True)]
    infer = InferConfig(input="a", output="b")
    assert [one.key for one in places_of(infer)] == ["input", "output"]
    score = EvalConfig(run="s3://b/run", truth="s3://b/data")
    assert [(one.key, one.write) for one in places_of(score)] == [("truth", False), ("run", True)]
    tune = {"checkpoint": "s3://b/m/ckpt-0", "labels": "s3://b/m/classes.txt"}
    tuned = TrainConfig(
        output="s3://b/run",
        pipeline="efficientdet_d1_640",
        fine_tune={**tune, "mapping": "s3://b/m/map.yaml"},
    )
    assert [(one.key, one.checkpoint) for one in places_of(tuned)] == [
        ("fine_tune.labels", False),
        ("fine_tune.mapping", False),
        ("fine_tune.checkpoint", True),
        ("output", False),
    ]
    video = VideoConfig(run="s3://b/run", output="s3://b/run/drive.mp4")
    assert places_of(video)[-1].folder == "s3://b/run"
    assert results_of(score) == "s3://b/run/metrics.json"


def test_actors_without_a_gpu_to_wait_for_fail_the_check(tmp_path: Path) -> None:
    """In the words of the run, which would not start."""
    order = Order("infer", None, ("input=a", "output=b", "actors.gpus=1"), tmp_path)
    checks = preflight_here(order).checks
    assert (
        fail(
            "resources",
            "each actor wants 1 GPU and the cluster has none: set actors.min (to wait for an "
            "autoscaler) or actors.gpus=0",
        )
        in checks
    )


@pytest.mark.parametrize(("asked", "cores"), [(None, 3), (5, 5)])
def test_this_machine_has_the_cores_that_its_ray_would_have(
    monkeypatch: pytest.MonkeyPatch, asked: int | None, cores: int
) -> None:
    """In a container fewer than the machine's: Ray counts what it is allowed."""
    monkeypatch.setattr("ray._private.utils.get_num_cpus", lambda **_: 3)
    config = InferConfig(input="a", output="b")
    here = look_here(asked, 256, [], StorageConfig())
    need = processes_of(config, [here.resources])
    assert need is not None
    assert (here.resources["CPU"], need.least) == (cores, cores)
