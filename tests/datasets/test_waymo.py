"""Waymo Open Dataset: a v1 record made of the official field numbers, and a v2 pair."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Run
from small_sets import HEIGHT, WIDTH, picture

from urbandet_ray.datasets.recognition import read_dataset
from urbandet_ray.errors import InputError
from urbandet_ray.frames import Frame
from urbandet_ray.records.sources import list_sources, read_source
from urbandet_ray.records.tfrecord import RecordWriter
from urbandet_ray.storage import Storage

STORAGE = Storage()
CONTEXT = "10023947602400723454_1120_000_1140_000"
Labels = list[tuple[int, float, float, float, float, int]]
FRAMES: list[dict[int, Labels | None]] = [
    {1: [(1, 30.5, 20, 21, 10.25, 1), (4, 60, 40, 8, 20, 2)], 3: []},
    {1: [(2, 40, 30, 6, 16, 0), (3, 5, 5, 4, 4, 1)], 3: [(1, 50, 30, 30, 20, 2)]},
]
"""A frame's cameras by number; a label is type, centre x and y, width, height, difficulty."""


def varint(value: int) -> bytes:
    """Seven bits a byte."""
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def whole(number: int, value: int) -> bytes:
    """A field of wire type 0."""
    return varint(number << 3) + varint(value)


def double(number: int, value: float) -> bytes:
    """A field of wire type 1."""
    return varint(number << 3 | 1) + struct.pack("<d", value)


def span(number: int, value: bytes) -> bytes:
    """A field of wire type 2: bytes, a string or a message."""
    return varint(number << 3 | 2) + varint(len(value)) + value


def label(kind: int, x: float, y: float, width: float, height: float, level: int) -> bytes:
    """label.proto: box = 1 (center 1 and 2, width = 4, length = 5), type = 3, id = 4."""
    box = double(1, x) + double(2, y) + double(3, 0) + double(4, height) + double(5, width)
    graded = whole(5, level) if level else b""
    return span(1, box) + whole(3, kind) + span(4, b"an-id") + graded


def frame(index: int, cameras: dict[int, Labels | None]) -> bytes:
    """dataset.proto: context = 1, time = 2, images = 4, lasers = 5, camera_labels = 8."""
    out = span(1, span(1, CONTEXT.encode()) + span(4, span(2, b"Day"))) + whole(2, 1000 + index)
    for camera, labels in cameras.items():
        pose = span(3, double(1, 0.5))
        out += span(4, whole(1, camera) + span(2, picture(index * 10 + camera)) + pose)
        if labels is not None:
            out += span(8, whole(1, camera) + b"".join(span(2, label(*one)) for one in labels))
    return out + span(5, b"\x08\x01" * 500)


def write_v1(folder: Path, frames: list[dict[int, Labels | None]], damage: bytes = b"") -> None:
    """One segment's file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"segment-{CONTEXT}_with_camera_labels.tfrecord"
    with path.open("wb") as file, RecordWriter(file) as writer:
        for index, cameras in enumerate(frames):
            writer.write(frame(index, cameras))
        if damage:
            writer.write(damage)


def write_v2(folder: Path, *, boxes: bool = True, **renamed: str) -> None:
    """camera_image/ and camera_box/ of one segment, in row groups of two."""
    images: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for index, cameras in enumerate(FRAMES):
        for camera, labels in cameras.items():
            key = {
                "key.segment_context_name": CONTEXT,
                "key.frame_timestamp_micros": 1000 + index,
                "key.camera_name": camera,
            }
            image = picture(index * 10 + camera)
            images.append({**key, "[CameraImageComponent].image": image})
            for kind, x, y, width, height, level in labels or ():
                values = {"box.center.x": x, "box.center.y": y, "box.size.x": width,
                          "box.size.y": height, "type": kind,
                          "difficulty_level.detection": level}  # fmt: skip
                rows.append({**key, **{f"[CameraBoxComponent].{k}": v for k, v in values.items()}})
    for name, content in (("camera_image", images), ("camera_box", rows)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist(content)
        table = table.rename_columns([renamed.get(one, one) for one in table.column_names])
        if name == "camera_image" or boxes:
            pq.write_table(table, folder / name / f"{CONTEXT}.parquet", row_group_size=2)


def frames_in(out: Path) -> dict[str, Frame]:
    """All frames by key."""
    return {
        record.frame.frame_key: record.frame
        for source in list_sources(str(out), STORAGE)
        for record in read_source(source, STORAGE)
        if record.frame is not None
    }


def test_both_versions_come_to_equal_frames(tmp_path: Path, urbandet: Run) -> None:
    """Images, boxes, classes, difficulty, camera and time; a file a drive and camera."""
    write_v1(tmp_path / "v1" / "validation", FRAMES)
    write_v2(tmp_path / "v2" / "validation")
    found = {}
    for version in ("v1", "v2"):
        code, said, complained = urbandet(
            "data", "import", tmp_path / version, tmp_path / f"out-{version}"
        )
        assert (code, complained) == (0, "")
        assert f"read as Waymo Open Dataset {version}, by validation/" in said
        files = sorted(path.name for path in (tmp_path / f"out-{version}" / "val").iterdir())
        assert files == [f"{CONTEXT}-FRONT.tfrecord", f"{CONTEXT}-FRONT_RIGHT.tfrecord"]
        found[version] = frames_in(tmp_path / f"out-{version}")
    assert found["v1"].keys() == found["v2"].keys()
    assert len(found["v1"]) == 4
    for key, one in found["v1"].items():
        other = found["v2"][key]
        assert (one.encoded, one.camera, one.timestamp_us, one.segment) == (
            other.encoded, other.camera, other.timestamp_us, other.segment,
        )  # fmt: skip
        assert one.truth is not None and other.truth is not None
        for column in ("boxes_xyxy", "class_ids", "class_texts", "difficult"):
            np.testing.assert_array_equal(getattr(one.truth, column), getattr(other.truth, column))
    front = found["v1"]["1000_FRONT"]
    assert front.truth is not None
    assert front.encoded == picture(1)
    np.testing.assert_allclose(
        front.truth.boxes_xyxy, [[20, 14.875, 41, 25.125], [56, 30, 64, 50]], atol=1e-4
    )
    assert front.truth.class_texts == ("vehicle", "cyclist")
    assert front.truth.class_ids.tolist() == [1, 4]
    assert front.truth.difficult.tolist() == [False, True]
    empty = found["v1"]["1000_FRONT_RIGHT"].truth
    assert empty is not None and len(empty) == 0


@pytest.mark.parametrize(
    ("damage", "said"),
    [(b"\x0a\x05wrong", "record 2"), (b"\xff\xff", "record 2"), (frame(2, {}), "record 2")],
    ids=["no images", "no message", "no cameras"],
)
def test_a_damaged_record_of_version_1_is_counted(damage: bytes, said: str, tmp_path: Path) -> None:
    """The others are read."""
    write_v1(tmp_path, FRAMES, damage)
    dataset = read_dataset(str(tmp_path), STORAGE)
    assert len(list(dataset.images)) == 4
    assert dataset.tally.counts == {"record-damaged": 1}
    assert said in dataset.tally.places["record-damaged"][0]


def test_cameras_that_nobody_labelled_are_left_out(tmp_path: Path) -> None:
    """No entry is no label; an empty entry is a negative. A drive without boxes has no labels."""
    write_v1(tmp_path / "v1", [{1: None, 2: []}])
    dataset = read_dataset(str(tmp_path / "v1"), STORAGE)
    assert [image.camera for image in dataset.images] == ["FRONT_LEFT"]
    assert dataset.tally.counts == {"image-unlabelled": 1}
    write_v2(tmp_path / "v2", boxes=False)
    dataset = read_dataset(str(tmp_path / "v2"), STORAGE)
    assert dataset.tally.counts == {"image-unlabelled": 4}


def test_a_table_with_other_columns_is_said(tmp_path: Path) -> None:
    """Which column, of which file."""
    write_v2(tmp_path, **{"key.camera_name": "camera"})
    with pytest.raises(InputError, match=r"has no column key\.camera_name: expected camera_image"):
        read_dataset(str(tmp_path), STORAGE)
    (tmp_path / "camera_box" / f"{CONTEXT}.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="is damaged or no Parquet file"):
        read_dataset(str(tmp_path), STORAGE)


def test_records_of_examples_are_no_waymo_frames(tmp_path: Path) -> None:
    """They need no import, which is said."""
    from urbandet_ray.frames import Truth
    from urbandet_ray.records.writer import write_frames

    frames = [Frame("1", "d", picture(1), "jpeg", (WIDTH, HEIGHT), Truth.empty())]
    write_frames(frames, tmp_path / "d.tfrecord")
    with pytest.raises(InputError, match=r"TFRecords of tf\.Examples need no import"):
        read_dataset(str(tmp_path), STORAGE)
