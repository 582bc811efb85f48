"""The entry point on two hosts: one is taken away, the next start resumes and leaves the model."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from drives import write_drive
from launch.sagemaker.hosts import Host, two_hosts, wait_for, write_contract
from tiny_models import tiny_ssd
from waiting import END_S

from urbandet_ray.labels import STREET_LABELS

pytestmark = [pytest.mark.ray, pytest.mark.train, pytest.mark.chaos, pytest.mark.long]

STEPS = 12
HYPERPARAMETERS = {
    "pipeline_config_path": '"pipeline.config"',  # as SageMaker's SDK quotes it
    "num_train_steps": f'"{STEPS}"',
    "sample_1_of_n_eval_examples": '"2"',
    "optimized": "savedmodel",
    "fine_tune.checkpoint": '""',
    "batch.per_worker": "2",
    "schedule.rate": "0.002",
    "optimizer.kind": "adam",
    "augmentation.preset": "flip",
    "evaluation.every": str(STEPS),
    "checkpoint.every": "2",
    "doctor": "ignore",
    "workers.cpus": "1",
    "ray.object_store_mb": "100",
}


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[Host], Path]]:
    """Two hosts with the same channels, which came at different times."""
    folder = tmp_path_factory.mktemp("sagemaker")
    channels = folder / "channels"
    for name, count in (("train/a", 12), ("train/b", 9), ("val/c", 7)):
        (channels / name).parent.mkdir(parents=True, exist_ok=True)
        write_drive(channels / f"{name}.tfrecord", count)
    (channels / "config").mkdir()
    (channels / "config" / "label_map.pbtxt").write_text(STREET_LABELS.to_pbtxt())
    (channels / "config" / "pipeline.config").write_text(str(tiny_ssd(classes=4)))
    with two_hosts(folder) as (made, hosts_file):
        for host in made:
            write_contract(host, ["algo-1", "algo-2"], HYPERPARAMETERS)
            shutil.copytree(channels, host.root / "input" / "data", copy_function=shutil.copyfile)
        yield made, hosts_file


def state(head: Host) -> dict[str, int]:
    """The last checkpoint's state; {} before the first."""
    try:
        found: dict[str, int] = json.loads((head.root / "checkpoints/last/state.json").read_text())
    except FileNotFoundError:
        return {}
    return found


def test_a_host_that_cannot_begin_fails_all(hosts: tuple[list[Host], Path]) -> None:
    """The head names it, before the job has cost anything."""
    (head, other), hosts_file = hosts
    write_contract(other, ["algo-1", "algo-2"], {"num_trian_steps": "2"})
    for host in (head, other):
        host.start(hosts_file)
    assert other.wait(60) == 1
    assert head.wait(60) == 1
    told = "hyperparameter 'num_trian_steps' is unknown; did you mean 'num_train_steps'?"
    assert other.failure == f"host algo-2: {told}"
    assert head.failure == f"host algo-2 failed: {told}"
    write_contract(other, ["algo-1", "algo-2"], HYPERPARAMETERS)


def test_a_stop_ends_the_job_at_once(hosts: tuple[list[Host], Path]) -> None:
    """SIGTERM, as of a spot instance that is taken: no failure, Ray and the job are gone."""
    (head, _), hosts_file = hosts
    write_contract(head, ["algo-1"], HYPERPARAMETERS)
    head.start(hosts_file)
    wait_for(lambda: "the job starts" in head.text(), [head], 240)
    head.ask_to_stop()
    assert head.wait(60) == 143
    assert "stopped by SageMaker; the run resumes from its checkpoints" in head.text()
    assert head.failure == ""
    write_contract(head, ["algo-1", "algo-2"], HYPERPARAMETERS)
    head.log.write_text("")


def test_a_lost_head_ends_the_others_which_name_it(hosts: tuple[list[Host], Path]) -> None:
    """Though nobody answers the other one any more."""
    (head, other), hosts_file = hosts
    for host in (head, other):
        host.start(hosts_file)
    wait_for(lambda: "the job starts" in head.text(), [head, other], 240)
    head.kill()
    assert other.wait(END_S) == 1
    assert "the head, host algo-1, is lost" in other.failure


def test_a_lost_host_ends_the_head_which_names_it(hosts: tuple[list[Host], Path]) -> None:
    """With a checkpoint to go on from."""
    (head, other), hosts_file = hosts
    for host in (head, other):
        host.start(hosts_file)
    wait_for(lambda: bool(state(head)), [head, other], 400)
    other.kill()
    assert head.wait(END_S) == 1
    assert "host algo-2 is lost" in head.failure
    assert not (head.root / "model" / "1").exists()


def test_the_next_start_resumes_and_leaves_the_model(hosts: tuple[list[Host], Path]) -> None:
    """Both hosts end well, and the tree is what the course expects."""
    (head, other), hosts_file = hosts
    reached = state(head)["step"]
    shutil.rmtree(other.root / "urbandet")  # another machine, with the channels brought anew
    for path in (other.root / "input" / "data").rglob("*.tfrecord"):
        path.touch()
    for host in (head, other):
        host.log.write_text("")
        host.start(hosts_file)
    assert head.wait(400) == 0, head.text() + other.text()
    assert other.wait(30) == 0, other.text()
    assert f"resumed from the checkpoint of step {reached}" in head.text()
    assert "2 workers of 1 cores each have started" in head.text()
    assert "the head's checkpoint is here too" in other.text()
    assert state(head)["step"] == STEPS
    assert (head.failure, other.failure) == ("", "")
    model = head.root / "model"
    for name in ("1/saved_model.pb", "1/variables/variables.index", "label_map.pbtxt"):
        assert (model / name).is_file(), name
    for name in ("network.json", "label_map.pbtxt", "saved_model/saved_model.pb"):
        assert (model / "optimized" / "savedmodel" / name).is_file(), name
    assert json.loads((model / "training.json").read_text())["steps"] == STEPS
    frames = json.loads((head.root / "checkpoints/config.json").read_text())["evaluation"]["frames"]
    assert frames == 4  # every second of 7
    synced = list((head.root / "output" / "tensorboard").glob("events.*"))
    kept = list((head.root / "checkpoints" / "tensorboard").glob("events.*"))
    assert {one.name: one.stat().st_size for one in synced} == {
        one.name: one.stat().st_size for one in kept
    }
    assert not (other.root / "checkpoints").exists()  # SageMaker would copy it over the head's
