"""The SavedModel backend on tiny models with the OD API's signature."""

import numpy as np
import pytest

from urbandet_ray.config import ModelConfig
from urbandet_ray.errors import LabelError, ModelError
from urbandet_ray.labels import STREET_LABELS
from urbandet_ray.models.loader import find_model, load_detector
from urbandet_ray.storage import Storage

pytestmark = pytest.mark.train

COLOURS = {1: (200, 0, 0), 2: (0, 200, 0), 4: (0, 0, 200)}


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """Writes a SavedModel that boxes the bright half of an image, and its label map."""
    import tensorflow as tf

    def write(batch=1, *, size=(None, None), answers=None, dtype=tf.uint8, top_class=None, **drop):
        def detect(input_tensor):
            pixels = tf.cast(input_tensor, tf.float32)
            means = tf.reduce_mean(pixels, [1, 2])  # [n, 3]
            best = tf.argmax(means, axis=1, output_type=tf.int32)
            classes = tf.gather(tf.constant([1.0, 2.0, 4.0]), best)
            if top_class is not None:
                classes = tf.fill(tf.shape(classes), float(top_class))
            n = tf.shape(means)[0] if answers is None else answers
            boxes = tf.tile(
                tf.constant([[[0.25, 0.0, 0.75, 0.5], [0.0, 0.0, 0.0, 0.0]]]), [n, 1, 1]
            )
            scores = tf.stack(
                [tf.reduce_max(means, axis=1) / 200.0, 0.9 * tf.ones_like(classes)], 1
            )
            out = {
                "detection_boxes": boxes,
                "detection_classes": tf.stack([classes, classes], 1)[:n],
                "detection_scores": scores[:n],
                "num_detections": tf.ones([n]),
            }
            return {name: value for name, value in out.items() if name not in drop}

        folder = tmp_path_factory.mktemp("exported")
        module = tf.Module()
        module.detect = tf.function(detect)
        spec = tf.TensorSpec([batch, *size, 3], dtype, name="input_tensor")
        signature = module.detect.get_concrete_function(spec)
        tf.saved_model.save(module, str(folder / "saved_model"), {"serving_default": signature})
        (folder / "label_map.pbtxt").write_text(STREET_LABELS.to_pbtxt())
        return str(folder)

    return write


def one_colour(class_id, size_wh=(80, 40)):
    """An image the model gives this class."""
    return np.full((size_wh[1], size_wh[0], 3), COLOURS[class_id], np.uint8)


def test_the_stock_export_is_run_one_by_one(export):
    """A graph fixed at one image still answers a batch, in order, in each image's pixels."""
    detector = load_detector(ModelConfig(uri=export(1)), Storage())
    sizes = {1: (80, 40), 4: (100, 200), 2: (80, 40)}
    answers = detector.detect([one_colour(c, size) for c, size in sizes.items()])
    assert [answer.class_ids.tolist() for answer in answers] == [[1], [4], [2]]
    for answer, (width, height) in zip(answers, sizes.values(), strict=True):
        np.testing.assert_allclose(
            answer.boxes_xyxy, [[0, height / 4, width / 2, height * 3 / 4]], rtol=1e-6
        )
        np.testing.assert_allclose(answer.scores, [1.0], rtol=1e-6)


def test_an_open_batch_takes_images_of_one_size_together(export):
    """Two sizes, interleaved: two calls of the graph, answers in the order given."""
    detector = load_detector(ModelConfig(uri=export(None)), Storage())
    calls = []
    run = detector._signature
    detector._signature = lambda **given: calls.append(len(given["input_tensor"])) or run(**given)
    given = [(1, (80, 40)), (2, (64, 64)), (4, (80, 40)), (1, (64, 64)), (2, (80, 40))]
    answers = detector.detect([one_colour(c, size) for c, size in given])
    assert [answer.class_ids.tolist() for answer in answers] == [[c] for c, _ in given]
    assert calls == [3, 2]


def test_a_fixed_size_export_gets_its_size(export):
    """Boxes are normalised, so an image resized for the graph keeps its own pixels."""
    detector = load_detector(ModelConfig(uri=export(None, size=(32, 32))), Storage())
    answers = detector.detect([one_colour(2, (80, 40)), one_colour(1, (32, 32))])
    np.testing.assert_allclose(answers[0].boxes_xyxy, [[0, 10, 40, 30]], rtol=1e-6)
    assert answers[1].class_ids.tolist() == [1]


def test_an_answer_for_fewer_images_is_refused(export):
    """A graph with a baked-in batch answers for one image without saying so."""
    detector = load_detector(ModelConfig(uri=export(None, answers=1)), Storage())
    with pytest.raises(ModelError, match="was given 3 images and answered for 1"):
        detector.detect([one_colour(1)] * 3)


def test_a_model_without_detections_is_refused(export):
    """The outputs found and those expected are named."""
    folder = export(1, detection_boxes=True)
    with pytest.raises(
        ModelError, match=r"outputs detection_classes, .*expected .*detection_boxes"
    ):
        load_detector(ModelConfig(uri=folder), Storage())


def test_a_float_input_is_refused(export):
    """An export of another input type says how to export."""
    import tensorflow as tf

    with pytest.raises(ModelError, match=r"takes input_tensor \(1, None, None, 3\) float32.*uint8"):
        load_detector(ModelConfig(uri=export(1, dtype=tf.float32)), Storage())


def test_a_fixed_batch_of_four_is_refused(export):
    """Neither one by one nor open."""
    with pytest.raises(ModelError, match=r"takes input_tensor \(4, None, None, 3\) uint8"):
        load_detector(ModelConfig(uri=export(4)), Storage())


def test_a_broken_graph_is_refused(tmp_path):
    """A truncated saved_model.pb is named, without TensorFlow's stack."""
    (tmp_path / "saved_model.pb").write_bytes(b"\x08\x01\x12\xff\xff")
    (tmp_path / "label_map.pbtxt").write_text(STREET_LABELS.to_pbtxt())
    with pytest.raises(ModelError, match=r"does not load as a SavedModel .*export it again"):
        load_detector(ModelConfig(uri=str(tmp_path)), Storage())


def test_a_keras_saved_model_is_refused(tmp_path):
    """A SavedModel without serving signature is no detector."""
    import tensorflow as tf

    tf.saved_model.save(tf.Module(), str(tmp_path))
    (tmp_path / "label_map.pbtxt").write_text(STREET_LABELS.to_pbtxt())
    with pytest.raises(ModelError, match="a SavedModel with no serving_default signature"):
        load_detector(ModelConfig(uri=str(tmp_path)), Storage())


def test_a_class_beyond_the_label_map_is_named(export):
    """A COCO model with the street label map fails at its first such detection."""
    detector = load_detector(ModelConfig(uri=export(1, top_class=17)), Storage())
    with pytest.raises(LabelError, match=r"class id 17 \(index 16\).*ends at id 4"):
        detector.detect([one_colour(1)])


def test_the_fingerprint_sees_the_whole_folder(export, tmp_path):
    """Another graph, another fingerprint; a copy elsewhere has the same."""
    import shutil

    first, second = export(1), export(None)
    shutil.copytree(first, tmp_path / "copy")
    prints = [
        find_model(ModelConfig(uri=uri), Storage()).fingerprint(Storage())
        for uri in (first, second, str(tmp_path / "copy"))
    ]
    assert prints[0] == prints[2] != prints[1]
