"""Cut-out: grey patches that hide parts of the image, as lorries and posts do."""

from __future__ import annotations

from typing import Any

from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.training.augmentation.box_columns import BOXES, IMAGE, MASKS, keep_rows, size_of
from urbandet_ray.training.model import Tensors

FILL = 127.0


def cut_out(
    image: Tensors, *, patches: int, side_min: float, side_max: float, covered_max: float
) -> Tensors:
    """Cover random rectangles with grey (DeVries and Taylor 2017, arXiv 1708.04552).

    Boxes that are partly hidden keep their extent; masks lose what is hidden.

    Args:
        image: one image.
        patches: how many; they may overlap and reach beyond the edge.
        side_min, side_max: their sides, as shares of the image's.
        covered_max: boxes with more than this share of their pixels hidden are dropped.
    """
    tf = open_odapi().tf
    hidden = _hidden(size_of(image), patches, side_min, side_max)
    changed = {**image, IMAGE: tf.where(hidden[..., None], FILL, image[IMAGE])}
    if MASKS in image:
        changed[MASKS] = image[MASKS] * tf.cast(~hidden, tf.float32)
    return keep_rows(changed, _share_inside(hidden, image[BOXES]) <= covered_max)


def _hidden(size: Any, patches: int, side_min: float, side_max: float) -> Any:
    """[h, w] whether some patch lies there."""
    tf = open_odapi().tf
    half = tf.random.uniform([2, patches], side_min, side_max) / 2
    centre = tf.random.uniform([2, patches])

    def within(axis: int) -> Any:
        length = size[axis]
        places = (tf.range(length, dtype=tf.float32) + 0.5) / tf.cast(length, tf.float32)
        return tf.abs(places[None] - centre[axis][:, None]) < half[axis][:, None]

    return tf.reduce_any(within(0)[:, :, None] & within(1)[:, None, :], axis=0)


def _share_inside(hidden: Any, boxes: Any) -> Any:
    """[n] share of each box's pixels that is hidden, by a table of sums over the image."""
    tf = open_odapi().tf
    size = tf.shape(hidden)
    sums = tf.cumsum(tf.cumsum(tf.cast(hidden, tf.int32), 0), 1)
    sums = tf.pad(sums, [[1, 0], [1, 0]])
    pixels = boxes * tf.cast(tf.tile(size, [2]), tf.float32)
    low = tf.clip_by_value(tf.cast(tf.round(pixels[:, :2]), tf.int32), 0, size - 1)
    high = tf.clip_by_value(tf.cast(tf.round(pixels[:, 2:]), tf.int32), low + 1, size)

    def at(y: Any, x: Any) -> Any:
        return tf.gather_nd(sums, tf.stack([y, x], axis=1))

    inside = (
        at(high[:, 0], high[:, 1])
        - at(low[:, 0], high[:, 1])
        - at(high[:, 0], low[:, 1])
        + at(low[:, 0], low[:, 1])
    )
    return tf.cast(inside / tf.reduce_prod(high - low, axis=1), tf.float32)
