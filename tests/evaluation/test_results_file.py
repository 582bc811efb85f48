"""COCO's JSON files are what pycocotools reads, and score the same there."""

import contextlib
import io
import json
from pathlib import Path

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from urbandet_ray.detections import Detections
from urbandet_ray.evaluation import coco_results, evaluate
from urbandet_ray.frames import Truth
from urbandet_ray.labels import STREET_LABELS
from urbandet_ray.runs.detections_table import DetectionRow

FRAME = DetectionRow(
    "drive-00000000",
    1,
    "drive/0001.jpg",
    "drive",
    (1920, 1280),
    Detections.of([(10.00049, 20, 100, 70), (5, 5, 4, 9)], [0.1, 0.05], [1, 2]),
    Truth.of([(10, 20, 110.25, 70), (0, 0, 640, 640)], [1, 4], is_crowd=[False, True]),
)


TRUTH_FILE = {
    "images": [{"id": 7, "file_name": "drive/0001.jpg", "width": 1920, "height": 1280}],
    "annotations": [
        {
            "id": 1,
            "image_id": 7,
            "category_id": 1,
            "bbox": [10.0, 20.0, 100.25, 50.0],
            "area": 5012.5,
            "iscrowd": 0,
        },
        {
            "id": 2,
            "image_id": 7,
            "category_id": 4,
            "bbox": [0.0, 0.0, 640.0, 640.0],
            "area": 409600.0,
            "iscrowd": 1,
        },
    ],
    "categories": [
        {"id": 1, "name": "vehicle"},
        {"id": 2, "name": "pedestrian"},
        {"id": 4, "name": "cyclist"},
    ],
}


def test_results_rows() -> None:
    """x, y, width, height in pixels to a thousandth; an inverted box has no width."""
    assert list(coco_results([(7, FRAME.detections)])) == [
        {"image_id": 7, "category_id": 1, "bbox": [10.0, 20.0, 90.0, 50.0], "score": 0.1},
        {"image_id": 7, "category_id": 2, "bbox": [5.0, 5.0, 0.0, 4.0], "score": 0.05},
    ]


def test_pycocotools_reads_the_file_and_agrees(tmp_path: Path) -> None:
    """Beside the truth in COCO's form, it gives the mAP that evaluate gives."""
    truth, results = tmp_path / "truth.json", tmp_path / "results.json"
    truth.write_text(json.dumps(TRUTH_FILE))
    results.write_text(json.dumps(list(coco_results([(7, FRAME.detections)]))))
    with contextlib.redirect_stdout(io.StringIO()):
        truth_set = COCO(str(truth))
        scored = COCOeval(truth_set, truth_set.loadRes(str(results)), "bbox")
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    assert 0 < scored.stats[0] < 1
    assert evaluate([FRAME], STREET_LABELS).map == pytest.approx(scored.stats[0], abs=1e-6)
