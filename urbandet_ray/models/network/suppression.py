"""Of boxes best first, those that no better one overlaps too much: suppressed, or by Soft-NMS.

In the operations and the order of TensorFlow's NonMaxSuppressionV5
(tensorflow/core/kernels/image/non_max_suppression_op.cc), so that ties end as they do there.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]
Classes = NDArray[np.int32]

_CHUNK = 64  # compared with one another at once: the matrices stay in the first cache


class RankedBoxes(NamedTuple):
    """Anchors of one class or more, best first: [k], boxes [k, 4] yxyx."""

    anchors: Indices
    scores: Floats
    classes: Classes
    boxes: Floats

    def take(self, at: Indices | slice) -> RankedBoxes:
        """Those at these places."""
        return RankedBoxes(self.anchors[at], self.scores[at], self.classes[at], self.boxes[at])


def select_hard(
    blocks: Iterator[RankedBoxes], rooms: Sequence[int], iou_max: float, *, agnostic: bool
) -> Iterator[RankedBoxes]:
    """Those that overlap no better one of their class by more than `iou_max`.

    Args:
        blocks: of all classes together.
        rooms: how many of each class are kept; where agnostic, of all.
        agnostic: all count as one class.
    """
    # float32 throughout, classes too: a wider overlap would be another at the limit
    left, kept, most = np.array(rooms), np.empty((6, 0), np.float32), np.float32(iou_max)
    for block in blocks:
        groups = np.zeros_like(block.classes) if agnostic else block.classes
        sides = np.vstack([_sides(block.boxes), groups.astype(np.float32)])
        free, against = np.flatnonzero(left[groups]), kept
        while len(free):
            free = free[_apart(against, sides[:, free], most).all(axis=0)]
            head, free = free[:_CHUNK], free[_CHUNK:]
            apart = _apart(sides[:, head], sides[:, head], most)
            chosen = head[_greedy(apart, groups[head], left)]
            left -= np.bincount(groups[chosen], minlength=len(left))
            yield block.take(chosen)
            against = sides[:, chosen]
            kept = np.hstack([kept, against])
        if not left.any():
            return


def _apart(a: Floats, b: Floats, iou_max: np.float32) -> NDArray[np.bool_]:
    """[i, j], true where boxes [6, i] and [6, j] of `_sides` and their class may both stay."""
    apart: NDArray[np.bool_] = (_ious(a, b) <= iou_max) | (a[5][:, None] != b[5])
    return apart


def _greedy(apart: NDArray[np.bool_], groups: Classes, left: NDArray[np.intp]) -> list[int]:
    """Places of those that overlap no earlier one that was kept and find room in their group.

    Args:
        apart: [k, k], true where apart.
        groups: [k].
        left: room of each group.
    """
    rows, rooms = np.packbits(~apart, axis=1, bitorder="little"), left.tolist()
    gone, chosen = 0, []
    for place, group in enumerate(groups.tolist()):
        if rooms[group] and not gone >> place & 1:
            chosen.append(place)
            rooms[group] -= 1
            gone |= int.from_bytes(rows[place].tobytes(), "little")
    return chosen


def select_soft(
    blocks: Iterator[RankedBoxes], room: int, sigma: float, score_min: float
) -> Iterator[RankedBoxes]:
    """The first `room` by scores that overlaps with those before have lowered, above `score_min`.

    The kernel's queue: the best is kept if nothing kept since it was queued lowers its score.
    """
    scale = np.float32(-0.5) / np.float32(sigma)
    coming = (
        (-float(block.scores[at]), int(block.anchors[at]), 0, sides[:, at : at + 1], block, at)
        for block in blocks
        for sides in [_sides(block.boxes)]
        for at in range(len(block.scores))
    )
    kept = np.empty((5, 0), np.float32)
    queue: list[tuple[float, int, int, Floats, RankedBoxes, int]] = []
    following = next(coming, None)
    while kept.shape[1] < room and (queue or following):
        if following and (not queue or following[:2] < queue[0][:2]):
            heapq.heappush(queue, following)
            following = next(coming, None)
            continue
        loss, anchor, seen, sides, block, at = heapq.heappop(queue)
        ious = _ious(kept[:, seen:], sides)[::-1, 0]  # the kernel starts from the last kept
        ious = ious[ious != 0]
        score = np.float32(-loss)
        for weight in np.exp((scale * ious * ious).astype(np.float64)).astype(np.float32):
            score *= weight
        if score == -loss:
            yield block.take(slice(at, at + 1))._replace(scores=np.array([score], np.float32))
            kept = np.hstack([kept, sides])
        elif score > np.float32(score_min):
            heapq.heappush(queue, (-float(score), anchor, kept.shape[1], sides, block, at))


def _sides(boxes: Floats) -> Floats:
    """[5, k]: ymin, xmin, ymax, xmax and area of boxes; infinite where they have none."""
    low, high = np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])
    with np.errstate(invalid="ignore"):
        areas = (high[:, 0] - low[:, 0]) * (high[:, 1] - low[:, 1])
    areas[areas <= 0] = np.inf  # so that nothing overlaps them
    return np.vstack([low.T, high.T, areas])


def _ious(a: Floats, b: Floats) -> Floats:
    """[i, j] intersection over union of `_sides` [5, i] and [5, j], in the kernel's operations.

    NaN for two infinite boxes, which the kernel takes for an overlap.
    """
    a = a[:, :, None]
    with np.errstate(invalid="ignore"):
        height = np.minimum(a[2], b[2]) - np.maximum(a[0], b[0])
        width = np.minimum(a[3], b[3]) - np.maximum(a[1], b[1])
        shared = np.maximum(height, 0, out=height) * np.maximum(width, 0, out=width)
        ious: Floats = shared / (a[4] + b[4] - shared)
    return ious
