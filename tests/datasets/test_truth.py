"""`urbandet eval --truth` on datasets: one run has one mAP, whatever its truth is written in."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run
from made_runs import made_run
from small_sets import WRITERS, write_coco, write_pictures, write_yolo

from urbandet_ray.datasets.truth_lookup import NameLookup
from urbandet_ray.errors import InputError
from urbandet_ray.labels import LabelMap
from urbandet_ray.records.data_folder import read_data_folder
from urbandet_ray.records.sources import read_source
from urbandet_ray.records.writer import write_frames
from urbandet_ray.storage import Storage


def metrics_of(urbandet: Run, run: Path, truth: Path, out: Path) -> tuple[dict[str, Any], str]:
    """The figures that eval writes, and what it says."""
    code, said, complained = urbandet("eval", run, "--truth", truth, "--out", out)
    assert (code, complained) == (0, "")
    return json.loads((out / "metrics.json").read_text()), said


def test_one_run_has_one_map(tmp_path: Path, urbandet: Run) -> None:
    """Against every format, and against the records that an import made of one."""
    write_pictures(tmp_path / "drive")
    made_run(tmp_path / "run", tmp_path / "drive")
    figures = {}
    for kind, write in WRITERS.items():
        write(tmp_path / kind)
        figures[kind], said = metrics_of(urbandet, tmp_path / "run", tmp_path / kind, tmp_path)
        assert f"the truth was read as {kind.partition(' of ')[0]}, by " in said
    urbandet("data", "import", tmp_path / "COCO", tmp_path / "records")
    truth = tmp_path / "records"
    figures["TFRecord"], _ = metrics_of(urbandet, tmp_path / "run", truth, tmp_path)
    first = figures["COCO"]
    assert 0.1 < first["map"] < 0.95
    assert first["truth_boxes"] == 8
    for figure in figures.values():
        for name in ("map", "ap50", "ap75", "ar100", "truth_boxes", "by_class", "by_size"):
            assert figure[name] == first[name]


def test_a_run_over_imported_records_has_it_too(tmp_path: Path, urbandet: Run) -> None:
    """Its frames are named as the dataset's files are."""
    write_coco(tmp_path / "coco")
    write_yolo(tmp_path / "yolo")
    urbandet("data", "import", tmp_path / "coco", tmp_path / "records")
    made_run(tmp_path / "run", tmp_path / "records" / "val")
    figures = [
        metrics_of(urbandet, tmp_path / "run", truth, tmp_path)[0]["map"]
        for truth in (tmp_path / "records" / "val", tmp_path / "coco", tmp_path / "yolo")
    ]
    assert figures[0] == figures[1] == figures[2] > 0.1


def test_frames_on_one_side_alone_are_said(tmp_path: Path, urbandet: Run) -> None:
    """They are in no figure."""
    write_coco(tmp_path / "coco")
    write_pictures(tmp_path / "drive")
    made_run(tmp_path / "run", tmp_path / "drive")
    path = tmp_path / "coco" / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    content["images"] = [one for one in content["images"] if one["file_name"] != "elm_0001.jpg"]
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] != 103]
    path.write_text(json.dumps(content))
    figures, said = metrics_of(urbandet, tmp_path / "run", tmp_path / "coco", tmp_path)
    assert figures["frames"] == 5
    assert (
        "note: 1 frames of the run are not in the truth and not in the figures (elm_0001)" in said
    )
    (tmp_path / "drive" / "oak_0001.jpg").unlink()
    made_run(tmp_path / "other", tmp_path / "drive")
    _, said = metrics_of(urbandet, tmp_path / "other", tmp_path / "coco", tmp_path)
    assert "note: 1 frames of the truth are not in the run (val2017/oak_0001.jpg)" in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"oak": "fir", "elm": "ash"}, "no frame of .* is in the truth: frames are named elm_0001"),
        (
            {'"car"': '"van"', '"person"': '"man"', '"bus"': '"tram"'},
            "none is the same. Infer with",
        ),
    ],
    ids=["names", "classes"],
)
def test_a_truth_of_something_else_is_refused(
    change: dict[str, str], message: str, tmp_path: Path, urbandet: Run
) -> None:
    """Both sides are named."""
    write_coco(tmp_path / "coco")
    write_pictures(tmp_path / "drive")
    made_run(tmp_path / "run", tmp_path / "drive")
    path = tmp_path / "coco" / "annotations" / "instances_val2017.json"
    text = path.read_text()
    for old, new in change.items():
        text = text.replace(old, new)
        for picture in (tmp_path / "coco" / "val2017").glob(f"{old}_*.jpg"):
            picture.rename(picture.with_name(picture.name.replace(old, new)))
    path.write_text(text)
    code, _, complained = urbandet("eval", tmp_path / "run", "--truth", tmp_path / "coco")
    assert code == 1
    assert re.search(message, complained)


def test_one_name_in_two_folders_is_told_apart_or_refused() -> None:
    """By the folder that the run read; without it, nothing is guessed."""
    lookup = NameLookup({"left/1.jpg": "l", "right/1.jpg": "r", "only/2.png": "o"})
    assert (lookup.find("1", "right"), lookup.find("1", "left")) == ("r", "l")
    assert lookup.find("other/2", "x") == "o"
    assert lookup.find("3", "x") is None
    with pytest.raises(InputError, match=r"frame 2 of x could be any of only/2\.png in the truth"):
        lookup.find("2", "x")
    with pytest.raises(InputError, match=r"could be any of left/1.jpg, right/1.jpg in the truth"):
        NameLookup({"left/1.jpg": "l", "right/1.jpg": "r"}).find("1", "drive")


def renumbered(records: Path, out: Path, ids: dict[str, int], *, texts: bool) -> Path:
    """The same boxes under other class numbers, with the label map that says so."""
    labels = LabelMap({class_id: name for name, class_id in ids.items()})
    (out / "val").mkdir(parents=True)
    (out / "label_map.pbtxt").write_text(labels.to_pbtxt())
    data = read_data_folder(str(records), Storage())
    for source in data.sources:
        frames = []
        for record in read_source(source, Storage(), labels=data.labels):
            assert record.frame is not None
            assert record.frame.truth is not None
            names = record.frame.truth.class_texts
            numbers = np.array([ids[name] for name in names], np.int32)
            truth = replace(
                record.frame.truth,
                class_ids=numbers,
                class_texts=names if texts else ("",) * len(names),
            )
            frames.append(replace(record.frame, truth=truth))
        write_frames(frames, out / "val" / f"{source.segment}.tfrecord")
    return out


def test_a_truth_s_own_label_map_names_its_classes(tmp_path: Path, urbandet: Run) -> None:
    """Numbers are those of the map beside the records, not the run's; with and without texts."""
    write_coco(tmp_path / "coco")
    write_pictures(tmp_path / "drive")
    made_run(tmp_path / "run", tmp_path / "drive")
    urbandet("data", "import", tmp_path / "coco", tmp_path / "records")
    run = tmp_path / "run"
    figures, _ = metrics_of(urbandet, run, tmp_path / "records", tmp_path)
    assert figures["map"] > 0.1
    for name, texts, ids in (
        ("numbers", False, {"bus": 1, "person": 2, "car": 3}),
        ("gaps", False, {"bus": 10, "person": 20, "car": 5}),
        ("texts", True, {"bus": 2, "person": 3, "car": 1}),
    ):
        truth = renumbered(tmp_path / "records", tmp_path / name, ids, texts=texts)
        for place in (truth, truth / "val"):
            other, _ = metrics_of(urbandet, run, place, tmp_path)
            assert other["by_class"] == figures["by_class"]


def test_classes_that_the_run_does_not_have_are_counted(tmp_path: Path, urbandet: Run) -> None:
    """The others have their figures; where nothing is left it is an error."""
    write_coco(tmp_path / "coco")
    write_pictures(tmp_path / "drive")
    made_run(tmp_path / "run", tmp_path / "drive")
    urbandet("data", "import", tmp_path / "coco", tmp_path / "records")
    figures, _ = metrics_of(urbandet, tmp_path / "run", tmp_path / "records", tmp_path)
    truth = renumbered(
        tmp_path / "records", tmp_path / "x", {"bus": 1, "person": 2, "car": 3}, texts=False
    )
    text = (truth / "label_map.pbtxt").read_text()
    (truth / "label_map.pbtxt").write_text(text.replace("bus", "tram"))
    other, said = metrics_of(urbandet, tmp_path / "run", truth, tmp_path)
    assert re.search(
        r"note: \d truth boxes are of classes that the run does not have, .*'tram' \(", said
    )
    assert other["by_class"]["car"] == figures["by_class"]["car"]
    assert other["by_class"]["bus"]["truth_boxes"] == 0
    (truth / "label_map.pbtxt").write_text("item { id: 1 name: 'x' } item { id: 2 name: 'y' }")
    code, _, complained = urbandet("eval", tmp_path / "run", "--truth", truth)
    assert code == 1
    assert "none is the same. Infer with --labels" in complained
