"""Text as ready-made tiles (rendered once, then only copied), and where labels may stand."""

from __future__ import annotations

from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.frames import Image
from urbandet_ray.rendering.fonts import PILLOWS, Face, font_of, runs_of
from urbandet_ray.rendering.palette import Colour, class_colour, text_colour

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

COVER_MAX = 0.4
"""A label may hide at most this share of any box, its own included."""
_SPELLED_OUT = str.maketrans({"≥": ">=", "≤": "<=", "→": "->", "×": "x"})
"""Signs that the font Pillow carries lacks."""


@lru_cache(maxsize=4096)
def text_tile(text: str, font_px: int, background: Colour, *, bold: bool = True) -> Image:
    """One line of text on a solid background, with room around it.

    Tiles of one `font_px` are equally high whatever the text, so rows line up.

    Returns:
        [height, width, 3] uint8, read-only: it is shared by all who ask for the same text.
    """
    from PIL import Image as PilImage
    from PIL import ImageDraw

    font = font_of(PILLOWS, font_px)
    # The font that Pillow carries has one, rather light, weight; a thin stroke of the same colour
    # keeps small text legible after video compression.
    stroke = font_px / 50 if bold else 0.0
    low, high = font.getbbox("Ag")[1], font.getbbox("Ag")[3]
    baseline = -font.getbbox("A", anchor="ls")[1] + font.getbbox("A")[1]
    pad_x, pad_y = max(2, round(font_px * 0.28)), max(1, round(font_px * 0.16))
    height = round(high - low) + 2 * pad_y
    pieces = [
        (_fitted(face, piece, font_px, (pad_y - low + baseline, height)), piece)
        for face, piece in runs_of(text.translate(_SPELLED_OUT))
    ]
    left = pieces[0][0].getbbox(pieces[0][1])[0] if pieces else 0
    ends = list(accumulate((one.getlength(piece) for one, piece in pieces), initial=0.0))
    right = ends[-2] + pieces[-1][0].getbbox(pieces[-1][1])[2] if pieces else 0
    canvas = PilImage.new("RGB", (round(right - left) + 2 * pad_x, height), background)
    ink, draw = text_colour(background), ImageDraw.Draw(canvas)
    for (one, piece), x in zip(pieces, ends, strict=False):
        place = (pad_x - left + x, pad_y - low + baseline)
        draw.text(place, piece, fill=ink, font=one, stroke_width=stroke, anchor="ls")
    tile = np.asarray(canvas, np.uint8).copy()
    tile.flags.writeable = False
    return tile


def _fitted(
    face: Face, piece: str, font_px: int, room: tuple[float, float]
) -> FreeTypeFont | ImageFont:
    """The face at the size, smaller where the piece would reach over the tile's height.

    Args:
        room: baseline and height of the tile, in pixels.
    """
    font = font_of(face, font_px)
    if face == PILLOWS:
        return font
    _, top, _, bottom = font.getbbox(piece, anchor="ls")
    above, below = room[0] - 1, room[1] - room[0] - 1
    share = min(1.0, above / max(-top, 1), below / max(bottom, 1))
    return font if share == 1 else font_of(face, max(6, int(font_px * share)))


@lru_cache(maxsize=4096)
def label_tiles(name: str, percent: int, class_id: int, font_px: int) -> tuple[Image, Image]:
    """Labels of one detection on the colour of its class: "vehicle 87%" and "87%". Read-only."""
    colour = class_colour(class_id)
    return text_tile(f"{name} {percent}%", font_px, colour), text_tile(
        f"{percent}%", font_px, colour
    )


def check_image(image: Image) -> tuple[int, int]:
    """Width and height of a picture.

    Raises:
        ValueError: it is not [height, width, 3] uint8 with at least one pixel, rows contiguous.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"got {image.dtype} {image.shape}: an image is uint8 RGB [h, w, 3]")
    if image.strides[1:] != (3, 1):
        raise ValueError("rows of the image are not contiguous: pass np.ascontiguousarray(image)")
    return image.shape[1], image.shape[0]


def blit(scene: Image, tile: Image, x: int, y: int) -> None:
    """Copy `tile` into `scene` with its top left corner at x, y (>= 0); what sticks out is cut."""
    height, width = scene.shape[0] - y, scene.shape[1] - x
    if height > 0 and width > 0:
        visible = tile[:height, :width]
        scene[y : y + visible.shape[0], x : x + visible.shape[1]] = visible


def place_labels(
    corners: NDArray[np.int32], sizes_wh: NDArray[np.int32], image_wh: tuple[int, int]
) -> list[tuple[int, int, int] | None]:
    """Find a place for each label, the first boxes first, the first variants of a label first.

    Tried in turn: above the box, inside at its top, below, above but right-aligned, inside at its
    bottom. A place must lie in the image, hide no label placed before and not more than
    `COVER_MAX` of any box.

    Args:
        corners: [n, 4] int32 xyxy pixels, the boxes as drawn, most important first.
        sizes_wh: [n, k, 2] int32 sizes of each label's k variants; width 0 where it has none.
        image_wh: size of the image.

    Returns:
        Variant, x and y of each label; None where it is not wanted or has no place.
    """
    spots = _candidate_spots(corners, sizes_wh, image_wh)
    allowed = _allowed(spots, corners, image_wh) & (sizes_wh[:, :, :1] > 0)
    per_box = (len(corners), sizes_wh.shape[1] * spots.shape[2])
    taken: list[list[int]] = []
    places: list[tuple[int, int, int] | None] = []
    for candidates, usable in zip(
        spots.reshape(*per_box, 4).tolist(), allowed.reshape(per_box).tolist(), strict=True
    ):
        place = None
        for number, good in enumerate(usable):
            if good and not _hits(candidates[number], taken):
                taken.append(candidates[number])
                place = (number // spots.shape[2], candidates[number][0], candidates[number][1])
                break
        places.append(place)
    return places


def _candidate_spots(
    corners: NDArray[np.int32], sizes_wh: NDArray[np.int32], image_wh: tuple[int, int]
) -> NDArray[np.int32]:
    """[n, k, 5, 4] rectangles a label could fill, moved sideways into the image."""
    x0, y0, x1, y1 = corners.T[:, :, None]
    width, height = sizes_wh[..., 0], sizes_wh[..., 1]
    spots = np.empty((*width.shape, 5, 4), np.int32)
    spots[..., 0] = x0[..., None]
    spots[..., 3, 0] = x1 + 1 - width
    above = y0 - height
    for number, y in enumerate((above, y0, y1 + 1, above, y1 + 1 - height)):
        spots[..., number, 1] = y
    np.minimum(spots[..., 0], (image_wh[0] - width)[..., None], out=spots[..., 0])
    np.maximum(spots[..., 0], 0, out=spots[..., 0])
    spots[..., 2:] = spots[..., :2] + sizes_wh[:, :, None]
    return spots


def _allowed(
    spots: NDArray[np.int32], corners: NDArray[np.int32], image_wh: tuple[int, int]
) -> NDArray[np.bool_]:
    """[n, k, 5]: the spot lies in the image and hides no box too much."""
    flat = spots.reshape(-1, 4).T.astype(np.float32)[:, :, None]
    x0, y0, x1, y1 = corners.T.astype(np.float32)[:, None]
    overlap_w = np.minimum(flat[2], x1) - np.maximum(flat[0], x0)
    overlap_h = np.minimum(flat[3], y1) - np.maximum(flat[1], y0)
    hidden = np.maximum(overlap_w, 0) * np.maximum(overlap_h, 0)
    limit = COVER_MAX * np.maximum((x1 - x0) * (y1 - y0), 1)
    clear = (hidden <= limit).all(axis=1).reshape(spots.shape[:3])
    inside = (spots[..., 1] >= 0) & (spots[..., 3] <= image_wh[1]) & (spots[..., 2] <= image_wh[0])
    result: NDArray[np.bool_] = clear & inside
    return result


def _hits(spot: list[int], taken: list[list[int]]) -> bool:
    x0, y0, x1, y1 = spot
    for other_x0, other_y0, other_x1, other_y1 in taken:
        if x0 < other_x1 and x1 > other_x0 and y0 < other_y1 and y1 > other_y0:
            return True
    return False
