"""The door to the OD API: it opens, refuses clearly and exports."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_models import tiny_ssd

from urbandet_ray.config import ModelConfig
from urbandet_ray.errors import MissingExtraError, ModelError, NotFoundError
from urbandet_ray.evaluation import evaluate
from urbandet_ray.labels import STREET_LABELS, LabelMap
from urbandet_ray.models import odapi
from urbandet_ray.models.loader import load_detector
from urbandet_ray.models.pipeline_config import parse_pipeline, read_pipeline
from urbandet_ray.models.shipped import SHIPPED_FOLDER, shipped_model_path
from urbandet_ray.runs.detections_table import DetectionRow
from urbandet_ray.storage import Storage
from urbandet_ray.streets import render_drive
from urbandet_ray.training.odapi_model import OdApiModel

# read while tests are collected, so before any of them imports TensorFlow into this process
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

SHIPPED_CONFIG = SHIPPED_FOLDER / "pipeline.config"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Pipeline config and folder of a checkpoint of a tiny SSD that has learnt nothing."""
    folder = tmp_path_factory.mktemp("checkpoint")
    message = tiny_ssd()
    model = OdApiModel(message)
    model.build(1)
    odapi.open_odapi().tf.train.Checkpoint(model=model.trackable).save(str(folder / "ckpt"))
    (folder / "pipeline.config").write_text(str(message), "utf-8")
    return folder / "pipeline.config", folder


@pytest.mark.train
def test_opens_with_keras_2() -> None:
    """The OD API opens on the installed TensorFlow, on Keras 2."""
    opened = odapi.open_odapi()
    assert opened.tf.keras.Model.__module__.startswith("tf_keras")
    assert callable(opened.model_lib_v2.eager_train_step)


@pytest.mark.train
def test_refuses_keras_3() -> None:
    """A process that imported TensorFlow with Keras 3 is told what to set, and when."""
    program = (
        "import os; os.environ.pop('TF_USE_LEGACY_KERAS', None)\n"
        "import tensorflow\n"
        "from urbandet_ray.errors import RunError\n"
        "from urbandet_ray.models.odapi import open_odapi\n"
        "try: open_odapi()\n"
        "except RunError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    assert re.search(
        r"imported earlier in this process with Keras 3, .*set TF_USE_LEGACY_KERAS=1 .*before",
        done.stdout,
    )


def test_names_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the OD API the error names it and gives the command that installs it."""
    monkeypatch.setitem(sys.modules, "object_detection", None)
    with pytest.raises(
        MissingExtraError, match=r"need object_detection, not installed.*pip install 'urbandet-ray"
    ):
        odapi.open_odapi.__wrapped__()


@pytest.mark.train
def test_learning_rate_follows_the_schedule() -> None:
    """Each update uses the schedule's rate of its step, not the warm-up's first for ever."""
    opened = odapi.open_odapi()
    tf = opened.tf
    builder = importlib.import_module("object_detection.builders.optimizer_builder")
    config = read_pipeline(SHIPPED_CONFIG).message.train_config.optimizer
    momentum = config.momentum_optimizer.learning_rate.cosine_decay_learning_rate
    momentum.learning_rate_base, momentum.warmup_learning_rate = 0.5, 0.1
    momentum.warmup_steps, momentum.total_steps = 10, 100
    config.momentum_optimizer.momentum_optimizer_value = 0.0
    step, weight = tf.Variable(0, dtype=tf.int64), tf.Variable(0.0)
    optimizer, _ = builder.build(config, global_step=step)
    moved = []
    for at in (0, 10, 100):
        step.assign(at)
        before = float(weight)
        optimizer.apply_gradients([(tf.constant(-1.0), weight)])
        moved.append(float(weight) - before)
    assert moved == pytest.approx([0.1, 0.5, 0.0], abs=1e-6)


@pytest.mark.train
def test_no_checkpoint(tmp_path: Path) -> None:
    """Exporting an untrained folder says that it holds no checkpoint."""
    with pytest.raises(NotFoundError, match=r"no checkpoint in .*: train first"):
        odapi.export_tflite(read_pipeline(SHIPPED_CONFIG).message, tmp_path, tmp_path / "out")


@pytest.mark.train
def test_only_ssd_goes_to_tflite(tmp_path: Path) -> None:
    """Another architecture is refused by name."""
    config = parse_pipeline("model { faster_rcnn { num_classes: 3 } }", "x").message
    with pytest.raises(ModelError, match="faster_rcnn model: only ssd goes to TFLite"):
        odapi.export_tflite(config, tmp_path, tmp_path / "out")


@pytest.mark.train
def test_tflite_runs(checkpoint: tuple[Path, Path], tmp_path: Path) -> None:
    """The exported file takes one [-1, 1] image and answers the asked number of boxes."""
    from ai_edge_litert.interpreter import Interpreter

    config, model_dir = checkpoint
    path = odapi.export_tflite(read_pipeline(config).message, model_dir, tmp_path, max_detections=7)
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    (image,) = interpreter.get_input_details()
    assert (image["shape"].tolist(), image["dtype"]) == ([1, 64, 64, 3], np.float32)
    interpreter.set_tensor(image["index"], np.zeros((1, 64, 64, 3), np.float32))
    interpreter.invoke()
    shapes = sorted(
        interpreter.get_tensor(out["index"]).shape for out in interpreter.get_output_details()
    )
    assert shapes == [(1,), (1, 7), (1, 7), (1, 7, 4)]


@pytest.mark.train
def test_saved_model_runs(checkpoint: tuple[Path, Path], tmp_path: Path) -> None:
    """The stock export takes a uint8 image of any size and answers boxes in [0, 1]."""
    config, model_dir = checkpoint
    path = odapi.export_saved_model(read_pipeline(config).message, model_dir, tmp_path / "out")
    tf = odapi.open_odapi().tf
    detect = tf.saved_model.load(str(path)).signatures["serving_default"]
    answer = detect(input_tensor=tf.zeros((1, 90, 120, 3), tf.uint8))
    boxes = answer["detection_boxes"].numpy()
    assert boxes.shape == (1, 100, 4)
    assert 0 <= boxes.min() <= boxes.max() <= 1
    model = ModelConfig(
        uri=str(path), labels=str(SHIPPED_FOLDER / "label_map.pbtxt"), score_min=0.0
    )
    images = [np.zeros((90, 120, 3), np.uint8), np.zeros((48, 64, 3), np.uint8)]
    answers = load_detector(model, Storage()).detect(images)
    assert [len(answer) > 0 for answer in answers] == [True, True]
    assert set(answers[0].class_ids.tolist()) <= set(STREET_LABELS.names)


@pytest.mark.train
def test_shipped_config_fits_the_shipped_labels() -> None:
    """As many classes as the label map has ids, without gaps."""
    labels = LabelMap.parse((SHIPPED_FOLDER / "label_map.pbtxt").read_text("utf-8"))
    config = read_pipeline(SHIPPED_CONFIG).message
    assert list(labels.names) == list(range(1, config.model.ssd.num_classes + 1))
    assert set(labels.names.values()) == {"vehicle", "pedestrian", "cyclist"}


def test_shipped_detector_is_small_and_finds_vehicles() -> None:
    """Under 8 MB, and AP50 of vehicles is above 0.4 on a drive it never saw."""
    assert shipped_model_path().stat().st_size < 8_000_000
    detector = load_detector(ModelConfig(uri="shipped", score_min=0.02), Storage())
    results = []
    for index, (image, truth) in enumerate(render_drive(9101, 4, fps=1)):
        (found,) = detector.detect([image])
        results.append(DetectionRow("", index, str(index), "", (640, 640), found, truth))
    vehicle = evaluate(results, STREET_LABELS).by_class["vehicle"]
    assert vehicle.truth_boxes > 10
    assert vehicle.ap50 is not None
    assert vehicle.ap50 > 0.4
