"""Rooms, versions, disks and GPUs: facts in, one line out."""

from importlib.metadata import version
from pathlib import Path

import pytest
from conftest import REPOSITORY
from typer.testing import CliRunner

from urbandet_ray.cli.cluster import app
from urbandet_ray.commands.preflight import preflight_there
from urbandet_ray.config import InferConfig, TrainConfig
from urbandet_ray.config.sizing import fitting
from urbandet_ray.launch.needs import ConfigPlace, Need, places_of
from urbandet_ray.launch.node_checks import (
    check_disks,
    check_gpus,
    check_local,
    check_object_stores,
    check_sent,
)
from urbandet_ray.launch.nodes import HEAD as HEAD_NAME
from urbandet_ray.launch.nodes import GpuFacts, NodeFacts
from urbandet_ray.launch.order import Order
from urbandet_ray.launch.room import NodeKind, check_room
from urbandet_ray.launch.scaling import _bundle
from urbandet_ray.launch.verdicts import Check, Preflight, fail, ok
from urbandet_ray.launch.versions import check_packages, check_python, check_ray, read_pins

HEAD = NodeKind("the head", {"memory": 1.0}, 1, 1)
GPU = NodeKind("gpu", {"CPU": 8.0, "GPU": 1.0}, 0, 4)
CPU = NodeKind("cpu", {"CPU": 16.0}, 2, 2)


@pytest.mark.parametrize(
    ("need", "kinds", "verdict", "says"),
    [
        (Need("worker", {"GPU": 1, "CPU": 6}, 2, 2), [HEAD, GPU], "ok", "autoscaler brings more"),
        (Need("worker", {"GPU": 1, "CPU": 6}, 2, 8), [HEAD, GPU], "warn", "room for 4 of the 8"),
        (Need("worker", {"GPU": 1, "CPU": 12}, 1, 1), [GPU, CPU], "fail", "none fits"),
        (Need("worker", {"GPU": 2}, 1, 1), [GPU], "fail", "each worker needs 2 GPU, and none fi"),
        (Need("worker", {"GPU": 1}, 5, 5), [GPU], "fail", "room for 4 of 5 workers"),
        (Need("actor", {"GPU": 0.5}, 8, 8), [GPU], "ok", "each actor needs 0.5 GPU"),
        (Need("actor", {"CPU": 0.8}, 4, 4), [CPU], "ok", "room for 40 now"),
        (Need("actor", {"GPU": 1}, 1, 1), [], "fail", "the cluster has no nodes"),
    ],
)
def test_room(need: Need, kinds: list[NodeKind], verdict: str, says: str) -> None:
    """What is up, and what the autoscaler could bring."""
    check = check_room(need, kinds, can_grow_unseen=False)
    assert check.verdict == verdict
    assert says in check.text


def test_an_infeasible_request_names_what_there_is() -> None:
    """So that somebody can choose."""
    check = check_room(Need("worker", {"GPU": 1}, 1, 1), [HEAD, CPU], can_grow_unseen=False)
    assert str(check) == (
        "fail  resources: each worker needs 1 GPU, and none fits: the cluster has "
        "1 x the head [no CPU or GPU]; 2 x cpu [16 CPU]. Ask for less, or give it such nodes"
    )


def test_an_autoscaler_that_cannot_be_seen_may_bring_anything() -> None:
    """On Kubernetes its node types are out of a job's sight."""
    check = check_room(Need("worker", {"GPU": 1}, 1, 1), [HEAD], can_grow_unseen=True)
    assert check.verdict == "warn"


def test_fitting_takes_the_scarcest() -> None:
    """Fractions count too."""
    assert fitting({"GPU": 0.5, "CPU": 2}, {"GPU": 1, "CPU": 3}) == 1
    assert fitting({"GPU": 0.1}, {"GPU": 1}) == 10


def test_another_ray_is_a_failure() -> None:
    """Both versions are named."""
    check = check_ray("2.9.0", "2.60.0")
    assert check.verdict == "fail"
    assert "the cluster runs Ray 2.9.0, this side 2.60.0" in check.text
    assert check_ray("2.60.0", "2.60.0").verdict == "ok"


@pytest.mark.parametrize(
    ("there", "verdict"),
    [("3.11.9", "ok"), ("3.12.1", "warn"), ("3.10.4", "fail"), ("3.13.0", "fail")],
)
def test_pythons(there: str, verdict: str) -> None:
    """The job needs 3.11 or 3.12."""
    assert check_python(there, "3.11.2").verdict == verdict


def test_packages_are_compared_with_the_lock(tmp_path: Path) -> None:
    """Missing is a failure, another version a warning."""
    lock = tmp_path / "core.lock"
    lock.write_text("ray[data]==1.0 \\\n    --hash=sha256:00\nno-such-package==2.0 \\\n")
    assert check_packages(lock, training=False).text.startswith("no-such-package missing there")
    lock.write_text("ray[data]==1.0 \\\n    --hash=sha256:00\n# via x==1\n")
    check = check_packages(lock, training=False)
    assert check.verdict == "warn"
    assert "(locked 1.0)" in check.text


def test_the_shipped_lock_is_read() -> None:
    """All of it."""
    pins = read_pins(REPOSITORY / "requirements/core.lock")
    assert pins["ray"] == "2.60.0"
    assert len(pins) > 40


def facts(**more: object) -> NodeFacts:
    """A node with plenty of disk."""
    return NodeFacts(**{"name": "n", "disk_free": 50 << 30, "disk_total": 100 << 30, **more})


@pytest.mark.parametrize(
    ("free_gb", "data_gb", "says"),
    [
        (50, 0, "ok    disk: at least 50.0 GB free"),
        (1, 0, "fail  disk: n has 1.0 GB of 100.0 GB free, the run needs 2.0 GB"),
        (10, 20, "the run needs 22.0 GB (20.0 GB of it for the records' copy)"),
        (4, 0, "Ray makes no objects where less than 5% is free"),
    ],
)
def test_disks(free_gb: int, data_gb: int, says: str) -> None:
    """Room for what the run keeps on each node, and for Ray."""
    (check,) = check_disks([facts(disk_free=free_gb << 30)], data_gb << 30, "the records' copy")
    assert says in str(check)


def test_a_small_object_store_is_a_warning() -> None:
    """Ray writes the rest to the disk."""
    need = Need("actor", {"CPU": 0.8}, 1, 8)
    node = facts(resources={"CPU": 8.0, "object_store_memory": 256 << 20})
    (check,) = check_object_stores([node], need, 128 << 20)
    assert "n has 256 MB; its 8 or so actors may need 1.0 GB for large frames" in check.text
    (check,) = check_object_stores([node], need, 16 << 20)
    assert check.verdict == "ok"


TF = {"version": "2.21.0", "cuda": "12.5.1", "is_cuda": True, "gpus": 1}


@pytest.mark.parametrize(
    ("gpu", "says"),
    [
        (GpuFacts(), "fail  gpu: n offers Ray a GPU, but has no nvidia-smi"),
        (
            GpuFacts("550.54", ("A10G",), TF),
            "ok    gpu: driver 550.54, 1 x A10G; TensorFlow 2.21.0",
        ),
        (
            GpuFacts("470.1", ("A10G",), TF),
            "built for CUDA 12.5.1, which needs driver 525 or newer",
        ),
        (GpuFacts("550.54", ("A10G",), {**TF, "is_cuda": False}), "is built without CUDA"),
        (
            GpuFacts("550.54", ("A10G",), {**TF, "gpus": 0}),
            "sees no GPU: are the libraries of clus",
        ),
        (GpuFacts("550.54", ("A10G",), None, "No module"), "TensorFlow cannot be asked: No module"),
    ],
)
def test_gpus(gpu: GpuFacts, says: str) -> None:
    """Driver, CUDA and TensorFlow have to fit together."""
    (check,) = check_gpus([facts(gpu=gpu)], tensorflow=True)
    assert says in str(check)


def test_a_tflite_model_needs_no_cuda() -> None:
    """Its actors hold a GPU in name only."""
    (check,) = check_gpus([facts(gpu=GpuFacts())], tensorflow=False)
    assert check.verdict == "warn"
    (check,) = check_gpus([], tensorflow=True)
    assert "no GPU node is up" in check.text


def test_local_places_of_a_job() -> None:
    """A relative one stays here or is lost; an absolute one may be shared."""
    config = InferConfig(input="data/test", output="runs/test")
    lines = [str(one) for one in check_sent(places_of(config), REPOSITORY)]
    assert lines[0].startswith("fail  input data/test: is not sent with the job: give s3://")
    assert lines[1].startswith("fail  output runs/test: would be lost with the job's copy")
    shared = InferConfig(input="/shared/test", output="/shared/run")
    assert [one.verdict for one in check_sent(places_of(shared), REPOSITORY)] == ["warn", "warn"]
    sent = TrainConfig(output="/r", pipeline="urbandet_ray/models/shipped/pipeline.config")
    assert [one.key for one in places_of(sent)] == ["pipeline", "output"]
    assert [str(one)[:4] for one in check_sent(places_of(sent), REPOSITORY)] == ["warn"]
    (gone,) = check_local(places_of(shared))
    assert str(gone) == "fail  input /shared/test: is not there"


@pytest.mark.parametrize(("install", "timeout_s"), [(False, 300), (True, 2100)])
def test_checks_on_a_cluster_wait_for_their_packages(install: bool, timeout_s: float) -> None:
    """Their job installs what the run's would."""
    asked: list[float] = []

    class Cluster:
        ray_version = version("ray")

        def ask(self, *_: object, timeout_s: float, **__: object) -> dict[str, object]:
            asked.append(timeout_s)
            return {"checks": [], "policy": None}

    overrides = ("input=s3://b/a", "output=s3://b/run")
    order = Order("infer", "configs/runs/infer.yaml", overrides, REPOSITORY, install=install)
    assert preflight_there(order, Cluster()).failed == 0  # type: ignore[arg-type]
    assert asked == [timeout_s]


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_failed_check_is_an_exit_code(form: tuple[str, ...]) -> None:
    """In either form."""
    done = CliRunner().invoke(app, ["preflight", "infer", "inptu=a", *form])
    assert done.exit_code == 3
    assert "did you mean 'input'" in done.output


def test_a_checkpoint_may_be_a_prefix(tmp_path: Path) -> None:
    """Its .index is the file; a prefix that has none is not there."""
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "ckpt-0.index").touch()
    for name, problems in (("ckpt-0", 0), ("ckpt-1", 1)):
        sent = ConfigPlace("fine_tune.checkpoint", f"m/{name}", checkpoint=True)
        assert len(check_sent([sent], tmp_path)) == problems
        local = ConfigPlace("fine_tune.checkpoint", f"{tmp_path}/m/{name}", checkpoint=True)
        assert len(check_local([local])) == problems


def test_a_report_reads_as_lines_and_travels_as_json() -> None:
    """One line a check, whatever its text holds; the policy once."""
    report = Preflight((ok("a", "fine"), fail("b", "two\n  lines")), '{"Version": "2012-10-17"}')
    lines = report.to_text().splitlines()
    assert lines[:2] == ["ok    a: fine", "fail  b: two lines"]
    assert lines[-1] == "1 failure, 0 warnings"
    assert report.to_text().count("2012-10-17") == 1
    import json

    assert Preflight.of(json.loads(report.to_json())) == report
    assert Check("ok", "a", "b") == ok("a", "b")


@pytest.mark.parametrize(
    ("gpu", "bundle"), [(True, {"CPU": 8.0, "GPU": 1.0}), (False, {"CPU": 16.0})]
)
def test_a_worker_that_is_asked_for_is_a_whole_node(gpu: bool, bundle: dict[str, float]) -> None:
    """Of the smallest kind that has GPUs, or has none; never the head."""
    head = NodeKind(HEAD_NAME, {"CPU": 2.0, "GPU": 1.0}, 1, 1)
    large = NodeKind("large", {"CPU": 64.0, "GPU": 8.0}, 0, 4)
    assert _bundle([head, large, GPU, CPU], gpu=gpu) == bundle


def test_without_known_kinds_a_worker_is_one_gpu_or_core() -> None:
    """As on Kubernetes before the first worker is up."""
    assert _bundle([HEAD], gpu=True) == {"GPU": 1.0}
    assert _bundle([], gpu=False) == {"CPU": 1.0}
