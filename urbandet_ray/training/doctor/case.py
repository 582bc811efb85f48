"""The case on the table: the config, the run it is meant for and the data it will meet."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from urbandet_ray.labels import LabelMap
from urbandet_ray.models.pipeline_config import PipelineConfig
from urbandet_ray.training.doctor.dataset import DataSplit
from urbandet_ray.training.doctor.findings import Edit, Finding, Severity


@dataclass(frozen=True)
class Case:
    """All that the checks look at.

    Attributes:
        pipeline: the file.
        steps: optimizer steps of the run; 0 where nobody said.
        workers: each takes `train_config.batch_size` images a step.
        min_box_side: smaller boxes are left out of training [px of the network's input].
        labels: the training label map; None where it cannot be read.
        train, val: what the records hold; None where there are none to read.
    """

    pipeline: PipelineConfig
    steps: int
    workers: int = 1
    min_box_side: float = 0
    labels: LabelMap | None = None
    train: DataSplit | None = None
    val: DataSplit | None = None

    @cached_property
    def config(self) -> Any:
        """The TrainEvalPipelineConfig message; checks read it only."""
        return self.pipeline.message

    @property
    def kind(self) -> str:
        """The meta-architecture's field: ssd, faster_rcnn, center_net or another."""
        return self.config.model.WhichOneof("model") or ""

    @property
    def model(self) -> Any:
        """The meta-architecture's message."""
        return getattr(self.config.model, self.kind) if self.kind else None

    @property
    def extractor(self) -> str:
        """Name of the feature extractor; "" where there is none."""
        if self.model is None or "feature_extractor" not in self.model.DESCRIPTOR.fields_by_name:
            return ""
        return str(self.model.feature_extractor.type)

    @property
    def global_batch(self) -> int:
        """Images of one optimizer step, all workers together."""
        return int(self.config.train_config.batch_size) * self.workers

    def resizer(self) -> tuple[str, Any]:
        """Name and message of the image resizer; ("", None) where there is none."""
        fields = () if self.model is None else self.model.DESCRIPTOR.fields_by_name
        if "image_resizer" not in fields or not self.model.HasField("image_resizer"):
            return "", None
        name = self.model.image_resizer.WhichOneof("image_resizer_oneof") or ""
        return name, getattr(self.model.image_resizer, name) if name else None

    def input_size_wh(self) -> tuple[int, int] | None:
        """Width and height [px] that the network sees, padding included; None where it varies."""
        name, resizer = self.resizer()
        if name == "fixed_shape_resizer":
            return int(resizer.width), int(resizer.height)
        if name == "keep_aspect_ratio_resizer" and (
            resizer.pad_to_max_dimension or resizer.min_dimension == resizer.max_dimension
        ):
            return int(resizer.max_dimension), int(resizer.max_dimension)
        return None

    def finding(
        self,
        severity: Severity,
        code: str,
        place: str,
        what: str,
        fix: str,
        edit: Edit | None = None,
    ) -> Finding:
        """A finding with its line in the file."""
        return Finding(severity, code, place, what, fix, edit, self.pipeline.line_of(place))


def at(config: Any, place: str) -> Any:
    """The message or value at a path without indices."""
    for name in place.split("."):
        config = getattr(config, name)
    return config


def setting(place: str, value: Any) -> Edit:
    """An edit that sets one plain field."""
    parent, _, name = place.rpartition(".")

    def edit(config: Any) -> None:
        setattr(at(config, parent) if parent else config, name, value)

    return edit


def both(*edits: Edit) -> Edit:
    """One edit after the other."""

    def edit(config: Any) -> None:
        for one in edits:
            one(config)

    return edit


def rounded(value: float, digits: int = 2) -> float:
    """A value to so many significant digits."""
    if not value:
        return 0.0
    return round(value, digits - 1 - math.floor(math.log10(abs(value))))
