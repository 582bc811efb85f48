"""The TFLite backend on a real, tiny model whose right answer is known."""

import numpy as np
import pytest

from urbandet_ray.config import ModelConfig
from urbandet_ray.errors import LabelError, ModelError
from urbandet_ray.labels import STREET_LABELS
from urbandet_ray.models.answers import AnswerRules
from urbandet_ray.models.backends.tflite import TfliteDetector, TfliteFile
from urbandet_ray.models.backends.tflite_file import read_tflite_facts
from urbandet_ray.models.classes import ClassTable, class_table, parse_model_labels
from urbandet_ray.models.loader import load_detector
from urbandet_ray.storage import Storage

RED, GREEN, BLUE = (255, 0, 0), (0, 204, 0), (0, 0, 153)


def load(path, **settings):
    return load_detector(
        ModelConfig(uri=path, **{"mean": 0.0, "std": 255.0, **settings}), Storage()
    )


@pytest.mark.parametrize("kind", ["FLOAT32", "UINT8", "INT8"])
def test_boxes_scores_and_classes_are_exact(grid, grid_file, kind):
    """Each input type gives boxes in the image's pixels, cut to it, best score first."""
    size_wh = (640, 320)
    image = grid.paint({(2, 1): GREEN, (0, 0): RED, (3, 3): BLUE}, size_wh)
    (found,) = load(grid_file(kind)).detect([image])
    expected = [grid.box(0, 0, size_wh), grid.box(2, 1, size_wh), grid.box(3, 3, size_wh)]
    np.testing.assert_allclose(found.boxes_xyxy, expected, atol=0.01)
    np.testing.assert_allclose(found.scores, [1.0, 0.8, 0.6], atol=0.005)
    assert found.class_ids.tolist() == [1, 2, 4]
    assert found.boxes_xyxy.dtype == np.float32


def test_a_batch_of_odd_sizes_keeps_its_order(grid, grid_file):
    """Every image gets its own pixels, and buffers of one do not leak into the next."""
    sizes = [(64, 64), (300, 97), (640, 640)]
    images = [grid.paint({(1, i): RED}, size) for i, size in enumerate(sizes)]
    answers = load(grid_file()).detect([*images, np.zeros((50, 50, 3), np.uint8)])
    for i, size in enumerate(sizes):
        np.testing.assert_allclose(answers[i].boxes_xyxy[0], grid.box(1, i, size), atol=0.01)
    assert len(answers[3]) == 0


def test_a_view_of_an_image_is_read_right(grid, grid_file):
    """A tile cut out of a larger frame, not contiguous in memory, detects like its copy."""
    frame = np.zeros((400, 400, 3), np.uint8)
    frame[100:300, 50:250] = grid.paint({(1, 2): RED}, (200, 200))
    (found,) = load(grid_file()).detect([frame[100:300, 50:250]])
    np.testing.assert_allclose(found.boxes_xyxy[0], grid.box(1, 2, (200, 200)), atol=0.01)


def test_score_min_and_max_detections_cut_the_answer(grid, grid_file):
    """Below score_min nothing is kept, and of the rest the best max_detections."""
    image = grid.paint({(0, 0): BLUE, (1, 2): RED, (3, 0): GREEN}, (64, 64))
    assert load(grid_file(), score_min=0.7).detect([image])[0].class_ids.tolist() == [1, 2]
    assert load(grid_file(), max_detections=1).detect([image])[0].class_ids.tolist() == [1]


def test_normalisation_comes_from_the_metadata(grid, grid_file):
    """Mean and std written into TFLite Metadata are used, a channel each."""
    path = grid_file(normalisation=([0.0, 0.0, 0.0], [255.0, 510.0, 255.0]))
    image = grid.paint({(0, 0): (255, 0, 0), (2, 2): (0, 255, 0)}, (64, 64))
    (found,) = load(path, mean=None, std=None).detect([image])
    np.testing.assert_allclose(found.scores, [1.0, 0.5], atol=1e-4)


def test_normalisation_defaults_to_the_od_api(grid, grid_file):
    """Without metadata pixels go to [-1, 1]: a half-bright cell scores about 0."""
    image = grid.paint({(0, 0): (255, 0, 0), (2, 2): (191, 0, 0)}, (64, 64))
    (found,) = load(grid_file(), mean=None, std=None).detect([image])
    np.testing.assert_allclose(found.scores, [1.0, 191 / 127.5 - 1], atol=1e-4)


def test_a_spec_beats_the_metadata(grid, grid_file):
    """Mean and std of the config are stronger than those in the file."""
    path = grid_file(normalisation=([0.0], [255.0]))
    (found,) = load(path, mean=0.0, std=510.0).detect([grid.paint({(0, 0): RED}, (64, 64))])
    np.testing.assert_allclose(found.scores, [0.5], atol=1e-4)


def test_outputs_are_found_by_the_op_not_by_name(grid):
    """Graph outputs in reverse and with misleading names do not mix up boxes and scores."""
    facts = read_tflite_facts(grid.detector(name="StatefulPartitionedCall"), "grid.tflite")
    assert [facts.boxes, facts.classes, facts.scores, facts.count] == sorted(
        [facts.boxes, facts.classes, facts.scores, facts.count]
    )
    assert facts.class_count == 3


def test_resize_is_within_one_grey_level_of_tensorflow_s_rule(grid, tmp_path):
    """The input equals half-pixel bilinear sampling (tf.image.resize) but for rounding."""
    image = np.random.default_rng(7).integers(0, 256, (97, 131, 3)).astype(np.uint8)
    file = TfliteFile(_written(tmp_path, grid.detector("UINT8")), "grid", 1)
    detector = TfliteDetector(file, _rules(), None, None)
    ours = detector._prepare(image)[0].astype(np.float64)
    assert np.abs(ours - _half_pixel_bilinear(image, grid.side)).max() <= 1.0


@pytest.mark.train
def test_resize_agrees_with_tensorflow(grid, tmp_path):
    """Against tf.image.resize itself: at most one grey level, a third of one on average."""
    import tensorflow as tf

    image = np.random.default_rng(7).integers(0, 256, (97, 131, 3)).astype(np.uint8)
    file = TfliteFile(_written(tmp_path, grid.detector("UINT8")), "grid", 1)
    ours = TfliteDetector(file, _rules(), None, None)._prepare(image)[0].astype(np.float64)
    theirs = tf.image.resize(image, (grid.side, grid.side), antialias=False).numpy()
    assert np.abs(ours - theirs).max() <= 1.0
    assert np.abs(ours - theirs).mean() <= 1 / 3


@pytest.mark.parametrize("size", [0, 20, 1500])
def test_a_truncated_file_is_a_model_error(grid, tmp_path, size):
    """A cut .tflite is refused with what to do, at whatever byte it was cut."""
    path = _written(tmp_path, grid.detector()[:size])
    (tmp_path / "labels.txt").write_text("vehicle\npedestrian\ncyclist\n")
    kind = "an empty file" if size == 0 else f"no complete TFLite model .* got {size} bytes"
    with pytest.raises(ModelError, match=kind):
        load(str(path))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            {"post_process": False},
            r"without the TFLite_Detection_PostProcess op \(its outputs: \[1, 16, 3\]\)",
        ),
        ({"channels": 1}, r"takes \[1, 64, 64, 1\] float32; expected one RGB image"),
        ({"side": 4}, r"does not fix its input size \(got \[1, 4, 4, 3\]\)"),
    ],
)
def test_another_kind_of_tflite_model_is_refused(grid_file, make, message):
    """A model that is no detector of RGB images says what it has and what is expected."""
    with pytest.raises(ModelError, match=message):
        load(grid_file(**make))


def test_an_unknown_operator_is_a_model_error(grid_file):
    """A model that needs operators of another runtime is refused when it is loaded."""
    with pytest.raises(ModelError, match=r"needs operators this runtime does not have .*NoSuchOp"):
        load(grid_file(custom_op="NoSuchOp"))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((64, 64), np.uint8),
        np.zeros((64, 64, 4), np.uint8),
        np.zeros((64, 64, 3), np.float32),
        np.zeros((0, 64, 3), np.uint8),
    ],
)
def test_what_is_no_rgb_image_is_refused(grid_file, image):
    """Grey, RGBA, float and empty images are named, not guessed at."""
    with pytest.raises(ModelError, match=r"takes images \[height, width, 3\] uint8 RGB; got"):
        load(grid_file()).detect([image])


def test_numbers_that_are_not_finite_are_dropped():
    """NaN and infinite scores or boxes leave no trace; good ones beside them stay."""
    boxes = np.array([[0.1, 0.1, 0.5, 0.5]] * 5, np.float32)
    boxes[0, 2], boxes[1, 0] = np.nan, np.inf
    scores = np.array([0.9, 0.9, np.nan, np.inf, 0.8], np.float32)
    found = _rules().read(boxes, scores, np.ones(5, np.int32), (100, 100))
    assert found.scores.tolist() == [pytest.approx(0.8)]


def test_boxes_without_area_in_the_image_are_dropped():
    """A box beyond the border, inverted or flat is no detection."""
    boxes = np.array(
        [[1.1, 0.1, 1.3, 0.2], [0.5, 0.5, 0.4, 0.4], [0.2, 0.2, 0.2, 0.9], [-0.5, 0, 0.5, 1]],
        np.float32,
    )
    found = _rules().read(boxes, np.full(4, 0.9, np.float32), np.ones(4, np.int32), (100, 50))
    assert found.boxes_xyxy.tolist() == [[0, 0, 100, 25]]


def test_a_class_beyond_the_label_map_is_named():
    """The error names the class's id and index, and where the map ends."""
    boxes = np.array([[0.1, 0.1, 0.5, 0.5]], np.float32)
    rules = _rules()
    with pytest.raises(LabelError, match=r"class id 6 \(index 5\).*names ends at id 3"):
        rules.read(boxes, np.array([0.9], np.float32), np.array([6], np.int32), (9, 9))
    assert len(rules.read(boxes, np.array([0.1], np.float32), np.array([6], np.int32), (9, 9))) == 0


def test_unmapped_classes_are_dropped():
    """Classes without a counterpart in the run's label map vanish from the answer."""
    table = ClassTable(STREET_LABELS, np.array([0, 1, 0, 2], np.int32), "names")
    boxes = np.array([[0.1, 0.1, 0.5, 0.5]] * 3, np.float32)
    found = AnswerRules(table, 0.3, 100).read(
        boxes, np.array([0.5, 0.6, 0.7], np.float32), np.array([1, 2, 3], np.int32), (9, 9)
    )
    assert found.class_ids.tolist() == [2, 1]


def _rules():
    labels = parse_model_labels("vehicle\npedestrian\ncyclist\n", "names")
    return AnswerRules(class_table(labels, STREET_LABELS, None, 3), 0.3, 100)


def _written(folder, content):
    path = folder / "grid.tflite"
    path.write_bytes(content)
    return path


def _half_pixel_bilinear(image, side):
    """tf.image.resize(method=bilinear, antialias=False), in float64."""

    def taps(size):
        at = np.clip((np.arange(side) + 0.5) * size / side - 0.5, 0, size - 1)
        low = np.floor(at).astype(int)
        return low, np.minimum(low + 1, size - 1), at - low

    y0, y1, wy = taps(image.shape[0])
    x0, x1, wx = taps(image.shape[1])
    pixels, wy, wx = image.astype(np.float64), wy[:, None, None], wx[None, :, None]
    top = pixels[y0][:, x0] * (1 - wx) + pixels[y0][:, x1] * wx
    bottom = pixels[y1][:, x0] * (1 - wx) + pixels[y1][:, x1] * wx
    return top * (1 - wy) + bottom * wy
