"""`urbandet eval --truth` on datasets: one run has one mAP, whatever its truth is written in."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import Run
from made_runs import made_run
from small_sets import WRITERS, write_coco, write_pictures, write_yolo

from urbandet_ray.datasets.truth_lookup import NameLookup
from urbandet_ray.errors import InputError


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
