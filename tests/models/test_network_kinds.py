"""What a network of each kind of model is given: the pixels that the OD API's own would see."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from urbandet_ray.models import odapi
from urbandet_ray.models.batched import _preprocess, _resizing

# read while tests are collected, so before any of them imports TensorFlow into this process
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
pytestmark = pytest.mark.train

CONFIGS = Path(__file__).parent.parent.parent / "configs" / "models"
SIDE = 96


def small_config(name: str) -> Any:
    """One of ours at 96 px, images padded."""
    config = odapi.read_pipeline_config(CONFIGS / f"{name}.config").model
    resizer = getattr(config, config.WhichOneof("model")).image_resizer
    resizer.keep_aspect_ratio_resizer.min_dimension = SIDE
    resizer.keep_aspect_ratio_resizer.max_dimension = SIDE
    resizer.keep_aspect_ratio_resizer.pad_to_max_dimension = True
    return config


@pytest.mark.parametrize(
    "name",
    [
        "ssd_mobilenet_v2_fpnlite_320",
        "centernet_resnet50_v1_fpn_640",
        "faster_rcnn_resnet50_v1_640",
    ],
)
def test_pixels_are_the_models_own(name: str) -> None:
    """Normalised before or after they are resized and padded, as each kind does."""
    config = small_config(name)
    kind = str(config.WhichOneof("model"))
    api = odapi.open_odapi()
    model = api.model_builder.build(config, is_training=False)
    _, resize = _resizing(config, kind)
    draw = np.random.default_rng(5)
    for height, width in ((60, 120), (130, 70), (96, 96)):
        images = draw.uniform(0, 255, (2, height, width, 3)).astype(np.float32)
        expected, shapes = model.preprocess(api.tf.constant(images))
        found, seen = _preprocess(model, kind, resize, api.tf.constant(images))
        assert found.shape == (2, SIDE, SIDE, 3)
        assert np.array_equal(found.numpy(), expected.numpy())
        assert seen.numpy().tolist() == shapes.numpy().tolist()
