"""The weights' exponential moving average: what is evaluated and exported where it is on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from urbandet_ray.models.odapi import open_odapi


def make_average(variables: Sequence[Any], decay: float) -> Any:
    """A tf.Module with averages of some variables, made under the current strategy.

    It has `update(step)`, to be called in the graph behind each update; `swapped()`, a context in
    which the variables have the averaged values; and `restart()`. The decay starts low,
    min(decay, (1 + step) / (10 + step)), so that the first random weights are soon forgotten
    (tf.train.ExponentialMovingAverage, num_updates).
    """
    tf = open_odapi().tf

    class WeightAverage(tf.Module):  # type: ignore[misc, name-defined]  # made here, as TensorFlow loads late
        def __init__(self) -> None:
            super().__init__(name="weight_average")
            self._own = list(variables)
            self.averages = [
                tf.Variable(
                    variable.read_value(),
                    trainable=False,
                    dtype=variable.dtype,
                    # every replica computes the same value of the same updated weights
                    aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
                )
                for variable in variables
            ]

        def update(self, step: Any) -> None:
            """Take the weights as they are now into the average."""
            t = tf.cast(step, tf.float32)
            low = tf.minimum(decay, (1.0 + t) / (10.0 + t))
            for average, variable in zip(self.averages, self._own, strict=True):
                share = tf.cast(1.0 - low, variable.dtype)
                average.assign(average + share * (variable - average))

        def restart(self) -> None:
            """Begin from the weights as they are."""
            for average, variable in zip(self.averages, self._own, strict=True):
                average.assign(variable.read_value())

        @contextmanager
        def swapped(self) -> Iterator[None]:
            """While this is open the variables have the averaged values."""
            kept = [variable.numpy() for variable in self._own]
            try:
                for average, variable in zip(self.averages, self._own, strict=True):
                    variable.assign(average.numpy())
                yield
            finally:
                for before, variable in zip(kept, self._own, strict=True):
                    variable.assign(before)

    return WeightAverage()
