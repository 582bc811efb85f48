"""One optimizer step on all workers together, and whatever else runs in TensorFlow's graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.training.data.validation import Rows
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
    """A function that makes one optimizer step of some batches, whose gradients are averaged.

    The gradients of all workers are summed before they are clipped, so that two workers step as
    one with their images together would.

    Args:
        optimizer: with its learning rate set; a LossScaleOptimizer where losses are scaled.
        variables: what it changes; those that no loss depends on stay as they are.
        after: runs behind the update, in the graph: weight average, pruning masks.
    """
    tf = open_odapi().tf
    scales = hasattr(optimizer, "get_scaled_loss")

    def replica_step(batches: Sequence[Batch]) -> tuple[Tensors, Any]:
        context = tf.distribute.get_replica_context()
        share = 1.0 / (len(batches) * strategy.num_replicas_in_sync)
        losses: Tensors = {}
        gradients: list[Any] = []
        for features, labels in batches:
            with tf.GradientTape() as tape:
                parts = {name: v * share for name, v in model.losses(features, labels).items()}
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


def gather_rows(rows: Rows, strategy: Any, rank: int) -> Rows:
    """Rows of all workers, one under the other; every worker has to call it.

    Each puts its rows into its own part of a table of zeros, and the tables are added up: the
    strategy's own gathering wants a value per replica, which a worker with one replica cannot make.
    """
    tf = open_odapi().tf
    world = int(strategy.num_replicas_in_sync)
    if world == 1:
        return rows

    def replica_sum(own: Any) -> Any:
        context = tf.distribute.get_replica_context()
        placed = tf.identity(own)  # on the replica's device: a value from outside is on none
        return context.all_reduce(tf.distribute.ReduceOp.SUM, placed)

    total = tf.function(lambda own: strategy.run(replica_sum, args=(own,)), reduce_retracing=True)
    counts = np.zeros(world, np.float32)
    counts[rank] = len(rows)
    lengths = np.asarray(total(tf.constant(counts))).astype(int)
    table = np.zeros((world, max(int(lengths.max()), 1), rows.shape[1]), np.float32)
    table[rank, : len(rows)] = rows
    whole = np.asarray(total(tf.constant(table)))
    return np.concatenate([part[:length] for part, length in zip(whole, lengths, strict=True)])
