"""File names of any bytes reach every output: frames' keys, records, Parquet, COCO, messages."""

import json
import os
from pathlib import Path

import pytest
from pictures import saved, smooth_picture

from urbandet_ray.datasets.truth_lookup import NameLookup
from urbandet_ray.detections import Detections
from urbandet_ray.frames import Frame
from urbandet_ray.phrases import printable
from urbandet_ray.records.data_folder import read_data_folder
from urbandet_ray.records.example import example_from_frame, frame_from_example
from urbandet_ray.records.input_contents import list_input
from urbandet_ray.records.soundness import validate
from urbandet_ray.records.sources import list_sources, read_source
from urbandet_ray.runs.detections_table import DetectionRow, rows_from_parquet, rows_to_parquet
from urbandet_ray.storage import Storage

NAMES = {
    b"caf\xe9": "caf\\xe9",
    "街".encode(): "街",
    b"new\nline": "new\\nline",
    b"\xff\xfe": "\\xff\\xfe",
    b"\x1b[31mred": "\\x1b[31mred",
}
PICTURE = saved(smooth_picture(), "JPEG")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures, labels and a folder with names that are no UTF-8, or print badly."""
    for name in [*NAMES, b"fo\xffld/er\xe9"]:
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/in/" + name + b".jpg"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PICTURE)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/in/\xe9.json")).touch()
    return tmp_path / "in"


def test_frames_have_printable_keys(folder: Path) -> None:
    """What Parquet, JSON and drawing take; sources have plain names that differ."""
    sources = list_sources(str(folder), Storage())
    keys = {r.frame.frame_key for s in sources for r in read_source(s, Storage()) if r.frame}
    assert keys == {*NAMES.values(), "er\\xe9"}
    assert all(one.name.isascii() and one.segment.isascii() for one in sources)


@pytest.mark.parametrize("key", NAMES.values())
def test_keys_survive_parquet_and_coco(key: str) -> None:
    """As they are."""
    row = DetectionRow("s", 0, key, "s", (90, 60), Detections.of([], [], []))
    (back,) = rows_from_parquet(rows_to_parquet([row]), "rows")
    assert back.frame_key == key
    assert json.loads(json.dumps(key)) == key


@pytest.mark.parametrize("name", NAMES)
def test_records_keep_a_file_names_bytes(name: bytes) -> None:
    """image/filename has the file's own bytes; the key that is read of it prints."""
    file_name = os.fsdecode(name) + ".jpg"
    frame = Frame(printable(file_name)[:-4], "s", PICTURE, "jpeg", file_name=file_name)
    data = example_from_frame(frame, source_name=file_name)
    assert name + b".jpg" in data
    assert frame_from_example(data, default_key="", segment="").frame_key == NAMES[name]


def test_left_out_files_and_messages_print(folder: Path) -> None:
    """No output stops at a name."""
    _, contents = list_input(str(folder), Storage())
    assert contents.left_out[0].names == ("\\xe9.json",)
    assert "\\xe9.json" in contents.to_lines()[0]
    report = validate(read_data_folder(str(folder), Storage()), Storage())
    assert (report.good, report.bad) == (6, 0)


def test_truth_is_found_under_a_name_of_any_bytes() -> None:
    """A dataset's listing has the file's own name, a run its printable key."""
    lookup = NameLookup({os.fsdecode(name) + ".jpg": value for name, value in NAMES.items()})
    for key in NAMES.values():
        assert lookup.find(key, "in") == key
