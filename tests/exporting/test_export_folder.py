"""An export as a value: published whole, read by whoever asks, never put over anything else."""

import json
from pathlib import Path

import pytest

from urbandet_ray.errors import ConfigError, NotFoundError, RunError
from urbandet_ray.exporting.export_folder import (
    Export,
    check_target,
    export_around,
    list_exports,
    publish,
    read_export,
)
from urbandet_ray.storage import Storage

BEST = {"run": "runs/street", "checkpoint": "best/ckpt-7", "precision": "f32", "state": {"step": 7}}


def put(folder: Path | str, name: str = "", **changes: object) -> Export:
    """A published export of one file."""
    export = Export(str(folder), name, **(BEST | changes))  # type: ignore[arg-type]
    folder = Path(folder)
    folder.mkdir(parents=True)
    (folder / "export.json").write_bytes(export.to_json())
    return export


def made_in(folder: Path) -> Path:
    """What an exporter made."""
    (folder / "saved_model").mkdir(parents=True)
    (folder / "saved_model" / "saved_model.pb").write_bytes(b"graph")
    (folder / "label_map.pbtxt").write_bytes(b"labels")
    return folder


def test_an_export_is_read_as_it_was_published(tmp_path: Path) -> None:
    """From any folder: the value that was published comes back, with all files around it."""
    export = Export(str(tmp_path / "out"), "saved_model", **BEST)  # type: ignore[arg-type]
    publish(export, made_in(tmp_path / "made"), Storage())
    assert read_export(str(tmp_path / "out"), Storage()) == export
    assert (tmp_path / "out" / "saved_model" / "saved_model.pb").read_bytes() == b"graph"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "out"]


def test_the_model_is_a_file_of_the_folder_or_the_folder() -> None:
    """A network's folder is itself the model."""
    stock = Export("s3://b/exports/best-stock", "saved_model", **BEST)  # type: ignore[arg-type]
    network = Export("s3://b/exports/best-onnx", "", **BEST)  # type: ignore[arg-type]
    assert (stock.model, stock.name) == ("s3://b/exports/best-stock/saved_model", "best-stock")
    assert (network.model, network.is_best) == ("s3://b/exports/best-onnx", True)


def test_exports_are_listed_from_the_run_or_from_their_folder(tmp_path: Path) -> None:
    """In the order of their names; what is no whole export is passed over."""
    second = put(tmp_path / "exports" / "last-onnx", checkpoint="last/ckpt-9")
    first = put(tmp_path / "exports" / "best-stock", "saved_model")
    (tmp_path / "exports" / "half").mkdir()
    (tmp_path / "exports" / "half" / "model.onnx").write_bytes(b"")
    assert list_exports(str(tmp_path), Storage()) == [first, second]
    assert list_exports(str(tmp_path / "exports"), Storage()) == [first, second]
    assert list_exports(str(tmp_path / "exports" / "half"), Storage()) == []
    assert list_exports(str(tmp_path / "absent"), Storage()) == []


@pytest.mark.parametrize("place", ["", "model.tflite", "saved_model/"])
def test_a_model_knows_its_export(tmp_path: Path, place: str) -> None:
    """By the model or by the folder of the export."""
    export = put(tmp_path / "out", "model.tflite", precision="bf16")
    assert export_around(str(tmp_path / "out" / place), Storage()) == export


def test_a_model_of_another_origin_has_no_export(tmp_path: Path) -> None:
    """Nothing beside it tells where it comes from."""
    assert export_around(str(tmp_path / "model.tflite"), Storage()) is None
    with pytest.raises(NotFoundError):
        read_export(str(tmp_path), Storage())


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"precision": "f23"}, 'precision is "f23"'),
        ({"checkpoint": 7}, "checkpoint is 7, expected a string"),
        ({"state": None}, "state is null, expected an object"),
        ({"run": ...}, "it lacks 'run'"),
    ],
)
def test_a_damaged_marker_is_named(tmp_path: Path, change: dict, found: str) -> None:
    """With what is wrong in it, and what to do."""
    put(tmp_path / "out")
    marker = tmp_path / "out" / "export.json"
    content = json.loads(marker.read_text()) | change
    marker.write_text(json.dumps({key: one for key, one in content.items() if one is not ...}))
    with pytest.raises(RunError, match=rf"export\.json is damaged: {found}.*Export it again"):
        read_export(str(tmp_path / "out"), Storage())


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff"])
def test_a_marker_that_is_no_json_is_named(tmp_path: Path, content: bytes) -> None:
    """Cut off, or of something else."""
    (tmp_path / "export.json").write_bytes(content)
    with pytest.raises(RunError, match=r"export\.json is damaged: .*Export it again"):
        list_exports(str(tmp_path), Storage())


def test_what_is_no_earlier_export_is_spared(tmp_path: Path) -> None:
    """The run, the folder of all its exports, a folder of data, a file of somebody's."""
    run, data = tmp_path / "run", tmp_path / "data"
    put(run / "exports" / "first")
    (run / "best").mkdir()
    (run / "pipeline.config").write_text("model {}")
    (data / "train").mkdir(parents=True)
    (data / "train" / "a.tfrecord").write_bytes(b"frames")
    for folder in (run, run / "exports", data):
        with pytest.raises(ConfigError, match=r"holds .*, no earlier export: give another folder"):
            check_target(str(folder), Storage())
    check_target(str(run / "exports" / "first"), Storage())
    check_target(str(tmp_path / "new"), Storage())


@pytest.mark.s3
def test_an_export_cut_off_on_s3_is_done_again(tmp_path: Path, s3_server: object) -> None:
    """There a folder cannot appear at once: what was begun is known, and replaced."""
    bucket = s3_server.make_bucket("export-again")  # type: ignore[attr-defined]
    storage = Storage(s3_server.options)  # type: ignore[attr-defined]
    place = f"{bucket}/out"
    storage.write_bytes(f"{place}/export.unfinished", b"")
    storage.write_bytes(f"{place}/half", b"old")
    check_target(place, storage)
    export = Export(place, "saved_model", **BEST)  # type: ignore[arg-type]
    publish(export, made_in(tmp_path / "made"), storage)
    names = {file.uri.removeprefix(f"{place}/") for file in storage.list_files(place)}
    assert names == {"export.json", "label_map.pbtxt", "saved_model/saved_model.pb"}
    assert read_export(place, storage) == export
