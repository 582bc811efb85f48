"""COCO results JSON of a run, streamed: the file never stands in memory as a whole."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from urbandet_ray.evaluation import coco_results
from urbandet_ray.labels import LabelMap
from urbandet_ray.runs.detections_table import DetectionRow
from urbandet_ray.runs.run_folder import RunFolder


@dataclass(frozen=True)
class CocoNames:
    """How the files name frames and classes.

    Attributes:
        frame: image id and file_name, by a source's name and a row of it; None leaves it out.
        class_ids: category ids by the run's class ids; a class that is not among them is left out.
    """

    frame: Callable[[str, DetectionRow], tuple[int, str] | None]
    class_ids: Mapping[int, int]


def write_coco(folder: RunFolder, labels: LabelMap, names: CocoNames) -> None:
    """Write coco/results.json, and coco/images.json that names each image_id."""
    with tempfile.TemporaryDirectory() as scratch:
        results, images = Path(scratch, "results.json"), Path(scratch, "images.json")
        with results.open("w") as results_file, images.open("w") as images_file:
            _write_rows(_rows(folder), labels, names, results_file, images_file)
        folder.storage.upload_file(results, folder.path("coco", "results.json"))
        folder.storage.upload_file(images, folder.path("coco", "images.json"))


def counted(path_of: Callable[[str, DetectionRow], str], labels: LabelMap) -> CocoNames:
    """Images numbered from 1 in drive order, and the run's own class ids."""
    numbers = itertools.count(1)
    return CocoNames(
        lambda source, row: (next(numbers), path_of(source, row)),
        {one: one for one in labels.names},
    )


def _rows(folder: RunFolder) -> Iterator[tuple[str, DetectionRow]]:
    for marker in folder.markers():
        yield from ((marker.source, row) for row in folder.rows(marker))


def _write_rows(
    rows: Iterable[tuple[str, DetectionRow]],
    labels: LabelMap,
    names: CocoNames,
    results: TextIO,
    images: TextIO,
) -> None:
    ids = names.class_ids
    categories = [
        {"id": ids[one], "name": name} for one, name in labels.names.items() if one in ids
    ]
    images.write('{"categories": ' + json.dumps(categories) + ', "images": [')
    results.write("[")
    comma = image_comma = ""
    for source, row in rows:
        named = names.frame(source, row)
        if named is None:
            continue
        width, height = row.size_wh
        image = {"id": named[0], "file_name": named[1], "width": width, "height": height}
        images.write(image_comma + json.dumps(image))
        image_comma = ",\n"
        for answer in coco_results([(named[0], row.detections)]):
            if answer["category_id"] in ids:
                answer["category_id"] = ids[answer["category_id"]]
                results.write(comma + json.dumps(answer))
                comma = ",\n"
    images.write("]}\n")
    results.write("]\n")
