"""`urbandet data export`: a dataset that other tools open, and that comes back as it went."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import Run
from made_runs import made_run
from small_sets import BOXES, CLASSES, HEIGHT, WIDTH, picture, write_coco, write_pictures

from urbandet_ray.frames import Frame, Truth
from urbandet_ray.label_files import read_labels
from urbandet_ray.records.sources import list_sources, read_source
from urbandet_ray.records.writer import write_frames
from urbandet_ray.storage import Storage

STORAGE = Storage()
FORMATS = ("coco", "yolo", "voc", "label-studio", "cvat")
LABEL_MAP = "".join(f"item {{ id: {n} name: '{one}' }}\n" for n, one in enumerate(CLASSES, 1))


def write_records(folder: Path) -> None:
    """Two parts with two drives, corners of many digits, and every flag."""
    rng = np.random.default_rng(5)
    (folder / "train").mkdir(parents=True)
    (folder / "label_map.pbtxt").write_text(LABEL_MAP)
    for number, (part, drive) in enumerate((("train", "oak"), ("val", "elm"))):
        frames = []
        for index in range(3):
            n = index * 2
            low = rng.uniform(0, 30, (n, 2))
            corners = np.concatenate([low, low + rng.uniform(1, 33, (n, 2))], axis=1)
            ids = rng.integers(1, 4, n)
            flags = {name: rng.integers(0, 2, n) for name in ("difficult", "is_crowd", "occluded")}
            truth = Truth.of(
                corners,
                ids,
                tuple(CLASSES[one - 1] for one in ids),
                truncated=rng.uniform(0, 1, n).round(3),
                areas_px=rng.uniform(1, 9, n).round(2),
                **flags,
            )
            key = f"{drive}_{index:04d}"
            frames.append(
                Frame(key, drive, picture(number * 9 + index), "jpeg", (WIDTH, HEIGHT), truth,
                      camera="FRONT", timestamp_us=1_700_000_000_000_000 + index)
            )  # fmt: skip
        write_frames(frames, folder / part / f"{drive}.tfrecord")


def frames_in(folder: Path) -> dict[str, tuple[str, Frame]]:
    """Part and frame by the last part of the key."""
    return {
        record.frame.frame_key.rpartition("/")[2]: (source.name.partition("--")[0], record.frame)
        for source in list_sources(str(folder), STORAGE)
        for record in read_source(source, STORAGE)
        if record.frame is not None
    }


def in_order(frame: Frame, column: str) -> list[object]:
    """A column of the truth, sorted by the boxes' corners."""
    assert frame.truth is not None
    order = np.lexsort(frame.truth.boxes_xyxy.T.round(2))
    values = getattr(frame.truth, column)
    return [values[at] if isinstance(values, tuple) else values[at].tolist() for at in order]


@pytest.mark.parametrize("kind", FORMATS)
def test_what_went_comes_back(kind: str, tmp_path: Path, urbandet: Run) -> None:
    """Boxes to 1e-6 of the image, images byte for byte, in the same parts; flags where they can."""
    write_records(tmp_path / "records")
    code, said, complained = urbandet(
        "data", "export", tmp_path / "records", tmp_path / "set", "--to", kind
    )
    assert (code, complained) == (0, "")
    assert f"6 images and 12 boxes, as {kind}" in said
    assert ("flags (difficult, crowd, truncated, occluded), for which" in said) == (kind == "yolo")
    code, said, complained = urbandet("data", "import", tmp_path / "set", tmp_path / "back")
    assert (code, complained) == (0, "")
    assert "parts: the dataset's own" in said
    before, after = frames_in(tmp_path / "records"), frames_in(tmp_path / "back")
    assert before.keys() == after.keys()
    for key, (part, frame) in before.items():
        new_part, back = after[key]
        assert (new_part, back.encoded) == (part, frame.encoded)
        boxes, old = in_order(back, "boxes_xyxy"), in_order(frame, "boxes_xyxy")
        shape = (-1, 4)
        scale = [WIDTH, HEIGHT] * 2
        np.testing.assert_allclose(
            np.reshape(boxes, shape) / scale, np.reshape(old, shape) / scale, atol=1e-6
        )
        columns = ["class_texts"] + (["class_ids"] if kind in ("coco", "yolo", "cvat") else [])
        if kind != "yolo":
            assert (back.camera, back.timestamp_us) == (frame.camera, frame.timestamp_us)
            columns += ["difficult", "is_crowd"] if old else []
            columns += ["truncated", "occluded"] if old else []
        if kind == "coco" and old:
            columns.append("areas_px")
        for column in columns:
            assert in_order(back, column) == in_order(frame, column), (key, column)
    labels = read_labels(str(tmp_path / "back" / "label_map.pbtxt"), STORAGE)
    assert sorted(labels.names.values()) == sorted(CLASSES)


@pytest.mark.parametrize("kind", FORMATS)
def test_boxes_of_a_run_are_what_a_person_starts_from(
    kind: str, tmp_path: Path, urbandet: Run
) -> None:
    """Predictions from the score that the run draws from; scores where they have a place."""
    write_pictures(tmp_path / "drive")
    made_run(tmp_path / "run", tmp_path / "drive")
    code, said, _ = urbandet("data", "export", tmp_path / "run", tmp_path / "set", "--to", kind)
    assert code == 0
    assert f"6 images and 14 predictions from a score of 0.3, as {kind}" in said
    assert ("scores, for which the format has no place" in said) == (
        kind in ("yolo", "voc", "cvat")
    )
    assert (tmp_path / "set" / "images" / "oak_0001.jpg").read_bytes() == picture(0)
    code, said, _ = urbandet(
        "data", "export", tmp_path / "run", tmp_path / "few", "--to", kind, "--score-min", "0.95"
    )
    assert "6 images and 0 predictions from a score of 0.95" in said


def test_predictions_in_the_words_of_each_format(tmp_path: Path, urbandet: Run) -> None:
    """Label Studio has predictions and no annotations; COCO has scores; CVAT declares classes."""
    write_pictures(tmp_path / "drive")
    made_run(tmp_path / "run", tmp_path / "drive")
    for kind in ("label-studio", "coco", "cvat"):
        urbandet("data", "export", tmp_path / "run", tmp_path / kind, "--to", kind)
    tasks = json.loads((tmp_path / "label-studio" / "tasks.json").read_text())
    assert all("annotations" not in one for one in tasks)
    assert tasks[0]["data"]["image"] == "/data/local-files/?d=images/elm_0001.jpg"
    first = tasks[0]["predictions"][0]["result"][0]
    assert first["value"]["rectanglelabels"] == ["bus"]
    assert 0.3 <= first["score"] <= 1
    config = ElementTree.parse(tmp_path / "label-studio" / "label_config.xml")
    assert [one.get("value") for one in config.iter("Label")] == list(CLASSES)
    content = json.loads((tmp_path / "coco" / "annotations" / "instances.json").read_text())
    assert len(content["annotations"]) == 14
    assert all(0.3 <= one["score"] <= 1 for one in content["annotations"])
    root = ElementTree.parse(tmp_path / "cvat" / "annotations.xml")
    assert [one.text for one in root.iterfind("meta/task/labels/label/name")] == list(CLASSES)


def test_only_what_a_person_edited_changes(tmp_path: Path, urbandet: Run) -> None:
    """A box is moved in the exported file; the records of all other frames stay byte for byte."""
    write_coco(tmp_path / "coco")
    urbandet("data", "import", tmp_path / "coco", tmp_path / "one")
    urbandet("data", "export", tmp_path / "one", tmp_path / "set", "--to", "coco")
    urbandet("data", "import", tmp_path / "set", tmp_path / "two")
    path = tmp_path / "set" / "annotations" / "instances_val.json"
    content = json.loads(path.read_text())
    edited = content["annotations"][0]
    edited["bbox"][0] += 1
    path.write_text(json.dumps(content))
    urbandet("data", "import", tmp_path / "set", tmp_path / "three")
    image = next(one for one in content["images"] if one["id"] == edited["image_id"])
    records = []
    for folder in ("two", "three"):
        found = {}
        for source in list_sources(str(tmp_path / folder / "val"), STORAGE):
            for record in read_source(source, STORAGE):
                assert record.frame is not None
                found[record.frame.frame_key.rpartition("/")[2]] = record.raw
        records.append(found)
    assert records[0].keys() == records[1].keys() == BOXES.keys()
    changed = [key for key in BOXES if records[0][key] != records[1][key]]
    assert changed == [Path(image["file_name"]).stem]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{records}", "{tmp}/x", "--to", "kitty"], "--to is 'kitty': expected one of coco, yolo"),
        (["{records}", "{records}", "--to", "coco"], "is not empty"),
        (["{records}", "{tmp}/x", "--to", "coco", "--score-min", "0.5"], "is for the predictions"),
        (["{tmp}/gone", "{tmp}/x", "--to", "coco"], "gone"),
    ],
    ids=["format", "not empty", "score of labels", "nothing there"],
)
def test_what_cannot_be_exported_is_said(
    arguments: list[str], message: str, tmp_path: Path, urbandet: Run
) -> None:
    """Before anything is written."""
    write_records(tmp_path / "records")
    places = {"records": str(tmp_path / "records"), "tmp": str(tmp_path)}
    code, _, complained = urbandet("data", "export", *(one.format(**places) for one in arguments))
    assert code == 1
    assert message in complained
    assert not (tmp_path / "x").exists()


def test_unlabelled_frames_and_foreign_classes(tmp_path: Path, urbandet: Run) -> None:
    """Without labels a frame is a task for Label Studio, and for no other format a negative."""
    truth = Truth.of([[1, 2, 9, 9], [3, 4, 30, 30]], [1, 77])
    frames = [
        Frame("d_0001", "d", picture(1), "jpeg", (WIDTH, HEIGHT)),
        Frame("d_0002", "d", picture(2), "jpeg", (WIDTH, HEIGHT), truth),
    ]
    write_frames(frames, tmp_path / "records" / "d.tfrecord")
    (tmp_path / "records" / "label_map.pbtxt").write_text(LABEL_MAP)
    for kind in FORMATS:
        code, said, _ = urbandet(
            "data", "export", tmp_path / "records", tmp_path / kind, "--to", kind
        )
        assert code == 3
        assert "boxes of a class that the label map does not have, left out: 1" in said
        assert ("images without labels, left out: 1 (d_0001" in said) == (kind != "label-studio")
    tasks = json.loads((tmp_path / "label-studio" / "tasks.json").read_text())
    assert ["annotations" in one for one in tasks] == [False, True]


def test_frames_of_one_name_in_two_drives(tmp_path: Path, urbandet: Run) -> None:
    """Both are written; the second has its drive in front."""
    for drive in ("a", "b"):
        frame = Frame("0001", drive, picture(1), "jpeg", (WIDTH, HEIGHT), Truth.empty())
        write_frames([frame], tmp_path / "records" / f"{drive}.tfrecord")
    code, _, _ = urbandet("data", "export", tmp_path / "records", tmp_path / "set", "--to", "voc")
    assert code == 0
    names = sorted(path.relative_to(tmp_path / "set").as_posix() for path in
                   (tmp_path / "set").rglob("*.jpg"))  # fmt: skip
    assert names == ["images/0001.jpg", "images/b/0001.jpg"]
