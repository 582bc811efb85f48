"""One answer out of what many windows saw."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from eyes import SIZE_WH, Eye, detect

from urbandet_ray.config import TilesConfig
from urbandet_ray.detections import Detections

both_merges = pytest.mark.parametrize("merge", ["nms", "fusion"])
LEFT, RIGHT, WHOLE = (0, 0, 150, 200), (150, 0, 300, 200), (0, 0, 300, 200)
HALVES = TilesConfig(rows=1, columns=2, overlap=0.0)


@both_merges
def test_the_only_evidence_stays(merge: Any) -> None:
    """A cut box that no other window can better is all there is."""
    table = {LEFT: Detections.of([[100, 50, 150, 90]], [0.6], [1])}
    found = detect(Eye(table=table), TilesConfig(rows=1, columns=2, overlap=0.0, merge=merge))
    np.testing.assert_array_equal(found.boxes_xyxy, [[100, 50, 150, 90]])


@both_merges
@pytest.mark.parametrize(
    "other",
    [
        ([[10, 40, 290, 190]], [1]),  # a queue of cars
        ([[100, 50, 200, 90]], [2]),  # another class
        ([[100, 50, 150, 88]], [1]),  # the same, and it reaches no further
    ],
)
def test_what_is_no_fuller_view_takes_nothing_away(other: Any, merge: Any) -> None:
    """A faint box of the whole image that is something else leaves a sure cut box alone."""
    boxes, class_ids = other
    table = {
        LEFT: Detections.of([[100, 50, 150, 90]], [0.8], [1]),
        WHOLE: Detections.of(boxes, [0.06], class_ids),
    }
    found = detect(Eye(table=table), TilesConfig(rows=1, columns=2, overlap=0.0, merge=merge))
    assert found.class_ids[0] == 1
    np.testing.assert_allclose(found.boxes_xyxy[0], [100, 50, 150, 90], atol=0.2)


@pytest.mark.parametrize("scores", [(0.4, 0.8), (0.8, 0.4)])
def test_the_fullest_of_cut_views_stays(scores: tuple[float, float]) -> None:
    """Two tiles, neither of which has all of it: the larger part, not both and not none."""
    table = {
        (0, 0, 200, 200): Detections.of([[40, 50, 200, 90]], [scores[0]], [1]),
        (100, 0, 300, 200): Detections.of([[0, 50, 115, 90]], [scores[1]], [1]),
    }
    found = detect(Eye(table=table), TilesConfig(rows=1, columns=2, overlap=0.5, whole=False))
    np.testing.assert_array_equal(found.boxes_xyxy, [[40, 50, 200, 90]])


@pytest.mark.parametrize(
    ("part", "fuller"),
    [
        ([60, 50, 143, 90], [62, 52, 260, 91]),  # a model's boxes end near the edge, not on it
        ([100, 140, 150, 200], [112, 142, 155, 200]),  # cut by the image's edge is not cut
    ],
)
def test_a_fuller_view_takes_the_place_of_a_part(part: list[int], fuller: list[int]) -> None:
    """Whatever their scores and sizes."""
    table = {LEFT: Detections.of([part], [0.9], [1]), WHOLE: Detections.of([fuller], [0.3], [1])}
    np.testing.assert_array_equal(detect(Eye(table=table), HALVES).boxes_xyxy, [fuller])


def test_neighbours_of_one_class_both_stay() -> None:
    """Objects that overlap less than iou_max are two."""
    scene = [([20.0, 20.0, 60.0, 60.0], 1), ([38.0, 20.0, 78.0, 60.0], 1)]
    assert len(detect(Eye(scene), TilesConfig(rows=2, columns=2))) == 2
    assert len(detect(Eye(scene), TilesConfig(rows=2, columns=2, iou_max=0.3))) == 1


def test_fusion_by_hand() -> None:
    """Coordinates by score and zoom, the mean score less for the window that missed it."""
    table = {
        LEFT: Detections.of([[20, 20, 60, 60], [22, 20, 60, 60]], [0.8, 0.1], [1, 1]),
        WHOLE: Detections.of([[30, 20, 60, 60], [200, 100, 220, 120]], [0.4, 0.3], [1, 1]),
    }
    found = detect(Eye(table=table), TilesConfig(rows=1, columns=2, overlap=0.0, merge="fusion"))
    tile_say, whole_say = 0.8 / np.sqrt(150 * 200), 0.4 / np.sqrt(300 * 200)
    left = (20 * tile_say + 30 * whole_say) / (tile_say + whole_say)
    np.testing.assert_allclose(
        found.boxes_xyxy, [[left, 20, 60, 60], [200, 100, 220, 120]], rtol=1e-6
    )
    np.testing.assert_allclose(found.scores, [0.6, 0.3 / np.sqrt(2)], rtol=1e-6)


def test_nms_keeps_the_best_box() -> None:
    """As it is, with its score."""
    table = {
        LEFT: Detections.of([[20, 20, 60, 60]], [0.5], [1]),
        WHOLE: Detections.of([[22, 20, 60, 60]], [0.7], [1]),
    }
    found = detect(Eye(table=table), HALVES)
    np.testing.assert_array_equal(found.boxes_xyxy, [[22, 20, 60, 60]])
    np.testing.assert_allclose(found.scores, [0.7])


@both_merges
def test_answers_are_best_first_and_bounded(merge: Any) -> None:
    """At most so many, none fainter than asked, inside the image."""
    boxes = [[x, 20, x + 20, 60] for x in range(0, 280, 25)] + [[290, 20, 300.5, 60]]
    scores = np.linspace(0.9, 0.4, len(boxes))
    eye = Eye(table={WHOLE: Detections.of(boxes, scores, [1, 2, 4] * 4 + [1])})
    everything = detect(eye, TilesConfig(rows=2, columns=3, merge=merge))
    assert (np.diff(everything.scores) < 0).all() and len(everything) == len(boxes)
    assert everything.boxes_xyxy[:, 2].max() == SIZE_WH[0]
    few = detect(eye, TilesConfig(rows=2, columns=3, merge=merge), max_detections=3)
    np.testing.assert_array_equal(few.scores, everything.scores[:3])
    sure = detect(
        eye, TilesConfig(rows=2, columns=3, merge=merge), score_min=float(everything.scores[4])
    )
    np.testing.assert_array_equal(sure.scores, everything.scores[:5])
