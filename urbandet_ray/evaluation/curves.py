"""Precision and recall by the rules of COCO, matched and counted by faster-coco-eval's C++ core.

The core is fed directly instead of through its COCO class, which holds a dict for every box from
start to end: here the dicts live for one chunk of frames, then only the core's own records stay.
tests/evaluation/test_parity.py holds the outcome to pycocotools.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.evaluation.coco import coco_boxes
from urbandet_ray.evaluation.columns import BoxColumns

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_THRESHOLDS = np.linspace(0.0, 1.0, 101)
SIZES = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}
"""COCO's ranges of box area in px²; both ends belong to a range."""

Spans = list[tuple[slice, slice]]
"""Per frame, where its truth boxes and its detections lie in the columns."""

_CHUNK_FRAMES = 256
# The core keeps some 130 bytes a detection and size, 1 GB at this number. For a class with more of
# them the sizes are matched one after the other: half the peak for twice the time.
_MANY_DETECTIONS = 2_000_000
# Ids serve the core as "matched" marks (anything above 0). With one id for all, the table of
# matched pairs that it builds beside the curves keeps a single entry.
_MARK = 1


@dataclass(frozen=True, eq=False)
class Curves:
    """Curves of one class; -1 where the truth has no box of that size.

    Attributes:
        precision: [10 IoU, 101 recall, 4 sizes], with the most detections considered.
        recall: [10 IoU, 4 sizes, 3 limits on the detections per frame].
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]


def measure_class(truth: BoxColumns, found: BoxColumns, limits: tuple[int, int, int]) -> Curves:
    """Match the detections of one class with its truth in all frames.

    Args:
        truth: truth boxes of the class.
        found: its detections.
        limits: numbers of best detections per frame to consider, ascending.
    """
    import faster_coco_eval.faster_eval_api_cpp as core

    numbers = np.union1d(truth.frames, found.frames)
    truth_ends = _spans(truth.frames, numbers)
    found_ends = _spans(found.frames, numbers)
    spans = [
        (slice(*truth_ends[i : i + 2]), slice(*found_ends[i : i + 2])) for i in range(len(numbers))
    ]
    precision = np.full((len(IOU_THRESHOLDS), len(RECALL_THRESHOLDS), len(SIZES)), -1.0)
    recall = np.full((len(IOU_THRESHOLDS), len(SIZES), len(limits)), -1.0)
    sizes_at_once = len(SIZES) if len(found) <= _MANY_DETECTIONS else 1
    for first in range(0, len(SIZES), sizes_at_once):
        areas = list(SIZES.values())[first : first + sizes_at_once]
        records = _match(truth, found, spans, areas, limits[-1])
        for size, area in enumerate(areas, start=first):
            counted = core.COCOevalAccumulate(_params(len(spans), area, limits), records.pop(0))
            precision[:, :, size] = counted["precision"][:, :, 0, 0, -1]
            recall[:, size] = counted["recall"][:, 0, 0]
    return Curves(precision, recall)


def _spans(frames: NDArray[np.int64], numbers: NDArray[np.int64]) -> list[int]:
    """Where the boxes of each frame in `numbers` begin, and the end: [n + 1]."""
    return [*np.searchsorted(frames, numbers).tolist(), len(frames)]


def _match(
    truth: BoxColumns,
    found: BoxColumns,
    spans: Spans,
    areas: list[tuple[float, float]],
    most: int,
) -> list[list[Any]]:
    """The core's records of all frames, a list per area range."""
    records: list[list[Any]] = [[] for _ in areas]
    for start in range(0, len(spans), _CHUNK_FRAMES):
        chunk = spans[start : start + _CHUNK_FRAMES]
        matched = _match_chunk(truth, found, chunk, areas, most)
        for i, kept in enumerate(records):
            kept.extend(matched[i * len(chunk) : (i + 1) * len(chunk)])
    return records


def _match_chunk(
    truth: BoxColumns,
    found: BoxColumns,
    spans: Spans,
    areas: list[tuple[float, float]],
    most: int,
) -> list[Any]:
    """The core's record per area range and frame of a chunk, frames innermost."""
    import faster_coco_eval.faster_eval_api_cpp as core
    from faster_coco_eval.core import mask

    truth_set, found_set = core.Dataset(), core.Dataset()
    overlaps: list[list[list[list[float]]]] = []
    for i, (of_truth, of_found) in enumerate(spans):
        of_best = slice(of_found.start, min(of_found.stop, of_found.start + most))
        truth_xywh = coco_boxes(truth.boxes_xyxy[of_truth])
        found_xywh = coco_boxes(found.boxes_xyxy[of_best])
        crowd = (truth.values[of_truth] > 0).tolist()
        for area, is_crowd in zip(_areas(truth_xywh), crowd, strict=True):
            row = {"id": _MARK, "area": area, "iscrowd": is_crowd, "ignore": is_crowd}
            truth_set.append(i, 0, row)
        scores = found.values[of_best].tolist()
        for area, score in zip(_areas(found_xywh), scores, strict=True):
            found_set.append(i, 0, {"id": _MARK, "area": area, "score": score})
        both = len(truth_xywh) > 0 and len(found_xywh) > 0
        overlaps.append([mask.iou(found_xywh, truth_xywh, crowd).tolist() if both else []])
    ids = list(range(len(spans)))
    matched: list[Any] = core.COCOevalEvaluateImages(
        areas, most, IOU_THRESHOLDS.tolist(), overlaps, truth_set, found_set, ids, [0], True
    )
    return matched


def _params(frames: int, area_range: tuple[float, float], limits: tuple[int, ...]) -> Any:
    """What the core's counting reads from faster-coco-eval's Params, for one class and size."""
    return SimpleNamespace(
        recThrs=RECALL_THRESHOLDS.tolist(),
        iouThrs=IOU_THRESHOLDS.tolist(),
        maxDets=list(limits),
        areaRng=[list(area_range)],
        catIds=[0],
        imgIds=range(frames),
        useCats=1,
    )


def _areas(boxes_xywh: NDArray[np.float64]) -> list[float]:
    areas: list[float] = (boxes_xywh[:, 2] * boxes_xywh[:, 3]).tolist()
    return areas
