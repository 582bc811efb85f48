"""Where a frame's time goes, checked by pixels."""

import numpy as np
import pytest

from urbandet_ray.errors import InputError
from urbandet_ray.rendering.palette import OKABE_ITO
from urbandet_ray.reports.stage_bars import stage_bars


def longest_of(sheet: np.ndarray, colour: tuple[int, int, int]) -> list[int]:
    """The lengths of a colour's two bars, from above; the legend below them is left out."""
    widths = (sheet == colour).all(axis=2).sum(axis=1)
    edges = np.flatnonzero(np.diff(np.r_[0, widths > 60, 0]))
    return [int(widths[begin:end].max()) for begin, end in edges.reshape(-1, 2)[:2]]


def test_bars_are_as_long_as_their_stages() -> None:
    """All on one scale, on which the slowest row is 900 px; a stage keeps its colour."""
    rows = [("fast", {"decode": 1.0, "model": 2.0}), ("slow", {"decode": 1.0, "model": 8.0})]
    sheet = stage_bars(rows, "a frame's time")
    assert longest_of(sheet, OKABE_ITO[0]) == [100, 100]
    assert longest_of(sheet, OKABE_ITO[1]) == [200, 800]


@pytest.mark.parametrize("rows", [[], [("idle", {"decode": 0.0})]], ids=["no row", "no time"])
def test_nothing_to_draw(rows: list) -> None:
    """Rows without any time are a mistake, not an empty picture."""
    with pytest.raises(InputError, match="no stage took any time: nothing to draw"):
        stage_bars(rows, "title")
