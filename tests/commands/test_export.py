"""`urbandet export`: whole or not at all, and what comes out detects."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_models import tiny_ssd

from urbandet_ray.commands.export import export
from urbandet_ray.errors import ConfigError, ModelError, NotFoundError
from urbandet_ray.models import odapi
from urbandet_ray.models.loading import ModelSpec, load_detector
from urbandet_ray.models.shipped import SHIPPED_FOLDER
from urbandet_ray.storage import Storage
from urbandet_ray.training.odapi_model import OdApiModel

# read while tests are collected, so before any of them imports TensorFlow into this process
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
pytestmark = pytest.mark.train

LABELS = (SHIPPED_FOLDER / "label_map.pbtxt").read_text("utf-8")


def made_run(folder: Path) -> Path:
    """A run folder as training leaves it, after no step at all."""
    config = tiny_ssd()
    model = OdApiModel(config)
    model.build(1)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pipeline.config").write_text(str(config), "utf-8")
    (folder / "label_map.pbtxt").write_text(LABELS, "utf-8")
    tf = odapi.open_odapi().tf
    checkpoint = tf.train.Checkpoint(model=model.trackable, step=tf.Variable(7))
    manager = tf.train.CheckpointManager(checkpoint, str(folder / "best"), max_to_keep=1)
    manager.save(checkpoint_number=7)
    (folder / "best" / "checkpoint").write_text('model_checkpoint_path: "/gone/best/ckpt-7"\n')
    (folder / "best" / "state.json").write_text('{"step": 7, "map": 0.25}')
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a best checkpoint; tests must not change it."""
    return made_run(tmp_path_factory.mktemp("trained") / "run")


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its export."""
    out = tmp_path_factory.mktemp("exported") / "street"
    report = export(str(run), out=str(out), storage=Storage())
    assert report.model == str(out / "saved_model")
    assert report.to_text().startswith(f"exported {run}/best/ckpt-7 (step 7, map 0.25)\n")
    return out


def test_saved_model_detects_without_more_words(exported: Path) -> None:
    """The detector needs no label map named: it lies beside the model."""
    detector = load_detector(ModelSpec(str(exported / "saved_model"), score_min=0.0), Storage())
    (found,) = detector.detect([np.zeros((90, 120, 3), np.uint8)])
    assert len(found) > 0


def test_marker_tells_what_it_is(exported: Path) -> None:
    """The model, the run's checkpoint and its state."""
    marker = json.loads((exported / "export.json").read_text())
    assert (marker["model"], marker["checkpoint"]) == ("saved_model", "best/ckpt-7")
    assert marker["state"] == {"step": 7, "map": 0.25}
    assert (exported / "pipeline.config").is_file()


@pytest.mark.s3
def test_from_s3_to_s3(run: Path, s3_server: object) -> None:
    """A run on S3 is exported into itself, the TFLite file with its labels, stale files gone."""
    bucket = s3_server.make_bucket("export-runs")  # type: ignore[attr-defined]
    storage = Storage(s3_server.options)  # type: ignore[attr-defined]
    for file in run.rglob("*"):
        if file.is_file():
            storage.upload_file(file, f"{bucket}/run/{file.relative_to(run).as_posix()}")
    place = f"{bucket}/run/exports/best-tflite"
    storage.write_bytes(f"{place}/export.json", b"{}")
    storage.write_bytes(f"{place}/stale.tflite", b"old")
    report = export(f"{bucket}/run", storage=storage, format="tflite")
    assert report.model == f"{place}/model.tflite"
    names = {file.uri.removeprefix(f"{place}/") for file in storage.list_files(place)}
    assert {"model.tflite", "label_map.pbtxt", "export.json"} <= names
    assert "stale.tflite" not in names
    (found,) = load_detector(ModelSpec(report.model, score_min=0.0), storage).detect(
        [np.zeros((64, 64, 3), np.uint8)]
    )
    assert len(found) > 0


def test_failed_export_keeps_the_earlier_one(run: Path, tmp_path: Path) -> None:
    """A checkpoint that cannot be read leaves the folder as it was."""
    broken, out = tmp_path / "run", tmp_path / "out"
    shutil.copytree(run, broken)
    (broken / "best" / "ckpt-7.index").write_bytes(b"no checkpoint at all")
    out.mkdir()
    (out / "export.json").write_text("earlier")
    with pytest.raises(ModelError, match=r"best/ckpt-7 does not restore .*pipeline\.config"):
        export(str(broken), out=str(out), storage=Storage())
    assert (out / "export.json").read_text() == "earlier"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]


def test_no_run(tmp_path: Path) -> None:
    """A folder that is none is named."""
    with pytest.raises(NotFoundError, match=r"no training run of an OD API model at .*absent"):
        export(str(tmp_path / "absent"), storage=Storage())


def test_no_checkpoint_yet(run: Path, tmp_path: Path) -> None:
    """Train first; or the other checkpoint, where there is one."""
    for name in ("pipeline.config", "label_map.pbtxt"):
        (tmp_path / name).write_text((run / name).read_text())
    with pytest.raises(NotFoundError, match=r"no checkpoint in .*/best yet: train first"):
        export(str(tmp_path), storage=Storage())
    with pytest.raises(NotFoundError, match=r"no checkpoint in .*/last yet: .*--checkpoint best"):
        export(str(run), checkpoint="last", storage=Storage())


def test_only_ssd_goes_to_tflite(run: Path, tmp_path: Path) -> None:
    """Another architecture is refused before anything is built, with the format that works."""
    (tmp_path / "best").mkdir()
    for name in ("label_map.pbtxt", "best/ckpt-7.index", "best/ckpt-7.data-00000-of-00001"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    (tmp_path / "pipeline.config").write_text("model { faster_rcnn { num_classes: 3 } }")
    with pytest.raises(ModelError, match=r"faster_rcnn model: .*export it as savedmodel"):
        export(str(tmp_path), storage=Storage(), format="tflite")


def test_folder_of_something_else_is_spared(run: Path, tmp_path: Path) -> None:
    """Nothing is written over what is no export."""
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match=r"holds thesis\.txt, no earlier export"):
        export(str(run), out=str(tmp_path), storage=Storage())
