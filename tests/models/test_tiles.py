"""Tiled inference: windows that cover the image, and one answer out of many."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from eyes import SIZE_WH, Eye, detect, located
from hypothesis import given, settings
from hypothesis import strategies as st

from urbandet_ray.config import TilesConfig
from urbandet_ray.detections import Detections
from urbandet_ray.errors import ConfigError, ModelError
from urbandet_ray.models.tiles import TiledDetector, tile_windows

both_merges = pytest.mark.parametrize("merge", ["nms", "fusion"])
WHOLE = (0, 0, *SIZE_WH)


def sorted_rows(boxes: Any, class_ids: Any) -> list[list[float]]:
    """Boxes with their classes, in an order of their own."""
    return sorted([*map(float, box), float(c)] for box, c in zip(boxes, class_ids, strict=True))


@given(st.integers(1, 900), st.integers(1, 900), st.integers(1, 6), st.integers(1, 6),
       st.floats(0, 0.89))  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_tiles_cover_the_image(w: int, h: int, rows: int, columns: int, overlap: float) -> None:
    """Every pixel, nothing outside, all of one size, each once."""
    windows = tile_windows((w, h), TilesConfig(rows=rows, columns=columns, overlap=overlap))
    seen = np.zeros((h, w), bool)
    for x0, y0, x1, y1 in windows:
        assert 0 <= x0 < x1 <= w and 0 <= y0 < y1 <= h
        seen[y0:y1, x0:x1] = True
    assert seen.all()
    assert len({(x1 - x0, y1 - y0) for x0, y0, x1, y1 in windows}) == 1
    assert len(set(windows)) == len(windows) <= rows * columns
    assert len(windows) == rows * columns or min(w, h) < 60


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [
        (0.0, [(0, 0, 150, 100), (150, 0, 300, 100), (0, 100, 150, 200), (150, 100, 300, 200)]),
        (0.5, [(0, 0, 200, 134), (100, 0, 300, 134), (0, 66, 200, 200), (100, 66, 300, 200)]),
    ],
)
def test_tiles_share_what_was_asked(overlap: float, expected: list[tuple[int, ...]]) -> None:
    """Neighbours share that part of a side; rows come first."""
    assert tile_windows(SIZE_WH, TilesConfig(rows=2, columns=2, overlap=overlap)) == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rows": 0}, "rows: Input should be greater than or equal to 1, got 0"),
        ({"overlap": 0.9}, "overlap: Input should be less than 0.9, got 0.9"),
        ({"overlap": float("nan")}, "overlap: Input should be a finite number, got nan"),
        ({"merge": "vote"}, "merge: Input should be 'nms' or 'fusion', got 'vote'"),
        ({"iou_max": 0}, "iou_max: Input should be greater than 0, got 0"),
    ],
)
def test_wrong_tilings_are_refused(values: dict[str, Any], message: str) -> None:
    """The message names the value and what to give."""
    with pytest.raises(ConfigError, match=message):
        TilesConfig(**{"rows": 2, "columns": 2, **values})


half_pixels = st.integers(0, 40).map(lambda n: n / 2)
scenes = st.lists(
    st.tuples(half_pixels, half_pixels, half_pixels, st.sampled_from([1, 2, 4])), max_size=30
)


@given(scenes, st.integers(1, 4), st.integers(1, 4), st.floats(0, 0.6),
       st.sampled_from(["nms", "fusion"]), st.integers(1, 5))  # fmt: skip
@settings(deadline=None, max_examples=80)
def test_each_object_is_found_once(
    cells: list[Any], rows: int, columns: int, overlap: float, merge: Any, batch_size: int
) -> None:
    """Exactly as it is, however the tiles cut it, though cut parts have the better scores."""
    scene = [([3.0, 2.0, 298.0, 199.0], 1)]  # larger than any tile
    for cell, (left, top, more, class_id) in enumerate(cells):
        x, y = 50 * (cell % 6) + left, 40 * (cell // 6) + top * 0.75
        scene.append(([x, y, x + 4 + more, y + 3 + more], class_id))
    found = detect(
        Eye(scene, batch_size=batch_size),
        TilesConfig(rows=rows, columns=columns, overlap=overlap, merge=merge),
    )
    truth = sorted_rows([box for box, _ in scene], [class_id for _, class_id in scene])
    np.testing.assert_allclose(sorted_rows(found.boxes_xyxy, found.class_ids), truth, atol=1e-4)


@both_merges
def test_objects_smaller_than_the_overlap_need_no_whole_image(merge: Any) -> None:
    """Some tile has all of it."""
    boxes = [[x, y, x + 25.0, y + 20.0] for x in range(0, 270, 31) for y in range(0, 175, 23)]
    eye = Eye([(box, 2) for box in boxes])
    found = detect(eye, TilesConfig(rows=3, columns=3, overlap=0.3, whole=False, merge=merge))
    assert sorted_rows(found.boxes_xyxy, found.class_ids) == sorted_rows(boxes, [2] * len(boxes))
    assert (200, 300, 3) not in {shape for call in eye.calls for shape in call}


def test_batches_are_of_the_inner_size_over_all_images() -> None:
    """Two images of five windows in batches of four; tiles of one shape together."""
    scenes = [([5.0, 6.0, 25.0, 30.0], 1), ([160.0, 80.0, 260.0, 190.0], 4)]
    eye = Eye(scenes, batch_size=4)
    tiled = TiledDetector(eye, TilesConfig(rows=2, columns=2, overlap=0.0))
    small, large = tiled.detect([located((200, 200)), located(SIZE_WH)])
    assert [len(call) for call in eye.calls] == [4, 4, 2]
    assert [len(set(call)) for call in eye.calls] == [1, 1, 2]
    assert tiled.batch_size == 4 and tiled.labels is eye.labels
    np.testing.assert_array_equal(sorted(large.boxes_xyxy.tolist()), [b for b, _ in scenes])
    np.testing.assert_array_equal(small.boxes_xyxy[:, 2].max(), 200)


def test_nothing_in_nothing_out() -> None:
    """No image, and an image without objects."""
    tiled = TiledDetector(Eye(), TilesConfig(rows=3, columns=3))
    assert tiled.detect([]) == []
    assert [len(found) for found in tiled.detect([located(SIZE_WH)] * 2)] == [0, 0]


@pytest.mark.parametrize("whole", [True, False])
def test_one_tile_is_the_inner_detector(whole: bool) -> None:
    """Looked at once, and its answer untouched."""
    answer = Detections.of([[1, 2, 30, 40], [1, 2, 31, 40]], [0.5, 0.4], [1, 1])
    eye = Eye(table={WHOLE: answer})
    assert detect(eye, TilesConfig(rows=1, columns=1, whole=whole)) is answer
    assert len(eye.calls) == 1


def test_a_model_that_cannot_batch_is_refused() -> None:
    """Rather than mixing up whose answer is whose."""
    eye = Eye(batch_size=5, answers=1)
    with pytest.raises(ModelError, match="answered for 1 of 5 tiles: its export cannot batch"):
        detect(eye, TilesConfig(rows=2, columns=2))
