"""What the doctor says of labels that no training hears: other units, turns, tasks, too many."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from urbandet_ray.commands.doctor import Diagnosis, diagnose
from urbandet_ray.models.zoo import model_config_path
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


@pytest.mark.parametrize(
    ("task", "text"),
    [
        ("keypoint_estimation_task", "task_name: 'a' keypoint_class_name: 'person'"),
        ("densepose_estimation_task", "class_id: 0"),
        ("track_estimation_task", "num_track_ids: 9"),
        ("temporal_offset_task", ""),
    ],
)
def test_a_task_that_nothing_trains(tmp_path: Path, task: str, text: str) -> None:
    """An error with the field's own name, before a first step that would end the run."""
    path = tmp_path / "pipeline.config"
    shipped = Path(model_config_path("centernet_resnet50_v1_fpn_640")).read_text()
    path.write_text(shipped.replace("center_net {", f"center_net {{ {task} {{ {text} }}", 1))
    finding = found(diagnose(path), "task-not-trained")
    assert (finding.severity, finding.place) == ("error", f"model.center_net.{task}")
    assert f"leave {task} out to train boxes" in finding.fix


@pytest.mark.parametrize("points", [(0.5, 0.6), (0.5,), ()])
def test_keypoints_of_records_are_told(doctor: Doctor, data: Path, points: Sequence[float]) -> None:
    """In which part and in how many frames; their boxes count as ever. Empty lists are none."""
    path = data / "train/one.tfrecord"
    (source,) = list_sources(str(path), Storage())
    records = [record.raw for record in read_source(source, Storage())]
    with path.open("wb") as file, RecordWriter(file) as writer:
        for raw in records:
            message = example_class()()
            message.ParseFromString(raw)
            for axis in "xy":
                feature = message.features.feature[f"image/object/keypoint/{axis}"]
                feature.float_list.value[:] = points
            writer.write(message.SerializeToString())
    diagnosis = doctor()
    told = [one for one in diagnosis.findings if one.code == "keypoints-unread"]
    assert len(told) == bool(points)
    for one in told:
        assert (one.severity, one.place) == ("note", "train_input_reader.num_keypoints")
        assert f"{len(records)} of 8 frames of " in one.what
