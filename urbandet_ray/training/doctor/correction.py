"""The corrected copy: each fix is made, examined, and taken back where it makes anything worse."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache

from urbandet_ray.errors import UrbandetError, first_line
from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.models.pipeline_config import PipelineConfig
from urbandet_ray.training.doctor.examine import UNBUILDABLE, Examination, again
from urbandet_ray.training.doctor.findings import Finding
from urbandet_ray.training.doctor.suitability import figures
from urbandet_ray.training.odapi_model import OdApiModel

_PASSES = 4
_WORSE = 1e-6

Key = tuple[str, str]
Build = Callable[[PipelineConfig], str]
"""Why the model of a config can't be built; "" where it can."""


@dataclass(frozen=True)
class Refused:
    """A fix that was not made, and why."""

    finding: Finding
    reason: str


@dataclass(frozen=True)
class Correction:
    """A corrected pipeline.config.

    Attributes:
        pipeline: with the fixes that are made.
        done: their findings, those included that only a fix brought to light.
        refused: fixes that would have made something worse.
        left: what the doctor says of the copy.
        unbuilt: why the copy's model can't be built; "" where it can, or was not tried.
    """

    pipeline: PipelineConfig
    done: tuple[Finding, ...]
    refused: tuple[Refused, ...]
    left: tuple[Finding, ...]
    unbuilt: str = ""


def correct(examination: Examination, build: Build | None = None) -> Correction:
    """Make every automatic fix that proves itself.

    A fix is kept where the doctor finds nothing new in the result, no figure is worse and the
    model can be built as well as before. What follows from a fix is fixed with it.

    Args:
        build: tries the model; None leaves that out.
    """
    made = _Maker(examination, None).run()
    if build is None:
        return made
    unbuilt = build(made.pipeline)
    if unbuilt and made.pipeline.message.model != examination.case.config.model:
        made = _Maker(examination, build).run()  # with a look at each fix: one of them breaks it
        unbuilt = build(made.pipeline)
    return replace(made, unbuilt=unbuilt)


def why_unbuildable(pipeline: PipelineConfig) -> str:
    """Build the OD API's model as a training does; why it can't be, "" where it can."""
    return _why_unbuildable(pipeline.message.model.SerializeToString(deterministic=True))


@lru_cache(maxsize=32)
def _why_unbuildable(model: bytes) -> str:
    config = open_odapi().pipeline_pb2.TrainEvalPipelineConfig()
    config.model.ParseFromString(model)
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.ERROR)  # of names that TensorFlow would rather have
    try:
        OdApiModel(config).build(1)
    except Exception as error:  # the OD API raises whatever its layers raise
        told = "" if isinstance(error, UrbandetError) else f"{type(error).__name__}: "
        return told + first_line(error)
    finally:
        logger.setLevel(level)
    return ""


@dataclass
class _Maker:
    start: Examination
    build: Build | None
    done: dict[Key, Finding] = field(default_factory=dict)
    refused: dict[Key, Refused] = field(default_factory=dict)

    def run(self) -> Correction:
        start = self.start
        message = start.case.pipeline.message
        current = again(start, start.case.pipeline.rewritten(message))
        still = {_key(one) for one in current.findings}
        for one in start.findings:
            if one.edit is not None and _key(one) not in still:  # what only the text shows
                current = self._try(current, one)
        while (waiting := self._next(current.findings)) is not None:
            current = self._try(current, waiting)
        left = {_key(one) for one in current.findings}
        cured = [one for one in start.findings if one.edit is not None and _key(one) not in left]
        for one in cured:  # some by another's fix
            if _key(one) not in self.refused:
                self.done.setdefault(_key(one), one)
        return Correction(
            current.case.pipeline,
            tuple(self.done.values()),
            tuple(self.refused.values()),
            current.findings,
        )

    def _next(self, findings: Iterable[Finding]) -> Finding | None:
        """A fix that was not tried yet."""
        seen = self.refused.keys() | self.done.keys()
        waiting = (one for one in findings if one.edit is not None and _key(one) not in seen)
        return next(waiting, None)

    def _try(self, current: Examination, one: Finding) -> Examination:
        """What becomes of a fix with all that follows from it; `current` where it is refused."""
        made, trial = [one], _edited(current, one)
        for _ in range(_PASSES):
            follows = [
                new
                for new in _new(current, trial, one)
                if new.edit is not None and _key(new) not in self.refused
            ]
            if not follows:
                break
            for each in follows:
                trial = _edited(trial, each)
                made.append(each)
        reason = self._why_worse(current, trial, one)
        if reason:
            self.refused[_key(one)] = Refused(one, reason)
            return current
        self.done |= {_key(each): each for each in made}
        return trial

    def _why_worse(self, current: Examination, trial: Examination, one: Finding) -> str:
        new = _new(current, trial, one)
        if new:
            return f"it would bring {new[0].code}: {new[0].what}"
        if not _hidden(current):
            before, after = figures(current.case), figures(trial.case)
            for name in before.keys() & after.keys():
                if after[name] > before[name] + _WORSE:
                    return f"{name} would go from {before[name]:.1%} to {after[name]:.1%}"
        if self.build is not None:
            unbuilt = self.build(trial.case.pipeline)
            if unbuilt and not self.build(current.case.pipeline):
                return f"the model could not be built with it: {unbuilt}"
        return ""


def _edited(one: Examination, finding: Finding) -> Examination:
    message = one.case.pipeline.message
    if finding.edit is not None:
        finding.edit(message)
    return again(one, one.case.pipeline.rewritten(message))


def _new(before: Examination, after: Examination, cause: Finding) -> list[Finding]:
    """Findings that were not there, but for what a model that can't be built had hidden."""
    if _hidden(before) and cause.code in UNBUILDABLE:
        return []
    known = {_key(one): one.severity for one in before.findings}
    return [
        one
        for one in after.findings
        if one.severity != "note" and known.get(_key(one)) not in ("error", one.severity)
    ]


def _hidden(one: Examination) -> bool:
    return any(finding.code in UNBUILDABLE for finding in one.findings)


def _key(one: Finding) -> Key:
    return one.code, one.place


def unmade(correction: Correction) -> list[str]:
    """A line for each fix that was not made, and one for a model that can't be built."""
    lines = [f"{one.finding.code}: not fixed, {one.reason}" for one in correction.refused]
    if correction.unbuilt:
        lines.append(f"the model can't be built: {correction.unbuilt}")
    return lines
