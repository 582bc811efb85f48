"""Where the time of a frame goes: a bar a model, a piece a stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from urbandet_ray.errors import InputError
from urbandet_ray.frames import Image
from urbandet_ray.rendering.labels_text import blit, text_tile
from urbandet_ray.rendering.palette import OKABE_ITO, Colour

_FONT_PX, _BAR_PX, _GAP_PX, _BARS_WIDTH = 18, 34, 14, 900
_PAPER: Colour = (250, 250, 250)


def stage_bars(rows: Sequence[tuple[str, Mapping[str, float]]], title: str) -> Image:
    """Draw stacked horizontal bars, all on one scale.

    Args:
        rows: (name, {stage: milliseconds a frame}); stages in the order of the first row.
        title: stands above.

    Returns:
        [height, width, 3] uint8 RGB.

    Raises:
        InputError: nothing to draw.
    """
    longest = max((sum(stages.values()) for _, stages in rows), default=0.0)
    if not longest:
        raise InputError("no stage took any time: nothing to draw")
    names = [text_tile(name, _FONT_PX, _PAPER, bold=False) for name, _ in rows]
    left = max(tile.shape[1] for tile in names) + 2 * _GAP_PX
    totals = [
        text_tile(f"{sum(stages.values()):.1f} ms", _FONT_PX, _PAPER, bold=False)
        for _, stages in rows
    ]
    width = left + _BARS_WIDTH + max(tile.shape[1] for tile in totals) + 2 * _GAP_PX
    colours = {stage: OKABE_ITO[i % len(OKABE_ITO)] for i, stage in enumerate(rows[0][1])}
    head = text_tile(title, _FONT_PX + 4, _PAPER)
    top = head.shape[0] + 2 * _GAP_PX
    height = top + len(rows) * (_BAR_PX + _GAP_PX) + _FONT_PX * 2 + 2 * _GAP_PX
    sheet = np.empty((height, width, 3), np.uint8)
    sheet[:] = _PAPER
    blit(sheet, head, _GAP_PX, _GAP_PX)
    for i, (_, stages) in enumerate(rows):
        y = top + i * (_BAR_PX + _GAP_PX)
        blit(sheet, names[i], _GAP_PX, y + (_BAR_PX - names[i].shape[0]) // 2)
        end = _draw_bar(sheet, stages, colours, left, y, _BARS_WIDTH / longest)
        blit(sheet, totals[i], end + _GAP_PX // 2, y + (_BAR_PX - totals[i].shape[0]) // 2)
    _draw_legend(sheet, colours, left, height - _FONT_PX * 2 - _GAP_PX)
    return sheet


def _draw_bar(
    sheet: Image,
    stages: Mapping[str, float],
    colours: Mapping[str, Colour],
    left: int,
    y: int,
    px_per_ms: float,
) -> int:
    """One bar; where it ends, in pixels."""
    reached = 0.0
    for stage, ms in stages.items():
        begin, reached = round(left + reached * px_per_ms), reached + ms
        sheet[y : y + _BAR_PX, begin : round(left + reached * px_per_ms)] = colours[stage]
    return round(left + reached * px_per_ms)


def _draw_legend(sheet: Image, colours: Mapping[str, Colour], x: int, y: int) -> None:
    for stage, colour in colours.items():
        tile = text_tile(stage, _FONT_PX, colour)
        blit(sheet, tile, x, y)
        x += tile.shape[1] + _GAP_PX
