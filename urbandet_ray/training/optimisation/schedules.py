"""Learning rates by step, sized to the run, in plain Python."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from urbandet_ray.errors import ConfigError
from urbandet_ray.models.odapi import open_odapi

Schedule = Callable[[int], float]
"""Rate of the step that comes after so many steps."""


_ONE_CYCLE_RISE = 0.3
"""Share of a one-cycle run in which the rate rises (Smith and Topin 2017, arXiv 1708.07120)."""
_ONE_CYCLE_START = 1 / 25


def make_schedule(
    kind: str,
    rate: float,
    steps: int,
    warmup_share: float = 0.05,
    *,
    final_share: float = 0.01,
    milestones: Sequence[float] = (0.6, 0.85),
    factor: float = 0.1,
    cycles: int = 3,
) -> Schedule:
    """A schedule over a whole run; behind its end it stays where it ended.

    Args:
        kind: cosine, constant, step, exponential, one_cycle, or restarts (SGDR, arXiv 1608.03983:
            each descent is twice as long as the one before).
        rate: the highest.
        steps: of the run.
        warmup_share: share of the run in which the rate rises linearly; not of one_cycle.
        final_share: the last rate as a share of the highest; not of constant and step.
        milestones: shares of the run at which `step` multiplies the rate by `factor`.
        cycles: descents of restarts.

    Raises:
        ConfigError: no rate, no steps, or a warm-up as long as the run.
    """
    if not (rate > 0 and math.isfinite(rate)) or steps < 1:
        raise ConfigError(f"a schedule needs a rate and steps above 0, got {rate} and {steps}")
    warmup = round(warmup_share * steps)
    if warmup and warmup >= steps:
        raise ConfigError(
            f"schedule.warmup_share is {warmup_share}: the warm-up would be the whole run of "
            f"{steps} steps; 0.05 is usual"
        )
    if kind == "one_cycle":
        return _one_cycle(rate, steps, final_share)
    shapes: dict[str, Callable[[float], float]] = {
        "constant": lambda _: 1.0,
        "cosine": lambda done: _between(1.0, final_share, done),
        "exponential": lambda done: math.pow(final_share, done),
        "restarts": lambda done: _between(1.0, final_share, _within_cycle(done, cycles)),
    }

    def at(step: int) -> float:
        if step < warmup:
            return rate * (step + 1) / (warmup + 1)
        if kind == "step":
            passed = sum(step >= share * steps for share in milestones)
            return rate * math.pow(factor, passed)
        done = min((step - warmup) / max(steps - warmup, 1), 1.0)
        return rate * shapes[kind](done)

    return at


def _between(first: float, last: float, done: float) -> float:
    """Half a cosine from first to last."""
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * done))


def _within_cycle(done: float, cycles: int) -> float:
    """How far the descent under way has come, where each is twice as long as the one before."""
    place, length = done * (2.0**cycles - 1), 1.0
    for _ in range(cycles - 1):
        if place < length:
            break
        place, length = place - length, 2 * length
    return min(place / length, 1.0)


def _one_cycle(rate: float, steps: int, final_share: float) -> Schedule:
    rise = round(_ONE_CYCLE_RISE * steps)

    def at(step: int) -> float:
        if step < rise:
            return rate * _between(_ONE_CYCLE_START, 1.0, step / rise)
        return rate * _between(1.0, final_share, min((step - rise) / max(steps - rise, 1), 1.0))

    return at


def config_schedule(pipeline: Any) -> Schedule:
    """The rate as the OD API itself makes it from a pipeline.config's optimizer.

    Raises:
        ConfigError: it has no optimizer with a learning rate, or one whose numbers do not fit.
    """
    odapi = open_odapi()
    step = odapi.tf.Variable(0, trainable=False, dtype=odapi.tf.int64)

    def at(done: int) -> float:
        step.assign(done)
        return float(rate() if callable(rate) else rate)

    try:
        _, (rate,) = odapi.optimizer_builder.build(
            pipeline.train_config.optimizer, global_step=step
        )
        at(0)  # some of its checks wait for the first step
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"the OD API makes no learning rate of train_config.optimizer: {error}"
        ) from error
    return at
