"""Truth and detections of all frames as columns: 24 bytes a box, whatever the number of frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.boxes import Boxes
from urbandet_ray.detections import Detections
from urbandet_ray.errors import InputError, LabelError
from urbandet_ray.frames import Truth
from urbandet_ray.labels import LabelMap


@dataclass(frozen=True, eq=False)
class FrameResult:
    """One frame to be scored.

    Attributes:
        frame_key: unique within an evaluation.
        size_wh: width, height in pixels.
        truth: what is in the frame; Truth.empty() where nothing is.
        detections: what was found.
    """

    frame_key: str
    size_wh: tuple[int, int]
    truth: Truth
    detections: Detections


@dataclass(frozen=True, eq=False)
class BoxColumns:
    """Boxes of one class, by frame; within a frame best score first, or in the truth's order.

    Attributes:
        frames: [n] int64, number of the frame, ascending.
        boxes_xyxy: [n, 4] float32, pixels.
        values: [n] score of a detection, or 1 for a truth box that is a crowd and 0 otherwise.
    """

    frames: NDArray[np.int64]
    boxes_xyxy: Boxes
    values: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.frames)


@dataclass
class _Collected:
    """Columns in the making: an array a frame, joined at the end."""

    frames: list[NDArray[np.int64]] = field(default_factory=list)
    boxes: list[Boxes] = field(default_factory=list)
    class_ids: list[NDArray[np.int32]] = field(default_factory=list)
    values: list[NDArray[np.float32]] = field(default_factory=list)

    def add(
        self,
        number: int,
        boxes_xyxy: Boxes,
        class_ids: NDArray[np.int32],
        values: NDArray[np.float32],
    ) -> None:
        if len(class_ids):
            self.frames.append(np.full(len(class_ids), number, np.int64))
            self.boxes.append(boxes_xyxy)
            self.class_ids.append(class_ids)
            self.values.append(values)

    def by_class(self, *, best_first: bool) -> dict[int, BoxColumns]:
        if not self.frames:
            return {}
        frames, boxes = np.concatenate(self.frames), np.concatenate(self.boxes)
        class_ids, values = np.concatenate(self.class_ids), np.concatenate(self.values)
        # lexsort is stable: equal scores keep the detector's order, as COCO's merge sort does
        order = np.lexsort((-values, frames)) if best_first else np.argsort(frames, kind="stable")
        return {
            int(class_id): BoxColumns(frames[of_class], boxes[of_class], values[of_class])
            for class_id in np.unique(class_ids)
            for of_class in [order[class_ids[order] == class_id]]
        }


@dataclass(frozen=True, eq=False)
class Scene:
    """All frames of an evaluation, by class id."""

    frames: int
    truth: dict[int, BoxColumns]
    detections: dict[int, BoxColumns]


def collect(frames: Iterable[FrameResult], labels: LabelMap, score_min: float | None) -> Scene:
    """Read all frames once into columns.

    Raises:
        InputError: no frame, a frame key that came before, or a truth box that is not finite.
        LabelError: a class id that the label map does not have.
    """
    truth, detections = _Collected(), _Collected()
    seen: set[str] = set()
    for number, frame in enumerate(_checked(frames, labels, seen)):
        found = frame.detections if score_min is None else frame.detections.above(score_min)
        labelled = frame.truth
        crowd = labelled.is_crowd.astype(np.float32)
        truth.add(number, labelled.boxes_xyxy, labelled.class_ids, crowd)
        detections.add(number, found.boxes_xyxy, found.class_ids, found.scores)
    if not seen:
        raise InputError(
            "there is no frame to evaluate: check that the run has committed shards and that "
            "their frame keys are those of the truth records"
        )
    return Scene(len(seen), truth.by_class(best_first=False), detections.by_class(best_first=True))


def _checked(
    frames: Iterable[FrameResult], labels: LabelMap, seen: set[str]
) -> Iterator[FrameResult]:
    known = set(labels.names)
    for frame in frames:
        if frame.frame_key in seen:
            raise InputError(
                f"frame {frame.frame_key!r} came twice: an evaluation counts every frame once. "
                "Check that the truth records and the run's detections are each read once"
            )
        seen.add(frame.frame_key)
        for what, class_ids in (
            ("truth", frame.truth.class_ids),
            ("detections", frame.detections.class_ids),
        ):
            unknown = set(class_ids.tolist()) - known
            if unknown:
                raise LabelError(_unknown_class(frame.frame_key, what, min(unknown), labels))
        if not np.isfinite(frame.truth.boxes_xyxy).all():
            raise InputError(
                f"the truth of frame {frame.frame_key!r} has a box that is not finite: "
                "run `urbandet data validate` on the truth records"
            )
        yield frame


def _unknown_class(frame_key: str, what: str, class_id: int, labels: LabelMap) -> str:
    known = ", ".join(f"{known_id} {name}" for known_id, name in labels.names.items())
    remedy = (
        "give the label map the truth records were made with"
        if what == "truth"
        else "map the model's classes to those of the label map (a class mapping)"
    )
    return (
        f"the {what} of frame {frame_key!r} has class id {class_id}, "
        f"the label map has {known}: {remedy}"
    )
