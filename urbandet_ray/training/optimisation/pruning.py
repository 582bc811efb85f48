"""Smaller weights: gradual magnitude pruning, and what it is worth.

Zhu and Gupta 2017 (arXiv 1710.01878): the sparsity rises with a cubic from `begin` to `end`; the
steps behind `end` let the rest of the weights make up for it.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.errors import ConfigError
from urbandet_ray.exporting.rounding import to_bfloat16
from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.tables import text_table

EVERY_STEPS = 50
"""Steps between two choices of what is zero."""

BLOCK = 4
"""Output channels of a block."""

KEPT_WHOLE = r"depthwise|[Bb]ox_?[Pp]redict|transpose|combine_weights|^logits/|^top_conv2d/"
"""Names of kernels that are not pruned: depthwise ones are small and matter, as do the heads (same
paper, sec. 4) and BiFPN's few fusion weights; a transposed convolution's last dimension is not its
output; EfficientNet's classifier computes nothing in a detector."""

REPORT_NAME = "pruning.txt"
"""The report's place in the run folder."""

_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"

_HEAD_CHANNELS = 8
"""Convolutions with fewer outputs are heads, whatever their name (CenterNet's have none)."""


def sparsity_at(step: int, final: float, begin: int, end: int) -> float:
    """Share of zeros after so many steps."""
    if step < begin:
        return 0.0
    done = min((step - begin) / max(end - begin, 1), 1.0)
    return final * (1 - (1 - done) ** 3)


def mask_of(weights: NDArray[np.float32], sparsity: float, pattern: str) -> NDArray[np.bool_]:
    """Which weights stay, of a kernel whose last dimension is its output channels.

    Args:
        sparsity: share of the weights that become zero.
        pattern: element; block (four output channels of one input position go together, so that
            rows of a matrix product stay in vector lanes); channel (whole output channels).
    """
    size = np.abs(weights).reshape(-1, weights.shape[-1])
    if pattern == "channel":
        size = np.linalg.norm(size, axis=0, keepdims=True)
    elif pattern == "block" and weights.shape[-1] % BLOCK == 0:
        size = np.linalg.norm(size.reshape(len(size), -1, BLOCK), axis=2)
    keep = _all_but_smallest(size.ravel(), math.floor(sparsity * size.size)).reshape(size.shape)
    if size.shape[1] * BLOCK == weights.shape[-1] and pattern == "block":
        keep = np.repeat(keep, BLOCK, axis=1)
    rows = math.prod(weights.shape[:-1])
    whole: NDArray[np.bool_] = np.broadcast_to(keep, (rows, weights.shape[-1]))
    return whole.reshape(weights.shape)


def _all_but_smallest(size: NDArray[np.float32], dropped: int) -> NDArray[np.bool_]:
    """Of equal ones the first are dropped, so that all workers choose the same."""
    if dropped == 0:
        return np.ones(size.size, bool)
    limit = np.partition(size, dropped - 1)[dropped - 1]
    keep: NDArray[np.bool_] = size > limit
    ties = np.flatnonzero(size == limit)
    keep[ties[dropped - np.count_nonzero(size < limit) :]] = True
    return keep


def _last_choice(step: int, begin: int, end: int) -> int | None:
    """The step of the masks that hold at a step; None before the first."""
    due = end if step >= end else step - step % EVERY_STEPS
    return due if due >= begin else None


def _is_prunable(kernel: Any) -> bool:
    shape = kernel.shape
    if len(shape) < 2 or re.search(KEPT_WHOLE, kernel.name):
        return False
    if len(shape) < 4:
        return True
    return bool(shape[-1] >= _HEAD_CHANNELS and shape[-2] != 3)  # the first layer sees colours


@dataclass(frozen=True)
class LayerSparsity:
    """One pruned kernel."""

    name: str
    shape: tuple[int, ...]
    zeros: int

    @classmethod
    def of(cls, name: str, weights: NDArray[np.float32]) -> LayerSparsity:
        """Its zeros counted."""
        return cls(name, tuple(weights.shape), int((weights == 0).sum()))

    @property
    def size(self) -> int:
        """How many weights it has."""
        return math.prod(self.shape)

    @property
    def sparsity(self) -> float:
        """Share of zeros."""
        return self.zeros / self.size


def overall_sparsity(layers: Sequence[LayerSparsity]) -> float:
    """Share of zeros of all layers together."""
    return sum(one.zeros for one in layers) / max(sum(one.size for one in layers), 1)


def make_pruner(
    variables: Sequence[Any], *, sparsity: float, pattern: str, begin: int, end: int
) -> Any:
    """A tf.Module that prunes kernels, made under the current strategy.

    `update(step)` chooses anew what is zero where it is due, between steps; `apply()` belongs in
    the graph behind each update and keeps it zero; `report()` has a line a kernel; `end` is the
    step that begins with the full sparsity. Masks need no checkpoint: the first `update` finds
    them again in the weights, whose zeros are the smallest.

    Raises:
        ConfigError: none of the variables is a kernel that can be pruned, or it would begin behind
            its end.
    """
    tf = open_odapi().tf
    if begin > end:
        raise ConfigError(
            f"pruning would begin with step {begin} and end with step {end}: "
            "prune.begin has to be below prune.end, and below 1"
        )
    kernels = _prunable(variables, sparsity)

    class Pruner(tf.Module):  # type: ignore[misc, name-defined]  # made here, as TensorFlow loads late
        def __init__(self) -> None:
            super().__init__(name="pruner")
            self.end = end
            self._kernels = kernels
            self._chosen: int | None = None
            self.masks = [
                tf.Variable(
                    tf.ones(kernel.shape, kernel.dtype),
                    trainable=False,
                    aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
                )
                for kernel in kernels
            ]

        def update(self, step: int) -> None:
            """Choose what is zero, every 50 steps while the sparsity rises; a run that went back
            to before the first choice has nothing zero again."""
            due = _last_choice(step, begin, end)
            if due == self._chosen:
                return
            self._chosen = due
            share = 0.0 if due is None else sparsity_at(due, sparsity, begin, end)
            for kernel, mask in zip(self._kernels, self.masks, strict=True):
                mask.assign(mask_of(kernel.numpy(), share, pattern).astype(np.float32))

        def apply(self) -> None:
            """Keep what was chosen at zero."""
            for kernel, mask in zip(self._kernels, self.masks, strict=True):
                kernel.assign(kernel * mask)

        def report(self) -> list[LayerSparsity]:
            """The kernels as they are."""
            return [LayerSparsity.of(kernel.name, kernel.numpy()) for kernel in self._kernels]

    return Pruner()


def _prunable(variables: Sequence[Any], sparsity: float) -> list[Any]:
    kernels = [variable for variable in variables if _is_prunable(variable)]
    if not kernels:
        raise ConfigError(
            f"prune.sparsity is {sparsity}, but none of {len(variables)} trained variables can be "
            "pruned: first layer, heads, depthwise kernels and vectors are kept whole; set it to 0"
        )
    return kernels


def report_text(layers: Sequence[LayerSparsity]) -> str:
    """A table for people, and the whole in its last line."""
    rows = [(f"{one.sparsity:.1%}", f"{one.size:,}", one.name) for one in layers]
    size = sum(one.size for one in layers)
    total = (f"{overall_sparsity(layers):.1%}", f"{size:,}", "all pruned kernels")
    return text_table([*rows, total], "rrl")


def sizes_bytes(weights: Sequence[NDArray[np.float32]]) -> dict[str, int]:
    """What weights take: as float32, as bfloat16, and both deflated, which zeros shrink."""
    full = b"".join(np.ascontiguousarray(one, np.float32).tobytes() for one in weights)
    half = b"".join(
        (to_bfloat16(one).view(np.uint32) >> np.uint32(16)).astype(np.uint16).tobytes()
        for one in weights
    )
    return {
        "float32": len(full),
        "float32 deflated": len(zlib.compress(full, 6)),
        "bfloat16": len(half),
        "bfloat16 deflated": len(zlib.compress(half, 6)),
    }


def sizes_text(sizes: dict[str, int]) -> str:
    """A line a form, in MB."""
    return "\n".join(f"{size / 1e6:9.2f} MB  {form}" for form, size in sizes.items())


def stored_weights(prefix: str) -> list[tuple[str, NDArray[np.float32]]]:
    """Name and values of the float32 variables in a checkpoint of a model, or in a SavedModel's
    variables/variables; names are the variables' own, without ":0"."""
    tf = open_odapi().tf  # first: it says which Keras TensorFlow takes
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    reader = tf.train.load_checkpoint(prefix)
    types = reader.get_variable_to_dtype_map()
    graph = TrackableObjectGraph.FromString(reader.get_tensor(_OBJECT_GRAPH))
    held = [one for node in graph.nodes for one in node.attributes]
    return [
        (one.full_name, reader.get_tensor(one.checkpoint_key))
        for one in held
        if types.get(one.checkpoint_key) == tf.float32
    ]


def stored_layers(
    weights: Sequence[tuple[str, NDArray[np.float32]]], kernels: Collection[str]
) -> list[LayerSparsity]:
    """Of `stored_weights` those that the pruner names."""
    wanted = {name.removesuffix(":0") for name in kernels}
    return [LayerSparsity.of(name, values) for name, values in weights if name in wanted]
