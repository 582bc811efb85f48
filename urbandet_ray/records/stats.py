"""What a data set holds: frames, classes, box sizes and shapes, image sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.boxes import box_areas
from urbandet_ray.errors import RecordError
from urbandet_ray.frames import Frame
from urbandet_ray.labels import LabelMap
from urbandet_ray.records.class_column import labels_of_texts, renumbered
from urbandet_ray.records.data_folder import DataFolder
from urbandet_ray.records.images import frame_size
from urbandet_ray.records.label_faults import LabelFaults
from urbandet_ray.records.sources import read_source
from urbandet_ray.storage import Storage
from urbandet_ray.tables import text_table

SMALL_PX2, LARGE_PX2 = 32.0**2, 96.0**2
"""COCO's bounds of small, medium and large boxes (cocoeval.Params)."""

Progress = Callable[[int, int], None]
"""Called with (sources done, sources in all) after each source."""


@dataclass(frozen=True)
class ClassStatistics:
    """Boxes of one class.

    Attributes:
        class_id: id in the data.
        name: by the label map, else the records' own text.
        boxes: how many.
        frames: how many frames hold at least one.
        small, medium, large: boxes by COCO's area bounds, 32² and 96² px².
        aspect_ratios: 10th, 50th, 90th percentile of width / height.
        sides_px: 10th, 50th, 90th percentile of the square root of the area.
    """

    class_id: int
    name: str
    boxes: int
    frames: int
    small: int
    medium: int
    large: int
    aspect_ratios: tuple[float, float, float]
    sides_px: tuple[float, float, float]


@dataclass(frozen=True)
class DataStatistics:
    """A data set in numbers.

    Attributes:
        uri: what was read.
        segments: drives.
        frames: frames that can be read.
        labelled_frames: those with truth, empty truth included.
        bad_records: records without a frame.
        boxes_per_frame: least, median, most, over labelled frames.
        classes: by class id.
        image_sizes: frames by "width x height"; "unknown" where no header tells.
        left_out: boxes that cannot be used and columns that cannot be read, by reason.
        faults: the same in words, a line a kind.
        class_notes: boxes whose class text and number do not agree, a line a kind.
    """

    uri: str
    segments: int
    frames: int
    labelled_frames: int
    bad_records: int
    boxes_per_frame: tuple[float, float, float]
    classes: tuple[ClassStatistics, ...]
    image_sizes: dict[str, int]
    left_out: dict[str, int]
    faults: tuple[str, ...]
    class_notes: tuple[str, ...]

    @property
    def boxes(self) -> int:
        """Boxes of all classes."""
        return sum(one.boxes for one in self.classes)

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return asdict(self) | {"boxes": self.boxes}

    def to_text(self) -> str:
        """As a table for a terminal."""
        least, median, most = self.boxes_per_frame
        sizes = ", ".join(f"{size} ({count})" for size, count in list(self.image_sizes.items())[:6])
        lines = [
            f"{self.uri}: {self.segments} segments, {self.frames} frames "
            f"({self.labelled_frames} labelled), {self.boxes} boxes, "
            f"{self.bad_records} bad records",
            f"image sizes: {sizes or 'none'}",
            f"boxes a frame: {least:g} least, {median:g} median, {most:g} most",
        ]
        lines += [f"left out: {line}" for line in self.faults]
        lines += self.class_notes
        if self.classes:
            heads = ["id", "class", "boxes", "frames", "small", "medium", "large"]
            heads += ["side px p10/50/90", "aspect p10/50/90"]
            lines.append(text_table([heads, *map(_row, self.classes)], "rlrrrrrll"))
        return "\n".join(lines)


def _row(one: ClassStatistics) -> list[str]:
    counts = (one.boxes, one.frames, one.small, one.medium, one.large)
    sides = "/".join(f"{side:.0f}" for side in one.sides_px)
    ratios = "/".join(f"{ratio:.2f}" for ratio in one.aspect_ratios)
    return [str(one.class_id), one.name, *map(str, counts), sides, ratios]


def statistics(
    data: DataFolder,
    storage: Storage,
    labels: LabelMap | None = None,
    *,
    progress: Progress | None = None,
) -> DataStatistics:
    """Count what data hold, all parts together; images are not decoded.

    Classes of `labels` without a box are listed with zeros.

    Raises:
        StorageError: it cannot be read.
    """
    tally = _Tally()
    for done, source in enumerate(data.sources, start=1):
        for record in read_source(source, storage, labels=labels):
            if record.frame is None:
                tally.bad_records += 1
            else:
                tally.add(record.frame)
                tally.faults.add(record.problems, f"{record.uri} record {record.index}")
        if progress is not None:
            progress(done, len(data.sources))
    return tally.total(data.uri, labels)


@dataclass
class _Tally:
    """Running counts; box columns are small next to the images they came with."""

    bad_records: int = 0
    segments: set[str] = field(default_factory=set)
    sizes: Counter[str] = field(default_factory=Counter)
    boxes_per_frame: list[int] = field(default_factory=list)
    frames: int = 0
    boxes: list[NDArray[np.float32]] = field(default_factory=list)
    columns: list[tuple[NDArray[np.int32], tuple[str, ...]]] = field(default_factory=list)
    faults: LabelFaults = field(default_factory=LabelFaults)

    def add(self, frame: Frame) -> None:
        self.frames += 1
        self.segments.add(frame.segment)
        self.sizes[_size_text(frame)] += 1
        truth = frame.truth
        if truth is None:
            return
        self.boxes_per_frame.append(len(truth))
        self.boxes.append(truth.boxes_xyxy)
        self.columns.append((truth.class_ids, truth.class_texts))

    def total(self, uri: str, labels: LabelMap | None) -> DataStatistics:
        boxes = np.concatenate([np.zeros((0, 4), np.float32), *self.boxes])
        ids = [numbers for numbers, _ in self.columns]
        if labels is None:
            pairs = (zip(one.tolist(), texts, strict=True) for one, texts in self.columns)
            labels = labels_of_texts(chain.from_iterable(pairs))
            if labels is not None:
                ids = [renumbered(one, texts, labels) for one, texts in self.columns]
        class_ids = np.concatenate([np.zeros(0, np.int32), *ids])
        frames_with = Counter(class_id for each in ids for class_id in np.unique(each).tolist())
        listed: Iterable[int] = {*frames_with, *(labels.names if labels else ())}
        counts = self.boxes_per_frame or [0]
        return DataStatistics(
            uri=uri,
            segments=len(self.segments),
            frames=self.frames,
            labelled_frames=len(self.boxes_per_frame),
            bad_records=self.bad_records,
            boxes_per_frame=(float(min(counts)), float(np.median(counts)), float(max(counts))),
            classes=tuple(
                _one_class(class_id, boxes[class_ids == class_id], frames_with[class_id], labels)
                for class_id in sorted(listed)
            ),
            image_sizes=dict(self.sizes.most_common()),
            left_out=dict(self.faults.settled().counts),
            faults=tuple(self.faults.to_lines()),
            class_notes=tuple(self.faults.class_lines()),
        )


def _one_class(
    class_id: int, boxes: NDArray[np.float32], frames: int, labels: LabelMap | None
) -> ClassStatistics:
    areas = box_areas(boxes)
    sides = boxes[:, 2:] - boxes[:, :2]
    return ClassStatistics(
        class_id=class_id,
        name=labels.name_of(class_id) if labels else f"class {class_id}",
        boxes=len(boxes),
        frames=frames,
        small=int((areas < SMALL_PX2).sum()),
        medium=int(((areas >= SMALL_PX2) & (areas <= LARGE_PX2)).sum()),
        large=int((areas > LARGE_PX2).sum()),
        aspect_ratios=_percentiles(sides[:, 0] / sides[:, 1]),
        sides_px=_percentiles(np.sqrt(areas)),
    )


def _percentiles(values: NDArray[np.float32]) -> tuple[float, float, float]:
    if not len(values):
        return (0.0, 0.0, 0.0)
    low, mid, high = np.percentile(values, [10, 50, 90]).tolist()
    return (low, mid, high)


def _size_text(frame: Frame) -> str:
    try:
        width, height = frame_size(frame)
    except RecordError:
        return "unknown"
    return f"{width} x {height}"
