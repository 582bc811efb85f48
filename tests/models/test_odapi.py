"""The door to the OD API: it opens, and refuses clearly."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import END_S

from urbandet_ray.config import ModelConfig
from urbandet_ray.errors import MissingExtraError, NotFoundError
from urbandet_ray.evaluation import evaluate
from urbandet_ray.labels import STREET_LABELS, LabelMap
from urbandet_ray.models import odapi
from urbandet_ray.models.loader import load_detector
from urbandet_ray.models.pipeline_config import read_pipeline
from urbandet_ray.models.shipped import SHIPPED_FOLDER, shipped_model_path
from urbandet_ray.runs.detections_table import DetectionRow
from urbandet_ray.storage import Storage
from urbandet_ray.streets import render_drive

# read while tests are collected, so before any of them imports TensorFlow into this process
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

SHIPPED_CONFIG = SHIPPED_FOLDER / "pipeline.config"


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
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=END_S
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
    """A folder without a checkpoint is named, and what comes first."""
    with pytest.raises(NotFoundError, match=r"no checkpoint in .*: train first"):
        odapi.last_checkpoint(tmp_path)


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
