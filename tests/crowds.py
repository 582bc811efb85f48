"""Detections that move from frame to frame, and a run that holds them."""

from collections.abc import Sequence

import numpy as np
from manifests import inference_manifest

from urbandet_ray.detections import Detections
from urbandet_ray.runs.detections_table import DetectionRow, rows_to_parquet
from urbandet_ray.runs.manifest import begin_run
from urbandet_ray.runs.run_folder import Marker, RunFolder, shard_name


def row(index: int, *objects: Sequence[float], segment: str = "a") -> DetectionRow:
    """A frame with a 40x60 box for each (x, y, score, class) or (x, y, score) or (x, y)."""
    full = [(x, y, *rest, *(0.9, 1)[len(rest) :]) for x, y, *rest in objects]
    boxes = [[x, y, x + 40, y + 60] for x, y, _, _ in full]
    columns = [score for _, _, score, _ in full], [class_id for *_, class_id in full]
    shard = shard_name(segment, index // 4 * 4)
    return DetectionRow(
        shard, index, f"{index}", segment, (640, 480), Detections.of(boxes, *columns)
    )


def crowd(seed: int, frames: int, segment: str = "a") -> list[DetectionRow]:
    """Objects of three classes wandering about, some unseen in some frames."""
    rng = np.random.default_rng(seed)
    places, classes = rng.uniform(0, 500, (12, 2)), rng.choice([1, 2, 4], 12)
    rows = []
    for index in range(frames):
        places = places + rng.normal(4, 3, places.shape)
        seen = [(*place, rng.uniform(), c) for place, c in zip(places, classes, strict=True)]
        rows.append(row(index, *(s for s in seen if rng.uniform() < 0.8), segment=segment))
    return rows


def committed(folder: RunFolder, order: Sequence[int] = range(10), *, shards: int = 5) -> RunFolder:
    """A run of two sources, their shards of four frames committed in this order."""
    begin_run(inference_manifest(sources=2), folder.uri, folder.storage)
    made = []
    for source_order, source in enumerate("ba"):  # the drive's order is not the alphabet's
        rows = crowd(source_order, 4 * shards, segment=source)
        for first in range(0, len(rows), 4):
            marker = Marker(
                shard_name(source, first), source, source_order, first, first + 4, 0, 0,
                first + 4 == len(rows), 4, 0, 0,
            )  # fmt: skip
            made.append((marker, rows[first : first + 4]))
    for number in order:
        marker, rows = made[number]
        folder.storage.write_bytes(folder.detections_uri(marker.shard), rows_to_parquet(rows))
        folder.commit(marker)
    return folder
