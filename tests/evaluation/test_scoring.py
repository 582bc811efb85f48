"""evaluate: figures worked out by hand, what counts and what does not, and its refusals."""

import numpy as np
import pytest

from urbandet_ray.detections import Detections
from urbandet_ray.errors import ConfigError, InputError, LabelError
from urbandet_ray.evaluation import evaluate
from urbandet_ray.frames import Truth
from urbandet_ray.labels import STREET_LABELS
from urbandet_ray.runs.detections_table import DetectionRow

CAR = (100, 100, 200, 200)
CAR_70 = (100, 100, 200, 170)  # IoU 0.7 with CAR: a hit at 0.50, 0.55, 0.60, 0.65 and 0.70
ELSEWHERE = (400, 400, 500, 500)
SMALL = (10, 10, 30, 30)


def frame(
    truth: Truth | None = None, detections: Detections | None = None, key: str = "a"
) -> DetectionRow:
    truth, found = truth or Truth.empty(), detections or Detections.empty()
    return DetectionRow(key, 0, key, "", (640, 640), found, truth)


def test_perfect_detections_score_one() -> None:
    """Every box found exactly: 1 everywhere, None where there is no box of a class or size."""
    metrics = evaluate(
        [frame(Truth.of([CAR, SMALL], [1, 2]), Detections.of([CAR, SMALL], [0.9, 0.8], [1, 2]))],
        STREET_LABELS,
    )
    assert (metrics.map, metrics.ap50, metrics.ap75) == pytest.approx((1, 1, 1))
    assert (metrics.ar1, metrics.ar10, metrics.ar100) == pytest.approx((1, 1, 1))
    assert metrics.by_size["large"].ap == pytest.approx(1)
    assert metrics.by_size["small"].ar == pytest.approx(1)
    assert metrics.by_size["medium"].ap is None


def test_hand_computed_overlap_and_false_positive() -> None:
    """A wrong box above a hit of IoU 0.7: precision 1/2 at five of ten thresholds, else 0."""
    metrics = evaluate(
        [frame(Truth.of([CAR], [1]), Detections.of([ELSEWHERE, CAR_70], [0.9, 0.8], [1, 1]))],
        STREET_LABELS,
    )
    assert metrics.ap50 == pytest.approx(0.5)
    assert metrics.ap75 == pytest.approx(0.0)
    assert metrics.map == pytest.approx(0.25)
    assert metrics.ar1 == pytest.approx(0.0)
    assert metrics.ar10 == pytest.approx(0.5)


def test_hand_computed_half_of_the_boxes() -> None:
    """One of two cars found: precision 1 up to recall 0.5, 51 of COCO's 101 points."""
    metrics = evaluate(
        [frame(Truth.of([CAR, ELSEWHERE], [1, 1]), Detections.of([CAR], [0.9], [1]))],
        STREET_LABELS,
    )
    assert metrics.map == pytest.approx(51 / 101)
    assert metrics.ar100 == pytest.approx(0.5)


def test_frame_without_truth_counts_false_positives() -> None:
    """A better scored box in an empty frame halves the precision."""
    found = Detections.of([CAR], [0.5], [1])
    empty = frame(None, Detections.of([CAR], [0.9], [1]), key="b")
    alone = evaluate([frame(Truth.of([CAR], [1]), found)], STREET_LABELS)
    both = evaluate([frame(Truth.of([CAR], [1]), found), empty], STREET_LABELS)
    assert alone.map == pytest.approx(1)
    assert both.map == pytest.approx(0.5)


def test_detections_on_a_crowd_count_for_nothing() -> None:
    """Three boxes in a crowd are neither hits nor misses."""
    truth = Truth.of([CAR, ELSEWHERE], [1, 1], is_crowd=[False, True])
    inside = [(410, 410, 440, 440), (420, 420, 450, 450), (450, 450, 480, 480)]
    metrics = evaluate(
        [frame(truth, Detections.of([*inside, CAR], [0.9, 0.9, 0.9, 0.5], [1] * 4))],
        STREET_LABELS,
    )
    assert metrics.map == pytest.approx(1)
    assert metrics.truth_boxes == 1


@pytest.mark.parametrize("flag", ["difficult", "group_of"])
def test_difficult_and_group_are_ordinary_truth(flag: str) -> None:
    """As in the OD API's COCO evaluator, missing such a box costs recall."""
    truth = Truth.of([CAR, ELSEWHERE], [1, 1], **{flag: [False, True]})
    metrics = evaluate([frame(truth, Detections.of([CAR], [0.9], [1]))], STREET_LABELS)
    assert metrics.ar100 == pytest.approx(0.5)
    assert metrics.truth_boxes == 2


def test_class_without_truth_has_no_figure_and_no_part_in_the_mean() -> None:
    """Pedestrians nobody labelled: None, their detections counted, the mean of vehicles alone."""
    metrics = evaluate(
        [frame(Truth.of([CAR], [1]), Detections.of([CAR, SMALL], [0.9, 0.8], [1, 2]))],
        STREET_LABELS,
    )
    assert metrics.map == pytest.approx(1)
    pedestrian = metrics.by_class["pedestrian"]
    assert (pedestrian.ap, pedestrian.ap50, pedestrian.ar100) == (None, None, None)
    assert pedestrian.detections == 1
    assert set(pedestrian.ap_by_size.values()) == {None}


def test_class_of_crowds_only_has_no_figure() -> None:
    """A class whose only truth is a crowd has nothing to be measured against."""
    truth = Truth.of([CAR], [1], is_crowd=[True])
    metrics = evaluate([frame(truth, Detections.of([CAR], [0.9], [1]))], STREET_LABELS)
    assert metrics.map is None
    assert metrics.by_class["vehicle"].ap is None


def test_missed_class_scores_zero() -> None:
    """Truth and no detection is 0, not None."""
    metrics = evaluate([frame(Truth.of([CAR], [1]))], STREET_LABELS)
    assert metrics.map == 0.0
    assert metrics.by_class["vehicle"].ar100 == 0.0


def test_score_min_leaves_detections_out() -> None:
    """Detections below the threshold count nowhere; one at the threshold stays."""
    found = Detections.of([ELSEWHERE, CAR], [0.2, 0.5], [1, 1])
    metrics = evaluate([frame(Truth.of([CAR], [1]), found)], STREET_LABELS, score_min=0.5)
    assert metrics.detections == 1
    assert metrics.map == pytest.approx(1)


def test_order_of_a_detectors_boxes_does_not_matter() -> None:
    """Unsorted detections are ranked by score."""
    truth = Truth.of([CAR], [1])
    boxes, scores = np.array([ELSEWHERE, CAR]), np.array([0.1, 0.9])
    forward = evaluate([frame(truth, Detections.of(boxes, scores, [1, 1]))], STREET_LABELS)
    backward = evaluate(
        [frame(truth, Detections.of(boxes[::-1], scores[::-1], [1, 1]))], STREET_LABELS
    )
    assert forward == backward
    assert forward.ar1 == pytest.approx(1)


def test_inverted_detection_is_an_empty_box() -> None:
    """Corners the wrong way round in both directions do not make a positive area."""
    inverted = (CAR[2], CAR[3], CAR[0], CAR[1])
    metrics = evaluate(
        [frame(Truth.of([CAR], [1]), Detections.of([inverted], [0.9], [1]))], STREET_LABELS
    )
    assert metrics.map == 0.0


def test_counts() -> None:
    """Frames, truth boxes and detections are counted from a generator read once."""
    frames = (
        frame(Truth.of([CAR, SMALL], [1, 4]), Detections.of([CAR], [0.9], [1]), key=str(i))
        for i in range(3)
    )
    metrics = evaluate(frames, STREET_LABELS)
    assert (metrics.frames, metrics.truth_boxes, metrics.detections) == (3, 6, 3)
    assert metrics.by_class["cyclist"].truth_boxes == 3


def test_no_frames_is_refused() -> None:
    """An empty evaluation is a mistake, not a score."""
    with pytest.raises(InputError, match="there is no frame to evaluate: check that the run has"):
        evaluate([], STREET_LABELS)


def test_doubled_frame_is_refused() -> None:
    """A frame that comes twice would count twice."""
    with pytest.raises(InputError, match="frame 'drive/7' came twice"):
        evaluate([frame(key="drive/7"), frame(key="drive/7")], STREET_LABELS)


def test_unknown_class_in_truth_is_refused() -> None:
    """The message names frame, id, the map's classes and the remedy."""
    with pytest.raises(
        LabelError,
        match="truth of frame 'a' has class id 3, the label map has 1 vehicle, 2 pedestrian, "
        "4 cyclist: give the label map the truth records were made with",
    ):
        evaluate([frame(Truth.of([CAR], [3]))], STREET_LABELS)


def test_unknown_class_in_detections_is_refused() -> None:
    """Detections of another model's classes are not dropped in silence."""
    with pytest.raises(
        LabelError, match=r"detections of frame 'a' has class id 17, .*\(a class mapping\)"
    ):
        evaluate([frame(None, Detections.of([CAR], [0.9], [17]))], STREET_LABELS)


def test_truth_that_is_not_finite_is_refused() -> None:
    """NaN in the truth would spoil figures without a word."""
    with pytest.raises(InputError, match=r"frame 'a' has a box that is not finite: run `urbandet"):
        evaluate([frame(Truth.of([(0, 0, np.nan, 5)], [1]))], STREET_LABELS)


def test_limit_below_one_is_refused() -> None:
    """max_detections is at least 1."""
    with pytest.raises(ConfigError, match="max_detections is 0: give at least 1"):
        evaluate([frame()], STREET_LABELS, max_detections=0)
