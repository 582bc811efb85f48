"""Networks of each kind of model: given the pixels that the OD API's own would see, and answering
what its stock export answers, many images at a time."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from urbandet_ray.commands.export import export
from urbandet_ray.config import ModelConfig
from urbandet_ray.exporting.tracing import _preparing, _resizing
from urbandet_ray.labels import LabelMap
from urbandet_ray.models import odapi
from urbandet_ray.models.loader import load_detector
from urbandet_ray.models.pipeline_config import read_pipeline
from urbandet_ray.storage import Storage
from urbandet_ray.training.odapi_model import OdApiModel

# read while tests are collected, so before any of them imports TensorFlow into this process
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
pytestmark = pytest.mark.train

CONFIGS = Path(__file__).parents[3] / "configs" / "models"
SIDE = 96
LABELS_TEXT = "".join(
    f"item {{ id: {number} name: '{name}' }}\n"
    for number, name in ((1, "vehicle"), (2, "pedestrian"), (4, "cyclist"))
)
LABELS = LabelMap.parse(LABELS_TEXT)


def small_config(name: str) -> Any:
    """One of ours at 96 px, images padded."""
    config = read_pipeline(CONFIGS / f"{name}.config").message.model
    resizer = getattr(config, config.WhichOneof("model")).image_resizer
    resizer.keep_aspect_ratio_resizer.min_dimension = SIDE
    resizer.keep_aspect_ratio_resizer.max_dimension = SIDE
    resizer.keep_aspect_ratio_resizer.pad_to_max_dimension = True
    return config


@pytest.mark.parametrize(
    ("name", "rounding"),
    [
        ("ssd_mobilenet_v2_fpnlite_320", 1e-6),
        ("ssd_resnet50_v1_fpn_640", 1e-4),  # of values up to 150, not up to 1
        ("efficientdet_d0_512", 2e-6),
        ("centernet_resnet50_v1_fpn_640", 0),
        ("faster_rcnn_resnet50_v1_640", 0),
    ],
)
def test_pixels_are_the_models_own(name: str, rounding: float) -> None:
    """Resized, normalised and padded with what each kind pads with."""
    config = small_config(name)
    kind = str(config.WhichOneof("model"))
    api = odapi.open_odapi()
    model = api.model_builder.build(config, is_training=False)
    prepare = _preparing(_resizing(config, kind), kind)
    normalise = model._feature_extractor.preprocess
    draw = np.random.default_rng(5)
    for height, width in ((60, 120), (130, 70), (96, 96)):
        images = draw.uniform(0, 255, (2, height, width, 3)).astype(np.float32)
        expected, shapes = model.preprocess(api.tf.constant(images))
        found, seen = prepare(api.tf.constant(images), normalise)
        assert found.shape == (2, SIDE, SIDE, 3)
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=0, atol=rounding)
        assert seen.numpy().tolist() == shapes.numpy().tolist()


def made_run(folder: Path, name: str) -> Path:
    """A training run's folder with a checkpoint of random weights that tell images apart."""
    config = read_pipeline(CONFIGS / f"{name}.config").message
    config.model.CopyFrom(small_config(name))
    if config.model.WhichOneof("model") == "faster_rcnn":
        config.model.faster_rcnn.first_stage_max_proposals = 30
        config.model.faster_rcnn.second_stage_batch_size = 16
    model = OdApiModel(config)
    model.build(1)
    draw = np.random.default_rng(0)
    for weights in model.trainable_variables:
        if len(weights.shape) in (2, 4):  # half of He's rule: what 16 blocks add up stays small
            inputs = np.prod(weights.shape[:-1])
            weights.assign(draw.normal(0, 0.5 * np.sqrt(2 / inputs), weights.shape))
    folder.mkdir()
    (folder / "pipeline.config").write_text(str(config), "utf-8")
    (folder / "label_map.pbtxt").write_text(LABELS_TEXT, "utf-8")
    saved = odapi.open_odapi().tf.train.Checkpoint(model=model.trackable)
    saved.save_counter  # noqa: B018 - makes it: the OD API's exporter looks for one
    saved.write(str(folder / "best" / "ckpt-1"))
    return folder


@pytest.mark.long
@pytest.mark.parametrize("name", ["centernet_resnet50_v1_fpn_640", "faster_rcnn_resnet50_v1_640"])
def test_batches_answer_as_the_stock_export(name: str, tmp_path: Path) -> None:
    """Three images at a time, one of another size, ids with a gap: the same boxes, in order."""
    run, storage = str(made_run(tmp_path / "run", name)), Storage()
    draw = np.random.default_rng(3)
    grains = [draw.integers(0, 256, (16, 16, 3), np.uint8) for _ in range(4)]
    images = [np.kron(grain, np.ones((6, 6, 1), np.uint8)) for grain in grains]
    images[2] = np.ascontiguousarray(images[2][:60])
    stock, network = (
        load_detector(
            ModelConfig(uri=export(run, storage=storage, format=form).model, score_min=0.0),  # type: ignore[arg-type]
            storage,
            LABELS,
        )
        for form in ("stock", "savedmodel")
    )
    expected, found = stock.detect(images), network.detect(images)
    assert sum(map(len, expected)) > 20
    assert len({len(one) and one.scores[0] for one in expected}) == len(images)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.class_ids.tolist() == theirs.class_ids.tolist()
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-4)
        np.testing.assert_allclose(ours.boxes_xyxy, theirs.boxes_xyxy, atol=0.05)
