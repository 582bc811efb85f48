"""From a config to a plan: files found, the pipeline.config resolved."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from urbandet_ray.config.training_config import TrainConfig
from urbandet_ray.errors import ConfigError, InputError, NotFoundError
from urbandet_ray.label_files import read_labels
from urbandet_ray.labels import LabelMap
from urbandet_ray.models.checkpoint_files import find_checkpoint_prefix
from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.models.pipeline_config import PipelineConfig, read_pipeline
from urbandet_ray.models.zoo import cached_model, model_config_path, zoo_folder, zoo_model
from urbandet_ray.records.data_folder import DataFolder, read_data_folder, records_at
from urbandet_ray.records.source import Source
from urbandet_ray.storage import Storage
from urbandet_ray.training.building import find_model_builder
from urbandet_ray.training.optimisation.batchnorm import set_mode
from urbandet_ray.training.optimisation.rates import plan_rate
from urbandet_ray.training.plan import TrainPlan

_EVALUATIONS, _CHECKPOINTS = 10, 20
"""A run has so many unless told otherwise."""


def plan_run(config: TrainConfig, storage: Storage) -> TrainPlan:
    """Resolve a config: find its files and fill in its defaults.

    Raises:
        ConfigError: the pipeline.config is none, or says too little.
        NotFoundError: a file is not there.
        InputError: no records.
    """
    data = read_data_folder(config.data, storage, config.labels) if config.data else None
    if config.pipeline is None:
        return _own_model_plan(config, data, storage)
    given = read_pipeline(_pipeline_uri(config.pipeline, storage), storage)
    message = given.message
    _resolve(message, config, data, storage)
    return _plan(config, given.with_message(message), data, storage)


def _resolve(message: Any, config: TrainConfig, data: DataFolder | None, storage: Storage) -> None:
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
    labels = config.labels or (data.labels_uri if data else None)
    for one in (reader, val):
        one.label_map_path = labels or one.label_map_path
    if data is not None:
        for one, part in zip((reader, val), data.for_training(), strict=True):
            one.tf_record_input_reader.input_path[:] = part.patterns
    start = config.fine_tune.checkpoint
    start = train.fine_tune_checkpoint if start is None else start
    train.fine_tune_checkpoint = find_checkpoint(start, storage) if start else ""
    kind = config.fine_tune.kind
    if start and kind != "config":
        train.fine_tune_checkpoint_type = "detection" if kind == "heads" else kind
    set_mode(message, config.batch_norm.mode)


def _plan(
    config: TrainConfig, pipeline: PipelineConfig, data: DataFolder | None, storage: Storage
) -> TrainPlan:
    message = pipeline.message
    train = message.train_config
    labels, sources = message.train_input_reader.label_map_path, _sources(message, data, storage)
    clip = config.optimizer.clip_norm
    return _with_periods(
        TrainPlan(
            run_uri=config.output,
            storage=storage,
            config=config,
            pipeline=pipeline,
            data=data,
            labels=data.labels if data and data.labels else _labels(labels, storage),
            train=sources[0],
            val=sources[1],
            steps=int(train.num_steps),
            batch_size=int(train.batch_size),
            evaluate_every=0,
            checkpoint_every=0,
            rate=plan_rate(config, pipeline),
            clip_norm=float(train.gradient_clipping_by_norm) if clip is None else clip,
            fine_tune=train.fine_tune_checkpoint or None,
        )
    )


def _own_model_plan(config: TrainConfig, data: DataFolder | None, storage: Storage) -> TrainPlan:
    """A plan without a pipeline.config: the config has to say everything."""
    if data is None or data.labels is None:
        raise NotFoundError(
            f"{config.data} has no label_map.pbtxt, in which training finds the classes: put one "
            "into the folder, or set labels"
        )
    train, val = data.for_training()
    open_odapi()  # before a module of the user's can import TensorFlow with another Keras
    find_model_builder(str(config.model))  # a wrong name leaves no run folder behind
    start = config.fine_tune.checkpoint
    return _with_periods(
        TrainPlan(
            run_uri=config.output,
            storage=storage,
            config=config,
            pipeline=None,
            data=data,
            labels=data.labels,
            train=train.records,
            val=val.records,
            steps=config.steps or 0,
            batch_size=config.batch.per_worker or 0,
            evaluate_every=0,
            checkpoint_every=0,
            rate=plan_rate(config, None),
            clip_norm=config.optimizer.clip_norm or 0.0,
            fine_tune=find_checkpoint(start, storage) if start else None,
        )
    )


def _with_periods(plan: TrainPlan) -> TrainPlan:
    config, steps = plan.config, plan.steps
    return replace(
        plan,
        evaluate_every=config.evaluation.every or max(1, steps // _EVALUATIONS),
        checkpoint_every=config.checkpoint.every or max(1, steps // _CHECKPOINTS),
    )


def find_checkpoint(uri: str, storage: Storage) -> str:
    """The prefix (".../ckpt-0") of a checkpoint: given as such, as a file, a folder, a zoo model.

    Raises:
        NotFoundError: there is none.
    """
    if "/" not in uri and not storage.exists(f"{uri}.index"):
        found = cached_model(zoo_model(uri), zoo_folder())
        if found is None:
            raise NotFoundError(f"{uri} is not on this machine: urbandet models fetch {uri}")
        return str(found.checkpoint)
    prefix = find_checkpoint_prefix(uri, storage)
    if prefix is not None:
        return prefix
    raise NotFoundError(
        f"no checkpoint {uri}: expected {uri}.index beside {uri}.data-00000-of-00001, or a folder "
        "with them; `urbandet models fetch` brings the zoo's, "
        "--set 'fine_tune.checkpoint=\"\"' starts from random weights"
    )


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
    return read_labels(uri, storage)


def _sources(
    message: Any, data: DataFolder | None, storage: Storage
) -> tuple[tuple[Source, ...], tuple[Source, ...]]:
    """What is trained on, and what validates: of the data, else where the pipeline.config says."""
    if data is not None:
        train, val = data.for_training()
        return train.records, val.records
    found = []
    readers = {"train_input_reader": message.train_input_reader}
    readers["eval_input_reader"] = message.eval_input_reader[0]
    for name, reader in readers.items():
        uris = list(reader.tf_record_input_reader.input_path)
        if not uris:
            raise InputError(
                f"the pipeline.config's {name} has no input_path: name TFRecords there, or set data"
            )
        found.append(tuple(one for uri in uris for one in records_at(uri, storage)))
    return found[0], found[1]
