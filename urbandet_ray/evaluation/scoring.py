"""Score detections against truth: COCO's twelve figures, per class and by box size.

Crowds are COCO's: a detection on one counts neither for nor against, whatever their number. As in
the OD API's COCO evaluator (metrics/coco_evaluation.py) `is_crowd` alone makes a crowd; `difficult`
and `group_of` boxes are ordinary truth. The area of a truth box is the box's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.errors import ConfigError
from urbandet_ray.evaluation.columns import BoxColumns, collect
from urbandet_ray.evaluation.curves import SIZES, Curves, measure_class
from urbandet_ray.evaluation.metrics import ClassMetrics, Figure, Metrics, SizeMetrics
from urbandet_ray.labels import LabelMap
from urbandet_ray.runs.detections_table import DetectionRow

_IOU_50, _IOU_75 = 0, 5
_ALL = 0
_SMALL_TO_LARGE = list(SIZES)[1:]
_NONE = BoxColumns(np.zeros(0, np.int64), np.zeros((0, 4), np.float32), np.zeros(0, np.float32))


def evaluate(
    rows: Iterable[DetectionRow],
    labels: LabelMap,
    *,
    score_min: float | None = None,
    max_detections: int = 100,
) -> Metrics:
    """Compare detections with truth by the rules of COCO (cocoeval, bbox).

    Args:
        rows: every frame once with its truth, in any order; read once, so a generator will do.
        labels: the classes of both truth and detections.
        score_min: detections below it are left out; COCO's own figures leave none out.
        max_detections: best detections considered per frame and class.

    Returns:
        The figures; None where there is no truth.

    Raises:
        ConfigError: max_detections is below 1.
        InputError: no frame, one that comes twice or without truth, or a truth box that is not
            finite.
        LabelError: a class id that the label map does not have.
    """
    if max_detections < 1:
        raise ConfigError(f"max_detections is {max_detections}: give at least 1 (COCO uses 100)")
    limits = (1, min(10, max_detections), max_detections)
    frames, truth, detections = collect(rows, labels, score_min)
    curves = {
        class_id: measure_class(boxes, detections.get(class_id, _NONE), limits)
        for class_id, boxes in truth.items()
    }
    by_class = {
        name: _class_metrics(
            truth.get(class_id, _NONE), len(detections.get(class_id, _NONE)), curves.get(class_id)
        )
        for class_id, name in labels.names.items()
    }
    return _summary(frames, max_detections, curves, by_class)


def _summary(
    frames: int,
    max_detections: int,
    curves: Mapping[int, Curves],
    by_class: Mapping[str, ClassMetrics],
) -> Metrics:
    """The means over classes, each over the valid entries of all curves, as COCO's summarize."""
    precision = np.array([one.precision for one in curves.values()]).reshape(-1, 10, 101, 4)
    recall = np.array([one.recall for one in curves.values()]).reshape(-1, 10, 4, 3)
    return Metrics(
        frames=frames,
        truth_boxes=sum(one.truth_boxes for one in by_class.values()),
        detections=sum(one.detections for one in by_class.values()),
        max_detections=max_detections,
        map=_mean(precision[..., _ALL]),
        ap50=_mean(precision[:, _IOU_50, :, _ALL]),
        ap75=_mean(precision[:, _IOU_75, :, _ALL]),
        ar1=_mean(recall[:, :, _ALL, 0]),
        ar10=_mean(recall[:, :, _ALL, 1]),
        ar100=_mean(recall[:, :, _ALL, 2]),
        by_size={
            name: SizeMetrics(_mean(precision[..., size]), _mean(recall[:, :, size, 2]))
            for size, name in enumerate(_SMALL_TO_LARGE, start=1)
        },
        by_class=by_class,
    )


def _class_metrics(truth: BoxColumns, found: int, curves: Curves | None) -> ClassMetrics:
    if curves is None:
        return ClassMetrics(None, None, None, 0, found, dict.fromkeys(_SMALL_TO_LARGE))
    precision, recall = curves.precision, curves.recall
    return ClassMetrics(
        ap=_mean(precision[..., _ALL]),
        ap50=_mean(precision[_IOU_50, :, _ALL]),
        ar100=_mean(recall[:, _ALL, 2]),
        truth_boxes=int((truth.values == 0).sum()),
        detections=found,
        ap_by_size={
            name: _mean(precision[..., size]) for size, name in enumerate(_SMALL_TO_LARGE, start=1)
        },
    )


def _mean(entries: NDArray[np.float64]) -> Figure:
    """Mean of the entries that stand for something; -1 marks the others."""
    valid = entries[entries > -1]
    return float(valid.mean()) if valid.size else None
