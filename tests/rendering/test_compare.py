"""Two pictures beside each other."""

import numpy as np
import pytest

from urbandet_ray.rendering.compare import side_by_side


def test_both_pictures_stand_unchanged_under_a_bar() -> None:
    """Pixels are copied, left to left and right to right."""
    rng = np.random.default_rng(0)
    left, right = (rng.integers(0, 256, (120, 160, 3), np.uint8) for _ in range(2))
    joined = side_by_side(left, right, ("one", "two"))
    assert np.array_equal(joined[-120:, :160], left)
    assert np.array_equal(joined[-120:, -160:], right)
    assert 14 <= joined.shape[0] - 120 <= 40


def test_right_picture_takes_the_left_ones_height() -> None:
    """A run made at another size can be compared."""
    left, right = np.zeros((120, 160, 3), np.uint8), np.full((60, 90, 3), 255, np.uint8)
    joined = side_by_side(left, right, ("one", "two"))
    assert (joined[-120:, -180:] == 255).all()


def test_titles_differ_on_each_side() -> None:
    """Each title is written over its own picture, and cut at its edge."""
    image = np.zeros((120, 160, 3), np.uint8)
    joined = side_by_side(image, image, ("", "a very long title that does not fit in here at all"))
    bar = joined[: -image.shape[0]]
    assert len(np.unique(bar[:, :160].reshape(-1, 3), axis=0)) == 1
    assert len(np.unique(bar[:, 164:].reshape(-1, 3), axis=0)) > 5


def test_equal_inputs_give_equal_sizes() -> None:
    """Frames of a video keep their size whatever the titles are."""
    image = np.zeros((120, 160, 3), np.uint8)
    sizes = {side_by_side(image, image, titles).shape for titles in (("a", "b"), ("", "gyq"))}
    assert len(sizes) == 1


def test_a_grey_picture_is_refused() -> None:
    """Only RGB."""
    with pytest.raises(ValueError, match=r"got uint8 \(9, 9\): an image is uint8 RGB"):
        side_by_side(np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9), np.uint8), ("a", "b"))
