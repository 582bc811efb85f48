"""One optimizer step on all workers together, and whatever else runs in TensorFlow's graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from urbandet_ray.errors import ModelError
from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.training.model import Tensors, TrainableModel
from urbandet_ray.training.optimisation.optimizers import clip

Batch = tuple[Tensors, Tensors]


@dataclass(frozen=True)
class StepResult:
    """Tensors still being computed: reading one waits for it."""

    losses: Tensors
    gradient_norm: Any

    def figures(self) -> tuple[dict[str, float], float]:
        """Losses by name with their `total`, and the norm of the gradients before clipping."""
        losses = {name: float(value) for name, value in self.losses.items()}
        return {**losses, "total": sum(losses.values())}, float(self.gradient_norm)


def make_step(
    model: TrainableModel,
    optimizer: Any,
    variables: Sequence[Any],
    strategy: Any,
    *,
    clip_norm: float,
    after: Callable[[], None] = lambda: None,
    xla: bool = False,
) -> Callable[[Sequence[Batch]], StepResult]:
    """A function that makes one optimizer step of some batches on every worker.

    All batches of all workers step as one batch of their images would, but for batch norm's own
    statistics: each loss is made one over the counts of all (TrainableModel.loss_counts), and the
    gradients of all workers are summed before they are clipped.

    Args:
        optimizer: with its learning rate set; a LossScaleOptimizer where losses are scaled.
        variables: what it changes; those that no loss depends on stay as they are.
        after: runs behind the update, in the graph: weight average, pruning masks.
    """
    tf = open_odapi().tf
    scales = hasattr(optimizer, "get_scaled_loss")

    def replica_step(batches: Sequence[Batch]) -> tuple[Tensors, Any]:
        context = tf.distribute.get_replica_context()
        weigh = _weighing(model, batches, int(strategy.num_replicas_in_sync))
        losses: Tensors = {}
        gradients: list[Any] = []
        for place, (features, labels) in enumerate(batches):
            with tf.GradientTape() as tape:
                parts = weigh(place, model.losses(features, labels))
                total = tf.add_n(list(parts.values()))
                total = optimizer.get_scaled_loss(total) if scales else total
            losses = {name: losses.get(name, 0.0) + part for name, part in parts.items()}
            gradients = _sum(tf, gradients, tape.gradient(total, variables))
        # EfficientDet's backbone brings a classifier that no loss depends on
        used = [place for place, one in enumerate(gradients) if one is not None]
        gradients = [gradients[place] for place in used]
        gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        if scales:
            gradients = optimizer.get_unscaled_gradients(gradients)
        gradients, norm = clip(gradients, clip_norm)
        optimizer.apply_gradients(
            zip(gradients, [variables[place] for place in used], strict=True),
            experimental_aggregate_gradients=False,
        )
        after()
        return losses, norm

    def step(batches: Sequence[Batch]) -> tuple[Tensors, Any]:
        losses, norm = strategy.run(replica_step, args=(batches,))
        total = {
            name: strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None)
            for name, value in losses.items()
        }
        return total, strategy.reduce(tf.distribute.ReduceOp.MEAN, norm, axis=None)

    compiled = tf.function(step, jit_compile=xla or None)
    return lambda batches: StepResult(*compiled(tuple(batches)))


def _weighing(
    model: TrainableModel, batches: Sequence[Batch], replicas: int
) -> Callable[[int, Tensors], Tensors]:
    """In a replica: a function that weighs the losses of the batch at a place among `batches`.

    A batch divided its sum by its own count; times that count and over the count of all batches
    of all replicas, the losses add up to those of one batch. Counts are known before the losses,
    so that no gradient waits for them.
    """
    tf, share = open_odapi().tf, 1.0 / (len(batches) * replicas)
    if share == 1:
        return lambda _, losses: losses
    counts = [model.loss_counts(labels) for _, labels in batches]
    names = sorted(counts[0])
    rows = [[tf.cast(one[name], tf.float32) for name in names] for one in counts]
    weights = tf.zeros([len(batches), 0])
    if names:
        own = tf.stack([tf.stack(row) for row in rows])
        context = tf.distribute.get_replica_context()
        whole = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.reduce_sum(own, 0))
        weights = tf.maximum(own, 1.0) / tf.maximum(whole, 1.0)

    def weigh(place: int, losses: Tensors) -> Tensors:
        unknown = [name for name in names if name not in losses]
        if unknown:
            raise ModelError(
                f"loss_counts of the model names {', '.join(unknown)}, its losses are "
                f"{', '.join(losses)}: each count belongs to a loss of the same name"
            )
        return {
            name: value * (weights[place, names.index(name)] if name in names else share)
            for name, value in losses.items()
        }

    return weigh


def _sum(tf: Any, before: list[Any], new: Sequence[Any]) -> list[Any]:
    dense = [None if one is None else tf.convert_to_tensor(one) for one in new]
    if not before:
        return dense
    return [
        a if b is None else b if a is None else a + b for a, b in zip(before, dense, strict=True)
    ]


def make_detect(model: TrainableModel, strategy: Any) -> Callable[[Tensors], Tensors]:
    """The model's `detect` on this worker alone."""
    tf = open_odapi().tf

    def detect(features: Tensors) -> Any:
        return strategy.run(model.detect, args=(features,))

    compiled: Callable[[Tensors], Tensors] = tf.function(detect)
    return compiled


def make_forward(model: TrainableModel, strategy: Any) -> Callable[[Tensors, Tensors], Any]:
    """A pass in training mode that changes nothing but batch-norm's moving averages."""
    tf = open_odapi().tf

    def forward(features: Tensors, labels: Tensors) -> Any:
        return strategy.run(model.losses, args=(features, labels))

    compiled: Callable[[Tensors, Tensors], Any] = tf.function(forward)
    return compiled
