"""From a container's channels and hyperparameters to the run config, and to the model folder."""

import io
import json
import tarfile
from pathlib import Path

import pytest
from conftest import S3Server
from drives import write_drive

from urbandet_ray.commands.train import TrainReport
from urbandet_ray.entrypoints import sagemaker_batch
from urbandet_ray.entrypoints import sagemaker_container as entry
from urbandet_ray.entrypoints import sagemaker_training as sagemaker_job
from urbandet_ray.entrypoints.sagemaker_training import make_config, write_model
from urbandet_ray.errors import ConfigError, NotFoundError
from urbandet_ray.labels import STREET_LABELS
from urbandet_ray.launch.sagemaker.container import Container
from urbandet_ray.launch.sagemaker.hyperparameters import Settings, read_hyperparameters
from urbandet_ray.models.shipped import SHIPPED_FOLDER

REPOSITORY = Path(__file__).parent.parent.parent.parent


def container(root: Path, hosts: int = 1) -> Container:
    """The head, with the channels train, val, config and pretrained."""
    data = root / "input" / "data"
    for name, count in (("train/a", 3), ("val/b", 5)):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        write_drive(data / f"{name}.tfrecord", count)
    for name in (
        "config/label_map.pbtxt",
        "config/mine.config",
        "pretrained/ckpt-7.index",
        "pretrained/ckpt-7.data-00000-of-00001",
    ):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text(STREET_LABELS.to_pbtxt() if name.endswith("pbtxt") else "")
    channels = {folder.name: folder for folder in sorted(data.iterdir())}
    names = tuple(f"algo-{number + 1}" for number in range(hosts))
    return Container(root, names, "algo-1", "lo", {}, channels)


def test_channels_and_hyperparameters_become_a_run_config(tmp_path: Path) -> None:
    """The run folder is the checkpoints folder; the only pipeline.config is found."""
    here = container(tmp_path, hosts=3)
    config = make_config(here, read_hyperparameters({"steps": "20", "seed": "4"}), gpus=0)
    assert Path(config.output).resolve() == here.checkpoints
    assert config.data == str(here.own / "data")
    assert config.pipeline == str(here.channels["config"] / "mine.config")
    assert config.labels == str(here.channels["config"] / "label_map.pbtxt")
    assert config.fine_tune.checkpoint == str(here.channels["pretrained"] / "ckpt-7")
    assert (config.steps, config.seed) == (20, 4)
    workers = config.workers
    assert (workers.count, workers.gpus, workers.first_here, workers.max_failures) == (
        3,
        0,
        True,
        0,
    )


def test_there_are_as_many_workers_as_gpus(tmp_path: Path) -> None:
    """Unless the hyperparameters say something else."""
    here = container(tmp_path)
    config = make_config(here, Settings({}), gpus=8)
    assert (config.workers.count, config.workers.gpus) == (8, 1)
    assert config.workers.max_failures == 3  # one host: its workers see the run folder
    given = read_hyperparameters({"workers.count": "2", "workers.gpus": "0"})
    config = make_config(here, given, gpus=8)
    assert (config.workers.count, config.workers.gpus) == (2, 0)


def test_a_yaml_of_the_config_channel_comes_first(tmp_path: Path) -> None:
    """Then what the hyperparameters say."""
    here = container(tmp_path)
    (here.channels["config"] / "run.yaml").write_text("output: x\nsteps: 5\nseed: 6\n")
    config = make_config(here, read_hyperparameters({"num_train_steps": "7"}), gpus=0)
    assert (config.steps, config.seed) == (7, 6)
    assert Path(config.output).resolve() == here.checkpoints


def test_a_run_folder_on_s3_needs_no_sharing(tmp_path: Path) -> None:
    """All hosts see it, so workers are made up for and rollbacks go back."""
    given = {"output": "s3://drives/run", "divergence.action": "rollback"}
    config = make_config(container(tmp_path, hosts=2), read_hyperparameters(given), gpus=0)
    assert (config.output, config.workers.max_failures) == ("s3://drives/run", 3)
    assert not config.workers.first_here


def test_a_rollback_on_several_hosts_needs_one(tmp_path: Path) -> None:
    """The others would go back to another step."""
    given = read_hyperparameters({"divergence.action": "rollback"})
    with pytest.raises(
        ConfigError, match="on several hosts needs a run folder that all of them see"
    ):
        make_config(container(tmp_path, hosts=2), given, gpus=0)
    make_config(container(tmp_path), given, gpus=0)


def test_a_sample_of_the_validation_frames(tmp_path: Path) -> None:
    """One of two of five is three, spread over all."""
    given = read_hyperparameters({"sample_1_of_n_eval_examples": "2"})
    assert make_config(container(tmp_path), given, gpus=0).evaluation.frames == 3


def test_the_validation_frames_may_be_under_another_name(tmp_path: Path) -> None:
    """Of those that training takes; without any there is nothing to take a sample of."""
    data = tmp_path / "input" / "data" / "data"
    for name, count in (("train/a", 3), ("validation/b", 5)):
        (data / name).parent.mkdir(parents=True)
        write_drive(data / f"{name}.tfrecord", count)
    here = Container(tmp_path, ("algo-1",), "algo-1", "lo", {}, {"data": data})
    given = read_hyperparameters({"sample_1_of_n_eval_examples": "2", "pipeline": "x"})
    assert make_config(here, given, gpus=0).evaluation.frames == 3
    (data / "validation").rename(data / "test")
    alone = Settings({"data": str(data), "pipeline": "x"}, eval_one_of=2)
    with pytest.raises(NotFoundError, match="has no val/ with TFRecord files, it holds train 1"):
        make_config(Container(tmp_path, ("algo-1",), "algo-1", "lo", {}, {}), alone, gpus=0)


@pytest.mark.ray
def test_more_workers_than_gpus_fail_the_job_at_once(
    tmp_path: Path, ray_dashboard: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray Train would wait for the GPU that never comes, at full price."""
    container(tmp_path)
    config = tmp_path / "input" / "config"
    config.mkdir(parents=True)
    (config / "hyperparameters.json").write_text('{"workers.count": "5", "workers.gpus": "1"}')
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    assert sagemaker_job.main() == 1
    reason = (tmp_path / "urbandet" / entry.REASON_NAME).read_text()
    assert reason.startswith("each worker needs 1 CPU, 1 GPU, and there is room for 2 of 5 workers")


def test_a_name_of_configs_models_stays(tmp_path: Path) -> None:
    """Where no file of that name came along."""
    given = read_hyperparameters({"pipeline_config_path": "efficientdet_d1_640"})
    assert make_config(container(tmp_path), given, gpus=0).pipeline == "efficientdet_d1_640"


@pytest.mark.s3
def test_a_notebooks_source_dir_is_looked_into(
    tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As SageMaker's SDK packs it."""
    import boto3

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint_url)
    s3_server.make_bucket("notebook")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        member = tarfile.TarInfo("pipeline.config")
        member.size = 9
        tar.addfile(member, io.BytesIO(b"model { }"))
    client = boto3.client("s3")
    client.put_object(Bucket="notebook", Key="sourcedir.tar.gz", Body=packed.getvalue())
    given = {
        "pipeline_config_path": '"pipeline.config"',
        "sagemaker_submit_directory": '"s3://notebook/sourcedir.tar.gz"',
    }
    here = container(tmp_path)
    config = make_config(here, read_hyperparameters(given), gpus=0)
    assert config.pipeline == str(here.own / "submitted" / "pipeline.config")
    assert Path(config.pipeline).read_bytes() == b"model { }"


def test_a_model_of_ones_own_leaves_its_checkpoint(tmp_path: Path) -> None:
    """There is no exporter for it; what was in the model folder before is replaced."""
    here = container(tmp_path)
    here.own.mkdir()
    run = tmp_path / "run"
    (run / "best").mkdir(parents=True)
    (run / "best" / "ckpt-9.index").write_text("index")
    (run / "label_map.pbtxt").write_text("item {}")
    (here.model / "best").mkdir(parents=True)
    (here.model / "best" / "ckpt-3.index").write_text("old")
    report = TrainReport(str(run), 9, 9, 0.5, 0.5, False, exports=False)
    write_model(report, Settings({}), here)
    names = sorted(path.relative_to(here.model).as_posix() for path in here.model.rglob("*.*"))
    assert names == ["best/ckpt-9.index", "label_map.pbtxt", "training.json"]
    assert json.loads((here.model / "training.json").read_text())["best_map"] == 0.5


def test_a_wrong_hyperparameter_fails_the_job_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Ray is started, with the host in the reason that SageMaker shows."""
    config = tmp_path / "input" / "config"
    config.mkdir(parents=True)
    resources = {"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "lo"}
    (config / "resourceconfig.json").write_text(json.dumps(resources))
    (config / "hyperparameters.json").write_text('{"num_trian_steps": "2"}')
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    monkeypatch.setattr("signal.signal", lambda *_: None)  # pytest keeps its own
    assert entry.main(["train"]) == 1
    assert (tmp_path / "output" / "failure").read_text() == (
        "host algo-1: hyperparameter 'num_trian_steps' is unknown; did you mean 'num_train_steps'?"
    )


def test_a_processing_job_that_fails_leaves_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where SageMaker looks for it, as long as it shows it."""
    monkeypatch.setenv("PROCESSING_BASE_DIR", str(tmp_path / "processing"))
    assert sagemaker_batch.main(["trak.enabled=true"]) == 1
    reason = (tmp_path / "output" / "message").read_text()
    assert "did you mean 'track'" in reason
    sagemaker_batch.main([f"{'x' * 2000}=1"])
    assert len((tmp_path / "output" / "message").read_text()) == 1024


@pytest.mark.ray
def test_a_processing_job_infers_its_input(
    ray_dashboard: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run folder is its output; the model came as an input."""
    records = tmp_path / "input" / "records"
    records.mkdir(parents=True)
    write_drive(records / "a.tfrecord", 3)
    model = tmp_path / "input" / "model"
    model.mkdir()
    for name in ("street-ssd-320.tflite", "label_map.pbtxt"):
        (model / name).write_bytes((SHIPPED_FOLDER / name).read_bytes())
    monkeypatch.setenv("PROCESSING_BASE_DIR", str(tmp_path))
    assert sagemaker_batch.main(["actors.min=1", "draw.enabled=false"]) == 0
    manifest = json.loads((tmp_path / "output" / "run.json").read_text())
    assert manifest["model"]["uri"] == str(model / "street-ssd-320.tflite")
    assert list((tmp_path / "output" / "commit").glob("*.json"))
