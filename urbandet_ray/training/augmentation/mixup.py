"""Mixup: two images blended, their boxes weighted by how much of each is seen."""

from __future__ import annotations

from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.training.augmentation.box_columns import (
    IMAGE,
    MASKS,
    WEIGHTS,
    join_rows,
    resize_masks,
    size_of,
)
from urbandet_ray.training.model import Tensors


def mixup(image: Tensors, other: Tensors, *, alpha: float) -> Tensors:
    """Blend two images with a share drawn from Beta(alpha, alpha), and join their boxes.

    Box weights are multiplied by their image's share (Zhang et al. 2019, arXiv 1902.04103, section
    3.1). An image of another size is stretched to this one's; boxes are shares, so they stay.
    """
    tf = open_odapi().tf
    size = size_of(image)
    draws = tf.random.gamma([2], alpha) + 1e-6
    share = draws[0] / (draws[0] + draws[1])
    blended = image[IMAGE] * share + tf.image.resize(other[IMAGE], size) * (1.0 - share)
    blended.set_shape([None, None, 3])
    second = {**other, WEIGHTS: other[WEIGHTS] * (1.0 - share)}
    if MASKS in other:
        second[MASKS] = resize_masks(other[MASKS], size)
    first = {**image, WEIGHTS: image[WEIGHTS] * share}
    return {**image, **join_rows([first, second]), IMAGE: blended}
