"""What a run trains and what it leaves as it is: weights, and batch norm's moving averages.

Frozen to the bit means both: an optimizer never sees the variable, and a batch-norm layer whose
averages are frozen computes with them, as it does in inference, instead of moving them.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from urbandet_ray.errors import ConfigError
from urbandet_ray.training.model import TrainableModel


@dataclass(frozen=True)
class Trained:
    """The parts of a model that a run changes.

    Attributes:
        variables: those the optimizer is given.
        frozen: how many others have gradients and keep their values.
        norms, still_norms: batch-norm layers, and how many of them keep their moving averages.
    """

    variables: tuple[Any, ...]
    frozen: int
    norms: int
    still_norms: int

    def told(self) -> str:
        """A line for the person who started the run."""
        weights = sum(math.prod(one.shape) for one in self.variables)
        text = f"trained: {len(self.variables)} variables ({weights:,} weights)"
        text += f"; frozen: {self.frozen}" if self.frozen else "; none is frozen"
        if not self.norms:
            return text
        moving = self.norms - self.still_norms
        return f"{text}; moving averages of {moving} of {self.norms} batch-norm layers follow"


def freeze(model: TrainableModel, patterns: Sequence[str], norms: bool) -> Trained:
    """Freeze a built model's variables by name; batch norm's moving averages are found too.

    Args:
        patterns: regular expressions (re.search) on names without the ":0" at their end. A layer
            whose moving mean or variance is found keeps both.
        norms: freeze every batch-norm layer: scale, offset and averages.

    Raises:
        ConfigError: a pattern is no regular expression, finds nothing, or leaves nothing to train.
    """
    layers, trainable = list(model.batch_norms), list(model.trainable_variables)
    averages = [one for layer in layers for one in _averages(layer)]
    found = {id(one) for one in _matching([*trainable, *averages], patterns)}
    if norms:
        found |= {id(one) for layer in layers for one in layer.variables}
    left = tuple(one for one in trainable if id(one) not in found)
    if not left:
        raise ConfigError(
            f"freeze: {list(patterns)} leaves no variable to train: of {len(trainable)}, such as "
            f"{_plain_name(trainable[0])}, it has to spare some"
        )
    for layer in layers:
        if any(id(one) in found for one in _averages(layer)):
            _hold(layer)
    return Trained(left, len(trainable) - len(left), len(layers), sum(map(_is_still, layers)))


def _hold(layer: Any) -> None:
    """Let a batch-norm layer compute as in inference from now on, whatever the phase.

    Keras' own of TF2 would for `trainable` alone; that of TF1, from which the OD API's are made,
    looks at its argument only (batch_normalization.py, _get_training_value).
    """
    compute = layer.call

    def call(inputs: Any, **given: Any) -> Any:
        return compute(inputs, **{**given, "training": False})

    layer.call, layer.trainable = call, False


def _averages(layer: Any) -> tuple[Any, Any]:
    return layer.moving_mean, layer.moving_variance


def _is_still(layer: Any) -> bool:
    """Whether the moving averages stay: frozen here, or by the OD API (FreezableBatchNorm)."""
    return not layer.trainable or getattr(layer, "_training", None) is False


def _matching(variables: Iterable[Any], patterns: Sequence[str]) -> list[Any]:
    """Variables whose name, without the ":0" at its end, a pattern finds.

    Raises:
        ConfigError: a pattern is no regular expression, or finds nothing.
    """
    named = [(_plain_name(one), one) for one in variables]
    found = []
    for pattern in patterns:
        try:
            expression = re.compile(pattern)
        except re.error as error:
            raise ConfigError(f"freeze: {pattern!r} is no regular expression: {error}") from None
        matches = [one for name, one in named if expression.search(name)]
        if not matches:
            names = [name for name, _ in named]
            near = difflib.get_close_matches(pattern, names, n=1, cutoff=0.0)
            raise ConfigError(
                f"freeze: {pattern!r} matches no variable; the nearest is {near[0] if near else ''}"
            )
        found += matches
    return found


def _plain_name(variable: Any) -> str:
    return str(variable.name).partition(":")[0]
