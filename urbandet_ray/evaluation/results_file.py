"""COCO results JSON of a run, streamed: the file never stands in memory as a whole."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from urbandet_ray.evaluation import coco_results
from urbandet_ray.labels import LabelMap
from urbandet_ray.runs.detections_table import DetectionRow
from urbandet_ray.runs.run_folder import RunFolder


def write_coco(folder: RunFolder, labels: LabelMap) -> None:
    """Write coco/results.json, and coco/images.json that names each image_id.

    image_id counts frames from 1 in drive order.
    """
    with tempfile.TemporaryDirectory() as scratch:
        results, images = Path(scratch, "results.json"), Path(scratch, "images.json")
        with results.open("w") as results_file, images.open("w") as images_file:
            _write_rows(_rows(folder), labels, results_file, images_file)
        folder.storage.upload_file(results, folder.path("coco", "results.json"))
        folder.storage.upload_file(images, folder.path("coco", "images.json"))


def _rows(folder: RunFolder) -> Iterator[DetectionRow]:
    for marker in folder.markers():
        yield from folder.rows(marker)


def _write_rows(
    rows: Iterable[DetectionRow], labels: LabelMap, results: TextIO, images: TextIO
) -> None:
    categories = [{"id": class_id, "name": name} for class_id, name in labels.names.items()]
    images.write('{"categories": ' + json.dumps(categories) + ', "images": [')
    results.write("[")
    comma = ""
    for image_id, row in enumerate(rows, start=1):
        width, height = row.size_wh
        image = {"id": image_id, "file_name": row.frame_key, "width": width, "height": height}
        images.write(("" if image_id == 1 else ",\n") + json.dumps(image))
        for answer in coco_results([(image_id, row.detections)]):
            results.write(comma + json.dumps(answer))
            comma = ",\n"
    images.write("]}\n")
    results.write("]\n")
