"""COCO's JSON: detections as a results file, truth as a ground-truth file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.boxes import Boxes
from urbandet_ray.detections import Detections
from urbandet_ray.frames import Truth
from urbandet_ray.labels import LabelMap
from urbandet_ray.runs.detections_table import DetectionRow

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
        boxes = np.round(_xywh(detections.boxes_xyxy), _BOX_DECIMALS).tolist()
        scores = np.round(detections.scores.astype(np.float64), _SCORE_DECIMALS).tolist()
        class_ids = detections.class_ids.tolist()
        for box, score, class_id in zip(boxes, scores, class_ids, strict=True):
            yield {"image_id": image_id, "category_id": class_id, "bbox": box, "score": score}


def coco_truth(frames: Iterable[tuple[int, DetectionRow]], labels: LabelMap) -> dict[str, Any]:
    """A COCO ground-truth file; `area` is the box's, as frames carry boxes and no outlines.

    Args:
        frames: COCO image id of each frame, and the frame with its truth.
        labels: becomes `categories`.

    Returns:
        images (file_name is the frame key), annotations (ids from 1), categories.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, frame in frames:
        width, height = frame.size_wh
        images.append(
            {"id": image_id, "file_name": frame.frame_key, "width": width, "height": height}
        )
        truth = frame.truth or Truth.empty()
        boxes = np.round(_xywh(truth.boxes_xyxy), _BOX_DECIMALS)
        areas = np.round(boxes[:, 2] * boxes[:, 3], _BOX_DECIMALS).tolist()
        columns = (boxes.tolist(), areas, truth.class_ids.tolist(), truth.is_crowd.tolist())
        for box, area, class_id, is_crowd in zip(*columns, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": class_id,
                    "bbox": box,
                    "area": area,
                    "iscrowd": int(is_crowd),
                }
            )
    categories = [{"id": class_id, "name": name} for class_id, name in labels.names.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def _xywh(boxes_xyxy: Boxes) -> NDArray[np.float64]:
    boxes = boxes_xyxy.astype(np.float64)
    boxes[:, 2:] = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    return boxes
