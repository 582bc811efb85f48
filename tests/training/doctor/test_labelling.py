"""What the doctor says of labels that no training hears: other units, turns, tasks, too many."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from urbandet_ray.commands.doctor import Diagnosis
from urbandet_ray.records.example import parse_features
from urbandet_ray.records.example_proto import example_class
from urbandet_ray.records.sources import list_sources, read_source
from urbandet_ray.records.tfrecord import RecordWriter
from urbandet_ray.storage import Storage
from urbandet_ray.training.augmentation.presets import Augmentation, CutOut, Mixup, Mosaic
from urbandet_ray.training.doctor.findings import Finding

pytestmark = pytest.mark.train

Doctor = Callable[..., Diagnosis]
Write = Callable[..., None]


def found(diagnosis: Diagnosis, code: str) -> Finding:
    """The first finding with a code."""
    return next(one for one in diagnosis.findings if one.code == code)


def rewritten(path: Path, factor: float) -> None:
    """All coordinates of a file multiplied."""
    (source,) = list_sources(str(path), Storage())
    records = [record.raw for record in read_source(source, Storage())]
    with path.open("wb") as file, RecordWriter(file) as writer:
        for raw in records:
            message = example_class()()
            message.ParseFromString(raw)
            for key in parse_features(raw):
                if "/bbox/" in key:
                    values = message.features.feature[key].float_list.value
                    values[:] = [value * factor for value in values]
            writer.write(message.SerializeToString())


@pytest.mark.parametrize(
    ("factor", "look"), [(320, "look like pixels"), (100, "look like percent")]
)
def test_boxes_in_another_unit(doctor: Doctor, data: Path, factor: float, look: str) -> None:
    """Half of the training boxes are left out: an error with count, example and cure."""
    rewritten(data / "train/one.tfrecord", factor)
    finding = found(doctor(), "labels-left-out")
    assert finding.severity == "error"
    assert f"12 boxes {look} ({data}/train/one.tfrecord record 0: box 0 has ymin" in finding.what
    assert finding.what.endswith("; 12 boxes are left")


@pytest.mark.parametrize(
    ("limits", "places"),
    [
        ("max_total_detections: 3 max_detections_per_class: 9", ["max_total_detections"]),
        ("max_total_detections: 9 max_detections_per_class: 2", ["max_detections_per_class"]),
        (
            "max_total_detections: 3 max_detections_per_class: 2",
            ["max_total_detections", "max_detections_per_class"],
        ),
        ("max_total_detections: 4 max_detections_per_class: 3", []),
    ],
)
def test_more_boxes_than_can_be_found(
    doctor: Doctor, data: Path, write_segment: Write, limits: str, places: list[str]
) -> None:
    """What suppression keeps is less than what two frames hold, and the fix is what they hold."""
    write_segment(data / "train/one.tfrecord", frames=2, class_ids=(1, 1, 1, 2), side=20)
    diagnosis = doctor(("score_threshold: 1e-8", f"score_threshold: 1e-8 {limits}"))
    findings = [one for one in diagnosis.findings if one.code == "detection-limit"]
    assert [one.place.rpartition(".")[2] for one in findings] == places
    for one in findings:
        assert "2 frames hold more boxes" in one.what
        assert "so 2 boxes can't be found" in one.what
        assert one.fix.endswith(": 4" if "total" in one.place else ": 3")


def test_more_boxes_than_the_limit(doctor: Doctor, data: Path, write_segment: Write) -> None:
    """The limit that is set, what it would lose, and the limit that follows the data."""
    write_segment(data / "train/one.tfrecord", frames=2, class_ids=(1,) * 4, side=20)
    limited = ("batch_size: 2", "batch_size: 2 max_number_of_boxes: 3")
    finding = found(doctor(limited), "box-limit")
    assert "a limit of 3 boxes an image would lose 2 of 20 boxes" in finding.what
    assert "of 2 training frames, which hold up to 4" in finding.what
    assert finding.fix == "max_number_of_boxes: 4"


def test_room_for_the_boxes_that_augmentations_join() -> None:
    """A mosaic's four images and the one of mixup are those with the most boxes."""
    boxes = np.array([150, 3, 90, 10, 20, 1], np.int32)
    assert Augmentation(()).most_boxes(boxes) == 150
    assert Augmentation((CutOut(0.5),)).most_boxes(boxes) == 150
    assert Augmentation((Mosaic(0.5), Mixup(0.1))).most_boxes(boxes) == 150 + 90 + 20 + 10 + 3
