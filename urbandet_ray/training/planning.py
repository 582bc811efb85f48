"""From a config to a plan: files found, the pipeline.config resolved, the doctor asked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from urbandet_ray.config.training_config import TrainConfig
from urbandet_ray.errors import ConfigError, InputError, LabelError, NotFoundError
from urbandet_ray.labels import LabelMap
from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.models.pipeline_config import PipelineConfig, read_pipeline
from urbandet_ray.models.zoo import cached_model, find_model, model_config_path, zoo_folder
from urbandet_ray.records.sources import Source, list_sources
from urbandet_ray.storage import Storage, join_uri
from urbandet_ray.training.building import find_model_builder
from urbandet_ray.training.doctor.examine import examine, find_data
from urbandet_ray.training.doctor.findings import Finding
from urbandet_ray.training.optimisation.batchnorm import set_mode
from urbandet_ray.training.plan import TrainPlan

_EVALUATIONS, _CHECKPOINTS = 10, 20
"""A run has so many unless told otherwise."""


@dataclass(frozen=True)
class Planned:
    """A plan, and what the doctor says to it."""

    plan: TrainPlan
    findings: tuple[Finding, ...]


def plan_run(config: TrainConfig, storage: Storage) -> Planned:
    """Resolve a config: find its files, fill in its defaults, examine the pipeline.config.

    Raises:
        ConfigError: the settings do not fit together, or the pipeline.config is none.
        NotFoundError: a file is not there.
        InputError: no records.
    """
    if (config.pipeline is None) == (config.model is None):
        raise ConfigError(
            "a run trains either a pipeline.config (pipeline: FILE or one of configs/models) or a "
            "model of your own (model: my_package.module:build); set one of them"
        )
    data = find_data(config.data, storage) if config.data else {}
    if config.pipeline is None:
        return Planned(_own_model_plan(config, data, storage), ())
    given = read_pipeline(_pipeline_uri(config.pipeline, storage), storage)
    message = given.message
    _resolve(message, config, data, storage)
    pipeline = given.with_message(message)
    plan = _plan(config, pipeline, storage)
    examined = examine(
        pipeline,
        storage,
        steps=plan.steps,
        workers=config.workers.count * config.batch.accumulate,
    )
    return Planned(plan, _relevant(examined.findings, config))


def _resolve(message: Any, config: TrainConfig, data: dict[str, str], storage: Storage) -> None:
    """Put what this run decides into the pipeline.config, so that it says what is trained."""
    train, reader = message.train_config, message.train_input_reader
    if not message.eval_input_reader:
        message.eval_input_reader.add()
    val = message.eval_input_reader[0]
    train.batch_size = config.batch.per_worker or train.batch_size
    train.num_steps = config.steps or train.num_steps
    if not (train.batch_size and train.num_steps):
        raise ConfigError(
            "the pipeline.config has no train_config.batch_size or num_steps: set "
            "batch.per_worker and steps"
        )
    for one, key in ((reader, "train"), (val, "val")):
        one.label_map_path = config.labels or data.get("train labels") or one.label_map_path
        if config.data and f"{key} records" not in data:
            raise NotFoundError(
                f"{config.data} has no {key}/ with records: expected train/, val/ and "
                "label_map.pbtxt; `urbandet data` has what makes them"
            )
        if config.data:
            one.tf_record_input_reader.input_path[:] = [data[f"{key} records"]]
    start = config.fine_tune.checkpoint
    start = train.fine_tune_checkpoint if start is None else start
    train.fine_tune_checkpoint = find_checkpoint(start, storage) if start else ""
    kind = config.fine_tune.kind
    if start and kind != "config":
        train.fine_tune_checkpoint_type = "detection" if kind == "heads" else kind
    set_mode(message, config.batch_norm.mode)


def _plan(config: TrainConfig, pipeline: PipelineConfig, storage: Storage) -> TrainPlan:
    message = pipeline.message
    train = message.train_config
    readers = (message.train_input_reader, message.eval_input_reader[0])
    steps = int(train.num_steps)
    clip = config.optimizer.clip_norm
    return _with_periods(
        TrainPlan(
            run_uri=config.output,
            storage=storage,
            config=config,
            pipeline=pipeline,
            labels=_labels(readers[0].label_map_path, storage),
            train=_sources(readers[0].tf_record_input_reader.input_path, storage, "training"),
            val=_sources(readers[1].tf_record_input_reader.input_path, storage, "validation"),
            steps=steps,
            batch_size=int(train.batch_size),
            evaluate_every=0,
            checkpoint_every=0,
            clip_norm=float(train.gradient_clipping_by_norm) if clip is None else clip,
            fine_tune=train.fine_tune_checkpoint or None,
        )
    )


def _own_model_plan(config: TrainConfig, data: dict[str, str], storage: Storage) -> TrainPlan:
    """A plan without a pipeline.config: the config has to say everything."""
    _check_own_model(config)
    places = [data.get(key) for key in ("train records", "val records", "train labels")]
    if None in places and not (config.labels and None not in places[:2]):
        raise NotFoundError(f"{config.data} needs train/, val/ and label_map.pbtxt")
    open_odapi()  # before a module of the user's can import TensorFlow with another Keras
    find_model_builder(str(config.model))  # a wrong name leaves no run folder behind
    start = config.fine_tune.checkpoint
    return _with_periods(
        TrainPlan(
            run_uri=config.output,
            storage=storage,
            config=config,
            pipeline=None,
            labels=_labels(config.labels or str(places[2]), storage),
            train=_sources([str(places[0])], storage, "training"),
            val=_sources([str(places[1])], storage, "validation"),
            steps=config.steps or 0,
            batch_size=config.batch.per_worker or 0,
            evaluate_every=0,
            checkpoint_every=0,
            clip_norm=config.optimizer.clip_norm or 0.0,
            fine_tune=find_checkpoint(start, storage) if start else None,
        )
    )


def _check_own_model(config: TrainConfig) -> None:
    """Refuse what is missing without a pipeline.config, and what nothing would come of."""
    needed = {
        "data": config.data,
        "steps": config.steps,
        "batch.per_worker": config.batch.per_worker,
        "schedule.rate": config.schedule.rate,
        "optimizer.kind": None if config.optimizer.kind == "config" else config.optimizer.kind,
    }
    missing = [key for key, value in needed.items() if value is None]
    if missing or config.schedule.kind == "config" or config.augmentation.preset == "config":
        missing += [] if config.schedule.kind != "config" else ["schedule.kind"]
        missing += [] if config.augmentation.preset != "config" else ["augmentation.preset"]
        raise ConfigError(
            f"a model of your own has no pipeline.config to take defaults from: set "
            f"{', '.join(missing)}"
        )
    unheard = {
        "precision": config.precision != "float32",
        "batch_norm.mode": config.batch_norm.mode != "train",
    }
    if any(unheard.values()):
        raise ConfigError(
            f"{' and '.join(key for key in unheard if unheard[key])} cannot be set for a model of "
            "your own, which decides that itself: leave it out"
        )


def _with_periods(plan: TrainPlan) -> TrainPlan:
    config, steps = plan.config, plan.steps
    return replace(
        plan,
        evaluate_every=config.evaluation.every or max(1, steps // _EVALUATIONS),
        checkpoint_every=config.checkpoint.every or max(1, steps // _CHECKPOINTS),
    )


def find_checkpoint(uri: str, storage: Storage) -> str:
    """The prefix (".../ckpt-0") of a checkpoint given as such, as a folder, or as a zoo model.

    Raises:
        NotFoundError: there is none.
    """
    if "/" not in uri and not storage.exists(f"{uri}.index"):
        found = cached_model(find_model(uri), zoo_folder())
        if found is None:
            raise NotFoundError(f"{uri} is not on this machine: urbandet models fetch {uri}")
        return str(found.checkpoint)
    if storage.exists(f"{uri}.index"):
        return uri
    for folder in (join_uri(uri, "checkpoint"), uri):
        try:
            names = [f.uri for f in storage.list_files(join_uri(folder, "ckpt-*.index"))]
        except NotFoundError:
            continue
        newest = max(names, key=lambda name: _number(PurePosixPath(name).stem))
        return newest.removesuffix(".index")
    raise NotFoundError(
        f"no checkpoint {uri}: expected {uri}.index beside {uri}.data-00000-of-00001, or a folder "
        "with them; `urbandet models fetch` brings the zoo's, "
        "--set 'fine_tune.checkpoint=\"\"' starts from random weights"
    )


def _number(stem: str) -> int:
    digits = stem.rpartition("-")[2]
    return int(digits) if digits.isdigit() else -1


def _pipeline_uri(given: str, storage: Storage) -> str:
    if "/" in given or storage.exists(given):
        return given
    try:
        return str(model_config_path(given.removesuffix(".config")))
    except NotFoundError:
        raise NotFoundError(
            f"no pipeline.config {given}: give a file, or a name of configs/models "
            "(efficientdet_d1_640, ssd_mobilenet_v2_fpnlite_320, ...)"
        ) from None


def _labels(uri: str, storage: Storage) -> LabelMap:
    if not uri:
        raise ConfigError("no label map: set labels, or label_map_path in the pipeline.config")
    try:
        return LabelMap.parse(storage.read_bytes(uri).decode(), uri)
    except UnicodeDecodeError:
        raise LabelError(f"{uri} is not text, expected a label_map.pbtxt") from None


def _sources(uris: Any, storage: Storage, what: str) -> tuple[Source, ...]:
    found = [source for uri in uris for source in list_sources(uri, storage)]
    records = tuple(source for source in found if source.kind == "tfrecord")
    if not records:
        raise InputError(
            f"no {what} records at {', '.join(uris) or 'any path'}: expected TFRecords"
        )
    return records


def _relevant(findings: tuple[Finding, ...], config: TrainConfig) -> tuple[Finding, ...]:
    """Leave out what this run does not take from the pipeline.config."""

    def counts(one: Finding) -> bool:
        own_schedule = config.schedule.kind != "config"
        if one.place.startswith("train_config.optimizer") and own_schedule:
            return False
        if one.place.startswith("train_config.data_augmentation_options"):
            return config.augmentation.preset == "config"
        return True

    return tuple(one for one in findings if counts(one))
