"""One picture of many frames with their labels: what a person looks at before anything else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from urbandet_ray.errors import ConfigError, InputError
from urbandet_ray.frames import Image, Truth
from urbandet_ray.labels import LabelMap
from urbandet_ray.phrases import printable
from urbandet_ray.rendering.labels_text import blit, check_image, text_tile
from urbandet_ray.rendering.palette import INK, class_colour

CELL_WIDTH_LEAST = 64
_CAPTION_LEAST = 8


def contact_sheet(
    frames: Iterable[tuple[Image, Truth | None, str]],
    labels: LabelMap,
    *,
    columns: int = 4,
    cell_width: int = 320,
) -> Image:
    """Draw small pictures of frames in rows, their true boxes in the colours of the classes.

    Only the small pictures are kept, so `frames` may be a stream. Below them stands which colour
    is which class, and how many boxes each class has on the sheet.

    Args:
        frames: image [height, width, 3] uint8 RGB (not changed), its labels, its caption.
        labels: names of the truth's class ids.
        columns: pictures in a row.
        cell_width: width of each in pixels; heights follow the images.

    Returns:
        The sheet, as wide as its columns even where there are fewer frames.

    Raises:
        InputError: there is no frame.
        ConfigError: columns below 1 or a cell width below 64.
    """
    if columns < 1 or cell_width < CELL_WIDTH_LEAST:
        raise ConfigError(
            f"contact sheet of {columns} columns, {cell_width} px wide cells: expected at least "
            f"1 column and {CELL_WIDTH_LEAST} px"
        )
    counts: Counter[int] = Counter()
    cells: list[Image] = []
    for image, truth, caption in frames:
        cells.append(_draw_cell(image, truth, caption, cell_width))
        if truth is not None:
            counts.update(truth.class_ids.tolist())
    if not cells:
        raise InputError("no frames for the contact sheet: the input holds none")
    gap = max(2, cell_width // 80)
    rows = [_join_row(cells[i : i + columns], columns, gap) for i in range(0, len(cells), columns)]
    legend = _draw_legend(counts, labels, rows[0].shape[1], max(12, cell_width // 20), gap)
    return np.concatenate([*rows, legend])


def _draw_cell(image: Image, truth: Truth | None, caption: str, width: int) -> Image:
    """A small copy of the image with boxes, the caption in a bar on top."""
    import cv2

    source_width, source_height = check_image(image)
    scale = width / source_width
    height = max(1, round(source_height * scale))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    # cv2 hands an image of the right size back as it is: copy before drawing.
    small = cv2.resize(image, (width, height), interpolation=way).copy()
    if truth is not None:
        line = max(1, width // 320)
        boxes = np.rint(np.nan_to_num(truth.boxes_xyxy) * scale).clip(-9999, 9999).astype(int)
        for (x0, y0, x1, y1), class_id in zip(
            boxes.tolist(), truth.class_ids.tolist(), strict=True
        ):
            cv2.rectangle(small, (x0, y0), (x1 - 1, y1 - 1), _colour(class_id), line)
    tile = _caption_tile(caption, width)
    cell = np.empty((tile.shape[0] + height, width, 3), np.uint8)
    cell[:] = INK
    blit(cell, tile, 0, 0)
    cell[tile.shape[0] :] = small
    return cell


def _caption_tile(caption: str, width: int) -> Image:
    """The caption, without its middle where it is too long: its end tells frames of a drive apart.

    Signs of some scripts are twice as wide as others, so the tile is measured.
    """
    caption, font_px = printable(caption) or " ", max(11, width // 26)
    tile = text_tile(caption, font_px, INK, bold=False)
    room = len(caption) - 1
    while tile.shape[1] > width and room >= _CAPTION_LEAST:
        room = min(room - 1, max(_CAPTION_LEAST, room * width // tile.shape[1]))
        short = f"{caption[: room // 2 - 1]}…{caption[-(room - room // 2) :]}"
        tile = text_tile(short, font_px, INK, bold=False)
    return tile


def _colour(class_id: int) -> tuple[int, int, int]:
    return class_colour(max(1, class_id))


def _join_row(cells: list[Image], columns: int, gap: int) -> Image:
    height, width = max(cell.shape[0] for cell in cells), cells[0].shape[1]
    row = np.empty((height + gap, columns * (width + gap) - gap, 3), np.uint8)
    row[:] = INK
    for i, cell in enumerate(cells):
        blit(row, cell, i * (width + gap), 0)
    return row


def _draw_legend(
    counts: Counter[int], labels: LabelMap, width: int, font_px: int, gap: int
) -> Image:
    """Class colours with names and box counts, in as many lines as the width asks for."""
    class_ids = sorted({*labels.names, *counts}) if len(labels.names) <= 8 else sorted(counts)
    tiles = [
        text_tile(f"{labels.name_of(class_id)}: {counts[class_id]}", font_px, _colour(class_id))
        for class_id in class_ids
    ] or [text_tile("no labelled objects", font_px, INK)]
    line_height = tiles[0].shape[0] + gap
    places: list[tuple[int, int]] = []
    x = y = gap
    for tile in tiles:
        if x > gap and x + tile.shape[1] + gap > width:
            x, y = gap, y + line_height
        places.append((x, y))
        x += tile.shape[1] + gap
    legend = np.empty((y + line_height, width, 3), np.uint8)
    legend[:] = INK
    for tile, place in zip(tiles, places, strict=True):
        blit(legend, tile, *place)
    return legend
