"""The boxes of an image and everything that belongs to them, dropped and joined together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.training.model import Tensors

IMAGE = "image"
BOXES = "groundtruth_boxes"
CLASSES = "groundtruth_classes"
WEIGHTS = "groundtruth_weights"
MASKS = "groundtruth_instance_masks"
COLUMNS = (
    BOXES,
    CLASSES,
    WEIGHTS,
    "groundtruth_is_crowd",
    "groundtruth_difficult",
    "groundtruth_group_of",
    MASKS,
    "groundtruth_instance_mask_weights",
)


def columns_of(image: Tensors) -> Tensors:
    """What has a row for each box."""
    return {name: image[name] for name in COLUMNS if name in image}


def take_rows(image: Tensors, rows: Any) -> Tensors:
    """The image with these rows of all columns, [k] integers."""
    gather = open_odapi().tf.gather
    return {**image, **{name: gather(column, rows) for name, column in columns_of(image).items()}}


def keep_rows(image: Tensors, kept: Any) -> Tensors:
    """The image with the boxes where `kept` [n] is true."""
    return take_rows(image, open_odapi().tf.where(kept)[:, 0])


def join_rows(images: Sequence[Tensors]) -> Tensors:
    """The columns of several images below each other."""
    concat = open_odapi().tf.concat
    return {name: concat([image[name] for image in images], 0) for name in columns_of(images[0])}


def areas(boxes: Any) -> Any:
    """[n] areas; zero where a box is inverted."""
    tf = open_odapi().tf
    sides = tf.maximum(boxes[:, 2:] - boxes[:, :2], 0.0)
    return sides[:, 0] * sides[:, 1]


def clip_rows(image: Tensors, keep_share: float = 0.0) -> Tensors:
    """Clip boxes to the image; those of which less than a share of the area is left are dropped.

    Boxes without area, and those that are not finite, are dropped in any case.
    """
    tf = open_odapi().tf
    boxes = image[BOXES]
    clipped = tf.clip_by_value(boxes, 0.0, 1.0)
    left = areas(clipped)
    finite = tf.reduce_all(tf.math.is_finite(boxes), axis=1)
    kept = finite & (left > 0) & (left >= keep_share * areas(boxes))
    return keep_rows({**image, BOXES: clipped}, kept)


def size_of(image: Tensors) -> Any:
    """[2] int32 height and width."""
    return open_odapi().tf.shape(image[IMAGE])[:2]


def resize_masks(masks: Any, size: Any) -> Any:
    """[n, h, w] masks in {0, 1} at another size, still in {0, 1}."""
    image = open_odapi().tf.image
    return image.resize(masks[..., None], size, method="nearest")[..., 0]


def sometimes(probability: float, change: Callable[[], Tensors], image: Tensors) -> Tensors:
    """What `change` gives, at random; else the image as it is."""
    tf = open_odapi().tf
    return dict(tf.cond(tf.random.uniform([]) < probability, change, lambda: dict(image)))
