"""Of boxes best first, those that no better one overlaps too much: suppressed, or by Soft-NMS.

In the operations and the order of TensorFlow's NonMaxSuppressionV5
(tensorflow/core/kernels/image/non_max_suppression_op.cc), so that ties end as they do there.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]
Classes = NDArray[np.int32]

_CHUNK = 128  # compared with one another at once: the matrices stay in the first cache


class Block(NamedTuple):
    """Anchors of one class, or of any where class-agnostic, best first: [k], boxes [k, 4] yxyx."""

    anchors: Indices
    scores: Floats
    classes: Classes
    boxes: Floats

    def take(self, at: Indices | slice) -> Block:
        """Those at these places."""
        return Block(self.anchors[at], self.scores[at], self.classes[at], self.boxes[at])


def select_hard(blocks: Iterator[Block], room: int, iou_max: float) -> Iterator[Block]:
    """The first `room` that overlap no better one by more than `iou_max`."""
    kept, most = np.empty((5, 0), np.float32), np.float32(iou_max)
    for block in blocks:
        sides = _sides(block.boxes)
        free, against = np.arange(len(block.scores)), kept
        while len(free):
            free = free[(_ious(against, sides[:, free]) <= most).all(axis=0)]
            head, free = free[:_CHUNK], free[_CHUNK:]
            chosen = head[_greedy(_ious(sides[:, head], sides[:, head]) <= most)[:room]]
            room -= len(chosen)
            yield block.take(chosen)
            if not room:
                return
            against = sides[:, chosen]
            kept = np.hstack([kept, against])


def _greedy(apart: NDArray[np.bool_]) -> list[int]:
    """Places of those that overlap no earlier one that was kept; [k, k], true where apart."""
    rows = np.packbits(~apart, axis=1, bitorder="little")
    gone, chosen = 0, []
    for place in range(len(apart)):
        if not gone >> place & 1:
            chosen.append(place)
            gone |= int.from_bytes(rows[place].tobytes(), "little")
    return chosen


def select_soft(
    blocks: Iterator[Block], room: int, sigma: float, score_min: float
) -> Iterator[Block]:
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
    queue: list[tuple[float, int, int, Floats, Block, int]] = []
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
