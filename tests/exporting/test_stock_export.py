"""The OD API's own exporters, on a tiny SSD that has learnt nothing."""

import os
from pathlib import Path

import numpy as np
import pytest
from tiny_models import tiny_ssd

from urbandet_ray.config import ModelConfig
from urbandet_ray.exporting.run_checkpoint import RunCheckpoint
from urbandet_ray.exporting.stock_export import export_stock
from urbandet_ray.labels import STREET_LABELS
from urbandet_ray.models.loader import load_detector
from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.models.pipeline_config import parse_pipeline
from urbandet_ray.models.shipped import SHIPPED_FOLDER
from urbandet_ray.storage import Storage
from urbandet_ray.training.odapi_model import OdApiModel

# read while tests are collected, so before any of them imports TensorFlow into this process
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunCheckpoint:
    """A checkpoint as it is fetched; tests must not change it."""
    folder = tmp_path_factory.mktemp("fetched")
    message = tiny_ssd()
    model = OdApiModel(message)
    model.build(1)
    place = str(folder / "checkpoint" / "ckpt")
    open_odapi().tf.train.Checkpoint(model=model.trackable).save(place)
    pipeline = parse_pipeline(str(message), "pipeline.config")
    return RunCheckpoint(folder, "best/ckpt-1", pipeline, {})


def test_tflite_runs(trained: RunCheckpoint, tmp_path: Path) -> None:
    """The exported file takes one [-1, 1] image and answers a hundred boxes."""
    from ai_edge_litert.interpreter import Interpreter

    name = export_stock(trained, tmp_path, format="stock-tflite", precision="f32")
    interpreter = Interpreter(str(tmp_path / name))
    interpreter.allocate_tensors()
    (image,) = interpreter.get_input_details()
    assert (image["shape"].tolist(), image["dtype"]) == ([1, 64, 64, 3], np.float32)
    interpreter.set_tensor(image["index"], np.zeros((1, 64, 64, 3), np.float32))
    interpreter.invoke()
    shapes = sorted(
        interpreter.get_tensor(out["index"]).shape for out in interpreter.get_output_details()
    )
    assert shapes == [(1,), (1, 100), (1, 100), (1, 100, 4)]


def test_saved_model_runs(trained: RunCheckpoint, tmp_path: Path) -> None:
    """The stock export takes a uint8 image of any size and answers boxes in [0, 1]."""
    path = tmp_path / export_stock(trained, tmp_path, format="stock", precision="f32")
    tf = open_odapi().tf
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
