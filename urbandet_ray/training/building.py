"""Model, optimizer and weight average, made under the strategy that joins the workers."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from urbandet_ray.errors import ConfigError, ModelError, first_line
from urbandet_ray.label_files import MAPPING_FORM, read_label_text
from urbandet_ray.models.classes import builtin_mapping_text, coco_labels, parse_model_labels
from urbandet_ray.models.classes import read_mapping as parse_mapping
from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.models.pipeline_config import read_pipeline
from urbandet_ray.storage import Storage, is_remote, join_uri
from urbandet_ray.training.finetune import restore_for_finetuning
from urbandet_ray.training.model import TrainableModel
from urbandet_ray.training.odapi_model import OdApiModel
from urbandet_ray.training.optimisation.averaging import make_average
from urbandet_ray.training.optimisation.freezing import Trained, freeze
from urbandet_ray.training.optimisation.optimizers import loss_scaled, make_optimizer
from urbandet_ray.training.optimisation.pruning import make_pruner
from urbandet_ray.training.optimisation.schedules import Schedule, config_schedule, make_schedule
from urbandet_ray.training.place import Place
from urbandet_ray.training.plan import PIPELINE_NAME, TrainPlan


@dataclass(frozen=True)
class Built:
    """What has variables.

    Attributes:
        trained: what changes of the model.
        average, pruner: None where the plan has none.
    """

    strategy: Any
    model: TrainableModel
    optimizer: Any
    trained: Trained
    average: Any
    pruner: Any


def build(plan: TrainPlan, place: Place) -> Built:
    """Make everything; with several workers, all of them have to be here at once.

    Raises:
        ConfigError: the model cannot be built, or a name to freeze matches nothing.
    """
    tf = open_odapi().tf
    _prepare_tensorflow(tf, plan, place)
    strategy = tf.distribute.get_strategy()
    if place.world > 1:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    config = plan.config
    with strategy.scope():
        model = _make_model(plan)
        model.build(plan.batch_size)
        trained = freeze(model, config.freeze, norms=config.batch_norm.mode == "freeze")
        variables = trained.variables
        optimizer = _make_optimizer(plan)
        optimizer._create_all_weights(variables)  # so that a checkpoint finds them
        average = None
        if config.weight_average:
            average = make_average(variables, config.weight_average)
        pruner = None
        if config.prune.sparsity:
            prune = config.prune
            pruner = make_pruner(
                variables,
                sparsity=prune.sparsity,
                pattern=prune.pattern,
                begin=round(prune.begin * plan.steps),
                end=min(round(prune.end * plan.steps), plan.steps - 1),  # a step is left to prune
            )
    return Built(strategy, model, optimizer, trained, average, pruner)


def _prepare_tensorflow(tf: Any, plan: TrainPlan, place: Place) -> None:
    """Threads, memory and seeds; before anything is computed."""
    if place.threads:
        tf.config.threading.set_intra_op_parallelism_threads(place.threads)
        tf.config.threading.set_inter_op_parallelism_threads(max(2, place.threads))
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
    tf.keras.utils.set_random_seed(plan.config.seed)  # layers draw theirs with Python's random


def _make_model(plan: TrainPlan) -> TrainableModel:
    if plan.config.model is None:
        return OdApiModel(
            plan.pipeline_message(),
            precision=plan.config.precision,
            min_box_side=plan.config.min_box_side,
        )
    return find_model_builder(plan.config.model)(plan.num_classes)


def find_model_builder(name: str) -> Callable[[int], TrainableModel]:
    """Import what `model: my_package.module:build` names.

    Raises:
        ConfigError: there is no such module, or nothing to call of that name in it.
    """
    module, _, attribute = name.partition(":")
    expected = (
        "expected my_package.module:build, where build(num_classes) returns a TrainableModel "
        "(docs/how-to/own-model.md)"
    )
    if not (module and attribute):
        raise ConfigError(f"model is {name!r}: {expected}")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except (ImportError, TypeError) as error:  # TypeError: a relative name
        raise ConfigError(
            f"model {name}: {module} does not import ({error}): {expected}; Python looks for it "
            "in the folders that PYTHONPATH names"
        ) from None
    if not callable(found):
        raise ConfigError(f"model {name}: {module} has no {attribute} to call: {expected}")
    build_model: Callable[[int], TrainableModel] = found
    return build_model


def _make_optimizer(plan: TrainPlan) -> Any:
    given = plan.config.optimizer
    optimizer = make_optimizer(
        given.kind,
        momentum=given.momentum,
        nesterov=given.nesterov,
        weight_decay=given.weight_decay,
        pipeline=plan.pipeline_message(),
    )
    return loss_scaled(optimizer) if plan.config.precision == "float16" else optimizer


def build_schedule(plan: TrainPlan, world: int) -> Schedule:
    """The learning rate by step: the plan's highest rate on a schedule that is sized to the run."""
    given = plan.config.schedule
    if given.kind == "config":
        return config_schedule(plan.pipeline_message())
    return make_schedule(
        "constant" if given.kind == "plateau" else given.kind,
        plan.rate.highest(plan.images_a_step(world)),
        plan.steps,
        given.warmup_share,
        final_share=given.final_share,
        milestones=given.milestones,
        factor=given.factor,
        cycles=given.cycles,
    )


def start_weights(plan: TrainPlan, model: TrainableModel, scratch: Path) -> str:
    """Fill the model from the checkpoint it starts from; what was done, for people.

    Raises:
        ConfigError, ModelError: the checkpoint does not fit.
        NotFoundError: it is not there.
    """
    if plan.fine_tune is None:
        return "random weights"
    if not isinstance(model, OdApiModel):
        _read_whole(model, _local_prefix(plan.fine_tune, plan.storage, scratch), plan.fine_tune)
        return f"weights of {plan.fine_tune}"
    given = plan.config.fine_tune
    kind: str = given.kind
    if kind == "config":
        kind = plan.pipeline_message().train_config.fine_tune_checkpoint_type or "detection"
    old = coco_labels()
    if given.labels is not None:
        old = parse_model_labels(read_label_text(given.labels, plan.storage), given.labels)
    text = builtin_mapping_text(given.mapping)
    if text is None:
        text = read_label_text(given.mapping, plan.storage, MAPPING_FORM)
    report = restore_for_finetuning(
        model,
        _local_prefix(plan.fine_tune, plan.storage, scratch),
        kind,
        old_labels=old,
        new_labels=plan.labels,
        renames=parse_mapping(text, given.mapping),
        old_model=_model_beside(plan.fine_tune, plan.storage),
    )
    return report.to_text()


def _model_beside(prefix: str, storage: Storage) -> Any:
    """The model of the pipeline.config that lies with a checkpoint, or in the folder above it."""
    folder = prefix.rpartition("/")[0]
    for place in (folder, folder.rpartition("/")[0]):
        if place and storage.exists(join_uri(place, PIPELINE_NAME)):
            return read_pipeline(join_uri(place, PIPELINE_NAME), storage).message.model
    return None


def _read_whole(model: TrainableModel, prefix: str, name: str) -> None:
    """A checkpoint of the same model: nothing of it may stay random without a word."""
    tf = open_odapi().tf
    try:
        status = tf.train.Checkpoint(model=model.trackable).read(prefix)
        status.assert_existing_objects_matched().expect_partial()  # its optimizer is not wanted
    except (AssertionError, ValueError, tf.errors.OpError) as error:
        raise ModelError(
            f"{name} does not fit the model ({first_line(error)}): give a "
            "checkpoint of the same model with as many classes, or load weights in its build()"
        ) from error


def _local_prefix(prefix: str, storage: Storage, scratch: Path) -> str:
    """The checkpoint's prefix on this machine."""
    if not is_remote(prefix):
        return prefix
    folder = scratch / "start"
    folder.mkdir(parents=True, exist_ok=True)
    for info in storage.list_files(f"{prefix}.*"):
        storage.download_file(info.uri, folder / info.uri.rpartition("/")[2])
    return str(folder / prefix.rpartition("/")[2])
