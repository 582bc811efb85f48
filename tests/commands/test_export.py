"""`urbandet export`: whole or not at all, and what comes out detects."""

import json
import os
import shutil
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import tiny_ssd

import urbandet_ray
from urbandet_ray.commands.export import export
from urbandet_ray.config import ModelConfig
from urbandet_ray.errors import ConfigError, ModelError, NotFoundError
from urbandet_ray.exporting.rounding import to_bfloat16
from urbandet_ray.labels import STREET_LABELS, LabelMap
from urbandet_ray.models import odapi
from urbandet_ray.models.loader import load_detector
from urbandet_ray.models.network.facts import Precision
from urbandet_ray.models.shipped import SHIPPED_FOLDER
from urbandet_ray.storage import Storage
from urbandet_ray.training.odapi_model import OdApiModel

# read while tests are collected, so before any of them imports TensorFlow into this process
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
pytestmark = pytest.mark.train

LABELS = (SHIPPED_FOLDER / "label_map.pbtxt").read_text("utf-8")


def made_run(folder: Path, classes: int = 3) -> Path:
    """A run folder as training leaves it, after no step at all."""
    config = tiny_ssd(classes)
    model = OdApiModel(config)
    model.build(1)
    draw = np.random.default_rng(0)
    for weights in model.trainable_variables:
        if len(weights.shape) == 4:  # by He's rule, or nothing of an image would reach the heads
            inputs = weights.shape[0] * weights.shape[1] * weights.shape[2]
            if "depthwise" in weights.name:
                inputs //= weights.shape[2]
            weights.assign(draw.normal(0, np.sqrt(2 / inputs), weights.shape))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pipeline.config").write_text(str(config), "utf-8")
    (folder / "label_map.pbtxt").write_text(LABELS, "utf-8")
    tf = odapi.open_odapi().tf
    checkpoint = tf.train.Checkpoint(model=model.trackable, step=tf.Variable(7))
    manager = tf.train.CheckpointManager(checkpoint, str(folder / "best"), max_to_keep=1)
    manager.save(checkpoint_number=7)
    (folder / "best" / "checkpoint").write_text('model_checkpoint_path: "/gone/best/ckpt-7"\n')
    (folder / "best" / "state.json").write_text('{"step": 7, "mAP": 0.25}')
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
    assert report.to_text().startswith(f"exported {run}/best/ckpt-7 (step 7, mAP 0.250)\n")
    return out


def test_saved_model_takes_images_of_any_size(exported: Path) -> None:
    """uint8, and answers boxes in [0, 1] of the classes that there are."""
    tf = odapi.open_odapi().tf
    path = exported / "saved_model"
    detect = tf.saved_model.load(str(path)).signatures["serving_default"]
    boxes = detect(input_tensor=tf.zeros((1, 90, 120, 3), tf.uint8))["detection_boxes"].numpy()
    assert boxes.shape == (1, 100, 4)
    assert 0 <= boxes.min() <= boxes.max() <= 1
    images = [np.zeros((90, 120, 3), np.uint8), np.zeros((48, 64, 3), np.uint8)]
    answers = load_detector(ModelConfig(uri=str(path), score_min=0.0), Storage()).detect(images)
    assert [len(answer) > 0 for answer in answers] == [True, True]
    assert set(answers[0].class_ids.tolist()) <= set(STREET_LABELS.names)


def test_saved_model_detects_without_more_words(exported: Path) -> None:
    """The detector needs no label map named: it lies beside the model."""
    detector = load_detector(
        ModelConfig(uri=str(exported / "saved_model"), score_min=0.0), Storage()
    )
    (found,) = detector.detect([np.zeros((90, 120, 3), np.uint8)])
    assert len(found) > 0


def test_outputs_without_a_class_are_dropped(tmp_path: Path) -> None:
    """num_classes 5 with ids 1 to 3: what answers 4 or 5 is nobody's, and ends no run."""
    made = made_run(tmp_path / "run", classes=5)
    report = export(str(made), storage=Storage(), format="savedmodel")
    labels = LabelMap.parse((Path(report.model) / "label_map.pbtxt").read_text())
    assert labels.names == {
        1: "vehicle",
        2: "pedestrian",
        3: "cyclist",
        4: "unused_4",
        5: "unused_5",
    }
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    model = ModelConfig(uri=report.model, score_min=0.0)
    (all_of_it,) = load_detector(model, Storage(), labels).detect([image])
    assert {4, 5} & set(all_of_it.class_ids.tolist())
    (found,) = load_detector(model, Storage()).detect([image])
    assert 0 < len(found) < len(all_of_it)


def test_marker_tells_what_it_is(exported: Path) -> None:
    """The model, the run's checkpoint and its state."""
    marker = json.loads((exported / "export.json").read_text())
    assert (marker["model"], marker["checkpoint"]) == ("saved_model", "best/ckpt-7")
    assert marker["state"] == {"step": 7, "mAP": 0.25}
    assert marker["precision"] == "f32"
    assert (exported / "pipeline.config").is_file()


@pytest.fixture(scope="module")
def rounded(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its export with bfloat16 weights."""
    out = tmp_path_factory.mktemp("rounded") / "street"
    report = export(str(run), out=str(out), storage=Storage(), precision="bf16")
    assert "(step 7, mAP 0.250, bf16)" in report.to_text()
    assert json.loads((out / "export.json").read_text())["precision"] == "bf16"
    return out


def test_bfloat16_weights_are_what_they_say(exported: Path, rounded: Path) -> None:
    """Every weight of the SavedModel is a bfloat16 number, the next to what was trained."""
    tf = odapi.open_odapi().tf
    before, after = (
        tf.train.load_checkpoint(str(one / "saved_model/variables/variables"))
        for one in (exported, rounded)
    )
    kinds = after.get_variable_to_dtype_map()
    names = [name for name, kind in kinds.items() if kind == tf.float32]
    assert any(after.get_tensor(name).ndim == 4 for name in names)
    for name in names:
        values = after.get_tensor(name)
        assert not (values.view(np.uint32) & 0xFFFF).any(), name
        assert np.array_equal(values, to_bfloat16(before.get_tensor(name))), name


def test_bfloat16_weights_barely_move_detections(exported: Path, rounded: Path) -> None:
    """Boxes and scores of all anchors, before one suppresses another."""
    tf = odapi.open_odapi().tf
    image = np.random.default_rng(2).integers(0, 256, (1, 90, 120, 3), np.uint8)
    full, short = (
        tf.saved_model.load(str(one / "saved_model")).signatures["serving_default"](
            tf.constant(image)
        )
        for one in (exported, rounded)
    )
    for name in ("raw_detection_boxes", "raw_detection_scores"):
        gap = np.abs(full[name].numpy() - short[name].numpy())
        assert 0 < gap.mean() < 0.003, name
        assert gap.max() < 0.03, name


@pytest.fixture(scope="module")
def tflite(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Its TFLite file at a precision; tests must not change it."""

    @cache
    def make(precision: Precision) -> Path:
        out = tmp_path_factory.mktemp("tflite") / precision
        given = {"format": "stock-tflite", "precision": precision}
        return Path(export(str(run), out=str(out), storage=Storage(), **given).model)

    return make


def test_tflite_runs(tflite: Callable[[str], Path]) -> None:
    """The exported file takes one [-1, 1] image and answers a hundred boxes."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(tflite("f32")))
    interpreter.allocate_tensors()
    (image,) = interpreter.get_input_details()
    assert (image["shape"].tolist(), image["dtype"]) == ([1, 64, 64, 3], np.float32)
    interpreter.set_tensor(image["index"], np.zeros((1, 64, 64, 3), np.float32))
    interpreter.invoke()
    shapes = sorted(
        interpreter.get_tensor(out["index"]).shape for out in interpreter.get_output_details()
    )
    assert shapes == [(1,), (1, 100), (1, 100), (1, 100, 4)]


@pytest.mark.parametrize(("precision", "within"), [("bf16", 0.03), ("fp16", 0.01)])
def test_tflite_with_rounded_weights_is_smaller_and_answers_alike(
    tflite: Callable[[str], Path], precision: str, within: float
) -> None:
    """bf16 rounds kernels in a file of the same size, which deflates; fp16 stores halves."""
    full, short = tflite("f32"), tflite(precision)
    if precision == "bf16":
        sizes = [len(zlib.compress(one.read_bytes())) for one in (full, short)]
        assert full.stat().st_size == short.stat().st_size
        assert sizes[1] < 0.7 * sizes[0]
    else:
        assert short.stat().st_size < 0.75 * full.stat().st_size  # the graph itself is not small
    image = np.random.default_rng(2).integers(0, 256, (64, 64, 3), np.uint8)
    scores = [
        load_detector(ModelConfig(uri=str(one), score_min=0.0), Storage()).detect([image])[0].scores
        for one in (full, short)
    ]
    assert 0 < np.abs(scores[0] - scores[1]).max() < within


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"format": "pb"}, "format is 'pb': give one of stock, stock-tflite, savedmodel, openvino"),
        ({"precision": "int4"}, "a stock export is not made at int4: give f32 or bf16"),
        ({"precision": "fp16"}, "a stock export is not made at fp16"),
        (
            {"format": "onnx", "precision": "bf16"},
            "onnx networks are not exported at bf16: give f32",
        ),
        ({"format": "openvino", "precision": "int8"}, "int8 is calibrated on frames.*--calibrate"),
        ({"calibrate": "frames"}, "int8 is calibrated on frames"),
    ],
)
def test_what_cannot_be_exported_is_refused(run: Path, given: dict, message: str) -> None:
    """Before anything is fetched, with what can be exported."""
    with pytest.raises(ConfigError, match=message):
        export(str(run), storage=Storage(), **given)


@pytest.mark.s3
def test_from_s3_to_s3(run: Path, s3_server: object) -> None:
    """A run on S3 is exported into itself, the TFLite file with its labels, stale files gone."""
    bucket = s3_server.make_bucket("export-runs")  # type: ignore[attr-defined]
    storage = Storage(s3_server.options)  # type: ignore[attr-defined]
    for file in run.rglob("*"):
        if file.is_file():
            storage.upload_file(file, f"{bucket}/run/{file.relative_to(run).as_posix()}")
    place = f"{bucket}/run/exports/best-stock-tflite"
    storage.write_bytes(f"{place}/export.json", b"{}")
    storage.write_bytes(f"{place}/stale.tflite", b"old")
    access = {"endpoint_url": s3_server.endpoint_url}  # type: ignore[attr-defined]
    report = urbandet_ray.export(f"{bucket}/run", storage=access, format="stock-tflite")
    assert report.model == f"{place}/model.tflite"
    names = {file.uri.removeprefix(f"{place}/") for file in storage.list_files(place)}
    assert {"model.tflite", "label_map.pbtxt", "export.json"} <= names
    assert "stale.tflite" not in names
    (found,) = load_detector(ModelConfig(uri=report.model, score_min=0.0), storage).detect(
        [np.zeros((64, 64, 3), np.uint8)]
    )
    assert len(found) > 0


@pytest.mark.parametrize(
    ("format", "message"),
    [
        ("stock", r"best/ckpt-7 does not restore .*pipeline\.config"),
        ("savedmodel", r"ckpt-7 does not fit its pipeline\.config \(.*\): it is damaged, or of"),
    ],
)
def test_failed_export_keeps_the_earlier_one(
    run: Path, tmp_path: Path, format: Any, message: str
) -> None:
    """A checkpoint that cannot be read leaves the folder as it was."""
    broken, out = tmp_path / "run", tmp_path / "out"
    shutil.copytree(run, broken)
    (broken / "best" / "ckpt-7.index").write_bytes(b"no checkpoint at all")
    out.mkdir()
    (out / "export.json").write_text("earlier")
    with pytest.raises(ModelError, match=message):
        export(str(broken), out=str(out), storage=Storage(), format=format)
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
    with pytest.raises(ModelError, match=r"faster_rcnn model: .*export it as stock"):
        export(str(tmp_path), storage=Storage(), format="stock-tflite")


def test_folder_of_something_else_is_spared(run: Path, tmp_path: Path) -> None:
    """Nothing is written over what is no export."""
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match=r"holds thesis\.txt, no earlier export"):
        export(str(run), out=str(tmp_path), storage=Storage())
