"""The job of a SageMaker training, on the first host: train, then lay out what model.tar.gz holds.

    model/1/saved_model.pb       the stock export, as TensorFlow Serving and the course expect it
    model/optimized/FORMAT/      networks for batches (`urbandet infer --model` takes them)
    model/label_map.pbtxt, model/pipeline.config, model/training.json

Its hyperparameters are a run config's keys: what is trained is what `urbandet train` trains.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from urbandet_ray.commands.display import show_findings, train_progress
from urbandet_ray.commands.export import export
from urbandet_ray.commands.train import TrainReport, train
from urbandet_ray.config import RayConfig, TrainConfig, load_config
from urbandet_ray.entrypoints.sagemaker_container import REASON_NAME
from urbandet_ray.errors import ConfigError, RunError, UrbandetError
from urbandet_ray.inference.session import ray_session
from urbandet_ray.json_files import to_json
from urbandet_ray.launch.needs import processes_of
from urbandet_ray.launch.nodes import node_kinds, node_resources
from urbandet_ray.launch.room import check_room
from urbandet_ray.launch.sagemaker import staging
from urbandet_ray.launch.sagemaker.container import Container, read_container
from urbandet_ray.launch.sagemaker.hyperparameters import Settings, read_hyperparameters
from urbandet_ray.launch.sagemaker.raynode import wait_for_nodes
from urbandet_ray.models.archives import unpack
from urbandet_ray.records.data_folder import read_data_folder
from urbandet_ray.records.sources import read_source
from urbandet_ray.storage import Storage, is_remote


def main() -> int:
    """Train and export; 0 done, 1 failed, with the reason where entry.py looks for it."""
    container = read_container()
    reason = container.own / REASON_NAME
    reason.unlink(missing_ok=True)
    try:
        settings = read_hyperparameters(container.hyperparameters)
        with ray_session(RayConfig()):
            gpus = wait_for_nodes(len(container.hosts))
            config = make_config(container, settings, gpus)
            refuse_too_many(config)
            with train_progress() as on_notice:
                report = train(config, on_notice=on_notice, on_findings=show_findings)
        write_model(report, settings, container)
    except UrbandetError as error:
        reason.parent.mkdir(parents=True, exist_ok=True)
        reason.write_text(str(error), "utf-8")
        sys.stderr.write(f"error: {error}\n")  # the log of the job
        return 1
    sys.stdout.write(f"{report.to_text().splitlines()[0]}\n{container.model} is complete\n")
    return 0


def refuse_too_many(config: TrainConfig) -> None:
    """See that the hosts have room for the workers: Ray Train would wait for more for ever.

    Raises:
        RunError: they have not.
    """
    need = processes_of(config, node_resources())
    if need is None:
        return
    check = check_room(need, node_kinds()[0], can_grow_unseen=False)
    if check.verdict == "fail":
        raise RunError(check.text)


def make_config(container: Container, settings: Settings, gpus: int) -> TrainConfig:
    """The run config of a job.

    A YAML in the channel `config` comes first, then what the channels say, then the
    hyperparameters; then what a job on several hosts needs.

    Args:
        gpus: of all hosts together.

    Raises:
        ConfigError: the settings do not fit together.
        NotFoundError: a channel does not hold what it should.
    """
    yaml = staging.only_file(container, staging.CONFIG, (".yaml", ".yml"))
    given: dict[str, Any] = {
        "output": str(staging.run_folder(container)),
        "workers.count": gpus or len(container.hosts),
        "workers.gpus": 1 if gpus else 0,
    }
    given |= _from_channels(container)
    given |= settings.overrides
    if (pipeline := _pipeline(container, settings, given.get("pipeline"))) is not None:
        given["pipeline"] = pipeline
    config = load_config(TrainConfig, yaml, given)
    if settings.eval_one_of > 1 and config.evaluation.frames is None:
        frames = _one_of(config, settings.eval_one_of)
        config = load_config(TrainConfig, yaml, given | {"evaluation.frames": frames})
    return _for_hosts(config, container)


def _from_channels(container: Container) -> dict[str, Any]:
    data = staging.data_folder(container)
    labels = staging.label_map(container)
    checkpoint = staging.pretrained_checkpoint(container)
    found = {"data": data, "labels": labels, "fine_tune.checkpoint": checkpoint}
    return {key: str(value) for key, value in found.items() if value is not None}


def _pipeline(container: Container, settings: Settings, named: str | None) -> str | None:
    """Where the pipeline.config lies: what was submitted, a channel, or one of configs/models."""
    if named is None:
        alone = staging.only_file(container, staging.CONFIG, (".config",))
        return str(alone) if alone else None
    if named.startswith(("/", "s3://")):
        return named
    submitted = None
    if settings.submitted:
        submitted = container.own / "submitted"
        if not submitted.is_dir():
            _unpack_submitted(settings.submitted, submitted)
    return staging.find_in_channels(container, named, submitted)


def _unpack_submitted(uri: str, folder: Path) -> None:
    """The source_dir of a notebook, which SageMaker's SDK packed."""
    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch) / "submitted.tar.gz"
        Storage().download_file(uri, archive)
        unpacked = Path(scratch) / "unpacked"
        unpacked.mkdir()
        unpack(archive, unpacked, uri)
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(unpacked, folder)


def _one_of(config: TrainConfig, count: int) -> int:
    """Validation frames that a sample of one in `count` comes to.

    Raises:
        ConfigError: the records' place is only in the pipeline.config.
        NotFoundError: the data have none to validate with.
    """
    if config.data is None:
        raise ConfigError(
            "sample_1_of_n_eval_examples needs the records as channels or data; evaluation.frames "
            "says how many frames to judge by"
        )
    storage = Storage()
    _, val = read_data_folder(config.data, storage, config.labels).for_training()
    frames = sum(
        record.frame is not None
        for source in val.records
        for record in read_source(source, storage)
    )
    return max(1, -(-frames // count))


def _for_hosts(config: TrainConfig, container: Container) -> TrainConfig:
    """What a local run folder asks for: the head has it, the others a copy of its beginning."""
    if is_remote(config.output):
        return config
    workers = config.workers.model_copy(update={"first_here": True})
    if len(container.hosts) > 1:
        if config.divergence.action == "rollback":
            raise ConfigError(
                "divergence.action=rollback on several hosts needs a run folder that all of them "
                "see: set output to s3://BUCKET/PREFIX, or divergence.action to stop"
            )
        workers = workers.model_copy(update={"max_failures": 0})
    return config.model_copy(update={"workers": workers})


def write_model(report: TrainReport, settings: Settings, container: Container) -> None:
    """Lay out the model folder; whole or not at all, but for what was there before.

    Raises:
        ModelError: the model does not go into one of the formats.
    """
    storage, model = Storage(), container.model
    model.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=container.own, prefix="model-") as made:
        whole = Path(made)
        if report.exports:
            stock = export(report.run, out=str(whole / "stock"), storage=storage)
            shutil.move(stock.model, whole / "1")
            shutil.rmtree(whole / "stock")
            for name in settings.optimized:
                folder = str(whole / "optimized" / name)
                export(report.run, out=folder, storage=storage, format=name)  # type: ignore[arg-type]
            storage.download_file(f"{report.run}/pipeline.config", whole / "pipeline.config")
        else:  # a model of the user's own: its checkpoint is all that we know to export
            for file in storage.list_files(f"{report.run}/best"):
                storage.download_file(file.uri, whole / "best" / file.uri.rpartition("/")[2])
        storage.download_file(f"{report.run}/label_map.pbtxt", whole / "label_map.pbtxt")
        (whole / "training.json").write_bytes(to_json(vars(report)))
        for part in sorted(whole.iterdir()):
            target = model / part.name
            if target.is_dir():
                shutil.rmtree(target)
            shutil.move(part, target)


if __name__ == "__main__":
    sys.exit(main())
