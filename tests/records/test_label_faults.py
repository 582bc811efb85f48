"""What boxes that cannot be used look like, in numbers and in words."""

import numpy as np
import pytest

from urbandet_ray.boxes import boxes_from_yxyx_norm, clip_boxes
from urbandet_ray.records.label_faults import LabelFaults, usable_rows

SIZE = (640, 480)


def reasons(*boxes: list[float], size_wh: tuple[int, int] = SIZE) -> list[str]:
    """Of boxes given as ymin, xmin, ymax, xmax."""
    given, problems = np.array(boxes, np.float32), list[str]()
    clipped = clip_boxes(boxes_from_yxyx_norm(given, size_wh), size_wh)
    usable_rows(given, clipped, size_wh, problems)
    return [one.partition(":")[0] for one in problems]


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ([100, 50, 200, 300], "box-pixels"),
        ([0, 0, 479, 639], "box-pixels"),
        ([200, 300, 100, 50], "box-pixels"),
        ([10, 20, 50.5, 99.9], "box-percent"),
        ([0, 0, 100, 100], "box-percent"),
        ([0.5, 0.5, 0.2, 0.9], "box-inverted"),
        ([0.5, 0.5, 0.5, 0.9], "box-empty"),
        ([1.2, 0.5, 1.5, 0.9], "box-empty"),
        ([0.2, float("inf"), 0.5, 0.9], "box-not-finite"),
        ([0.2, -0.2, 0.5, 0.9], "box-outside"),
    ],
)
def test_a_box_is_of_one_kind(box: list[float], reason: str) -> None:
    """Each that is left out counts once; one that is clipped is told too."""
    assert reasons(box) == [reason]


def test_small_pixel_boxes_count_with_the_large_ones() -> None:
    """Alone they might be percent; beside a coordinate of 500 they are not."""
    faults = LabelFaults()
    faults.add(tuple(f"{one}: box 0" for one in reasons([1, 2, 30, 40])), "a record 0")
    faults.add(tuple(f"{one}: box 0" for one in reasons([1, 2, 300, 500])), "a record 1")
    assert (faults.boxes, dict(faults.settled().counts)) == (2, {"box-pixels": 2})
    (line,) = faults.to_lines()
    assert line.startswith("2 boxes look like pixels (a record 1: box 0): the OD API reads shares")


def test_tiny_images_hold_pixels() -> None:
    """In 64 px, a 50 is a pixel as soon as a percent."""
    assert reasons([1, 2, 30, 50], size_wh=(64, 48)) == ["box-pixels"]
