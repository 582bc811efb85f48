"""COCO's JSON: detections as a results file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.boxes import Boxes
from urbandet_ray.detections import Detections

_BOX_DECIMALS = 3  # a thousandth of a pixel moves the IoU of a 10 px box by 0.0002
_SCORE_DECIMALS = 6  # float32 carries no more


def coco_results(frames: Iterable[tuple[int, Detections]]) -> Iterator[dict[str, Any]]:
    """Rows of a COCO results file, to be put into one JSON list.

    Args:
        frames: COCO image id and detections of each frame.

    Yields:
        image_id, category_id, bbox [x, y, width, height] in pixels rounded to 0.001, score.
    """
    for image_id, detections in frames:
        boxes = np.round(coco_boxes(detections.boxes_xyxy), _BOX_DECIMALS).tolist()
        scores = np.round(detections.scores.astype(np.float64), _SCORE_DECIMALS).tolist()
        class_ids = detections.class_ids.tolist()
        for box, score, class_id in zip(boxes, scores, class_ids, strict=True):
            yield {"image_id": image_id, "category_id": class_id, "bbox": box, "score": score}


def coco_boxes(boxes_xyxy: Boxes) -> NDArray[np.float64]:
    """Boxes xywh in double precision, as COCO's own tools compute; inverted ones are empty."""
    boxes = boxes_xyxy.astype(np.float64)
    boxes[:, 2:] = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    return boxes
