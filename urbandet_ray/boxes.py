"""Box arithmetic. Inside the package a box is float32 xyxy in pixels; here are the conversions."""

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float32]


def boxes_from_yxyx_norm(boxes_yxyx_norm: NDArray[np.floating], size_wh: tuple[int, int]) -> Boxes:
    """Turn the OD API's [n, 4] (ymin, xmin, ymax, xmax) in [0, 1] into xyxy pixels."""
    width, height = size_wh
    ymin, xmin, ymax, xmax = np.asarray(boxes_yxyx_norm, np.float32).reshape(-1, 4).T
    return np.stack([xmin * width, ymin * height, xmax * width, ymax * height], axis=1)


def boxes_to_yxyx_norm(boxes_xyxy: Boxes, size_wh: tuple[int, int]) -> Boxes:
    """Turn [n, 4] xyxy pixels into the OD API's (ymin, xmin, ymax, xmax) in [0, 1]."""
    width, height = size_wh
    x0, y0, x1, y1 = np.asarray(boxes_xyxy, np.float32).reshape(-1, 4).T
    return np.stack([y0 / height, x0 / width, y1 / height, x1 / width], axis=1)


def boxes_to_xywh(boxes_xyxy: Boxes) -> Boxes:
    """Turn [n, 4] xyxy into COCO's (x, y, width, height), both in pixels."""
    boxes = np.asarray(boxes_xyxy, np.float32).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def clip_boxes(boxes_xyxy: Boxes, size_wh: tuple[int, int]) -> Boxes:
    """Cut [n, 4] xyxy pixels to the image."""
    width, height = size_wh
    limit = np.array([width, height, width, height], np.float32)
    clipped: Boxes = np.clip(np.asarray(boxes_xyxy, np.float32).reshape(-1, 4), 0, limit)
    return clipped


def box_areas(boxes_xyxy: Boxes) -> NDArray[np.float32]:
    """Area in px² of each of [n, 4] boxes; 0 for inverted ones."""
    boxes = np.asarray(boxes_xyxy, np.float32).reshape(-1, 4)
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    areas: NDArray[np.float32] = sides[:, 0] * sides[:, 1]
    return areas


def iou_matrix(a_xyxy: Boxes, b_xyxy: Boxes) -> NDArray[np.float32]:
    """Intersection over union of every pair, [n, m]; 0 where both boxes are empty."""
    a = np.asarray(a_xyxy, np.float32).reshape(-1, 4)
    b = np.asarray(b_xyxy, np.float32).reshape(-1, 4)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    overlap = np.prod(np.maximum(high - low, 0), axis=2)
    union = box_areas(a)[:, None] + box_areas(b)[None, :] - overlap
    ious: NDArray[np.float32] = np.divide(
        overlap, union, out=np.zeros_like(overlap), where=union > 0
    )
    return ious
