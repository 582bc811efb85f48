"""Post-processing outside the network answers what the OD API's own does."""

import importlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny_ssd

from urbandet_ray.models import odapi
from urbandet_ray.models.network import postprocess, suppression
from urbandet_ray.models.network.postprocess import (
    UNIT_WINDOW,
    Found,
    PostProcess,
    decode_boxes,
    detect_from_boxes,
    detect_from_raw,
)

# read while tests are collected, so before any of them imports TensorFlow into this process
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

RULES = PostProcess(
    score_converter="identity",
    background=False,
    score_min=1e-8,
    iou_max=0.5,
    max_per_class=100,
    max_total=100,
)
GRID = np.array([-0.25, 0, 0.125, 0.25, 0.5, 0.75, 1, 1.25], np.float32)
"""Corners: from these boxes are often equal, empty, turned around or outside the window."""
LEVELS = np.array([0, 1e-9, 0.25, 0.3, 0.9, 1, np.nan, -0.5], np.float32)

rules_of = st.builds(
    replace,
    st.just(RULES),
    score_min=st.sampled_from([-1.0, 0.0, 1e-8, 0.25]),
    iou_max=st.sampled_from([0.0, 1 / 3, 0.5, 0.6, 0.7, 1.0]),
    max_per_class=st.sampled_from([1, 3, 100]),
    max_total=st.sampled_from([1, 4, 100]),
    class_agnostic=st.booleans(),
    change_coordinate_frame=st.booleans(),
    soft_nms_sigma=st.sampled_from([0.0, 0.0, 0.1, 0.5]),
)
seeds = st.integers(0, 2**32 - 1).map(np.random.default_rng)


@st.composite
def cases(draw: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes [n, a, q, 4], scores [n, a, c] and windows [n, 4]."""
    rng = draw(seeds)
    n, anchors, classes = (draw(st.sampled_from(sizes)) for sizes in ([1, 3], [1, 25, 60], [1, 4]))
    boxes = rng.choice(GRID, (n, anchors, draw(st.sampled_from([1, classes])), 2, 2))
    rising = rng.random((*boxes.shape[:3], 1, 1)) < 0.8
    boxes = np.where(rising, np.sort(boxes, axis=3), boxes).reshape(*boxes.shape[:3], 4)
    levels = rng.choice(LEVELS, draw(st.integers(2, 5)))
    windows = rng.choice(np.array([UNIT_WINDOW, (0, 0, 0.6, 1), (0.1, 0, 1, 0.7)], np.float32), n)
    return boxes, rng.choice(levels, (n, anchors, classes)), windows


@st.composite
def rounds(draw: Any) -> Any:
    """Steps so small that even few anchors are ranked in several rounds and blocks."""
    first, sampled, block = (draw(st.integers(1, most)) for most in (30, 7, 20))

    @contextmanager
    def small() -> Iterator[None]:
        patch = mock.patch.multiple
        with (
            patch(postprocess, _FIRST=first, _SAMPLED=sampled, _BLOCK=block),
            patch(suppression, _CHUNK=block),
        ):
            yield

    return small()


def reference(
    boxes: np.ndarray, scores: np.ndarray, windows: np.ndarray, rules: PostProcess
) -> list[Found]:
    """The same from the OD API's batch_multiclass_non_max_suppression."""
    tf = odapi.open_odapi().tf
    module = importlib.import_module("object_detection.core.post_processing")
    with tf.device("cpu:0"):
        found = module.batch_multiclass_non_max_suppression(
            tf.constant(boxes),
            tf.constant(scores),
            score_thresh=rules.score_min,
            iou_thresh=rules.iou_max,
            max_size_per_class=rules.max_per_class,
            max_total_size=rules.max_total,
            clip_window=tf.constant(windows),
            change_coordinate_frame=rules.change_coordinate_frame,
            soft_nms_sigma=rules.soft_nms_sigma,
            use_class_agnostic_nms=rules.class_agnostic,
        )
    return unpadded(*found[:3], found[5])


def unpadded(boxes: Any, scores: Any, classes: Any, counts: Any) -> list[Found]:
    """The OD API's answers without what fills them up."""
    columns = [np.asarray(boxes), np.asarray(scores), np.asarray(classes)]
    sizes = np.asarray(counts).astype(int)
    return [Found(*(column[i, :k] for column in columns)) for i, k in enumerate(sizes)]


def assert_same(found: list[Found], expected: list[Found], *, rtol: float = 0) -> None:
    """Equal in number, order, classes, and within `rtol` in scores and boxes."""
    assert [len(one.scores) for one in found] == [len(one.scores) for one in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.classes, other.classes)
        np.testing.assert_allclose(one.scores, other.scores, rtol=rtol)
        np.testing.assert_allclose(one.boxes_yxyx, other.boxes_yxyx, rtol=rtol, atol=rtol)
        assert [column.dtype for column in one] == [np.float32, np.float32, np.int32]


def shared_or_own(boxes: np.ndarray) -> np.ndarray:
    """[n, a, 1, 4] as [n, a, 4], as `detect_from_boxes` takes boxes that classes share."""
    return boxes[:, :, 0] if boxes.shape[2] == 1 else boxes


@cache
def scene(n: int = 2, anchors: int = 5000, classes: int = 3) -> tuple[np.ndarray, ...]:
    """Box encodings, logits and anchors of which many overlap; every logit is another."""
    rng = np.random.default_rng(7)
    centers, sizes = rng.uniform(0, 1, (anchors, 2)), rng.uniform(0.02, 0.4, (anchors, 2))
    boxes = np.concatenate([centers - sizes / 2, centers + sizes / 2], axis=1)
    count = n * anchors * classes
    logits = rng.permutation(np.linspace(-9, 4, count)).reshape(n, anchors, classes)
    deltas = rng.normal(0, 0.5, (n, anchors, 4))
    return deltas.astype(np.float32), logits.astype(np.float32), boxes.astype(np.float32)


@pytest.mark.train
@settings(max_examples=60, deadline=None)
@given(cases(), rules_of, rounds())
def test_same_as_the_od_api(case: Any, rules: PostProcess, steps: Any) -> None:
    """Ties, equal, empty, turned and outlying boxes, NaN scores: all as in the OD API, bit by bit.

    Soft-NMS takes powers, so there it is equal up to their rounding.
    """
    boxes, scores, windows = case
    with steps:
        found = detect_from_boxes(shared_or_own(boxes), scores, rules, windows_yxyx=windows)
    rtol = 2e-6 if rules.soft_nms_sigma else 0
    assert_same(found, reference(boxes, scores, windows, rules), rtol=rtol)


APART = [[0, 0, 0.5, 0.5], [0, 0.5, 0.5, 1], [0.5, 0, 1, 0.5]]
LOWERED = float(np.float32(0.9) * np.float32(np.exp(-0.25)))  # of an overlap of 0.5, sigma 0.5


@pytest.mark.train
@pytest.mark.parametrize(
    ("boxes", "scores", "change", "answered"),
    [
        (APART, [0.25, 0.26, 0.24], {"score_min": 0.25}, [0.26]),
        (APART, [0.0, -0.5, 0.2], {"score_min": -1.0}, [0.2, 0.0]),
        ([[0, 0, 1, 1], [0, 0, 0.5, 1]], [1.0, 0.9], {"iou_max": 0.5}, [1.0, 0.9]),
        ([[0, 0, 1.25, 1], [0.125, 0, 1, 1]], [1.0, 0.9], {"iou_max": 0.7}, [1.0, 0.9]),
        ([[0, 0, 0, 1], *APART], [1.0, 0.9, 0.8, 0.7], {"max_per_class": 2}, [0.9]),
        ([[0, 0, 0, 1], *APART], [1.0, 0.9, 0.8, 0.7], {"max_total": 2}, [0.9, 0.8]),
        ([[0, 0, 1, 2], [0, 0, 1, 1]], [1.0, 0.9], {"iou_max": 0.5}, [1.0, 0.9]),
        (
            [[0, 0, 1, 1], [0, 2, 1, 3], [0, 0, 0.5, 1]],
            [1.0, LOWERED, 0.9],
            {"soft_nms_sigma": 0.5, "max_per_class": 2},
            [1.0],
        ),
    ],
    ids=["floor", "negative", "iou", "rounded iou", "per class", "total", "unclipped", "soft tie"],
)
def test_edges(
    boxes: list[list[float]], scores: list[float], change: dict[str, Any], answered: list[float]
) -> None:
    """Limits are strict; empty boxes fill a class, not the total; clipping is after overlaps."""
    given, columns = np.array([boxes], np.float32), np.array([scores], np.float32)[:, :, None]
    rules, windows = replace(RULES, **change), np.array([UNIT_WINDOW], np.float32)
    found = detect_from_boxes(given, columns, rules, windows_yxyx=windows)
    np.testing.assert_allclose(found[0].scores, answered)
    assert_same(found, reference(given[:, :, None], columns, windows, rules))


@pytest.mark.train
@pytest.mark.parametrize(
    ("change", "classes"),
    [({}, 3), ({}, 90), ({"class_agnostic": True}, 3), ({"max_total": 300}, 3)],
    ids=str,
)
def test_same_on_many_anchors(change: dict[str, Any], classes: int) -> None:
    """5,000 anchors, ties among them, ranked in several rounds."""
    deltas, logits, anchors = scene(classes=classes)
    boxes = decode_boxes(deltas, anchors, RULES.box_scales)
    scores = np.round(np.exp(logits / 5 - 1), 3)
    rules = replace(RULES, **change)
    windows = np.array([UNIT_WINDOW, (0, 0, 0.75, 1)], np.float32)
    with mock.patch.multiple(postprocess, _FIRST=64):
        found = detect_from_boxes(boxes, scores, rules, windows_yxyx=windows)
    assert_same(found, reference(boxes[:, :, None], scores, windows, rules))
    assert len(np.unique(found[0].scores)) < len(found[0].scores) > 50


@pytest.mark.train
@given(seeds)
@settings(max_examples=20, deadline=None)
def test_decodes_like_the_box_coder(rng: np.random.Generator) -> None:
    """Boxes of FasterRcnnBoxCoder, empty anchors and infinite sizes included."""
    tf = odapi.open_odapi().tf
    coder = importlib.import_module("object_detection.box_coders.faster_rcnn_box_coder")
    boxes = importlib.import_module("object_detection.core.box_list").BoxList
    scales = (10.0, 10.0, 5.0, 5.0) if rng.random() < 0.5 else (1.0, 2.0, 3.0, 4.0)
    anchors = np.sort(rng.choice(GRID, (40, 2, 2)), axis=1).reshape(40, 4)
    deltas = rng.normal(0, 3, (40, 4)).astype(np.float32)
    deltas[0, 2:] = 500
    expected = coder.FasterRcnnBoxCoder(list(scales)).decode(deltas, boxes(tf.constant(anchors)))
    found = decode_boxes(deltas, anchors, scales)
    np.testing.assert_allclose(found, expected.get().numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.train
@pytest.mark.parametrize("score_min", [1e-8, 0.4], ids=str)
@pytest.mark.parametrize("background", [False, True], ids=["", "background"])
@pytest.mark.parametrize("converter", ["sigmoid", "softmax", "identity"])
def test_converts_like_the_od_api(converter: Any, background: bool, score_min: float) -> None:
    """What the OD API's builder makes of the same settings gives the same from logits."""
    tf = odapi.open_odapi().tf
    builder = importlib.import_module("object_detection.builders.post_processing_builder")
    proto = importlib.import_module("object_detection.protos.post_processing_pb2").PostProcessing
    config = proto(score_converter=converter.upper(), logit_scale=1.5)
    config.batch_non_max_suppression.score_threshold = score_min
    suppressor, convert = builder.build(config)
    deltas, logits, anchors = scene(anchors=600)
    boxes = decode_boxes(deltas, anchors, RULES.box_scales)
    scores = convert(tf.constant(logits))[:, :, int(background) :]
    window = tf.constant(UNIT_WINDOW)
    padded = suppressor(tf.constant(boxes[:, :, None]), scores, clip_window=window)
    expected = unpadded(*padded[:3], padded[5])
    rules = replace(RULES, score_converter=converter, background=background, logit_scale=1.5)
    rules = replace(rules, score_min=score_min, iou_max=0.6)
    assert len(expected[0].scores) > 20
    assert_same(detect_from_raw(deltas, logits, anchors, rules), expected, rtol=2e-6)


@pytest.mark.train
def test_same_as_a_models_own() -> None:
    """A real SSD's predictions give what its postprocess gives, for padded images too."""
    opened = odapi.open_odapi()
    tf, config = opened.tf, tiny_ssd().model
    model = opened.model_builder.build(config, is_training=False)
    rng = np.random.default_rng(3)
    images = rng.uniform(0, 255, (3, 64, 64, 3)).astype(np.float32)
    shapes = np.array([[64, 64, 3], [40, 64, 3], [64, 31, 3]], np.int32)
    predict = tf.function(lambda x: model.predict(model.preprocess(x)[0], tf.constant(shapes)))
    predict.get_concrete_function(tf.constant(images))
    for weight in model.trainable_variables:  # as they come, an image moves no logit
        if "kernel" in weight.name:
            inputs = np.prod(weight.shape[: 2 if "depthwise" in weight.name else 3])
            weight.assign(rng.normal(0, (2 / inputs) ** 0.5, weight.shape))
    raw = predict(tf.constant(images))
    answer = model.postprocess(raw, shapes)
    ssd = config.ssd.post_processing
    nms = ssd.batch_non_max_suppression
    rules = PostProcess(
        score_converter="sigmoid",
        score_min=nms.score_threshold,
        iou_max=nms.iou_threshold,
        max_per_class=nms.max_detections_per_class,
        max_total=nms.max_total_detections,
        change_coordinate_frame=nms.change_coordinate_frame,
    )
    windows = np.array([[0, 0, h / 64, w / 64] for h, w, _ in shapes])
    found = detect_from_raw(
        raw["box_encodings"].numpy(),
        raw["class_predictions_with_background"].numpy(),
        raw["anchors"].numpy(),
        rules,
        windows_yxyx=windows,
    )
    names = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")
    expected = unpadded(*(answer[name] for name in names))
    assert min(len(one.scores) for one in expected) > 20
    assert_same(found, expected, rtol=1e-5)


@given(cases(), rules_of, rounds(), st.sampled_from([0.1, 0.25, 0.4, 1.0]))
@settings(deadline=None)
def test_higher_floor_gives_a_prefix(
    case: Any, rules: PostProcess, steps: Any, score_min: float
) -> None:
    """Raising score_min leaves what scores above it, in the same order, and nothing else."""
    boxes, scores, windows = case
    full = detect_from_boxes(shared_or_own(boxes), scores, rules, windows_yxyx=windows)
    raised = replace(rules, score_min=max(score_min, rules.score_min))
    with steps:
        found = detect_from_boxes(shared_or_own(boxes), scores, raised, windows_yxyx=windows)
    above = [np.count_nonzero(one.scores > np.float32(raised.score_min)) for one in full]
    prefixes = [[column[:k] for column in one] for one, k in zip(full, above, strict=True)]
    assert_same(found, [Found(*columns) for columns in prefixes])


@pytest.mark.parametrize(
    "change",
    [{}, {"soft_nms_sigma": 0.5}, {"background": True}, {"class_agnostic": True}],
    ids=str,
)
def test_floor_on_logits_gives_a_prefix(change: dict[str, Any]) -> None:
    """The same from 5,000 anchors' logits, where the floor decides what is looked at.

    Above the higher one are few anchors, which are taken out first.
    """
    deltas, logits, anchors = scene()
    rules = replace(RULES, score_converter="sigmoid", max_total=250, **change)
    full = detect_from_raw(deltas, logits, anchors, replace(rules, score_min=0.5))
    found = detect_from_raw(deltas, logits, anchors, replace(rules, score_min=0.98))
    for one, other in zip(found, full, strict=True):
        count = len(one.scores)
        assert 10 < count == np.count_nonzero(other.scores > np.float32(0.98)) < len(other.scores)
        for column, longer in zip(one, other, strict=True):
            np.testing.assert_array_equal(column, longer[:count])


def test_equal_scores_of_different_logits() -> None:
    """Where the sigmoid rounds to 1 the lower index is first, though its logit is lower."""
    logits = np.linspace(20, 30, 3000, dtype=np.float32)[None, :, None]
    corners = np.arange(3000, dtype=np.float32) / 3000
    anchors = np.stack([corners, corners, corners + 2e-4, corners + 2e-4], axis=1)
    rules = replace(RULES, score_converter="sigmoid")
    (found,) = detect_from_raw(np.zeros((1, 3000, 4)), logits, anchors, rules)
    assert set(found.scores) == {1}
    np.testing.assert_allclose(found.boxes_yxyx[:, 0], corners[:100], atol=1e-6)


@pytest.mark.parametrize("converter", ["sigmoid", "softmax", "identity"])
@pytest.mark.parametrize("agnostic", [False, True], ids=["", "agnostic"])
def test_nan_is_no_detection(converter: Any, agnostic: bool) -> None:
    """Anchors with a NaN logit or box are left out and leave the others alone."""
    deltas, logits, anchors = (column.copy() for column in scene(anchors=1500))
    rules = replace(RULES, score_converter=converter, class_agnostic=agnostic)
    logits[0, 700:800], deltas[0, 800:900, 0], deltas[0, 900:1000, 3] = np.nan, np.nan, np.nan
    sound = np.r_[0:700, 1000:1500]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = detect_from_raw(deltas[:1], logits[:1], anchors, rules)
    expected = detect_from_raw(deltas[:1, sound], logits[:1, sound], anchors[sound], rules)
    assert len(expected[0].scores) > 50
    assert_same(found, expected)


def test_nan_of_one_class() -> None:
    """Under a sigmoid the anchor's other classes stand."""
    boxes = np.array([[[0, 0, 1, 1]]])
    (found,) = detect_from_boxes(boxes, np.array([[[np.nan, 0.5]]]), RULES)
    assert (found.scores.tolist(), found.classes.tolist()) == ([0.5], [1])


def test_infinite_box_ends_at_the_window() -> None:
    """A size that overflows gives the window, without a warning."""
    deltas, anchors = np.array([[[0, 0, 600, 600]]]), np.array([[0.2, 0.2, 0.4, 0.4]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (found,) = detect_from_raw(deltas, np.ones((1, 1, 1)), anchors, RULES)
    assert found.boxes_yxyx.tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize(
    ("shape", "score"), [((2, 5, 3), 0.0), ((2, 5, 3), np.nan), ((2, 0, 3), 1.0), ((0, 5, 3), 1.0)]
)
@pytest.mark.parametrize("agnostic", [False, True], ids=["", "agnostic"])
def test_nothing_found(shape: tuple[int, ...], score: float, agnostic: bool) -> None:
    """No score above the floor, no anchors or no images: empty answers of the right types."""
    boxes = np.broadcast_to(np.array([0, 0, 1, 1]), (*shape[:2], 4))
    rules = replace(RULES, class_agnostic=agnostic)
    nothing = Found(np.empty((0, 4)), np.empty(0), np.empty(0))
    assert_same(detect_from_boxes(boxes, np.full(shape, score), rules), [nothing] * shape[0])
