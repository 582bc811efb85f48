"""What a network says of itself, without any runtime, and what cannot become one."""

import os

import numpy as np
import pytest
from tiny_models import tiny_ssd

from urbandet_ray.errors import ConfigError, ModelError
from urbandet_ray.exporting.tracing import trace_network
from urbandet_ray.models import odapi
from urbandet_ray.models.network.facts import (
    Accuracy,
    NetworkFacts,
    Precision,
    Resizing,
    Runtime,
    check_precision,
)
from urbandet_ray.models.network.network_detector import batch_size

# read while tests are collected, so before any of them imports TensorFlow into this process
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")


@pytest.mark.parametrize(
    ("precision", "found", "reference", "objection"),
    [
        ("f32", 0.0, 0.0, None),
        ("fp16", 0.2985, 0.3, None),
        ("fp16", 0.297, 0.3, "fp16 costs 0.003 mAP, allowed are 0.002"),
        ("int8", 0.291, 0.3, None),
        ("int8", 0.0, 0.02, "int8 costs 0.020 mAP, allowed are 0.01"),
        ("int8", 0.0, 0.009, "f32 itself finds next to nothing in val (mAP 0.009), which shows"),
        ("bf16", 0.0, 0.0, "f32 itself finds next to nothing in val"),
    ],
)
def test_a_precision_is_held_to_its_gate(
    precision: Precision, found: float, reference: float, objection: str | None
) -> None:
    """And a comparison to something that can be lost: wrong labels would let everything pass."""
    facts = NetworkFacts(
        runtime="openvino",
        precision=precision,
        answers="raw",
        resizing=Resizing(64, 64),
        rules=None,
        accuracy=Accuracy(found, reference, 100, "val"),
    )
    told = facts.objection()
    assert told == objection or (told and objection and told.startswith(objection))


@pytest.mark.train
def test_a_resizer_without_batches_is_refused() -> None:
    """Padding is what gives images of every size the same anchors."""
    config = tiny_ssd()
    config.model.ssd.image_resizer.keep_aspect_ratio_resizer.min_dimension = 64
    with pytest.raises(ModelError, match="needs fixed_shape_resizer, or keep_aspect_ratio_resizer"):
        trace_network(config, "unused")


@pytest.mark.train
def test_a_first_stage_alone_is_refused() -> None:
    """It answers regions without classes."""
    config = odapi.open_odapi().pipeline_pb2.TrainEvalPipelineConfig()
    config.model.faster_rcnn.number_of_stages = 1
    with pytest.raises(ModelError, match="number_of_stages is 1: a first stage alone finds region"):
        trace_network(config, "unused")


@pytest.mark.parametrize(
    ("size_wh", "expected"),
    [((640, 640), [0, 0, 1, 1]), ((1920, 1280), [0, 0, 427 / 640, 1]), ((10, 40), [0, 0, 1, 0.25])],
)
def test_window_is_what_padding_leaves(size_wh: tuple[int, int], expected: list[float]) -> None:
    """A resizer that keeps the aspect pads right and below; without padding it is the whole."""
    window = Resizing(640, 640, (640, 640)).window(size_wh)
    assert window == pytest.approx(expected)
    assert Resizing(640, 640).window(size_wh).tolist() == [0, 0, 1, 1]


def test_unknown_precision_names_what_there_is() -> None:
    """For the runtime that was asked for."""
    with pytest.raises(
        ConfigError, match="tflite networks are not exported at bf16: give f32, fp1"
    ):
        check_precision("tflite", "bf16")


@pytest.mark.train
@pytest.mark.parametrize(
    ("size_hw", "sampled_hw"),
    [((64, 96), (32, 48)), ((96, 144), (32, 48)), ((32, 48), (32, 48)), ((70, 48), (70, 48))],
)
def test_pixels_that_resizing_would_not_read_are_left_out(
    size_hw: tuple[int, int], sampled_hw: tuple[int, int]
) -> None:
    """Bit for bit what TensorFlow 1's rule makes of the whole image."""
    tf = odapi.open_odapi().tf
    image = np.random.default_rng(2).integers(0, 256, (*size_hw, 3), np.uint8)
    sampled = Resizing(32, 48).sample(image)
    assert sampled.shape[:2] == sampled_hw
    whole, part = (
        tf.compat.v1.image.resize_images(one.astype(np.float32), [32, 48]).numpy()
        for one in (image, sampled)
    )
    assert np.array_equal(whole, part)


@pytest.mark.parametrize(
    ("size_hw", "sampled_hw"),
    [
        ((256, 128), (64, 32)),
        ((128, 256), (32, 64)),
        ((51, 128), (51, 128)),
        ((32, 16), (32, 16)),
        ((1, 200), (1, 200)),
    ],
)
def test_padded_images_are_sampled_to_what_is_seen(
    size_hw: tuple[int, int], sampled_hw: tuple[int, int]
) -> None:
    """The part of the network's input that is no padding stays the same."""
    resizing = Resizing(64, 64, (64, 64))
    sampled = resizing.sample(np.zeros((*size_hw, 3), np.uint8))
    assert sampled.shape[:2] == sampled_hw
    windows = [resizing.window((width, height)) for height, width in (size_hw, sampled_hw)]
    assert windows[0].tolist() == windows[1].tolist()


@pytest.mark.parametrize(
    ("side", "runtime", "images"),
    [
        (64, "openvino", 8),
        (224, "onnx", 4),
        (320, "tflite", 2),
        (320, "openvino", 2),
        (640, "openvino", 1),
        (640, "savedmodel", 2),
        (1280, "openvino", 1),
    ],
)
def test_a_cpu_is_given_fewer_of_larger_images(side: int, runtime: Runtime, images: int) -> None:
    """A GPU gets eight of any size."""
    assert batch_size(Resizing(side, side), runtime, on_gpu=False) == images
    assert batch_size(Resizing(side, side), runtime, on_gpu=True) == 8
