"""Pipeline configs small enough to build in seconds, and images for them."""

from typing import Any

import numpy as np

from urbandet_ray.models import odapi
from urbandet_ray.models.pipeline_config import read_pipeline
from urbandet_ray.models.shipped import SHIPPED_FOLDER


def tiny_ssd(classes: int = 3) -> Any:
    """The shipped config shrunk to 64 px, a quarter of its width and two levels."""
    config = read_pipeline(SHIPPED_FOLDER / "pipeline.config").message
    ssd = config.model.ssd
    ssd.num_classes = classes
    ssd.image_resizer.fixed_shape_resizer.height = 64
    ssd.image_resizer.fixed_shape_resizer.width = 64
    ssd.feature_extractor.depth_multiplier = 0.25
    ssd.box_predictor.weight_shared_convolutional_box_predictor.num_layers_before_predictor = 1
    for levels in (ssd.feature_extractor.fpn, ssd.anchor_generator.multiscale_anchor_generator):
        levels.min_level, levels.max_level = 4, 5
    ssd.post_processing.batch_non_max_suppression.score_threshold = 1e-8  # it has learnt nothing
    config.train_config.batch_size = 2
    config.train_config.data_augmentation_options.clear()
    return config


def street_image(boxes: int = 2, size_wh: tuple[int, int] = (120, 90)) -> dict[str, Any]:
    """One image as TrainableModel.example gets it, of noise with up to three boxes."""
    tf = odapi.open_odapi().tf
    width, height = size_wh
    pixels = np.random.default_rng(boxes).uniform(0, 255, (height, width, 3))
    corners = [[0.1, 0.1, 0.5, 0.4], [0.4, 0.5, 0.9, 0.95], [0.0, 0.6, 0.3, 1.0]]
    none = tf.zeros([boxes], tf.bool)
    return {
        "image": tf.constant(pixels, tf.float32),
        "groundtruth_boxes": tf.reshape(tf.constant(corners[:boxes], tf.float32), [-1, 4]),
        "groundtruth_classes": tf.constant([1, 2, 3][:boxes], tf.int64),
        "groundtruth_weights": tf.ones([boxes]),
        "groundtruth_is_crowd": none,
        "groundtruth_difficult": none,
        "groundtruth_group_of": none,
    }


def batch_of(model: Any, *images: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Features and labels of some images, stacked."""
    tf = odapi.open_odapi().tf
    features, labels = zip(*(model.example(image) for image in images), strict=True)
    return tuple(  # type: ignore[return-value]
        {name: tf.stack([one[name] for one in each]) for name in each[0]}
        for each in (features, labels)
    )


def enliven(model: Any) -> None:
    """Give kernels a size that keeps a signal's through all layers (arXiv 1502.01852): with batch
    norm frozen at a random start, the config's own let it die, and no gradient comes back."""
    rng = np.random.default_rng(5)
    for variable in model.trainable_variables:
        shape = tuple(variable.shape)
        if len(shape) == 4:
            inputs = np.prod(shape[:2] if "depthwise" in variable.name else shape[:3])
            variable.assign(rng.normal(0, (2 / inputs) ** 0.5, shape).astype(np.float32))
