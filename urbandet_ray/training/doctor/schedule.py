"""Is the learning rate right for the run: its length, its warm-up, its batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from urbandet_ray.training.doctor.case import Case, at, both, rounded, setting
from urbandet_ray.training.doctor.findings import Finding
from urbandet_ray.training.optimisation.rates import (
    MOMENTUM_RATE_PER_IMAGE,
    RATE_FIELDS,
    reference_rate,
    stated_rate,
    stock_batch,
)

RATE_FINDINGS = ("learning-rate-high", "learning-rate-low")
"""Codes of what is said of the rate itself, whose schedule a run may replace."""

_TOO_HIGH, _TOO_LOW = 3.0, 1 / 20
_LONG_WARMUP = 0.25
_IDLE_TAIL = 0.05
_UNDECAYED = 0.1


def check_schedule(case: Case) -> Iterator[Finding]:
    """Run length, schedule length, warm-up and learning rate."""
    yield from _check_run_length(case)
    place, kind = _schedule_of(case)
    if not kind:
        yield case.finding(
            "error",
            "no-learning-rate",
            place,
            "no optimizer with a learning rate is set: the OD API refuses to train",
            "set train_config.optimizer.momentum_optimizer.learning_rate",
        )
        return
    schedule = at(case.config, place)
    if kind == "cosine_decay_learning_rate":
        yield from _check_cosine(case, place, schedule)
    elif kind == "exponential_decay_learning_rate":
        yield from _check_exponential(case, place, schedule)
    elif kind == "manual_step_learning_rate":
        yield from _check_manual(case, place, schedule)
    yield from _check_rate(case, f"{place}.{RATE_FIELDS[kind]}")


def cosine_rate(step: float, base: float, total: int, warmup: int, warmup_rate: float) -> float:
    """The OD API's cosine_decay_with_warmup at a step, without hold."""
    if step < warmup:
        return warmup_rate + (base - warmup_rate) * step / warmup
    if step > total or total <= warmup:
        return 0.0
    return 0.5 * base * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def _schedule_of(case: Case) -> tuple[str, str]:
    optimizer = case.config.train_config.optimizer
    name = optimizer.WhichOneof("optimizer")
    if not name:
        return "train_config.optimizer", ""
    rate = getattr(optimizer, name).learning_rate
    kind = rate.WhichOneof("learning_rate")
    place = f"train_config.optimizer.{name}.learning_rate"
    return (f"{place}.{kind}", kind) if kind else (place, "")


def _check_run_length(case: Case) -> Iterator[Finding]:
    place, told = "train_config.num_steps", case.config.train_config.num_steps
    if not case.steps:
        yield case.finding(
            "warning",
            "no-run-length",
            place,
            "num_steps is not set: the schedule cannot be held to the run, and the OD API's loop "
            "has no end",
            "set num_steps, or give --steps",
        )
    elif told and told != case.steps:
        yield case.finding(
            "note",
            "num-steps-differ",
            place,
            f"the file says {told:,} steps, the run was given {case.steps:,}; the checks below "
            f"are for {case.steps:,}",
            f"num_steps: {case.steps}",
            setting(place, case.steps),
        )


def _fitted_warmup(case: Case, warmup: int) -> int:
    return warmup if warmup <= case.steps // 10 else max(1, case.steps // 20)


def _check_cosine(case: Case, place: str, cosine: Any) -> Iterator[Finding]:
    total, warmup, run = cosine.total_steps, cosine.warmup_steps, case.steps
    base, low = cosine.learning_rate_base, cosine.warmup_learning_rate
    fitted = _fitted_warmup(case, warmup) if run else 0
    if warmup and low > base:
        yield case.finding(
            "error",
            "warmup-above-base",
            f"{place}.warmup_learning_rate",
            f"warm-up starts at {low:g}, above the base rate {base:g}: the OD API refuses to train",
            f"warmup_learning_rate: {rounded(base / 10, 3):g}",
            setting(f"{place}.warmup_learning_rate", rounded(base / 10, 3)),
        )
    if not run:
        return
    yield from _check_warmup(case, f"{place}.warmup_steps", warmup, base, low)
    if total < warmup or (warmup < run and total < run * (1 - _IDLE_TAIL)):
        idle = max(0, run - total)
        refused = total < warmup
        what = f"the schedule ends at step {total:,} of {run:,}: the learning rate is 0 for the "
        what += f"last {idle:,} steps, {idle / run:.0%} of the run learns nothing"
        if refused:
            what = f"total_steps {total:,} lies before the end of the warm-up at {warmup:,}: the "
            what += "OD API refuses to train"
        yield case.finding(
            "error" if refused or idle > run / 2 else "warning",
            "schedule-shorter-than-run",
            f"{place}.total_steps",
            what,
            f"total_steps: {run}",
            both(setting(f"{place}.total_steps", run), setting(f"{place}.warmup_steps", fitted)),
        )
        return
    last = cosine_rate(run, base, total, warmup, low)
    if total > run and (last > _UNDECAYED * base or warmup >= run):
        share = 1 - max(0, run - warmup) / max(1, total - warmup)
        yield case.finding(
            "error" if last > base / 2 or warmup >= run else "warning",
            "schedule-longer-than-run",
            f"{place}.total_steps",
            f"cosine decay over {total:,} steps in a run of {run:,}: the rate still stands at "
            f"{last:.3g} ({last / base:.0%} of the base) when the run ends; {share:.0%} of the "
            "decay never happens, so the weights never settle",
            f"total_steps: {run}",
            setting(f"{place}.total_steps", run),
        )


def _check_warmup(
    case: Case, place: str, warmup: int, base: float, low: float
) -> Iterator[Finding]:
    run = case.steps
    fitted = _fitted_warmup(case, warmup)
    if warmup >= run:
        reached = low + (base - low) * run / warmup
        yield case.finding(
            "error",
            "warmup-beyond-run",
            place,
            f"warm-up of {warmup:,} steps in a run of {run:,}: the rate climbs to the very end "
            f"({reached:.3g} of {base:.3g}) and never decays",
            f"warmup_steps: {fitted}",
            setting(place, fitted),
        )
    elif warmup > _LONG_WARMUP * run:
        yield case.finding(
            "warning",
            "warmup-long",
            place,
            f"warm-up takes {warmup:,} of {run:,} steps, {warmup / run:.0%} of the run",
            f"warmup_steps: {fitted}",
            setting(place, fitted),
        )


def _check_exponential(case: Case, place: str, decay: Any) -> Iterator[Finding]:
    run = case.steps
    if not run:
        return
    if decay.burnin_steps >= run:
        yield case.finding(
            "error",
            "warmup-beyond-run",
            f"{place}.burnin_steps",
            f"burn-in of {decay.burnin_steps:,} steps in a run of {run:,}: the schedule never "
            "starts",
            f"burnin_steps: {run // 20}",
            setting(f"{place}.burnin_steps", run // 20),
        )
    if decay.decay_steps > run:
        steps = max(1, run // 10)
        yield case.finding(
            "warning",
            "schedule-longer-than-run",
            f"{place}.decay_steps",
            f"the rate decays by {decay.decay_factor:g} each {decay.decay_steps:,} steps, the run "
            f"has {run:,}: it hardly moves",
            f"decay_steps: {steps}",
            setting(f"{place}.decay_steps", steps),
        )


def _check_manual(case: Case, place: str, manual: Any) -> Iterator[Finding]:
    steps = [one.step for one in manual.schedule]
    if steps != sorted(set(steps)):
        yield case.finding(
            "error",
            "steps-out-of-order",
            f"{place}.schedule",
            f"the steps {steps} do not increase: the OD API refuses to train",
            "list them in increasing order, each once",
        )
        return
    late = [step for step in steps if case.steps and step >= case.steps]
    if not late:
        return
    run = case.steps
    all_late = len(late) == len(steps)
    scale = run * 0.9 / steps[-1]

    def edit(config: Any) -> None:
        for one in at(config, place).schedule:
            one.step = max(1, round(one.step * scale))

    yield case.finding(
        "warning" if all_late else "note",
        "schedule-longer-than-run",
        f"{place}.schedule" + (f"[{steps.index(late[0])}]" if steps.index(late[0]) else ""),
        f"{len(late)} of {len(steps)} drops of the rate come at or after the end of the run of "
        f"{run:,} steps (at {', '.join(f'{step:,}' for step in late)}) and never happen",
        "steps: " + ", ".join(str(max(1, round(step * scale))) for step in steps),
        edit,
    )


def _check_rate(case: Case, field: str) -> Iterator[Finding]:
    """Judge the highest rate, which a manual schedule may state behind its first."""
    optimizer = str(case.config.train_config.optimizer.WhichOneof("optimizer"))
    highest = stated_rate(case.config, defaults=True)
    if highest is None:
        return
    rate, batch, place = highest.value, case.global_batch, highest.place
    wanted = reference_rate(optimizer, max(1, batch))
    ratio = max(rate, 1e-12) / wanted
    if _TOO_LOW <= ratio <= _TOO_HIGH:
        return
    value = rounded(wanted, 3)
    sized = f"{rate / MOMENTUM_RATE_PER_IMAGE:,.0f} images"
    meant = f", it suits a batch of {sized}" if optimizer == "momentum_optimizer" else ""
    how = "the loss oscillates or blows up" if ratio > 1 else "it hardly learns in the run's time"
    rule = "linear" if optimizer == "momentum_optimizer" else "square root"
    schedule, _, name = field.rpartition(".")
    scale = wanted / rate if rate else 0.0

    def edit(config: Any) -> None:
        message = at(config, schedule)
        first = value if place == field else rounded(getattr(message, name) * scale)
        setattr(message, name, first)
        fields = message.DESCRIPTOR.fields_by_name
        for other in ("warmup_learning_rate", "burnin_learning_rate", "min_learning_rate"):
            if other in fields and message.HasField(other):
                setattr(message, other, rounded(getattr(message, other) * scale))
        if "schedule" in fields:
            for one in message.schedule:
                one.learning_rate = rounded(one.learning_rate * scale)

    each = f" ({batch // case.workers} x {case.workers} workers)" if case.workers > 1 else ""
    # nobody chose a stock rate for this batch; another one somebody may have tuned
    unchosen = ratio > 1 and stock_batch(optimizer, rate) is not None
    yield case.finding(
        "error" if unchosen else "warning",
        RATE_FINDINGS[0 if ratio > 1 else 1],
        place,
        f"{rate:.3g} with a global batch of {batch}{each} is "
        + (f"{ratio:.3g} times too high" if ratio > 1 else f"{1 / ratio:.3g} times too low")
        + f" ({rule} rule from the OD API's tuned configs){meant}: {how}",
        f"{place.rpartition('.')[2]}: {value:g}, or schedule.rate={value:g} in a run config",
        edit,
    )
