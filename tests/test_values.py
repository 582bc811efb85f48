"""Boxes, detections, truth: values that are checked once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from urbandet_ray.boxes import (
    box_areas,
    boxes_from_yxyx_norm,
    boxes_to_xywh,
    boxes_to_yxyx_norm,
    clip_boxes,
    iou_matrix,
)
from urbandet_ray.detections import Detections
from urbandet_ray.frames import Truth

coordinates = st.floats(0, 1, width=32)


@given(arrays(np.float32, st.tuples(st.integers(0, 8), st.just(4)), elements=coordinates))
def test_normalised_round_trip(boxes_yxyx: np.ndarray) -> None:
    """Pixels and back, whatever the image's shape."""
    pixels = boxes_from_yxyx_norm(boxes_yxyx, (640, 480))
    np.testing.assert_allclose(boxes_to_yxyx_norm(pixels, (640, 480)), boxes_yxyx, atol=1e-6)


def test_axes_are_not_swapped() -> None:
    """y comes first in the OD API, x first here."""
    pixels = boxes_from_yxyx_norm(np.array([[0.1, 0.2, 0.5, 0.8]], np.float32), (100, 10))
    np.testing.assert_allclose(pixels, [[20, 1, 80, 5]], rtol=1e-6)
    np.testing.assert_allclose(boxes_to_xywh(pixels), [[20, 1, 60, 4]], rtol=1e-6)


def test_clip_keeps_boxes_inside() -> None:
    """A box over the edge ends at the edge."""
    np.testing.assert_array_equal(
        clip_boxes(np.array([[-5, 2, 30, 99]], np.float32), (20, 10)), [[0, 2, 20, 10]]
    )


def test_inverted_boxes_have_no_area() -> None:
    """Not a negative one."""
    np.testing.assert_array_equal(box_areas(np.array([[5, 5, 1, 9], [0, 0, 2, 3]])), [0, 6])


def test_iou_by_hand() -> None:
    """Half overlap of equal boxes is 1/3; two empty boxes are 0, not NaN."""
    a = np.array([[0, 0, 2, 2], [1, 1, 1, 1]], np.float32)
    b = np.array([[1, 0, 3, 2], [1, 1, 1, 1]], np.float32)
    np.testing.assert_allclose(iou_matrix(a, b), [[1 / 3, 0], [0, 0]])


def test_detections_of_unequal_columns_are_refused() -> None:
    """A box without a score cannot be made."""
    with pytest.raises(ValueError, match="columns of different length: 1 scores"):
        Detections.of([[0, 0, 1, 1], [0, 0, 2, 2]], [0.5], [1])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_detections_that_are_not_finite_are_refused(bad: float) -> None:
    """A NaN box would poison every later stage."""
    with pytest.raises(ValueError, match="not finite"):
        Detections.of([[0, 0, bad, 1]], [0.5], [1])


def test_above_is_inclusive_in_float32() -> None:
    """0.3 in a config keeps a score stored as float32 0.3."""
    kept = Detections.of([[0, 0, 1, 1]] * 2, [0.3, 0.2999], [1, 1]).above(0.3)
    assert len(kept) == 1


def test_truth_of_unequal_columns_is_refused() -> None:
    """Three names for two boxes cannot be made."""
    with pytest.raises(ValueError, match="columns of different length"):
        Truth.of([[0, 0, 1, 1]] * 2, [1, 2], ("a", "b", "c"))
