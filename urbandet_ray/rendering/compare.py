"""Two pictures of the same frame beside each other: two runs, or a run and the truth."""

from __future__ import annotations

import numpy as np

from urbandet_ray.frames import Image
from urbandet_ray.rendering.annotate import DrawStyle
from urbandet_ray.rendering.labels_text import blit, check_image, text_tile
from urbandet_ray.rendering.palette import INK


def side_by_side(left: Image, right: Image, titles: tuple[str, str]) -> Image:
    """Put two images next to each other under their titles.

    The right one is scaled to the height of the left one, so both may have any size; frames of
    equal sizes always give pictures of equal size.

    Args:
        left: [height, width, 3] uint8 RGB.
        right: the same, of any size.
        titles: what the two are; cut where longer than their image is wide.

    Returns:
        A new image: a title bar on top, a thin gap between the two.

    Raises:
        ValueError: one of the two is not such an image.
    """
    width, height = check_image(left)
    check_image(right)
    right = _fit_height(right, height)
    font_px = DrawStyle.for_size((width, height)).font_px
    tiles = [text_tile(title or " ", font_px, INK) for title in titles]
    gap, margin = max(2, font_px // 4), font_px // 3
    bar = tiles[0].shape[0] + 2 * margin
    canvas = np.empty((bar + height, width + gap + right.shape[1], 3), np.uint8)
    canvas[:] = INK
    for image, tile, x in ((left, tiles[0], 0), (right, tiles[1], width + gap)):
        canvas[bar:, x : x + image.shape[1]] = image
        blit(canvas[:, x : x + image.shape[1]], tile, margin, margin)
    return canvas


def _fit_height(image: Image, height: int) -> Image:
    import cv2

    if image.shape[0] == height:
        return image
    width = max(1, round(image.shape[1] * height / image.shape[0]))
    shrinks = height < image.shape[0]
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=way), np.uint8)
