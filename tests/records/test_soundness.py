"""What validate and statistics say about good and broken data."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from urbandet_ray.frames import Frame, Truth
from urbandet_ray.labels import STREET_LABELS
from urbandet_ray.records.data_folder import DataFolder, read_data_folder
from urbandet_ray.records.example import example_from_frame
from urbandet_ray.records.example_proto import example_class
from urbandet_ray.records.images import encode_jpeg
from urbandet_ray.records.soundness import validate
from urbandet_ray.records.stats import statistics
from urbandet_ray.records.tfrecord import RecordWriter
from urbandet_ray.records.writer import write_frames
from urbandet_ray.storage import Storage

STORAGE = Storage()
JPEG = encode_jpeg(np.full((200, 300, 3), 90, np.uint8))


def read(uri: str | Path) -> DataFolder:
    """What lies there."""
    return read_data_folder(str(uri), STORAGE)


def frame(key: str, encoded: bytes = JPEG, class_id: int = 1) -> Frame:
    texts = tuple(STREET_LABELS.names.get(one, "") for one in (class_id, 1))
    truth = Truth.of([[0, 0, 20, 10], [0, 0, 200, 100]], [class_id, 1], texts)
    return Frame(key, "s", encoded, "jpeg", (300, 200), truth)


def write(path: Path, *records: bytes) -> None:
    with path.open("wb") as file, RecordWriter(file) as writer:
        for record in records:
            writer.write(record)


def with_box(ymax: float) -> bytes:
    message = example_class()()
    message.ParseFromString(example_from_frame(frame("frame_9")))
    message.features.feature["image/object/bbox/ymax"].float_list.value[0] = ymax
    return bytes(message.SerializeToString())


def test_sound_data_is_clean(tmp_path: Path) -> None:
    """Nothing to say but the counts."""
    write_frames([frame("f1"), frame("f2")], tmp_path / "a.tfrecord")
    report = validate(read(tmp_path), STORAGE, STREET_LABELS)
    assert report.is_clean
    assert (report.good, report.bad) == (2, 0)
    assert report.to_text() == (f"{tmp_path}: 1 files, 2 good records, 0 bad\nno problems found")


def test_each_problem_is_named_with_file_index_and_offset(tmp_path: Path) -> None:
    """Records that cannot be used are bad; faulty labels are problems of good records."""
    path = tmp_path / "a.tfrecord"
    good = example_from_frame(frame("f1"))
    cut = example_from_frame(frame("f2", JPEG[: len(JPEG) // 2]))
    write(
        path,
        good,
        b"\xffnothing",
        cut,
        with_box(float("nan")),
        with_box(1.5),
        example_from_frame(frame("f1", class_id=7)),
    )
    (tmp_path / "b.tfrecord").touch()
    data = bytearray(path.read_bytes())
    data[30] ^= 1
    path.write_bytes(data)
    report = validate(read(tmp_path), STORAGE, STREET_LABELS)
    found = [(p.index, p.reason, p.fatal) for p in report.problems]
    assert found == [
        (0, "bad-data-crc", True),
        (1, "not-an-example", True),
        (2, "undecodable-image", True),
        (3, "box-not-finite", False),
        (4, "box-outside", False),
        (4, "duplicate-frame-key", False),
        (5, "unknown-class", False),
        (-1, "empty-file", False),
    ]
    assert [(Path(file.uri).name, file.good, file.bad) for file in report.files] == [
        ("a.tfrecord", 3, 3),
        ("b.tfrecord", 0, 0),
    ]
    assert report.problems[1].offset == 16 + len(good)
    assert f"{path} record 1 at {16 + len(good)}: not-an-example: 8 bytes" in report.to_text()
    assert "1 boxes of class 7; the map has 1 vehicle, 2 pedestrian, 4 cyclist" in report.to_text()
    assert json.loads(json.dumps(report.to_dict()))["bad"] == 3


def test_doubled_frame_keys_name_the_first(tmp_path: Path) -> None:
    """Results are told apart by key, so a second one is a problem."""
    write_frames([frame("f1"), frame("f2"), frame("f1")], tmp_path / "a.tfrecord")
    (problem,) = validate(read(tmp_path), STORAGE).problems
    assert (problem.index, problem.reason) == (2, "duplicate-frame-key")
    assert problem.detail == "'f1' names record 0 too"


def test_long_lists_are_cut_in_the_text(tmp_path: Path) -> None:
    """A terminal gets the first 40 problems and the number of the others."""
    write(tmp_path / "a.tfrecord", *[b"\xffx"] * 50)
    report = validate(read(tmp_path), STORAGE)
    assert len(report.problems) == 50
    assert report.to_text().endswith("... and 10 more problems")
    assert "    50 not-an-example" in report.to_text()


def test_image_folders_are_validated(tmp_path: Path) -> None:
    """A picture that does not decode is a bad record of its folder."""
    (tmp_path / "1.jpg").write_bytes(JPEG)
    (tmp_path / "2.jpg").write_bytes(JPEG[:200])
    report = validate(read(tmp_path), STORAGE)
    assert (report.good, report.bad) == (1, 1)
    assert report.problems[0].uri.endswith("2.jpg")


def test_progress_is_told_by_source(tmp_path: Path) -> None:
    """Both commands call back after each source."""
    for name in ("a", "b"):
        write_frames([frame("f1")], tmp_path / f"{name}.tfrecord")
    seen: list[tuple[int, int]] = []
    validate(
        read(tmp_path),
        STORAGE,
        progress=lambda done, total: seen.append((done, total)),
    )
    statistics(
        read(tmp_path),
        STORAGE,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 2), (2, 2)] * 2


def test_statistics(tmp_path: Path) -> None:
    """Counts by class, COCO's size bounds, percentiles, image sizes."""
    frames = [frame("f1"), frame("f2", class_id=4), Frame("f3", "s", JPEG, "jpeg")]
    write_frames(frames, tmp_path / "a.tfrecord")
    with (tmp_path / "a.tfrecord").open("ab") as file, RecordWriter(file) as writer:
        writer.write(b"\xffbad")
    found = statistics(read(tmp_path), STORAGE, STREET_LABELS)
    assert (found.frames, found.labelled_frames, found.bad_records, found.segments) == (3, 2, 1, 1)
    assert (found.boxes, found.boxes_per_frame) == (4, (2.0, 2.0, 2.0))
    assert found.image_sizes == {"300 x 200": 3}
    vehicle, pedestrian, cyclist = found.classes
    assert (vehicle.name, vehicle.boxes, vehicle.frames) == ("vehicle", 3, 2)
    assert (vehicle.small, vehicle.medium, vehicle.large) == (1, 0, 2)
    assert vehicle.aspect_ratios == pytest.approx((2.0, 2.0, 2.0))
    assert cyclist.sides_px == pytest.approx((200**0.5,) * 3, rel=1e-3)
    assert (pedestrian.boxes, pedestrian.sides_px) == (0, (0.0, 0.0, 0.0))
    assert json.loads(json.dumps(found.to_dict()))["boxes"] == 4
    text = found.to_text()
    assert "1 segments, 3 frames (2 labelled), 4 boxes, 1 bad records" in text
    assert [line.split()[:3] for line in text.splitlines()[4:]] == [
        ["1", "vehicle", "3"],
        ["2", "pedestrian", "0"],
        ["4", "cyclist", "1"],
    ]


def test_statistics_without_a_label_map(tmp_path: Path) -> None:
    """Names come from the records, else from the id."""
    unnamed = replace(frame("f2"), truth=Truth.of([[0, 0, 20, 10]], [9], [""]))
    write_frames([frame("f1"), unnamed], tmp_path / "a.tfrecord")
    assert [one.name for one in statistics(read(tmp_path), STORAGE).classes] == [
        "vehicle",
        "class 9",
    ]


@pytest.mark.realdata
def test_the_real_validation_set(realdata: Path) -> None:
    """100 sound frames with 1,783, 288 and 0 boxes."""
    uri = str(realdata / "waymo" / "val")
    assert validate(read(uri), STORAGE, STREET_LABELS).is_clean
    found = statistics(read(uri), STORAGE, STREET_LABELS)
    assert (found.frames, found.segments) == (100, 5)
    assert [one.boxes for one in found.classes] == [1783, 288, 0]
