"""`urbandet sagemaker ...`: the same run config as a job of SageMaker's, and what becomes of it."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from urbandet_ray.config import InferConfig, TrainConfig, load_config
from urbandet_ray.errors import ConfigError, NotFoundError, RunError
from urbandet_ray.launch.jobs import Say
from urbandet_ray.launch.sagemaker import account, hosting
from urbandet_ray.launch.sagemaker.price import Estimate, Use, hourly_price
from urbandet_ray.launch.sagemaker.request import Machines, TrainingJob, hyperparameters_of
from urbandet_ray.launch.secrets import refuse_secrets
from urbandet_ray.models.archives import unpack
from urbandet_ray.models.classes import builtin_mappings
from urbandet_ray.models.zoo import model_config_path
from urbandet_ray.storage import Storage, is_remote, join_uri

Confirm = Callable[[str], bool]

_LOOK_EVERY_S = 15.0


@dataclass(frozen=True)
class JobOrder:
    """What a person says of a job beside its run config.

    Attributes:
        image, role: URI in ECR, and ARN.
        region: None is the environment's or profile's.
        price: US dollars an hour and instance; None asks AWS's price list.
        name: None is made of the time.
    """

    image: str
    role: str
    out: str
    machines: Machines
    region: str | None = None
    price: float | None = None
    name: str | None = None
    tags: Mapping[str, str] | None = None


def train(
    config: TrainConfig,
    order: JobOrder,
    *,
    storage: Storage,
    say: Say,
    confirm: Confirm,
    pretrained: str | None = None,
    checkpoints: str | None = None,
    optimized: str | None = None,
) -> str:
    """Start a training job, once the person has agreed to its price.

    A pipeline.config of this machine is copied to S3 for it; label maps, a mapping and a checkpoint
    have to be there.

    Args:
        storage: writes them.
        confirm: asked with the price; False starts nothing.
        pretrained: s3:// folder of a checkpoint to start from.
        checkpoints: s3:// prefix of an earlier job's, to go on from.
        optimized: formats of the networks beside the stock export.

    Returns:
        The job's name; "" where nothing was started.

    Raises:
        UrbandetError: what is wrong, before anything costs.
    """
    name = _name(order)
    if config.data is None:
        raise ConfigError("a job needs data: s3://BUCKET/PREFIX with train/, val/, label_map.pbtxt")
    channels = {"data": config.data}
    if pretrained is not None:
        channels["pretrained"] = pretrained
        config = _without_checkpoint(config)
    config, files = _files_to_bring(config)
    if files:
        channels["config"] = join_uri(order.out, name, "config")
    job = TrainingJob(
        name=name,
        image=order.image,
        role=order.role,
        out=order.out,
        channels=channels,
        hyperparameters=hyperparameters_of(config, optimized),
        machines=order.machines,
        checkpoints=checkpoints,
        tags=order.tags or {},
    )
    if not _agreed(order, "Train", order.machines.hours, say, confirm):
        return ""
    for path in files:
        storage.upload_file(path, join_uri(channels["config"], path.name))
    account.create_training_job(job.to_request(), order.region)
    say(f"{name} is starting: urbandet sagemaker status {name}")
    return name


def status(name: str, region: str | None) -> account.JobStatus | hosting.BatchStatus:
    """How a training job is, or a processing job where no training job has the name.

    Raises:
        NotFoundError: there is neither.
    """
    try:
        return account.describe_training_job(name, region)
    except NotFoundError as training:
        try:
            return hosting.describe_processing_job(name, region)
        except NotFoundError:
            raise training from None


def stop(name: str, region: str | None) -> str:
    """Stop a training or processing job; what to say."""
    told = status(name, region)
    if told.has_ended:
        return f"{name} has ended already: {told.status}"
    if isinstance(told, hosting.BatchStatus):
        hosting.stop_processing_job(name, region)
        return f"{name} is stopping; a processing job does not resume"
    account.stop_training_job(name, region)
    return f"{name} is stopping; its checkpoints stay at {told.run or told.checkpoints}"


def follow_logs(name: str, region: str | None, *, follow: bool, say: Say) -> None:
    """Print a job's log; with `follow` until it ends."""
    seen: dict[str, str] = {}
    ended = False
    while True:
        told = status(name, region)  # before the last look at the log
        for line in account.log_lines(name, told.log_group, region, seen):
            say(line)
        if not follow or ended:
            say(told.to_text().partition("\n")[0])
            return
        ended = told.has_ended  # CloudWatch is behind: one more look after the end
        time.sleep(_LOOK_EVERY_S)


def fetch(name: str, out: Path, region: str | None, storage: Storage) -> list[str]:
    """Bring a completed job's model here, whole or not at all; the names of its files.

    Raises:
        RunError: the job is not completed, or something is at `out` already.
        ModelError: the archive is damaged, or not safe to unpack.
    """
    artifact = _artifact(name, region)
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise RunError(f"{out} is there already: give another --out, or move it away")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".fetch-") as scratch:
        archive, unpacked = Path(scratch) / "model.tar.gz", Path(scratch) / "model"
        storage.download_file(artifact, archive)
        unpacked.mkdir()
        unpack(archive, unpacked, artifact)
        if out.is_dir():
            out.rmdir()
        shutil.move(unpacked, out)
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


def deploy(
    order: JobOrder, model: str, *, score_min: float, most: int, say: Say, confirm: Confirm
) -> str:
    """Put a model behind an endpoint, once the person has agreed to its price.

    Args:
        model: s3:// place of a model.tar.gz, or the name of a completed training job.

    Returns:
        The endpoint's name; "" where nothing was started.
    """
    endpoint = hosting.Endpoint(
        name=_name(order),
        image=order.image,
        role=order.role,
        artifact=model if is_remote(model) else _artifact(model, order.region),
        machines=order.machines,
        score_min=score_min,
        most=most,
        tags=order.tags or {},
    )
    if not _agreed(order, "Host", None, say, confirm):
        return ""
    hosting.create_endpoint(endpoint, order.region)
    say(f"{endpoint.name} is starting; it costs until `urbandet sagemaker delete {endpoint.name}`")
    return endpoint.name


def batch(
    order: JobOrder,
    records: str,
    *,
    model: str | None,
    settings: tuple[str, ...],
    say: Say,
    confirm: Confirm,
) -> str:
    """Infer records in S3 as a processing job; its name, "" where nothing was started.

    Args:
        settings: `key=value` overrides of the run config.

    Raises:
        ConfigError: they do not fit, or hold a secret.
    """
    load_config(InferConfig, None, [f"input={records}", f"output={order.out}", *settings])
    refuse_secrets(settings, os.environ)
    job = hosting.ProcessingJob(
        name=_name(order),
        image=order.image,
        role=order.role,
        records=records,
        out=order.out,
        machines=order.machines,
        artifact=model,
        settings=settings,
        tags=order.tags or {},
    )
    if not _agreed(order, "Processing", order.machines.hours, say, confirm):
        return ""
    hosting.create_processing_job(job, order.region)
    say(f"{job.name} is starting; the run folder will be {order.out}")
    return job.name


def delete(name: str, region: str | None) -> str:
    """Delete an endpoint with its config and model; what to say."""
    gone = hosting.delete_endpoint(name, region)
    if not gone:
        raise NotFoundError(f"there is no endpoint, endpoint config or model {name}")
    return f"deleted: {', '.join(gone)} {name}"


def _name(order: JobOrder) -> str:
    """As given, else of the time; two commands of one second get two."""
    return order.name or f"urbandet-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"


def _artifact(name: str, region: str | None) -> str:
    """Where a completed job's model.tar.gz is.

    Raises:
        RunError: the job has none.
    """
    told = account.describe_training_job(name, region)
    if not told.artifact:
        reason = f": {told.reason}" if told.reason else ""
        raise RunError(f"{name} has no model: it is {told.status} ({told.detail}){reason}")
    return told.artifact


def _agreed(order: JobOrder, use: Use, hours: float | None, say: Say, confirm: Confirm) -> bool:
    machines = order.machines
    price, source = order.price, "--price"
    if price is None:
        price = hourly_price(machines.instance, _region(order.region), use)
        source = "AWS's price list, on demand"
    spot = machines.spot_wait_hours is not None
    say(Estimate(price, source, machines.count, hours, spot).to_text())
    return confirm("Start it?")


def _region(given: str | None) -> str:
    return str(account.client("sagemaker", given).meta.region_name)


def _without_checkpoint(config: TrainConfig) -> TrainConfig:
    """The channel says what to start from."""
    tree = config.model_dump(mode="json", exclude_unset=True)
    tree.get("fine_tune", {}).pop("checkpoint", None)
    return TrainConfig(**tree)


def _files_to_bring(config: TrainConfig) -> tuple[TrainConfig, list[Path]]:
    """The config with names for the files of this machine, and those files.

    Raises:
        ConfigError: a checkpoint, label map or mapping of this machine.
        NotFoundError: a file is not there.
    """
    tree = config.model_dump(mode="json", exclude_unset=True)
    start = tree.get("fine_tune", {}).get("checkpoint")
    if start and not is_remote(start):
        raise ConfigError(
            f"fine_tune.checkpoint is {start}, which the job's hosts do not have: fetch it "
            "(urbandet models fetch), copy its folder to S3 (aws s3 sync) and give that with "
            "--pretrained"
        )
    files = []
    if config.pipeline is not None and not is_remote(config.pipeline):
        path = Path(config.pipeline)
        if path.is_file():
            files.append(path)
            tree["pipeline"] = path.name
        else:
            model_config_path(config.pipeline.removesuffix(".config"))  # or it is not there
    named = {"labels": config.labels, "fine_tune.labels": config.fine_tune.labels}
    if config.fine_tune.mapping not in builtin_mappings():
        named["fine_tune.mapping"] = config.fine_tune.mapping
    for key, given in named.items():
        if given and not is_remote(given):
            raise ConfigError(f"{key} is {given}: copy it to S3 and give its s3:// place")
    return TrainConfig(**tree), files
