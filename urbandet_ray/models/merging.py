"""What several windows of one image found, brought together into one answer.

In two steps: boxes cut off by the edge of their window give way to what saw more of the object
(`drop_cut_parts`), then boxes of one object become one (`suppress` or `fuse`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.boxes import Boxes, box_areas, clip_boxes, iou_matrix
from urbandet_ray.config import TilesConfig
from urbandet_ray.detections import Detections

EDGE_PX, EDGE_SHARE = 2.0, 0.1
"""A side this near to its window's edge, or nearer than this share of the box's own extent, touches
it: a model's error grows with the box. On Waymo frames shares from 0.05 to 0.15 give the same mAP;
boxes held to the exact edge give a tenth less (3 x 3 tiles)."""

PART_IOU_MIN = 0.5
"""A cut box is part of another where it matches what its own window could see of that one."""

SEEN_SHARE = 0.9
"""A window could see an object if this share of its box lies inside."""


def merge_windows(
    answers: Sequence[Detections],
    frames: Boxes,
    size_wh: tuple[int, int],
    *,
    tiles: TilesConfig,
    max_detections: int,
) -> Detections:
    """One answer for an image, in its pixels, best score first.

    Args:
        answers: each window's detections, in pixels of the window.
        frames: [w, 4] the windows, in pixels of the image.
        size_wh: the image's, in pixels.
        tiles: how boxes of one object become one (merge, iou_max).
        max_detections: the best this many are kept.
    """
    parts = []
    for class_id, seen in _by_class(answers, frames):
        evidence = drop_cut_parts(seen, frames, size_wh)
        if tiles.merge == "nms":
            boxes, scores = suppress(evidence, tiles.iou_max)
        else:
            boxes, scores = fuse(evidence, frames, tiles.iou_max)
        parts.append(Detections.of(boxes, scores, np.full(len(scores), class_id)))
    if not parts:
        return Detections.empty()
    boxes = clip_boxes(np.concatenate([part.boxes_xyxy for part in parts]), size_wh)
    scores = np.concatenate([part.scores for part in parts])
    class_ids = np.concatenate([part.class_ids for part in parts])
    best = np.argsort(-scores, kind="stable")[:max_detections]
    return Detections.of(boxes[best], scores[best], class_ids[best])


@dataclass(frozen=True, eq=False)
class Sightings:
    """Boxes of one class that the windows of one image gave, best score first.

    Attributes:
        boxes_xyxy: [n, 4] float32, pixels of the image.
        scores: [n] float32.
        windows: [n] which window each comes from.
    """

    boxes_xyxy: Boxes
    scores: NDArray[np.float32]
    windows: NDArray[np.intp]

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Sightings:
        """These rows, or those where the mask is true."""
        return Sightings(self.boxes_xyxy[rows], self.scores[rows], self.windows[rows])


def _by_class(answers: Sequence[Detections], frames: Boxes) -> list[tuple[int, Sightings]]:
    """All windows' detections by class, moved from pixels of the window into the image's."""
    moved = [
        answer.boxes_xyxy + np.tile(frame[:2], 2)
        for answer, frame in zip(answers, frames, strict=True)
    ]
    scores = np.concatenate([answer.scores for answer in answers])
    class_ids = np.concatenate([answer.class_ids for answer in answers])
    windows = np.repeat(np.arange(len(answers)), [len(answer) for answer in answers])
    seen = Sightings(np.concatenate(moved), scores, windows)
    order = np.argsort(-scores, kind="stable")
    return [
        (int(class_id), seen.take(order[class_ids[order] == class_id]))
        for class_id in np.unique(class_ids)
    ]


def drop_cut_parts(seen: Sightings, frames: Boxes, size_wh: tuple[int, int]) -> Sightings:
    """Drop boxes that end at their window's edge where another window saw more of the object.

    A box is cut where it touches an edge of its window that is not the image's. It is dropped if a
    box of another window reaches further over such an edge, and what the cut box's own window can
    see of that one has an IoU of at least PART_IOU_MIN with it: so a box over a whole queue of cars
    takes none of them away. Scores do not matter. Larger cut boxes are judged first and a dropped
    box drops no other, so an object's only evidence stays.

    Args:
        seen: boxes of one class.
        frames: [w, 4] the windows.
        size_wh: the image's, in pixels.
    """
    boxes, own = seen.boxes_xyxy, frames[seen.windows]
    extents = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    touching = np.abs(boxes - own) <= np.maximum(EDGE_PX, EDGE_SHARE * extents)
    cut = touching & (own != np.array([0, 0, *size_wh], np.float32))
    kept = ~cut.any(axis=1)
    rows = np.flatnonzero(~kept)
    rows = rows[np.argsort(-box_areas(boxes[rows]), kind="stable")]
    outwards = np.array([-1, -1, 1, 1], np.float32)
    beyond = (boxes[None] - own[rows, None]) * outwards > 0
    is_part = (beyond & cut[rows, None]).any(axis=2)
    common = _intersections(boxes[rows], boxes)
    union = box_areas(boxes[rows])[:, None] + _intersections(own[rows], boxes) - common
    is_part &= (common >= PART_IOU_MIN * union) & (common > 0)
    for row, wholes in zip(rows, is_part, strict=True):
        kept[row] = not (wholes & kept).any()
    return seen.take(kept)


def _intersections(a_xyxy: Boxes, b_xyxy: Boxes) -> NDArray[np.float32]:
    """Area in px² that every pair has in common, [n, m]."""
    low = np.maximum(a_xyxy[:, None, :2], b_xyxy[None, :, :2])
    sides = np.maximum(np.minimum(a_xyxy[:, None, 2:], b_xyxy[None, :, 2:]) - low, 0)
    areas: NDArray[np.float32] = sides[..., 0] * sides[..., 1]
    return areas


def suppress(seen: Sightings, iou_max: float) -> tuple[Boxes, NDArray[np.float32]]:
    """Boxes [k, 4] and scores [k] of greedy non-maximum suppression within one class.

    Args:
        seen: boxes of one class, best score first.
        iou_max: a box that overlaps a better one more is dropped.
    """
    close = iou_matrix(seen.boxes_xyxy, seen.boxes_xyxy) > iou_max
    kept = np.zeros(len(seen.scores), bool)
    for row, others in enumerate(close):
        kept[row] = not (others & kept).any()
    return seen.boxes_xyxy[kept], seen.scores[kept]


def fuse(seen: Sightings, frames: Boxes, iou_max: float) -> tuple[Boxes, NDArray[np.float32]]:
    """Boxes [k, 4] and scores [k] of weighted box fusion (Solovyev et al. 2021, arXiv 1910.13302).

    Best score first, each box joins the fused box it overlaps most, by more than `iou_max`, or
    starts a new one. Two things differ from the paper, each worth mAP on Waymo frames: a window has
    one say per object (its second box there is a duplicate: averaged, it would pull the box towards
    a neighbour), and coordinates are weighted by score and by the window's zoom, for a model's
    error in pixels grows with its window. A third is in `_agreed_scores`.

    Args:
        seen: boxes of one class, best score first.
        frames: [w, 4] the windows.
        iou_max: boxes that overlap more are one object.
    """
    fused = np.empty_like(seen.boxes_xyxy)
    weights, sums = np.zeros(len(fused)), np.zeros(len(fused))
    witnesses = np.zeros((len(fused), len(frames)), bool)
    says = np.maximum(seen.scores, 1e-6) / np.sqrt(box_areas(frames))[seen.windows]
    count = 0
    for row, (box, window) in enumerate(zip(seen.boxes_xyxy, seen.windows, strict=True)):
        ious = iou_matrix(box, fused[:count])[0]
        place = int(ious.argmax()) if (ious > iou_max).any() else count
        if place == count:
            fused[count] = box
            count += 1
        elif witnesses[place, window]:
            continue
        weights[place] += says[row]
        fused[place] += (box - fused[place]) * np.float32(says[row] / weights[place])
        sums[place] += seen.scores[row]
        witnesses[place, window] = True
    return fused[:count], _agreed_scores(sums[:count], witnesses[:count], fused[:count], frames)


def _agreed_scores(
    sums: NDArray[np.float64], witnesses: NDArray[np.bool_], fused: Boxes, frames: Boxes
) -> NDArray[np.float32]:
    """Mean score of the windows that saw an object, less where others could have and did not.

    Scaled by the root of the share that did. The paper scales by the share itself; but its models
    see alike, while the whole image says little by missing an object that is small in it.
    """
    could_see = _intersections(fused, frames) >= SEEN_SHARE * box_areas(fused)[:, None]
    said, asked = witnesses.sum(axis=1), (witnesses | could_see).sum(axis=1)
    scores: NDArray[np.float32] = (sums / np.sqrt(said * asked)).astype(np.float32)
    return scores
