"""Validation on all workers together: each detects on its share, everyone knows the mAP."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.boxes import boxes_from_yxyx_norm, clip_boxes
from urbandet_ray.detections import Detections
from urbandet_ray.evaluation import Metrics, evaluate
from urbandet_ray.frames import Frame, Image, Truth
from urbandet_ray.labels import LabelMap
from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.records.example import frame_from_example
from urbandet_ray.records.images import decode_frame
from urbandet_ray.runs.detections_table import DetectionRow
from urbandet_ray.training.model import Tensors

Rows = NDArray[np.float32]
"""[n, 7]: number of the frame, ymin, xmin, ymax, xmax as shares of the image, score, class id."""

SCORE_MIN = 1e-3
"""Detections below it weigh nothing in an mAP, and fill memory."""


@dataclass(frozen=True, eq=False)
class ValidationSet:
    """The frames a run is validated on, without their images.

    Attributes:
        keys, sizes_wh, truths: by number of the frame.
        read: serialised Example by number.
    """

    keys: tuple[str, ...]
    sizes_wh: tuple[tuple[int, int], ...]
    truths: tuple[Truth, ...]
    read: Callable[[int], bytes]

    def __len__(self) -> int:
        return len(self.keys)

    def share(self, rank: int, world: int) -> NDArray[np.int64]:
        """Numbers of the frames one worker detects on."""
        return np.arange(rank, len(self), world, dtype=np.int64)

    def image(self, number: int) -> Image:
        """A frame's pixels."""
        return decode_frame(_frame(self.read(number), number))


def read_validation_set(
    read: Callable[[int], bytes], count: int, num_classes: int
) -> ValidationSet:
    """Read the truth of `count` records; class ids beyond `num_classes` are no one's to find."""
    keys, sizes, truths = [], [], []
    for number in range(count):
        frame = _frame(read(number), number)
        truth = frame.truth if frame.truth is not None else Truth.empty()
        keys.append(f"{number:08d}")
        sizes.append(frame.size_wh or (1, 1))
        truths.append(truth.keep(truth.class_ids <= num_classes))
    return ValidationSet(tuple(keys), tuple(sizes), tuple(truths), read)


def _frame(data: bytes, number: int) -> Frame:
    return frame_from_example(data, default_key=f"{number:08d}", segment="")


def detect_share(
    detect: Callable[[Tensors], Tensors], batches: Iterable[tuple[Tensors, Any]]
) -> Rows:
    """Detections on a worker's frames.

    Args:
        detect: TrainableModel.detect (training/model.py).
        batches: (features, numbers of the frames [b]); -1 where a batch is padded.
    """
    found = [np.zeros((0, 7), np.float32)]
    for features, numbers in batches:
        answer = {name: np.asarray(value) for name, value in detect(features).items()}
        for place, number in enumerate(np.asarray(numbers).tolist()):
            scores = answer["detection_scores"][place].astype(np.float32)
            kept = scores >= SCORE_MIN
            if number < 0 or not kept.any():
                continue
            columns = [
                np.full((int(kept.sum()), 1), number, np.float32),
                answer["detection_boxes"][place][kept].astype(np.float32),
                scores[kept, None],
                answer["detection_classes"][place][kept, None].astype(np.float32) + 1,
            ]
            found.append(np.concatenate(columns, axis=1))
    return np.concatenate(found)


def gather_rows(rows: Rows, strategy: Any, rank: int) -> Rows:
    """Rows of all workers, one under the other; every worker has to call it.

    Each puts its rows into its own part of a table of zeros, and the tables are added up: the
    strategy's own gathering wants a value per replica, which a worker with one replica cannot make.
    """
    tf = open_odapi().tf
    world = int(strategy.num_replicas_in_sync)
    if world == 1:
        return rows

    def replica_sum(own: Any) -> Any:
        context = tf.distribute.get_replica_context()
        placed = tf.identity(own)  # on the replica's device: a value from outside is on none
        return context.all_reduce(tf.distribute.ReduceOp.SUM, placed)

    total = tf.function(lambda own: strategy.run(replica_sum, args=(own,)), reduce_retracing=True)
    counts = np.zeros(world, np.float32)
    counts[rank] = len(rows)
    lengths = np.asarray(total(tf.constant(counts))).astype(int)
    table = np.zeros((world, max(int(lengths.max()), 1), rows.shape[1]), np.float32)
    table[rank, : len(rows)] = rows
    whole = np.asarray(total(tf.constant(table)))
    return np.concatenate([part[:length] for part, length in zip(whole, lengths, strict=True)])


def frame_results(rows: Rows, frames: ValidationSet, labels: LabelMap) -> list[DetectionRow]:
    """Detections of all workers beside the truth; classes without a label are left out."""
    known = np.isin(rows[:, 6].astype(np.int32), list(labels.names))
    rows = rows[known & np.isfinite(rows).all(axis=1)]
    rows = rows[np.lexsort((-rows[:, 5], rows[:, 0]))]
    bounds = np.searchsorted(rows[:, 0], np.arange(len(frames) + 1))
    results = []
    for number in range(len(frames)):
        own, size_wh = rows[bounds[number] : bounds[number + 1]], frames.sizes_wh[number]
        boxes = clip_boxes(boxes_from_yxyx_norm(own[:, 1:5], size_wh), size_wh)
        detections = Detections.of(boxes, own[:, 5], own[:, 6].astype(np.int32))
        key, truth = frames.keys[number], frames.truths[number]
        results.append(DetectionRow("", number, key, "", size_wh, detections, truth))
    return results


def score(results: Sequence[DetectionRow], labels: LabelMap) -> Metrics:
    """COCO's figures of a validation."""
    return evaluate(results, labels)
