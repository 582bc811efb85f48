"""COCO files of a run can be joined: by paths with folder and ending, and by somebody's ids."""

import json
from pathlib import Path

import pytest
from made_runs import made_run
from pictures import saved, smooth_picture
from small_sets import BOXES

from urbandet_ray.commands.coco_names import CocoIds, frame_paths
from urbandet_ray.errors import InputError
from urbandet_ray.evaluation.results_file import counted, write_coco
from urbandet_ray.records.sources import list_sources
from urbandet_ray.runs.run_folder import RunFolder
from urbandet_ray.storage import Storage

STORAGE = Storage()


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run over pictures in two folders, of two formats."""
    for number, stem in enumerate(BOXES):
        path = (
            tmp_path
            / "photos"
            / ("left", "right")[number % 2]
            / f"{stem}{('.jpg', '.png')[number % 2]}"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(saved(smooth_picture(), ("JPEG", "PNG")[number % 2]))
    return made_run(tmp_path / "run", tmp_path / "photos")


def paths(run: RunFolder):  # type: ignore[no-untyped-def]
    uri = run.manifest().input
    return frame_paths(uri, list_sources(uri, STORAGE))


def written(run: RunFolder) -> tuple[list[dict], dict]:  # type: ignore[type-arg]
    read = [
        json.loads(STORAGE.read_bytes(run.path("coco", f"{n}.json"))) for n in ("results", "images")
    ]
    return read[0], read[1]


def test_file_names_have_folder_and_ending(run: RunFolder, tmp_path: Path) -> None:
    """Each is a file of the input; images count from 1."""
    labels = run.manifest().labels
    write_coco(run, labels, counted(paths(run), labels))
    _, images = written(run)
    names = [image["file_name"] for image in images["images"]]
    assert sorted(names) == sorted(
        str(path.relative_to(tmp_path / "photos")) for path in (tmp_path / "photos").rglob("*.*")
    )
    assert [image["id"] for image in images["images"]] == list(range(1, len(names) + 1))


def instances(tmp_path: Path, names: list[str], categories: dict[str, int]) -> str:
    content = {
        "images": [{"id": 1000 + 7 * n, "file_name": name} for n, name in enumerate(names)],
        "categories": [{"id": number, "name": name} for name, number in categories.items()],
        "annotations": [],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    return str(path)


def test_ids_of_a_coco_file_are_taken(run: RunFolder, tmp_path: Path) -> None:
    """Images and categories by name; frames and classes that it lacks are left out and said."""
    labels = run.manifest().labels
    known = dict(list(labels.names.items())[:-1])
    names = [f"{stem}{('.jpg', '.png')[n % 2]}" for n, stem in enumerate(BOXES)][:-1]
    uri = instances(tmp_path, names, {name: 50 + number for number, name in known.items()})
    ids = CocoIds(uri, labels, STORAGE)
    write_coco(run, labels, ids.names(paths(run)))
    results, images = written(run)
    assert {image["file_name"]: image["id"] for image in images["images"]} == {
        name: 1000 + 7 * n for n, name in enumerate(names)
    }
    assert {one["image_id"] for one in results} <= {1000 + 7 * n for n in range(len(names))}
    assert results and {one["category_id"] for one in results} <= {50 + number for number in known}
    first, second = ids.to_lines()
    assert first.startswith("1 frames are not in ") and list(BOXES)[-1] in first
    assert f"has no category {list(labels.names.values())[-1]}: their boxes are not in" in second


def test_a_file_of_other_pictures_or_classes_is_refused(run: RunFolder, tmp_path: Path) -> None:
    """With the names of both sides."""
    labels = run.manifest().labels
    named = {name: number for number, name in labels.names.items()}
    ids = CocoIds(instances(tmp_path, ["other.jpg"], named), labels, STORAGE)
    write_coco(run, labels, ids.names(paths(run)))
    with pytest.raises(InputError, match=r"no frame of the run is in .*other\.jpg there; give the"):
        ids.to_lines()
    with pytest.raises(InputError, match=r"has the categories zebra, the run .*: none is the same"):
        CocoIds(instances(tmp_path, ["a.jpg"], {"zebra": 1}), labels, STORAGE)


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"images": []}', '{"images": [{}], "categories": []}']
)
def test_what_is_no_coco_file_is_refused(tmp_path: Path, run: RunFolder, text: str) -> None:
    """Before anything is detected."""
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(
        InputError, match=r"x\.json is no COCO file .*expected COCO's instances JSON"
    ):
        CocoIds(str(tmp_path / "x.json"), run.manifest().labels, STORAGE)
