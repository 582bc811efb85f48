"""Every figure is pycocotools' own, on random and on awkward scenes."""

import contextlib
import io

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given, settings
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from urbandet_ray.detections import Detections
from urbandet_ray.evaluation import Metrics, curves, evaluate
from urbandet_ray.frames import Truth
from urbandet_ray.labels import STREET_LABELS
from urbandet_ray.runs.detections_table import DetectionRow

CLASS_IDS = list(STREET_LABELS.names)


def _xywh(boxes_xyxy: np.ndarray) -> np.ndarray:
    boxes = boxes_xyxy.astype(np.float64)
    return np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])


def row(index: int, truth: Truth, found: Detections) -> DetectionRow:
    return DetectionRow("", index, f"frame_{index}", "", (640, 640), found, truth)


def reference(frames: list[DetectionRow], max_detections: int = 100) -> COCOeval:
    """pycocotools on the same boxes, unrounded."""
    annotations, results = [], []
    for image_id, frame in enumerate(frames, start=1):
        truth, found = frame.truth, frame.detections
        assert truth is not None
        for box, class_id, crowd in zip(
            _xywh(truth.boxes_xyxy).tolist(), truth.class_ids, truth.is_crowd, strict=True
        ):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(class_id),
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(crowd),
                }
            )
        for box, class_id, score in zip(
            _xywh(found.boxes_xyxy).tolist(), found.class_ids, found.scores, strict=True
        ):
            results.append(
                {
                    "image_id": image_id,
                    "category_id": int(class_id),
                    "bbox": box,
                    "score": float(score),
                }
            )
    with contextlib.redirect_stdout(io.StringIO()):
        truth_set = COCO()
        truth_set.dataset = {
            "images": [{"id": i} for i in range(1, len(frames) + 1)],
            "annotations": annotations,
            "categories": [{"id": i, "name": name} for i, name in STREET_LABELS.names.items()],
        }
        truth_set.createIndex()
        found_set = truth_set.loadRes(results) if results else _nothing(truth_set)
        scored = COCOeval(truth_set, found_set, "bbox")
        scored.params.maxDets = [1, min(10, max_detections), max_detections]
        scored.evaluate()
        scored.accumulate()
        if max_detections == 100:  # pycocotools' summary knows no other number
            scored.summarize()
    return scored


def _nothing(truth_set: COCO) -> COCO:
    """loadRes refuses an empty list."""
    empty = COCO()
    empty.dataset = {**truth_set.dataset, "annotations": []}
    empty.createIndex()
    return empty


def stats(metrics: Metrics) -> list[float]:
    """The twelve in pycocotools' order, with its -1."""
    sizes = metrics.by_size
    figures = [
        *(metrics.map, metrics.ap50, metrics.ap75),
        *(sizes[name].ap for name in ("small", "medium", "large")),
        *(metrics.ar1, metrics.ar10, metrics.ar100),
        *(sizes[name].ar for name in ("small", "medium", "large")),
    ]
    return [-1.0 if figure is None else figure for figure in figures]


def _mean(entries: np.ndarray) -> float:
    return float(entries[entries > -1].mean()) if (entries > -1).any() else -1.0


def assert_same(frames: list[DetectionRow]) -> None:
    metrics, scored = evaluate(frames, STREET_LABELS), reference(frames)
    np.testing.assert_allclose(stats(metrics), scored.stats, rtol=0, atol=1e-6)
    precision, recall = scored.eval["precision"], scored.eval["recall"]
    for k, name in enumerate(STREET_LABELS.names.values()):
        one = metrics.by_class[name]
        got = [one.ap, one.ap50, one.ar100, *one.ap_by_size.values()]
        wanted = [
            _mean(precision[:, :, k, 0, 2]),
            _mean(precision[0, :, k, 0, 2]),
            _mean(recall[:, k, 0, 2]),
            *(_mean(precision[:, :, k, size, 2]) for size in (1, 2, 3)),
        ]
        np.testing.assert_allclose(
            [-1.0 if value is None else value for value in got], wanted, rtol=0, atol=1e-6
        )


def street(seed: int, frames: int, detections: int) -> list[DetectionRow]:
    """Boxes of all sizes, most of them found more or less well, scores with many ties."""
    rng = np.random.default_rng(seed)

    def boxes(n: int) -> np.ndarray:
        low = rng.uniform(0, 600, (n, 2))
        return np.hstack([low, low + np.exp(rng.uniform(1, 5.5, (n, 2)))]).astype(np.float32)

    made = []
    for i in range(frames):
        n = 0 if i % 7 == 0 else int(rng.integers(1, 20))
        truth, class_ids = boxes(n), rng.choice(CLASS_IDS, n)
        hits = min(n, detections)
        near = truth[:hits] + rng.normal(0, 2, (hits, 4))
        near[:, 2:] = np.maximum(near[:, :2], near[:, 2:])
        found = np.vstack([near, boxes(detections - hits)])
        found_ids = np.concatenate([class_ids[:hits], rng.choice(CLASS_IDS, detections - hits)])
        made.append(
            row(
                i,
                Truth.of(truth, class_ids, is_crowd=rng.random(n) < 0.15),
                Detections.of(found, np.round(rng.random(detections), 1), found_ids),
            )
        )
    return made


@pytest.mark.parametrize("seed", range(4))
def test_random_streets(seed: int) -> None:
    """Crowds, ties and empty frames in numbers: the twelve figures and those of each class."""
    assert_same(street(seed, frames=30, detections=25))


def test_frames_of_several_chunks() -> None:
    """Frames are matched in chunks; the figures are those of all frames together."""
    assert_same(street(5, frames=600, detections=4))


def test_sizes_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many detections that sizes are matched in turn, to save memory: the same figures."""
    monkeypatch.setattr(curves, "_MANY_DETECTIONS", 100)
    assert_same(street(8, frames=30, detections=25))


def test_more_detections_than_considered() -> None:
    """Of 400 detections a frame, the best 100 of each class count, ties by the detector's order."""
    assert_same(street(6, frames=4, detections=400))


@pytest.mark.parametrize("most", [1, 5, 30])
def test_other_limit(most: int) -> None:
    """Another max_detections gives pycocotools' figures at that maxDets."""
    frames = street(7, frames=12, detections=60)
    metrics = evaluate(frames, STREET_LABELS, max_detections=most)
    scored = reference(frames, most)
    assert metrics.map == pytest.approx(_mean(scored.eval["precision"][:, :, :, 0, 2]), abs=1e-6)
    for figure, limit in ((metrics.ar1, 0), (metrics.ar10, 1), (metrics.ar100, 2)):
        assert figure == pytest.approx(_mean(scored.eval["recall"][:, :, 0, limit]), abs=1e-6)


# A coarse grid makes equal boxes, zero areas, exact IoU thresholds and size limits frequent.
_corner = st.sampled_from([0, 1, 2, 10, 20, 32, 64, 96, 128])
_side = st.sampled_from([0, 1, 8, 10, 16, 32, 33, 96, 97, 200])
_box = st.tuples(_corner, _corner, _side, _side).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
_class_id = st.sampled_from(CLASS_IDS)
_truth = st.lists(st.tuples(_box, _class_id, st.booleans()), max_size=6).map(
    lambda rows: Truth.of(
        [box for box, _, _ in rows],
        [class_id for _, class_id, _ in rows],
        is_crowd=[crowd for _, _, crowd in rows],
    )
)
_found = st.lists(
    st.tuples(_box, _class_id, st.sampled_from([0.0, 0.25, 0.5, 0.5, 1.0])), max_size=12
).map(
    lambda rows: Detections.of(
        [box for box, _, _ in rows],
        [score for _, _, score in rows],
        [class_id for _, class_id, _ in rows],
    )
)
_frames = st.lists(st.tuples(_truth, _found), min_size=1, max_size=5).map(
    lambda pairs: [row(i, t, d) for i, (t, d) in enumerate(pairs)]
)


@settings(max_examples=100)
@given(_frames)
@example([row(0, Truth.empty(), Detections.empty())])
def test_any_scene(frames: list[DetectionRow]) -> None:
    """Crowds, empty frames, ties, equal boxes and boxes of no area, as hypothesis finds them."""
    assert_same(frames)
