"""Which learning rate a run takes, who said so, and what the OD API's tuned configs would take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from urbandet_ray.config.training_config import TrainConfig
from urbandet_ray.models.pipeline_config import PipelineConfig

MOMENTUM_RATE_PER_IMAGE = 0.08 / 128
"""SGD with momentum in the OD API's tuned configs: 0.08 for 128 (EfficientDet, MobileNet FPN),
0.04 for 64 (ResNet FPN, Faster R-CNN), 0.01 for 16 (Faster R-CNN on GPUs)."""
ADAM_RATE, ADAM_BATCH = 1e-3, 128
"""Adam in the OD API's CenterNet configs."""
RMS_RATE, RMS_BATCH = 0.004, 24
"""RMSprop in the OD API's SSD MobileNet configs."""

_STOCK_BATCHES = {
    "momentum_optimizer": {0.08: 128, 0.04: 64, 0.01: 16, 0.008: 16},
    "adam_optimizer": {ADAM_RATE: ADAM_BATCH},
    "rms_prop_optimizer": {RMS_RATE: RMS_BATCH},
}
RATE_FIELDS = {
    "constant_learning_rate": "learning_rate",
    "exponential_decay_learning_rate": "initial_learning_rate",
    "manual_step_learning_rate": "initial_learning_rate",
    "cosine_decay_learning_rate": "learning_rate_base",
}
"""The field of each of the OD API's schedules that says its rate."""
_OPTIMIZERS = {
    "momentum": "momentum_optimizer",
    "rmsprop": "rms_prop_optimizer",
    "adam": "adam_optimizer",
    "adamw": "adam_optimizer",
}
_RUN_CONFIG = "schedule.rate of the run config"


def reference_rate(optimizer: str, batch: int) -> float:
    """Peak learning rate the OD API's tuned configs imply for a global batch.

    Linear in the batch for SGD (Goyal et al. 2017, arXiv 1706.02677), with its square root for
    the adaptive optimizers (Malladi et al. 2022, arXiv 2205.10287).
    """
    if optimizer == "adam_optimizer":
        return ADAM_RATE * math.sqrt(batch / ADAM_BATCH)
    if optimizer == "rms_prop_optimizer":
        return RMS_RATE * math.sqrt(batch / RMS_BATCH)
    return MOMENTUM_RATE_PER_IMAGE * batch


def stock_batch(optimizer: str, rate: float) -> int | None:
    """Images a step for which the zoo's pipeline.configs have this very rate; None: none has it."""
    for stock, batch in _STOCK_BATCHES.get(optimizer, {}).items():
        if math.isclose(rate, stock, rel_tol=1e-4):  # protobuf's floats have 24 bits
            return batch
    return None


@dataclass(frozen=True)
class StatedRate:
    """The highest rate that a pipeline.config states.

    Attributes:
        value: the rate.
        place: path of its field.
    """

    value: float
    place: str


def stated_rate(pipeline: Any, *, defaults: bool = False) -> StatedRate | None:
    """The highest rate of a pipeline.config's schedule; None where its author wrote none.

    Args:
        pipeline: TrainEvalPipelineConfig message.
        defaults: a rate that is not written counts as its field's default, as in the OD API.
    """
    optimizer = pipeline.train_config.optimizer
    name = optimizer.WhichOneof("optimizer")
    kind = name and getattr(optimizer, name).learning_rate.WhichOneof("learning_rate")
    if not kind:
        return None
    schedule, place = getattr(getattr(optimizer, name).learning_rate, kind), RATE_FIELDS[kind]
    path = f"train_config.optimizer.{name}.learning_rate.{kind}"
    found = []
    if defaults or schedule.HasField(place):
        found.append(StatedRate(getattr(schedule, place), f"{path}.{place}"))
    if kind == "manual_step_learning_rate":
        for number, one in enumerate(schedule.schedule):
            index = f"[{number}]" if number else ""
            found.append(StatedRate(one.learning_rate, f"{path}.schedule{index}.learning_rate"))
    return max(found, key=lambda one: one.value, default=None)


@dataclass(frozen=True)
class PlannedRate:
    """The highest rate of a run, and where it comes from.

    Attributes:
        value: None takes the reference for the images of a step, which follow the workers.
        origin: where it is said, for people.
        optimizer: by its name in the OD API.
        of_file: it is the pipeline.config's.
    """

    value: float | None
    origin: str
    optimizer: str
    of_file: bool = False

    def highest(self, images: int) -> float:
        """The rate with so many images a step."""
        return reference_rate(self.optimizer, images) if self.value is None else self.value

    def told(self, images: int) -> str:
        """A line for the person who started the run."""
        kind = self.optimizer.removesuffix("_optimizer")
        reference = f"the reference for {kind} and {images} images a step"
        if self.value is None:
            return f"learning rate: up to {self.highest(images):.3g}, {reference}; {self.origin}"
        return (
            f"learning rate: up to {self.value:.3g}, {self.origin}; {reference} is "
            f"{reference_rate(self.optimizer, images):.3g}"
        )


def plan_rate(config: TrainConfig, pipeline: PipelineConfig | None) -> PlannedRate:
    """Decide: the run config's rate, else the pipeline.config's, else the reference.

    A rate that is written down is taken as it stands, whatever the batch. The file's rate is its
    optimizer's: where the run config names another kind, the reference for that is taken.

    Args:
        pipeline: as it is trained; None for a model of one's own.
    """
    given = config.schedule
    if pipeline is None:
        optimizer = _OPTIMIZERS.get(config.optimizer.kind, "momentum_optimizer")
        return PlannedRate(given.rate, _RUN_CONFIG, optimizer)
    message = pipeline.message
    own = str(message.train_config.optimizer.WhichOneof("optimizer") or "momentum_optimizer")
    optimizer = _OPTIMIZERS.get(config.optimizer.kind, own)
    section = _where(pipeline, "train_config.optimizer")
    if given.kind == "config":
        highest = stated_rate(message, defaults=True)
        value = None if highest is None else highest.value
        return PlannedRate(value, f"the schedule of {section} to the letter", optimizer, True)
    if given.rate is not None:
        return PlannedRate(given.rate, _RUN_CONFIG, optimizer)
    stated = stated_rate(message)
    if stated is None:
        return PlannedRate(None, f"{section} states no rate (schedule.rate sets one)", optimizer)
    place = f"{_where(pipeline, stated.place)} ({stated.place.rpartition('.')[2]})"
    if optimizer != own:
        kind = own.removesuffix("_optimizer")
        origin = f"the {stated.value:.3g} of {place} is {kind}'s (schedule.rate sets another)"
        return PlannedRate(None, origin, optimizer)
    origin = f"{place} as it stands (schedule.rate sets another)"
    return PlannedRate(stated.value, origin, optimizer, True)


def _where(pipeline: PipelineConfig, place: str) -> str:
    """File and line."""
    line = pipeline.line_of(place)
    return pipeline.name if line is None else f"{pipeline.name}:{line}"
