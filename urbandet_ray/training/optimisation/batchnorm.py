"""Batch norm: modes as edits of the pipeline.config, and moving averages measured anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.errors import ConfigError

REESTIMATE_BATCHES = 16
"""Passes, unless the run config says how many."""


def set_mode(pipeline: Any, mode: str) -> None:
    """Edit a pipeline.config before its model is built.

    Args:
        pipeline: TrainEvalPipelineConfig message.
        mode: train leaves it as it is; freeze and freeze_statistics let the layers compute with
            the checkpoint's averages and keep those (of a Faster R-CNN, in the extractor); sync
            takes the statistics over all workers' images together. The OD API goes on training
            scales and offsets: freeze needs freezing.py too, which takes them out.

    Raises:
        ConfigError: the architecture does not have the mode.
    """
    if mode == "train":
        return
    kind = pipeline.model.WhichOneof("model")
    model = getattr(pipeline.model, kind)
    if kind == "ssd" and "efficientnet" in model.feature_extractor.type:
        # freeze would reach the pyramid and the predictor alone, sync ends in an AttributeError
        raise ConfigError(
            f"batch_norm.mode: {mode} is not to be had with {model.feature_extractor.type}: the OD "
            "API does not pass it on to EfficientNet; use train"
        )
    if mode in ("freeze", "freeze_statistics"):
        if kind == "ssd":
            model.freeze_batchnorm = True
        elif kind == "faster_rcnn":
            model.feature_extractor.batch_norm_trainable = False
        else:
            raise ConfigError(
                f"batch_norm.mode: {mode} is not to be had with {kind}: its feature extractors "
                "have no such setting; use train"
            )
        return
    changed = _synchronise(model)
    if not changed:
        raise ConfigError(
            f"batch_norm.mode: sync finds no batch_norm in the {kind} of the pipeline.config: "
            "only layers with conv_hyperparams can be synchronised; use train"
        )


def _synchronise(message: Any) -> int:
    """Turn every batch_norm of a Hyperparams below a message into sync_batch_norm; how many."""
    changed = 0
    for field, value in list(message.ListFields()):
        if field.name == "weight_shared_convolutional_box_predictor":
            continue  # box_predictor_builder.py gives it no batch norm at all without `batch_norm`
        if field.name == "batch_norm" and "sync_batch_norm" in message.DESCRIPTOR.fields_by_name:
            settings = type(value)()
            settings.CopyFrom(value)
            message.sync_batch_norm.CopyFrom(settings)  # a oneof: batch_norm goes
            changed += 1
        elif field.message_type is not None:
            parts = [value] if hasattr(value, "ListFields") else list(value)
            changed += sum(_synchronise(part) for part in parts)
    return changed


def settled(batch_norms: Sequence[Any], steps: int) -> bool:
    """Whether so many steps leave less than 1 % of what the moving averages began with."""
    return all(float(layer.momentum) ** steps < 0.01 for layer in batch_norms)


def reestimate(batch_norms: Sequence[Any], forward: Callable[[], object], batches: int) -> int:
    """Set the moving averages to what some batches have in common (arXiv 2105.07576).

    A short run ends before averages with a decay of 0.99 or more have settled, and is then judged
    with those of the checkpoint. The variance is that of all batches as one, so the spread of
    their means counts too: batches of a few images have little of it within (same paper, appendix).

    Args:
        batch_norms: layers, each called once in a pass; those that are frozen do not move and are
            left alone.
        forward: one pass in training mode over another batch each time.
        batches: passes.

    Returns:
        How many layers were set.
    """
    before = [_values(layer) for layer in batch_norms]
    starts, sums, passes = before, [np.zeros_like(one) for one in before], [0] * len(before)
    for _ in range(batches):
        forward()
        for place, layer in enumerate(batch_norms):
            after = _values(layer)
            if passes[place] or not np.array_equal(after, starts[place]):
                passes[place] += 1
                mean, variance = _batch_statistics(starts[place], after, layer.momentum)
                sums[place] += np.stack([mean, variance + mean**2])
        # from zero, nothing of the old averages gets into the rounding; a frozen layer computes
        # with what it has, so it keeps it
        starts = [
            np.zeros_like(old) if count else old for old, count in zip(before, passes, strict=True)
        ]
        _assign(batch_norms, starts, passes)
    means = [total / max(count, 1) for total, count in zip(sums, passes, strict=True)]
    _assign(batch_norms, [np.stack([one[0], one[1] - one[0] ** 2]) for one in means], passes)
    return sum(count > 0 for count in passes)


def _batch_statistics(
    start: NDArray[np.float64], after: NDArray[np.float64], momentum: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Read off how far a batch moved them: after = momentum * start + (1 - momentum) * batch."""
    mean, variance = (after - float(momentum) * start) / (1 - float(momentum))
    return mean, variance


@contextmanager
def kept_averages(batch_norms: Sequence[Any]) -> Iterator[None]:
    """Put the moving averages back as they were when the block ends."""
    kept = [_values(layer) for layer in batch_norms]
    try:
        yield
    finally:
        _assign(batch_norms, kept, [1] * len(kept))


def _values(layer: Any) -> NDArray[np.float64]:
    """[2, channels]: mean and variance; double, or momentum * old would be rounded."""
    return np.stack([one.numpy() for one in (layer.moving_mean, layer.moving_variance)]).astype(
        np.float64
    )


def _assign(
    batch_norms: Sequence[Any], values: Sequence[NDArray[np.float64]], wanted: Sequence[int]
) -> None:
    for layer, (mean, variance), want in zip(batch_norms, values, wanted, strict=True):
        if want:
            layer.moving_mean.assign(mean)
            layer.moving_variance.assign(np.maximum(variance, 0))
