"""The contact sheet, checked by pixels."""

import numpy as np
import pytest

from urbandet_ray.errors import ConfigError, InputError
from urbandet_ray.frames import Truth
from urbandet_ray.labels import STREET_LABELS
from urbandet_ray.rendering.palette import class_colour
from urbandet_ray.reports.contact_sheet import contact_sheet


def frame(value: int, width: int = 640, height: int = 480) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def has_colour(image: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((image == colour).all(axis=-1).any())


def test_cells_stand_in_reading_order() -> None:
    """Left to right, then down; frames may come from a stream."""
    sheet = contact_sheet(
        ((frame(v), None, f"frame {v}") for v in (60, 120, 180)),
        STREET_LABELS,
        columns=2,
        cell_width=160,
    )
    assert sheet[60, 80].tolist() == [60] * 3
    assert sheet[60, 240].tolist() == [120] * 3
    assert sheet[60 + 140, 80].tolist() == [180] * 3


def test_boxes_are_scaled_with_the_picture() -> None:
    """A box in the source's pixels lies at the same place of the small copy."""
    truth = Truth.of([[160, 120, 480, 360]], [2])
    sheet = contact_sheet([(frame(90), truth, "a")], STREET_LABELS, columns=1, cell_width=320)
    bar = next(y for y in range(60) if sheet[y, 319].tolist() == [90] * 3)
    colour = list(class_colour(2))
    assert sheet[bar + 60, 200].tolist() == colour
    assert sheet[bar + 100, 80].tolist() == colour
    assert sheet[bar + 179, 200].tolist() == colour
    assert sheet[bar + 100, 100].tolist() == [90] * 3


def test_source_images_are_not_drawn_on() -> None:
    """Also when the cell is as large as the image."""
    image = frame(90, 160, 120)
    contact_sheet(
        [(image, Truth.of([[9, 9, 90, 90]], [1]), "a")], STREET_LABELS, columns=1, cell_width=160
    )
    assert (image == 90).all()


def test_legend_shows_every_class_of_the_map() -> None:
    """Also the classes with no box: their absence is what a person looks for."""
    sheet = contact_sheet([(frame(90), None, "a")], STREET_LABELS, columns=2, cell_width=160)
    legend = sheet[-30:]
    assert all(has_colour(legend, class_colour(class_id)) for class_id in STREET_LABELS.names)


def test_counts_change_the_legend() -> None:
    """One box more is another number."""
    truths = (Truth.of([[9, 9, 90, 90]], [1]), Truth.of([[9, 9, 90, 90]] * 2, [1, 1]))
    sheets = [
        contact_sheet([(frame(90), t, "a")], STREET_LABELS, columns=2, cell_width=160)
        for t in truths
    ]
    assert not np.array_equal(sheets[0][-30:], sheets[1][-30:])


def test_frames_of_different_shapes_share_a_row() -> None:
    """The row is as high as its highest cell; widths are equal."""
    sheet = contact_sheet(
        [(frame(60, 640, 320), None, "a"), (frame(120, 320, 640), None, "b")],
        STREET_LABELS,
        columns=2,
        cell_width=100,
    )
    assert sheet.shape[1] == 2 * 100 + 2
    assert sheet[180, 150].tolist() == [120] * 3
    assert sheet[180, 50].tolist() != [60] * 3


def test_broken_boxes_do_not_stop_the_sheet() -> None:
    """NaN, inverted and far boxes and class 0 are just what the sheet is made to reveal."""
    truth = Truth.of([[np.nan, 0, 9, 9], [90, 90, 20, 20], [-1e12, 0, 1e12, 50]], [0, 7, 1])
    sheet = contact_sheet([(frame(90), truth, "a")], STREET_LABELS, columns=1, cell_width=160)
    assert has_colour(sheet, class_colour(1))


def test_no_frames() -> None:
    """An empty input is said, not drawn."""
    with pytest.raises(InputError, match="no frames for the contact sheet"):
        contact_sheet([], STREET_LABELS, columns=4, cell_width=320)


@pytest.mark.parametrize(("columns", "cell_width"), [(0, 320), (4, 63)])
def test_wrong_layout(columns: int, cell_width: int) -> None:
    """The message says what was asked and what would do."""
    with pytest.raises(
        ConfigError, match=f"{columns} columns, {cell_width} px wide cells: expected at least 1"
    ):
        contact_sheet(
            [(frame(9), None, "a")], STREET_LABELS, columns=columns, cell_width=cell_width
        )
