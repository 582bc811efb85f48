"""Detections of all workers put beside the truth."""

import numpy as np
import pytest
from drives import make_frame, square_of

from urbandet_ray.labels import STREET_LABELS
from urbandet_ray.records.example import example_from_frame
from urbandet_ray.training.board import sides_found
from urbandet_ray.training.data.validation import (
    detect_share,
    frame_results,
    read_validation_set,
    score,
)

COUNT = 6
RECORDS = [example_from_frame(make_frame(index)) for index in range(COUNT)]
FRAMES = read_validation_set(RECORDS.__getitem__, COUNT, 4)


def answer(numbers: list[int]) -> dict[str, np.ndarray]:
    """What a perfect model says of frames of 64 x 48 px: one square, and an empty place."""
    boxes = [np.array(square_of(n))[[1, 0, 3, 2]] / [48, 64, 48, 64] for n in numbers]
    return {
        "detection_boxes": np.stack([np.stack([box, np.zeros(4)]) for box in boxes]),
        "detection_scores": np.array([[0.9, 0.0]] * len(numbers)),
        "detection_classes": np.zeros((len(numbers), 2)),
    }


def rows_of(rank: int, world: int, batch_size: int = 2) -> np.ndarray:
    """Detections of one worker, its last batch padded with -1."""
    numbers = FRAMES.share(rank, world).tolist()
    numbers += [-1] * (-len(numbers) % batch_size)
    batches = [numbers[i : i + batch_size] for i in range(0, len(numbers), batch_size)]
    return detect_share(lambda features: answer(features["n"]), [({"n": b}, b) for b in batches])


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_shares_together_give_every_frame_once(world: int) -> None:
    """Whatever the number of workers, and with padded batches: the mAP of a perfect model is 1."""
    rows = np.concatenate([rows_of(rank, world) for rank in reversed(range(world))])
    results = frame_results(rows, FRAMES, STREET_LABELS)
    assert [len(result.detections) for result in results] == [1] * COUNT
    metrics = score(results, STREET_LABELS)
    assert metrics.map == pytest.approx(1.0)
    assert metrics.by_class["vehicle"].truth_boxes == COUNT


def test_classes_without_a_label_are_left_out() -> None:
    """Id 3 is a gap in the street's label map: such an answer is no detection."""
    row = np.array([[0, 0.1, 0.1, 0.5, 0.5, 0.8, 3]], np.float32)
    assert len(frame_results(row, FRAMES, STREET_LABELS)[0].detections) == 0


def test_numbers_that_are_not_finite_are_left_out() -> None:
    """A box with a NaN is no detection."""
    row = np.array([[0, np.nan, 0.1, 0.5, 0.5, 0.8, 1]], np.float32)
    assert len(frame_results(row, FRAMES, STREET_LABELS)[0].detections) == 0


def test_boxes_found_and_missed_are_told_apart() -> None:
    """By side in px: squares of 16 x 20 px, found on all frames but the last two."""
    results = frame_results(np.concatenate([rows_of(0, 1)])[: COUNT - 2], FRAMES, STREET_LABELS)
    found, missed = sides_found(results)
    assert (len(found), len(missed)) == (COUNT - 2, 2)
    assert found == pytest.approx(np.sqrt(16 * 20), rel=0.01)
