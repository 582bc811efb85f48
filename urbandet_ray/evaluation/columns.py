"""Truth and detections of all frames as columns: 24 bytes a box, whatever the number of frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.boxes import Boxes
from urbandet_ray.errors import InputError, LabelError
from urbandet_ray.frames import Truth
from urbandet_ray.labels import LabelMap
from urbandet_ray.runs.detections_table import DetectionRow


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


_Pieces = list[tuple[int, Boxes, NDArray[np.int32], NDArray[np.float32]]]
"""Columns in the making: number, boxes, class ids and values of each frame."""


def collect(
    rows: Iterable[DetectionRow], labels: LabelMap, score_min: float | None
) -> tuple[int, dict[int, BoxColumns], dict[int, BoxColumns]]:
    """Read all frames once into columns.

    Returns:
        The number of frames; the truth and the detections of each class id that has any.

    Raises:
        InputError: no frame, a frame that came before, one without truth, or a truth box that is
            not finite.
        LabelError: a class id that the label map does not have.
    """
    truth: _Pieces = []
    detections: _Pieces = []
    frames = 0
    for number, (row, labelled) in enumerate(_checked(rows, labels)):
        found = row.detections if score_min is None else row.detections.above(score_min)
        crowd = labelled.is_crowd.astype(np.float32)
        truth.append((number, labelled.boxes_xyxy, labelled.class_ids, crowd))
        detections.append((number, found.boxes_xyxy, found.class_ids, found.scores))
        frames = number + 1
    if not frames:
        raise InputError(
            "there is no frame to evaluate: check that the run has committed shards and that "
            "their frame keys are those of the truth records"
        )
    return frames, _by_class(truth, best_first=False), _by_class(detections, best_first=True)


def _by_class(pieces: _Pieces, *, best_first: bool) -> dict[int, BoxColumns]:
    frames = np.concatenate([np.full(len(ids), number, np.int64) for number, _, ids, _ in pieces])
    boxes, class_ids, values = (
        np.concatenate([piece[column] for piece in pieces]) for column in (1, 2, 3)
    )
    # lexsort is stable: equal scores keep the detector's order, as COCO's merge sort does
    order = np.lexsort((-values, frames)) if best_first else np.argsort(frames, kind="stable")
    return {
        int(class_id): BoxColumns(frames[of_class], boxes[of_class], values[of_class])
        for class_id in np.unique(class_ids)
        for of_class in [order[class_ids[order] == class_id]]
    }


def _checked(
    rows: Iterable[DetectionRow], labels: LabelMap
) -> Iterator[tuple[DetectionRow, Truth]]:
    known = set(labels.names)
    seen: set[tuple[str, int]] = set()
    for row in rows:
        if (row.shard, row.index) in seen:
            raise InputError(
                f"frame {row.frame_key!r} came twice: an evaluation counts every frame once. "
                "Check that the truth records and the run's detections are each read once"
            )
        seen.add((row.shard, row.index))
        if row.truth is None:
            raise InputError(f"frame {row.frame_key!r} carries no labels to compare with")
        for what, class_ids in (
            ("truth", row.truth.class_ids),
            ("detections", row.detections.class_ids),
        ):
            unknown = set(class_ids.tolist()) - known
            if unknown:
                raise LabelError(_unknown_class(row, what, min(unknown), labels))
        if not np.isfinite(row.truth.boxes_xyxy).all():
            raise InputError(
                f"the truth of frame {row.frame_key!r} has a box that is not finite: "
                "run `urbandet data validate` on the truth records"
            )
        yield row, row.truth


def _unknown_class(row: DetectionRow, what: str, class_id: int, labels: LabelMap) -> str:
    known = ", ".join(f"{known_id} {name}" for known_id, name in labels.names.items())
    said, remedy = "", "map the model's classes to those of the label map (a class mapping)"
    if what == "truth" and row.truth is not None:
        remedy = "give the label map the truth records were made with"
        place = row.truth.class_ids.tolist().index(class_id)
        if text := row.truth.class_texts[place]:
            said = f" (class/text {text!r})"
    return (
        f"the {what} of frame {row.frame_key!r} has class id {class_id}{said}, "
        f"the label map has {known}: {remedy}"
    )
