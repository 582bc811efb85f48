"""`urbandet data import`: every format comes to the same records, and nothing vanishes unsaid."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run, S3Server
from small_sets import (
    BOXES,
    HEIGHT,
    WIDTH,
    WRITERS,
    picture,
    write_coco,
    write_json,
    write_kitti,
    write_voc,
)

from urbandet_ray.commands.import_data import ImportChoice, import_dataset
from urbandet_ray.frames import Frame
from urbandet_ray.label_files import read_labels
from urbandet_ray.records.data_folder import read_data_folder
from urbandet_ray.records.sources import list_sources, read_source
from urbandet_ray.runs.lock import WriterLock
from urbandet_ray.storage import Storage

STORAGE = Storage()


def frames_in(out: Path) -> dict[str, Frame]:
    """All frames of a data folder by the stem of their image."""
    found = {}
    for source in list_sources(str(out), STORAGE):
        for record in read_source(source, STORAGE):
            assert record.frame is not None
            stem = record.frame.frame_key.rpartition("/")[2]
            assert stem not in found
            found[stem] = record.frame
    return found


def boxes_of(frame: Frame) -> dict[str, list[list[float]]]:
    """Corners by class."""
    assert frame.truth is not None
    found: dict[str, list[list[float]]] = {}
    for name, box in zip(frame.truth.class_texts, frame.truth.boxes_xyxy.tolist(), strict=True):
        found.setdefault(name, []).append(box)
    return found


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_comes_to_the_same_records(kind: str, tmp_path: Path, urbandet: Run) -> None:
    """Equal boxes, equal classes, the images byte for byte; the format is recognised and said."""
    WRITERS[kind](tmp_path / "set")
    code, said, complained = urbandet("data", "import", tmp_path / "set", tmp_path / "out")
    assert (code, complained) == (0, "")
    assert f"read as {kind.partition(' of ')[0]}, by " in said
    frames = frames_in(tmp_path / "out")
    assert frames.keys() == BOXES.keys()
    labels = read_labels(str(tmp_path / "out" / "label_map.pbtxt"), STORAGE)
    for stem, boxes in BOXES.items():
        frame = frames[stem]
        found = boxes_of(frame)
        assert sorted(found) == sorted({box[0] for box in boxes})
        for name in found:
            wanted = [box[1:] for box in boxes if box[0] == name]
            np.testing.assert_allclose(found[name], wanted, atol=1e-6 * WIDTH)
        assert frame.truth is not None
        ids = frame.truth.class_ids.tolist()
        assert [labels.names[one] for one in ids] == list(frame.truth.class_texts)
        picture = next((tmp_path / "set").rglob(f"{stem}.jpg")).read_bytes()
        assert frame.encoded == picture


def test_what_a_format_says_of_its_objects_is_kept(tmp_path: Path, urbandet: Run) -> None:
    """Truncation and occlusion of KITTI."""
    write_kitti(tmp_path / "set")
    urbandet("data", "import", tmp_path / "set", tmp_path / "out")
    truth = frames_in(tmp_path / "out")["oak_0001"].truth
    assert truth is not None and truth.truncated is not None and truth.occluded is not None
    assert (truth.truncated.tolist(), truth.occluded.tolist()) == ([0.25, 0.25], [2, 2])


def test_parts_are_made_by_drive(tmp_path: Path, urbandet: Run) -> None:
    """Names that count on are a drive; asked for shares, no drive is in two parts."""
    write_coco(tmp_path / "set")
    code, said, _ = urbandet(
        "data", "import", tmp_path / "set", tmp_path / "out", "--split", "50,50"
    )
    assert code == 0
    assert "parts: 50%:50%:0% by drive, seed 0; drives: by file names that count on" in said
    data = read_data_folder(str(tmp_path / "out"), STORAGE)
    assert data.train is not None and data.val is not None and data.test is None
    for part in (data.train, data.val):
        (source,) = part.sources
        stems = [record.frame.frame_key for record in read_source(source, STORAGE) if record.frame]
        assert len(stems) == 3
        assert len({stem.rpartition("/")[2][:3] for stem in stems}) == 1


def test_the_data_folder_is_one_that_the_commands_take(tmp_path: Path, urbandet: Run) -> None:
    """Sound records, their own classes, a sheet to look at and a report to read."""
    write_coco(tmp_path / "set")
    urbandet("data", "import", tmp_path / "set", tmp_path / "out")
    code, said, _ = urbandet("data", "validate", tmp_path / "out")
    assert code == 0, said
    code, said, _ = urbandet("data", "stats", tmp_path / "out")
    assert code == 0 and "car" in said and "bus" in said
    assert (tmp_path / "out_sheet.png").stat().st_size > 1000
    report = json.loads((tmp_path / "out" / "import_report.json").read_text())
    assert report["classes"] == {"car": 1, "person": 3, "bus": 5}  # COCO's own ids
    assert report["odd"]["image-negative"]["count"] == 1


def test_a_cut_off_import_is_resumed_and_another_is_refused(tmp_path: Path, urbandet: Run) -> None:
    """What is done stays as it is; a folder holds one import."""
    write_coco(tmp_path / "set")
    command = ("data", "import", tmp_path / "set", tmp_path / "out", "--split", "50,50")
    urbandet(*command)
    files = sorted((tmp_path / "out").rglob("*.tfrecord"))
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
    lost = files[0]
    lost.unlink()
    (tmp_path / "out" / "import" / f"{lost.parent.name}-{lost.stem}.json").unlink()
    code, _, _ = urbandet(*command)
    assert code == 0
    assert lost.read_bytes() == before[lost][0]
    assert files[1].stat().st_mtime_ns == before[files[1]][1]
    code, _, complained = urbandet(*command, "--seed", "1")
    assert code == 1
    assert "holds an import of" in complained and "import into another folder" in complained


def test_foreign_records_are_not_written_over(tmp_path: Path, urbandet: Run) -> None:
    """A data folder that no import made."""
    write_coco(tmp_path / "set")
    (tmp_path / "out" / "train").mkdir(parents=True)
    (tmp_path / "out" / "train" / "a.tfrecord").write_bytes(b"")
    code, _, complained = urbandet("data", "import", tmp_path / "set", tmp_path / "out")
    assert code == 1
    assert "train is there already, and no import made it" in complained
    assert not (tmp_path / "out" / "val").exists()


def test_two_formats_in_one_folder_are_not_guessed(tmp_path: Path, urbandet: Run) -> None:
    """The format, or the file itself, has to be named."""
    write_coco(tmp_path / "set")
    write_voc(tmp_path / "set")
    code, _, complained = urbandet("data", "import", tmp_path / "set", tmp_path / "out")
    assert code == 1
    assert "holds labels of 2 formats, coco (annotations/instances_val2017.json), voc" in complained
    code, said, _ = urbandet(
        "data", "import", tmp_path / "set", tmp_path / "out", "--format", "coco",
        "--images", tmp_path / "set" / "val2017",
    )  # fmt: skip
    assert "read as COCO" in said


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.txt", "hello", "holds no labels of a format that is read here: expected COCO's"),
        ("labels.json", '{"images": [', "holds no labels of a format"),
        ("labels.json", '[{"image_id": 1, "bbox": [1, 2, 3, 4]}]', "holds no labels of a format"),
    ],
    ids=["nothing", "half a JSON", "results"],
)
def test_what_is_no_dataset_is_said(
    name: str, content: str, message: str, tmp_path: Path, urbandet: Run
) -> None:
    """And what is read instead."""
    (tmp_path / name).write_text(content)
    code, _, complained = urbandet("data", "import", tmp_path, tmp_path / "out")
    assert code == 1
    assert message in complained


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [', "is no JSON"),
        ('[{"image_id": 1, "bbox": [1, 2, 3, 4]}]', "holds detections (COCO's results)"),
        ('{"images": [], "categories": []}', "but no list of annotations"),
    ],
    ids=["half", "results", "no annotations"],
)
def test_a_labels_file_that_is_named_itself_says_its_fault(
    content: str, message: str, tmp_path: Path, urbandet: Run
) -> None:
    """Not that nothing was found."""
    (tmp_path / "labels.json").write_text(content)
    code, _, complained = urbandet("data", "import", tmp_path / "labels.json", tmp_path / "out")
    assert code == 1
    assert message in complained


def coco_of(folder: Path, annotations: list[dict[str, Any]], **image: Any) -> None:
    """One image, and what is said of it."""
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "a.jpg").write_bytes(picture(0))
    entry = {"id": 1, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT, **image}
    numbered = [
        {"id": at, "image_id": 1, "category_id": 1, **one} for at, one in enumerate(annotations)
    ]
    content = {"images": [entry], "annotations": numbered, "categories": [{"id": 1, "name": "car"}]}
    write_json(folder / "labels.json", content)


GOOD = {"bbox": [1, 2, 30, 20]}


@pytest.mark.parametrize(
    ("odd", "kept", "line"),
    [
        ({"bbox": [90, 10, 20, 10]}, [90, 10, 96, 20], "boxes that reach beyond the image"),
        ({"bbox": [200, 10, 20, 10]}, None, "boxes that lie beyond the image, left out: 1"),
        ({"bbox": [5, 5, 0, 10]}, None, "boxes without an area, left out: 1"),
        ({"bbox": [50, 5, -20, 10]}, None, "boxes that end before they begin, left out: 1"),
        ({"bbox": [0.1, 0.2, 0.5, 0.5]}, None, "boxes within the first pixel"),
        ({"bbox": [1, 2, None, 4]}, None, "labels that cannot be read, left out: 1"),
        ({"bbox": [5, 5, 9, 9], "category_id": 7}, None, "labels that cannot be read, left out: 1"),
        ({"bbox": [5, 5, 9, 9], "image_id": 7}, None, "image_id 7 is no image's"),
        (
            {"segmentation": [[5, 6, 20, 6, 20, 30, 5, 30]]},
            [5, 6, 20, 30],
            "outlines, of which the bounding box is kept: 1",
        ),
        (
            {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * 2 + 3, 5, 6008]}},
            [2, 3, 3, 8],
            "masks, of which the bounding box is kept: 1",
        ),
        (
            {"bbox": [5, 6, 15, 24], "segmentation": [[5, 6, 20, 6, 20, 30]]},
            [5, 6, 20, 30],
            "outlines beside boxes, left out: 1",
        ),
    ],
    ids=["outside", "beyond", "empty", "inverted", "shares", "no number", "no class", "no image",
         "polygon", "mask", "both"],
)  # fmt: skip
def test_odd_boxes_of_coco_are_counted_and_told(
    odd: dict[str, Any], kept: list[float] | None, line: str, tmp_path: Path, urbandet: Run
) -> None:
    """Each costs itself alone, with a line that names it."""
    coco_of(tmp_path / "set", [GOOD, odd])
    code, said, _ = urbandet("data", "import", tmp_path / "set", tmp_path / "out")
    assert line in said
    assert code == (0 if kept else 3)
    boxes = boxes_of(frames_in(tmp_path / "out")["a"])["car"]
    np.testing.assert_allclose(boxes, [[1, 2, 31, 22], *([kept] if kept else [])], atol=1e-4)


def test_crowds_and_other_flags_of_coco_are_kept(tmp_path: Path, urbandet: Run) -> None:
    """Crowd, difficult, truncated, occluded, and the object's own area."""
    flags = {"iscrowd": 1, "difficult": 1, "truncated": 0.5, "occluded": 2, "area": 77}
    coco_of(tmp_path / "set", [{**GOOD, **flags}, {**GOOD, "area": 9}], camera="LEFT")
    urbandet("data", "import", tmp_path / "set", tmp_path / "out")
    frame = frames_in(tmp_path / "out")["a"]
    truth = frame.truth
    assert truth is not None and truth.truncated is not None and truth.occluded is not None
    assert truth.is_crowd.tolist() == truth.difficult.tolist() == [True, False]
    assert (truth.truncated.tolist(), truth.occluded.tolist()) == ([0.5, 0], [2, 0])
    assert truth.areas_px is not None and truth.areas_px.tolist() == [77, 9]
    assert frame.camera == "LEFT"


def test_labels_of_another_image_size_are_scaled(tmp_path: Path, urbandet: Run) -> None:
    """As the OD API's converters do, who divide by the stated size; and it is said."""
    coco_of(tmp_path / "set", [GOOD], width=WIDTH * 2, height=HEIGHT * 2)
    code, said, _ = urbandet("data", "import", tmp_path / "set", tmp_path / "out")
    assert code == 0
    assert "192 x 128 stated, 96 x 64 px found" in said
    boxes = boxes_of(frames_in(tmp_path / "out")["a"])["car"]
    np.testing.assert_allclose(boxes, [[0.5, 1, 15.5, 11]], atol=1e-4)


def test_images_that_are_missing_or_damaged_are_named(tmp_path: Path, urbandet: Run) -> None:
    """The others are written; the exit code is 3."""
    write_coco(tmp_path / "set")
    (tmp_path / "set" / "val2017" / "oak_0001.jpg").unlink()
    (tmp_path / "set" / "val2017" / "oak_0002.jpg").write_bytes(b"no picture")
    code, said, _ = urbandet("data", "import", tmp_path / "set", tmp_path / "out")
    assert code == 3
    assert "images that the labels name but are not there, left out: 1 (oak_0001.jpg)" in said
    assert "damaged images, left out: 1 (oak_0002.jpg" in said
    assert frames_in(tmp_path / "out").keys() == BOXES.keys() - {"oak_0001", "oak_0002"}


def test_one_file_name_in_two_folders(tmp_path: Path, urbandet: Run) -> None:
    """Where the labels say no folder they can mean either; where they do, both are read."""
    coco_of(tmp_path / "set", [GOOD])
    for folder in ("left", "right"):
        (tmp_path / "set" / folder).mkdir()
        (tmp_path / "set" / folder / "a.jpg").write_bytes(
            (tmp_path / "set" / "images" / "a.jpg").read_bytes()
        )
    (tmp_path / "set" / "images" / "a.jpg").unlink()
    code, _, complained = urbandet("data", "import", tmp_path / "set", tmp_path / "out")
    assert code == 1
    assert "images that the labels do not tell apart by name, left out: 1" in complained
    content = json.loads((tmp_path / "set" / "labels.json").read_text())
    first = content["images"][0]
    content["images"] = [
        {**first, "file_name": "left/a.jpg"},
        {**first, "id": 2, "file_name": "right\\a.jpg"},
    ]
    write_json(tmp_path / "set" / "labels.json", content)
    code, said, _ = urbandet("data", "import", tmp_path / "set", tmp_path / "out")
    assert code == 0, said
    keys = [
        record.frame.frame_key
        for source in list_sources(str(tmp_path / "out"), STORAGE)
        for record in read_source(source, STORAGE)
        if record.frame
    ]
    assert sorted(keys) == ["left/a", "right/a"]


def test_a_label_map_chooses_classes(tmp_path: Path, urbandet: Run) -> None:
    """Its ids are written; boxes of other classes are counted."""
    write_coco(tmp_path / "set")
    (tmp_path / "mine.pbtxt").write_text("item { id: 7 name: 'person' }")
    code, said, _ = urbandet(
        "data", "import", tmp_path / "set", tmp_path / "out", "--labels", tmp_path / "mine.pbtxt"
    )
    assert code == 3
    assert "boxes of a class that the label map does not have, left out: 6" in said
    truth = frames_in(tmp_path / "out")["oak_0001"].truth
    assert truth is not None and truth.class_ids.tolist() == [7]


def test_nothing_is_begun_where_an_option_is_wrong(tmp_path: Path, urbandet: Run) -> None:
    """Format, shares and pattern."""
    write_coco(tmp_path / "set")
    for option, value, message in (
        ("--format", "coko", "--format is 'coko': expected one of coco, yolo"),
        ("--split", "lots", "--split is 'lots': give the shares"),
        ("--drive", "[", "--drive is '[', no regular expression"),
        ("--drive", "xyz", "--drive 'xyz' matches no image, such as oak_0001.jpg"),
    ):
        code, _, complained = urbandet(
            "data", "import", tmp_path / "set", tmp_path / "out", option, value
        )
        assert code == 1
        assert message in complained
    assert not (tmp_path / "out").exists()


@pytest.mark.s3
def test_from_s3_to_s3(s3_server: S3Server, tmp_path: Path) -> None:
    """The same bytes as between folders; a second command reads what is done."""
    bucket = s3_server.make_bucket("datasets")
    storage = Storage(s3_server.options)
    write_coco(tmp_path / "set")
    for path in (tmp_path / "set").rglob("*.*"):
        name = path.relative_to(tmp_path / "set").as_posix()
        storage.upload_file(path, f"{bucket}/coco/{name}")
    choice = ImportChoice(split="50,50")
    for _ in range(2):
        report = import_dataset(f"{bucket}/coco", f"{bucket}/out", choice, storage)
        assert report.frames == 6
    import_dataset(str(tmp_path / "set"), str(tmp_path / "out"), choice, storage)
    for path in (tmp_path / "out").rglob("*.tfrecord"):
        name = path.relative_to(tmp_path / "out").as_posix()
        assert storage.read_bytes(f"{bucket}/out/{name}") == path.read_bytes()
    assert not storage.exists(f"{bucket}/out/writer.json")
    assert storage.exists(f"{bucket}/out_sheet.png")


def test_one_command_writes_at_a_time(tmp_path: Path, urbandet: Run) -> None:
    """Another one that is alive is named."""
    write_coco(tmp_path / "set")
    choice = ImportChoice()
    import_dataset(str(tmp_path / "set"), str(tmp_path / "out"), choice, STORAGE)
    with WriterLock(STORAGE, str(tmp_path / "out" / "writer.json"), "urbandet data import"):
        code, _, complained = urbandet("data", "import", tmp_path / "set", tmp_path / "out")
    assert code == 1
    assert "urbandet data import" in complained
