"""A finished run over pictures of the small set, without a detector and without Ray."""

from pathlib import Path

import numpy as np
from manifests import inference_manifest
from small_sets import BOXES, CLASSES, HEIGHT, WIDTH

from urbandet_ray.detections import Detections
from urbandet_ray.labels import LabelMap
from urbandet_ray.records.sources import list_sources, read_source
from urbandet_ray.runs.detections_table import DetectionRow, rows_to_parquet
from urbandet_ray.runs.manifest import begin_run
from urbandet_ray.runs.run_folder import Marker, RunFolder, shard_name
from urbandet_ray.storage import Storage

LABELS = LabelMap(dict(enumerate(CLASSES, start=1)))


def detections_for(stem: str) -> Detections:
    """The image's objects, found not quite where they are, and one that is not there."""
    rng = np.random.default_rng(list(BOXES).index(stem))
    boxes = np.array([box[1:] for box in BOXES[stem]] or np.zeros((0, 4)), np.float32)
    boxes = np.clip(boxes + rng.normal(0, 1.5, boxes.shape), 0, [WIDTH, HEIGHT] * 2)
    classes = [CLASSES.index(box[0]) + 1 for box in BOXES[stem]]
    scores = rng.uniform(0.3, 0.9, len(boxes))
    return Detections.of([*boxes, [50, 40, 60, 50]], [*scores, 0.5], [*classes, 1])


def made_run(folder: Path, pictures: Path) -> RunFolder:
    """A run over all that frames can be read from in a folder."""
    run = RunFolder(str(folder), Storage())
    sources = list_sources(str(pictures), run.storage)
    manifest = inference_manifest(sources=len(sources), labels=LABELS, input=str(pictures))
    begin_run(manifest, run.uri, run.storage)
    for order, source in enumerate(sources):
        shard = shard_name(source.name, 0)
        rows = []
        for record in read_source(source, run.storage):
            assert record.frame is not None
            key = record.frame.frame_key
            found = detections_for(key.rpartition("/")[2])
            size_wh = (WIDTH, HEIGHT)
            rows.append(DetectionRow(shard, record.index, key, source.segment, size_wh, found))
        run.storage.write_bytes(run.detections_uri(shard), rows_to_parquet(rows))
        found_boxes = sum(len(row.detections) for row in rows)
        run.commit(
            Marker(shard, source.name, order, 0, len(rows), 0, 0, True, len(rows), found_boxes, 0)
        )
    return run
