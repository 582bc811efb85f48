"""Raw answers of an SSD, or of a second stage, to detections: convert, decode, suppress, merge.

The TF Object Detection API does this inside the network, for every anchor. Here it is done outside
and only for anchors that can still be answers: the best first, until the answer is full. Boxes,
classes, scores and order are those of its core/post_processing.py over TensorFlow's
NonMaxSuppressionV5 (tensorflow/core/kernels/image/non_max_suppression_op.cc), ties included.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal, NamedTuple

import numpy as np

from urbandet_ray.errors import ConfigError, ModelError
from urbandet_ray.models.network.suppression import (
    Classes,
    Floats,
    Indices,
    RankedBoxes,
    select_hard,
    select_soft,
)

_BoxesOf = Callable[[Indices, Classes], Floats]
"""Boxes [k, 4] of anchors [k] and their classes [k]: only those looked at are decoded."""

UNIT_WINDOW: Sequence[float] = (0.0, 0.0, 1.0, 1.0)
_FIRST, _GROWTH = 1024, 4  # candidates ranked: enough for most frames, else more
_SAMPLED = 17  # of so many anchors one: prime, since anchors come in groups of equal shape
_SPARSE = 16  # of so many keys one is a candidate: from there on taking them out is worth it
_BLOCK, _BLOCKS_MAX = 128, 4  # candidates handed on together: at first, and times that at most


@dataclass(frozen=True, kw_only=True)
class PostProcess:
    """How raw answers become detections: the part of the OD API's post_processing.proto for it."""

    score_converter: Literal["sigmoid", "softmax", "identity"]
    """What makes scores of logits; softmax runs over the background too."""
    score_min: float
    """Scores are above it. Raising it cuts the tail of the answer and changes nothing else."""
    iou_max: float
    """A box that overlaps a better one of its class by more is suppressed."""
    max_per_class: int
    """Boxes kept of a class; those that the window then cuts away count."""
    max_total: int
    """Boxes kept of an image."""
    background: bool = True
    """The logits' first column is the background, which is cut off."""
    logit_scale: float = 1.0
    """Logits are divided by it first."""
    box_scales: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    """faster_rcnn_box_coder's y, x, height and width scale."""
    change_coordinate_frame: bool = True
    """Boxes are answered relative to their window, which becomes the unit square."""
    soft_nms_sigma: float = 0.0
    """Above 0, overlap multiplies scores by exp(-iou² / (2 sigma)), whatever iou_max is (Soft-NMS,
    arXiv 1704.04503). Meant for a high score_min: far slower than suppressing."""
    class_agnostic: bool = False
    """A box has its best class only and any class suppresses it; max_per_class says nothing."""

    def __post_init__(self) -> None:
        if self.score_converter not in ("sigmoid", "softmax", "identity"):
            raise ConfigError(
                f"score_converter is {self.score_converter!r}: give sigmoid, softmax or identity"
            )
        if not 0 <= self.iou_max <= 1:
            raise ConfigError(f"iou_max is {self.iou_max:g}: give a number in [0, 1]")
        if not (self.logit_scale > 0 and min(self.box_scales) > 0 and self.soft_nms_sigma >= 0):
            raise ConfigError(
                f"logit_scale {self.logit_scale:g} and box_scales {self.box_scales} must be above "
                f"0, soft_nms_sigma {self.soft_nms_sigma:g} not below"
            )
        if min(self.max_per_class, self.max_total) < 1:
            raise ConfigError(
                f"max_per_class {self.max_per_class}, max_total {self.max_total}: give at least 1"
            )


class Found(NamedTuple):
    """Detections of one image, best score first.

    Attributes:
        boxes_yxyx: [k, 4] float32 (ymin, xmin, ymax, xmax).
        scores: [k] float32.
        classes: [k] int32 from 0, the background not counted.
    """

    boxes_yxyx: Floats
    scores: Floats
    classes: Classes


def decode_boxes(
    deltas: Floats, anchors_yxyx: Floats, scales: tuple[float, float, float, float]
) -> Floats:
    """Turn [..., 4] (ty, tx, th, tw) into yxyx boxes, as box_coders/faster_rcnn_box_coder.py does.

    Args:
        deltas: [..., 4] float32.
        anchors_yxyx: [..., 4] float32, broadcast to the deltas; the boxes are in their unit.
        scales: what ty, tx, th and tw were multiplied by for training.
    """
    sizes = anchors_yxyx[..., 2:] - anchors_yxyx[..., :2]
    with np.errstate(over="ignore", invalid="ignore"):  # an infinite box ends at the window
        scaled = deltas / np.array(scales, np.float32)
        centers = scaled[..., :2] * sizes + (anchors_yxyx[..., :2] + sizes / 2)
        halves = np.exp(scaled[..., 2:].astype(np.float64)).astype(np.float32) * sizes / 2
        decoded: Floats = np.concatenate([centers - halves, centers + halves], axis=-1)
    return decoded


def detect_from_raw(
    deltas: Floats,
    logits: Floats,
    anchors_yxyx: Floats,
    rules: PostProcess,
    *,
    windows_yxyx: Floats | Sequence[float] = UNIT_WINDOW,
) -> list[Found]:
    """Detections of a batch from what an SSD's heads answer.

    NaN is never a detection: not where the score is (under softmax, or where class-agnostic, if
    one logit of the anchor is), nor where a coordinate is, which the OD API lets suppress all.

    Args:
        deltas: [n, a, 4] box encodings.
        logits: [n, a, c], the background in front if the rules say so.
        anchors_yxyx: [a, 4].
        rules: of the model; score_min may be higher than the model's.
        windows_yxyx: [4] or [n, 4], the part of each image that is no padding. Boxes are clipped
            to it after suppression, and dropped if they have no area in it.

    Raises:
        ModelError: shapes that do not fit together.
    """
    deltas, logits, anchors = (np.asarray(a, np.float32) for a in (deltas, logits, anchors_yxyx))
    fits = logits.ndim == 3 and deltas.shape == (*logits.shape[:2], 4)
    if not fits or anchors.shape != deltas.shape[1:]:
        raise ModelError(
            f"box encodings {deltas.shape}, logits {logits.shape} and anchors {anchors.shape} do "
            "not fit: expected [n, a, 4], [n, a, c] and [a, 4]"
        )

    def decoded(image: int) -> _BoxesOf:
        return lambda at, _: decode_boxes(deltas[image, at], anchors[at], rules.box_scales)

    return _detect(decoded, logits, rules, windows_yxyx)


def detect_from_boxes(
    boxes_yxyx: Floats,
    logits: Floats,
    rules: PostProcess,
    *,
    windows_yxyx: Floats | Sequence[float] = UNIT_WINDOW,
) -> list[Found]:
    """Detections of a batch from decoded boxes; as `detect_from_raw` otherwise.

    Args:
        boxes_yxyx: [n, a, 4], or [n, a, c, 4] where classes have their own, the background none.
        logits: [n, a, c], the background in front if the rules say so; scores, if the rules'
            converter is identity. NaN for padding.
        rules: of the model; box_scales say nothing here.
        windows_yxyx: [4] or [n, 4]; a second stage's are images in pixels.

    Raises:
        ModelError: shapes that do not fit together.
    """
    boxes, logits = np.asarray(boxes_yxyx, np.float32), np.asarray(logits, np.float32)
    per_class = [logits.shape[2] - rules.background] if logits.ndim == 3 else []
    if logits.ndim != 3 or boxes.shape not in (
        (*logits.shape[:2], 4),
        (*logits.shape[:2], *per_class, 4),
    ):
        raise ModelError(
            f"boxes {boxes.shape} and logits {logits.shape} do not fit: expected [n, a, 4] or "
            "[n, a, classes, 4], and [n, a, classes], with one column more for a background"
        )

    def given(image: int) -> _BoxesOf:
        each = boxes[image]
        return lambda at, class_of: each[at] if each.ndim == 2 else each[at, class_of]

    return _detect(given, logits, rules, windows_yxyx)


def _detect(
    boxes_of: Callable[[int], _BoxesOf],
    logits: Floats,
    rules: PostProcess,
    windows_yxyx: Floats | Sequence[float],
) -> list[Found]:
    if logits.shape[2] <= rules.background:
        raise ModelError(f"logits {logits.shape} hold no class: is there a background column?")
    windows = np.broadcast_to(np.asarray(windows_yxyx, np.float32), (len(logits), 4))
    return [
        _detect_one(boxes_of(image), logits[image], rules, window)
        for image, window in enumerate(windows)
    ]


def _detect_one(boxes_of: _BoxesOf, logits: Floats, rules: PostProcess, window: Floats) -> Found:
    near, keys = _candidates(_keys(logits, rules), rules)
    together = range(keys.shape[1])
    each = [range(one, one + 1) for one in together]
    kept = []
    for classes in each if rules.soft_nms_sigma and not rules.class_agnostic else [together]:
        blocks = _blocks(keys, classes, lambda at, of: boxes_of(near[at], of), rules)
        kept.append(_within(_select(blocks, len(together), rules), window))
    return _merge(kept, window, rules)


def _keys(logits: Floats, rules: PostProcess) -> Floats:
    """[a, c] numbers that order anchors as their scores do: scores, or logits before a sigmoid."""
    scaled = logits * np.float32(1 / rules.logit_scale) if rules.logit_scale != 1 else logits
    if rules.score_converter != "softmax":
        return scaled
    with np.errstate(invalid="ignore"):
        powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    normal: Floats = powers / powers.sum(axis=1, keepdims=True)
    return normal


def _candidates(keys: Floats, rules: PostProcess) -> tuple[Indices, Floats]:
    """Anchors [k], rising, that may score above score_min in some class, and their keys [k, c].

    One pass over all keys finds them. Where they are many, taking them out costs more than it
    spares, and all are answered.
    """
    high = keys >= np.float32(_lowest_key(rules))
    high[:, : rules.background] = False
    if _SPARSE * np.count_nonzero(high) < keys.size:
        rows = np.flatnonzero(high) // keys.shape[1]
        near = rows[np.diff(rows, prepend=-1) > 0]
        return near, keys[near, rules.background :]
    return np.arange(len(keys)), keys[:, rules.background :]


def _scores(keys: Floats, rules: PostProcess) -> Floats:
    if rules.score_converter != "sigmoid":
        return keys
    with np.errstate(over="ignore"):
        return (1 / (1 + np.exp(-keys.astype(np.float64)))).astype(np.float32)


def _lowest_key(rules: PostProcess) -> float:
    """No anchor with a lower key has a score above score_min."""
    if rules.score_converter != "sigmoid":
        return rules.score_min
    if not 0 < rules.score_min < 1:
        return -math.inf if rules.score_min <= 0 else math.inf
    return math.log(rules.score_min / (1 - rules.score_min)) - 1e-3  # more than rounding does


def _blocks(
    keys: Floats, classes: range, boxes_of: _BoxesOf, rules: PostProcess
) -> Iterator[RankedBoxes]:
    """Candidates of these classes; where class-agnostic, of the best class each."""
    columns, size = keys[:, classes.start : classes.stop], _BLOCK
    if rules.class_agnostic:
        columns = reduce(np.maximum, keys.T)[:, None]
    for anchors, places, scores in _ranked(columns, rules):
        start = 0
        while start < len(anchors):
            part = slice(start, start + size)
            at, class_ids = anchors[part], places[part] + np.int32(classes.start)
            if rules.class_agnostic:
                class_ids = _scores(keys[at], rules).argmax(axis=1).astype(np.int32)
            block = RankedBoxes(at, scores[part], class_ids, boxes_of(at, class_ids))
            sound = np.flatnonzero(~np.isnan(block.boxes).any(axis=1))
            yield block.take(sound) if len(sound) < len(at) else block
            start, size = start + size, min(2 * size, _BLOCKS_MAX * _BLOCK)


def _ranked(keys: Floats, rules: PostProcess) -> Iterator[tuple[Indices, Classes, Floats]]:
    """Anchors, columns and scores above score_min of keys [k, c]; more each time.

    Best score first, of equal ones the lowest column, then the lowest anchor. A round's least key
    is guessed from a sample; every key from that one on is in it. Different keys may round to one
    score, and then their places decide: so those that score as the least key does wait for the
    next round.
    """
    lowest, sample = np.float32(_lowest_key(rules)), -keys[::_SAMPLED].ravel()
    flat, width = keys.ravel(), keys.shape[1]
    done, count = 0, _FIRST
    while True:
        place = count // _SAMPLED
        least = -np.partition(sample, place)[place] if place < len(sample) else lowest
        last = not least > lowest  # NaN, which partitions as the worst, included
        near = np.flatnonzero(flat >= (lowest if last else least))
        if width > 1:
            near = near[np.argsort((near % width).astype(np.uint16), kind="stable")]
        scores = _scores(flat[near], rules)
        good = (scores > np.float32(rules.score_min)) & (scores >= 0)  # the OD API cuts at 0 too
        certain = good if last else good & (scores > scores.min())
        order = np.argsort(-scores, kind="stable")[done : np.count_nonzero(certain)]
        anchors, columns = np.divmod(near[order], width)
        yield anchors, columns.astype(np.int32), scores[order]
        if last:
            return
        done, count = done + len(order), max(count, len(near)) * _GROWTH  # many may have tied


def _select(
    blocks: Iterator[RankedBoxes], classes: int, rules: PostProcess
) -> Iterator[RankedBoxes]:
    room = rules.max_total if rules.class_agnostic else rules.max_per_class
    if rules.soft_nms_sigma:
        return select_soft(blocks, room, rules.soft_nms_sigma, rules.score_min)
    rooms = [room] * (1 if rules.class_agnostic else classes)
    return select_hard(blocks, rooms, rules.iou_max, agnostic=rules.class_agnostic)


def _within(blocks: Iterator[RankedBoxes], window: Floats) -> Iterator[RankedBoxes]:
    """Boxes that have area in the window, clipped to it."""
    low, high = window[[0, 1, 0, 1]], window[[2, 3, 2, 3]]
    for block in blocks:
        boxes = np.maximum(np.minimum(block.boxes, high), low)
        inside = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) > 0
        if inside.any():
            yield block._replace(boxes=boxes).take(inside)


def _merge(kept: list[Iterator[RankedBoxes]], window: Floats, rules: PostProcess) -> Found:
    """The best max_total; of equal scores the lower class's are first.

    No stream is looked at further than that takes. Where there are several, theirs are blocks of
    one box.
    """
    best, room = [], rules.max_total
    for block in heapq.merge(*kept, key=lambda block: -block.scores[0]):
        best.append(block.take(slice(room)))
        room -= len(best[-1].scores)
        if not room:
            break
    if not best:
        return Found(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int32))
    _, scores, classes, boxes = map(np.concatenate, zip(*best, strict=True))
    if rules.change_coordinate_frame:
        boxes = (boxes - window[[0, 1, 0, 1]]) * (1 / (window[2:] - window[:2]))[[0, 1, 0, 1]]
    return Found(boxes, scores, classes)
