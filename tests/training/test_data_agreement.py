"""One table of odd data folders for every command that takes one: they agree, or refuse alike."""

import contextlib
import gzip
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from urbandet_ray import cli
from urbandet_ray.commands.doctor import diagnose
from urbandet_ray.config import TrainConfig, load_config
from urbandet_ray.errors import UrbandetError
from urbandet_ray.records.data_folder import read_data_folder
from urbandet_ray.storage import FileInfo, Storage
from urbandet_ray.training.doctor.planned_run import examine_plan
from urbandet_ray.training.planning import plan_run

pytestmark = pytest.mark.train

Change = Callable[[Path], None]
Urbandet = Callable[..., str]
PLAIN = {"train": ("train/one.tfrecord", "train/two.tfrecord"), "val": ("val/three.tfrecord",)}


def moved(old: str, new: str) -> Change:
    """Give a file or folder another name."""

    def change(data: Path) -> None:
        (data / new).parent.mkdir(parents=True, exist_ok=True)
        (data / old).rename(data / new)

    return change


def copied(old: str, new: str) -> Change:
    """A second one of a file."""

    def change(data: Path) -> None:
        (data / new).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data / old, data / new)

    return change


def written(name: str, text: str) -> Change:
    """A text file more."""

    def change(data: Path) -> None:
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text(text)

    return change


def packed(name: str) -> Change:
    """A file packed by gzip, in its own place."""

    def change(data: Path) -> None:
        (data / f"{name}.gz").write_bytes(gzip.compress((data / name).read_bytes()))
        (data / name).unlink()

    return change


# what is done to a sound folder; its parts then; the label map
SOUND: dict[str, tuple[tuple[Change, ...], dict[str, tuple[str, ...]], str]] = {
    "plain": ((), PLAIN, "label_map.pbtxt"),
    "valid": (
        (moved("val", "valid"),), PLAIN | {"val": ("valid/three.tfrecord",)}, "label_map.pbtxt",
    ),
    "capitals, long names and a test": (
        (moved("train", "Training"), moved("val", "Validation"),
         copied("Validation/three.tfrecord", "testing/four.tfrecord")),
        {"train": ("Training/one.tfrecord", "Training/two.tfrecord"),
         "val": ("Validation/three.tfrecord",), "test": ("testing/four.tfrecord",)},
        "label_map.pbtxt",
    ),
    "two endings": (
        (moved("train/two.tfrecord", "train/two.tfrecords"),),
        PLAIN | {"train": ("train/one.tfrecord", "train/two.tfrecords")}, "label_map.pbtxt",
    ),
    "shards and another ending": (
        (moved("train/one.tfrecord", "train/one.record-00000-of-00001"),
         moved("val/three.tfrecord", "val/three.record")),
        {"train": ("train/one.record-00000-of-00001", "train/two.tfrecord"),
         "val": ("val/three.record",)},
        "label_map.pbtxt",
    ),
    "packed": (
        (packed("train/two.tfrecord"),),
        PLAIN | {"train": ("train/one.tfrecord", "train/two.tfrecord.gz")}, "label_map.pbtxt",
    ),
    "nested": (
        (moved("train/two.tfrecord", "train/day/two.tfrecord"),),
        PLAIN | {"train": ("train/day/two.tfrecord", "train/one.tfrecord")}, "label_map.pbtxt",
    ),
    "Roboflow's label maps": (
        (copied("label_map.pbtxt", "train/Cars_label_map.pbtxt"),
         moved("label_map.pbtxt", "val/Cars_label_map.pbtxt")),
        PLAIN, "train/Cars_label_map.pbtxt",
    ),
    "records beside the parts": (
        (copied("val/three.tfrecord", "extra/four.tfrecord"),), PLAIN, "label_map.pbtxt",
    ),
    "a part without records beside one with": (
        (written("valid/notes.txt", "later"),), PLAIN, "label_map.pbtxt",
    ),
}  # fmt: skip

# what training refuses, and the rest reads
NOT_FOR_TRAINING: dict[str, tuple[tuple[Change, ...], str, str]] = {
    "no val": ((moved("val", "later"),), "", r"data has no val/ with TFRecord files, it holds train"
               r" 2 TFRecord files: training needs train/ and val/ \(or valid/"),
    "no train": ((moved("train", "later"),), "", r"data has no train/ with .* val 1 TFRecord file"),
    "empty val": ((moved("val/three.tfrecord", "three.tfrecord"),), "", r"data has no val/"),
    "no parts": ((moved("train", "a"), moved("val", "b")), "",
                 r"data has no train/ .* 3 TFRecord files in no train/ or val/"),
    "a part": ((), "train", r"train has no train/ with TFRecord files, it holds 2 TFRecord files"),
    "a file": ((), "train/one.tfrecord", r"one\.tfrecord has no train/ with .* 1 TFRecord file in"),
    "a pattern": ((), "*/*.tfrecord", r"\*\.tfrecord has no train/ with .* 3 TFRecord files"),
}  # fmt: skip

# what nobody reads
REFUSED: dict[str, tuple[tuple[Change, ...], str, str]] = {
    "two folders for one part": (
        (copied("val/three.tfrecord", "valid/four.tfrecord"),), "",
        r"data has val/ and valid/, which both stand for val: expected one folder",
    ),
    "label maps that differ": (
        (moved("label_map.pbtxt", "train/a_label_map.pbtxt"),
         written("val/a_label_map.pbtxt", "item { id: 1 name: 'bus' }")), "",
        r"data has label maps that differ, .*train/a_label_map\.pbtxt and .*val/a_label_map\.pbtxt:"
        r" expected one for all records; name the right one",
    ),
    "nothing": ((), "nothing", r"nothing does not exist"),
    "no records": ((written("other/notes.txt", "later"),), "other", r"other holds nothing frames"),
}  # fmt: skip


@pytest.fixture
def urbandet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Urbandet:
    """Runs a command line in this process; the first line of what it says."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["urbandet", *map(str, arguments)])
        with contextlib.suppress(SystemExit):
            cli.main()
        shown = capsys.readouterr()
        return (shown.out or shown.err).splitlines()[0]

    return run


@pytest.fixture
def pipeline(tmp_path: Path, data: Path, sound_config: str) -> Path:
    """The sound config, with the paths of the sound folder."""
    path = tmp_path / "pipeline.config"
    path.write_text(sound_config.replace("{data}", str(data)))
    return path


def planned(tmp_path: Path, pipeline: Path, data: str) -> TrainConfig:
    """A run of that pipeline.config on a folder."""
    given = {"output": str(tmp_path / "run"), "pipeline": str(pipeline), "data": data}
    return load_config(TrainConfig, None, given)


@pytest.mark.parametrize("name", SOUND)
def test_all_commands_mean_the_same_files(
    name: str, tmp_path: Path, data: Path, pipeline: Path, urbandet: Urbandet
) -> None:
    """What is train, val and test, and the label map, in five commands."""
    changes, parts, label_map = SOUND[name]
    for change in changes:
        change(data)
    files = {part: [str(data / one) for one in members] for part, members in parts.items()}

    plan = plan_run(planned(tmp_path, pipeline, str(data)), Storage())
    assert [one.uri for one in plan.train] == files["train"]
    assert [one.uri for one in plan.val] == files["val"]
    message = plan.pipeline_message()
    assert message.train_input_reader.label_map_path == str(data / label_map)

    examined = diagnose(pipeline, data=str(data)).examination
    assert examined.case.labels == plan.labels
    assert examined.case.train is not None
    assert examined.case.val is not None
    assert examined.case.train.segments == {one.segment for one in plan.train}
    assert examined.case.val.segments == {one.segment for one in plan.val}

    read = read_data_folder(str(data), Storage())
    assert {part: [one.uri for one in at.sources] for part, at in read.parts.items()} == files
    line, few = read.to_text().splitlines()[0], ("--count", 1, "--versions", 1)
    assert urbandet("data", "stats", data) == line
    assert urbandet("data", "validate", data) == line
    assert urbandet("data", "show", data, "--out", tmp_path / "sheet.png") == line
    assert urbandet("augment", "preview", data, *few, "--out", tmp_path / "sheet.png") == line
    assert f"classes by {data / label_map}" in line


@pytest.mark.parametrize("name", NOT_FOR_TRAINING)
def test_the_doctor_refuses_what_train_refuses(
    name: str, tmp_path: Path, data: Path, pipeline: Path, urbandet: Urbandet
) -> None:
    """In the same words; the commands that only look read what is there."""
    changes, below, message = NOT_FOR_TRAINING[name]
    for change in changes:
        change(data)
    uri = str(data / below)
    with pytest.raises(UrbandetError, match=message) as trained:
        plan_run(planned(tmp_path, pipeline, uri), Storage())
    with pytest.raises(UrbandetError) as examined:
        diagnose(pipeline, data=uri)
    assert str(examined.value) == str(trained.value)
    line = read_data_folder(uri, Storage()).to_text()
    assert urbandet("data", "stats", uri) == line
    assert urbandet("data", "validate", uri) == line
    assert urbandet("data", "show", uri, "--out", tmp_path / "sheet.png") == line


@pytest.mark.parametrize("name", REFUSED)
def test_all_commands_refuse_alike(
    name: str, tmp_path: Path, data: Path, pipeline: Path, urbandet: Urbandet
) -> None:
    """What cannot be understood is refused by every command in the same words."""
    changes, below, message = REFUSED[name]
    for change in changes:
        change(data)
    uri = str(data / below)
    with pytest.raises(UrbandetError, match=message) as trained:
        plan_run(planned(tmp_path, pipeline, uri), Storage())
    with pytest.raises(UrbandetError) as examined:
        diagnose(pipeline, data=uri)
    line = f"error: {trained.value}"
    assert f"error: {examined.value}" == line
    assert urbandet("data", "stats", uri) == line
    assert urbandet("data", "validate", uri) == line
    assert urbandet("data", "show", uri, "--out", tmp_path / "sheet.png") == line


def test_paths_without_records_are_an_error_of_the_doctor_too(
    tmp_path: Path, data: Path, pipeline: Path
) -> None:
    """A folder of pictures at the pipeline.config's own path: train refuses it, so does he."""
    (data / "pictures").mkdir()
    (data / "pictures" / "a.png").write_bytes(b"")
    text = pipeline.read_text().replace(f"{data}/val/*.tfrecord", f"{data}/pictures")
    pipeline.write_text(text)
    given = {"output": str(tmp_path / "run"), "pipeline": str(pipeline)}
    with pytest.raises(UrbandetError, match="pictures has no TFRecord file") as trained:
        plan_run(load_config(TrainConfig, None, given), Storage())
    (found,) = [one for one in diagnose(pipeline).findings if one.code == "path-missing"]
    assert str(trained.value) in found.what


def test_a_planned_run_lists_its_data_once(
    tmp_path: Path, data: Path, pipeline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan and the doctor share what was found."""
    listed: list[str] = []
    real = Storage.list_files

    def counted(storage: Storage, uri: str, hidden: list[str] | None = None) -> Iterator[FileInfo]:
        listed.append(uri)
        return real(storage, uri, hidden)

    monkeypatch.setattr(Storage, "list_files", counted)
    examine_plan(plan_run(planned(tmp_path, pipeline, str(data)), Storage()))
    assert listed == [str(data)]
