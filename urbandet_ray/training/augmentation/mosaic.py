"""Mosaic: four images' parts in one, so that a batch shows more scenes, scales and cut objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.training.augmentation.box_columns import (
    BOXES,
    IMAGE,
    MASKS,
    clip_rows,
    join_rows,
    resize_masks,
    size_of,
)
from urbandet_ray.training.model import Tensors

CENTRE = (0.3, 0.7)
"""Where the four parts meet, as a share of each side."""


def mosaic(
    image: Tensors, others: Sequence[Tensors], *, scale_min: float, keep_share: float
) -> Tensors:
    """Fill the four quarters about a random point with windows of four images.

    Each window has a place and a scale of its own, and the shape of its quarter. After Bochkovskiy
    et al. 2020 (arXiv 2004.10934), section 3.4. An image of another aspect ratio is stretched to
    this one's.

    Args:
        image: decides the size; its window comes top left.
        others: three images.
        scale_min: windows are shown at this share of their image's size to all of it.
        keep_share: boxes of which less of the area is left are dropped.
    """
    tf = open_odapi().tf
    size = size_of(image)
    share = tf.random.uniform([2], *CENTRE)
    centre = tf.clip_by_value(tf.cast(tf.cast(size, tf.float32) * share, tf.int32), 1, size - 1)
    parts = []
    for number, part in enumerate((image, *others)):
        second = tf.constant(divmod(number, 2), tf.int32)
        begin = second * centre
        extent = centre + second * (size - 2 * centre)
        parts.append(_quarter(part, begin, extent, size, scale_min, keep_share))
    rows = [tf.concat([parts[i][IMAGE], parts[i + 1][IMAGE]], 1) for i in (0, 2)]
    whole = tf.concat(rows, 0)
    whole.set_shape([None, None, 3])
    # slivers can round to nothing once they are placed
    return clip_rows({**image, **join_rows(parts), IMAGE: whole})


def _quarter(
    part: Tensors, begin: Any, extent: Any, size: Any, scale_min: float, keep_share: float
) -> Tensors:
    """A window of one image as it stands in the whole: `extent` pixels from `begin` of `size`."""
    tf = open_odapi().tf
    own = size_of(part)
    first, window = _window(own, extent / size, scale_min)
    pixels = part[IMAGE][first[0] : first[0] + window[0], first[1] : first[1] + window[1]]
    scale = tf.tile(tf.cast(own / window, tf.float32), [2])
    offset = tf.tile(tf.cast(first / window, tf.float32), [2])
    shown = clip_rows({**part, BOXES: part[BOXES] * scale - offset}, keep_share)
    onto = tf.tile(tf.cast(extent / size, tf.float32), [2])
    at = tf.tile(tf.cast(begin / size, tf.float32), [2])
    placed = {**shown, BOXES: shown[BOXES] * onto + at, IMAGE: tf.image.resize(pixels, extent)}
    if MASKS in shown:
        masks = shown[MASKS][:, first[0] : first[0] + window[0], first[1] : first[1] + window[1]]
        after = size - begin - extent
        pads = [[0, 0], [begin[0], after[0]], [begin[1], after[1]]]
        placed[MASKS] = tf.pad(resize_masks(masks, extent), pads)
    return placed


def _window(own: Any, share: Any, scale_min: float) -> tuple[Any, Any]:
    """First pixel and size of a random window that fills `share` of the whole at its scale."""
    tf = open_odapi().tf
    share = tf.cast(share, tf.float32)
    scale = tf.maximum(tf.random.uniform([], scale_min, 1.0), tf.reduce_max(share))
    size = tf.cast(own, tf.float32)
    window = tf.clip_by_value(tf.cast(tf.round(share / scale * size), tf.int32), 1, own)
    room = tf.cast(own - window + 1, tf.float32)
    first = tf.cast(tf.random.uniform([2]) * room, tf.int32)
    return tf.minimum(first, own - window), window
