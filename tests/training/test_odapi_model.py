"""The OD API's model as a TrainableModel: its own inputs, losses and detections, in both phases."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import batch_of, street_image, tiny_ssd

from urbandet_ray.errors import ConfigError
from urbandet_ray.frames import Frame, Truth
from urbandet_ray.models import odapi
from urbandet_ray.models.pipeline_config import read_pipeline
from urbandet_ray.models.zoo import model_config_path
from urbandet_ray.records.images import encode_png
from urbandet_ray.records.writer import write_frames
from urbandet_ray.training.finetune.heads import class_rows
from urbandet_ray.training.finetune.rows import RowLayout
from urbandet_ray.training.odapi_model import ActivationPrecision, OdApiModel

# read while tests are collected, so before any of them imports TensorFlow into this process
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
pytestmark = pytest.mark.train


@pytest.fixture(autouse=True)
def keras_as_it_was() -> Iterator[None]:
    """Leaves Keras in float32."""
    yield
    odapi.open_odapi().tf.keras.mixed_precision.set_global_policy("float32")


@pytest.fixture(scope="module")
def model() -> OdApiModel:
    """A tiny SSD, built once."""
    made = OdApiModel(tiny_ssd())
    made.build(2)
    return made


@pytest.fixture(scope="module")
def batch(model: OdApiModel) -> Any:
    """Two images, one of them without boxes."""
    return batch_of(model, street_image(2), street_image(0))


def averages(model: OdApiModel) -> np.ndarray:
    """All moving averages in one row."""
    return np.concatenate([layer.moving_mean.numpy() for layer in model.batch_norms])


def test_losses_are_the_odapis(model: OdApiModel, batch: Any) -> None:
    """Names and values of model_lib_v2's own training step, without its total."""
    opened = odapi.open_odapi()
    features, labels = batch
    ours = model.losses(features, labels)
    theirs_of = opened.model_lib_v2._compute_losses_and_predictions_dicts
    detector = model.trackable
    detector._is_training = True
    opened.tf.keras.backend.set_learning_phase(True)
    unstacked = opened.model_lib.unstack_batch(labels, unpad_groundtruth_tensors=True)
    theirs, _ = theirs_of(detector, features, unstacked, training_step=0)
    opened.tf.keras.backend.set_learning_phase(False)
    total = theirs.pop("Loss/total_loss")
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        assert float(ours[name]) == pytest.approx(float(value), rel=1e-5)
    assert sum(map(float, ours.values())) == pytest.approx(float(total), rel=1e-5)


def test_example_is_what_the_odapis_input_gives(model: OdApiModel, tmp_path: Path) -> None:
    """One record through inputs.train_input, and through its decoder and `example`."""
    opened, config = odapi.open_odapi(), tiny_ssd()
    pixels = np.random.default_rng(3).integers(0, 255, (90, 120, 3), np.uint8)
    truth = Truth.of([[10, 20, 60, 70], [5, 5, 30, 80]], [1, 3], ("vehicle", "cyclist"))
    path = tmp_path / "one.tfrecord"
    write_frames([Frame("a", "one", encode_png(pixels), "png", (120, 90), truth)], path)
    labels_path = tmp_path / "label_map.pbtxt"
    names = ("vehicle", "pedestrian", "cyclist")
    labels_path.write_text(
        "".join(f"item {{ id: {n} name: '{name}' }}\n" for n, name in enumerate(names, 1))
    )
    reader = config.train_input_reader
    reader.label_map_path = str(labels_path)
    reader.tf_record_input_reader.input_path[:] = [str(path)]
    reader.shuffle, reader.num_readers = False, 1
    dataset = opened.inputs.train_input(
        config.train_config, reader, config.model, model.trackable, params={"batch_size": 1}
    )
    theirs, their_labels = next(iter(dataset))
    decoder = opened.tf_example_decoder.TfExampleDecoder(label_map_proto_file=str(labels_path))
    record = next(iter(opened.tf.data.TFRecordDataset(str(path))))
    features, labels = model.example(decoder.decode(record))
    for name, value in {**features, **labels}.items():
        other = (theirs if name in features else their_labels)[name][0]
        np.testing.assert_allclose(value.numpy(), other.numpy(), err_msg=name)
    assert set(labels) == set(their_labels)


def test_losses_move_averages_and_detect_does_not(model: OdApiModel, batch: Any) -> None:
    """Each traced once: training updates batch norm, detecting neither does nor differs after."""
    tf = odapi.open_odapi().tf
    losses, detect = tf.function(model.losses), tf.function(model.detect)
    features, labels = batch
    before = averages(model)
    first = detect(features)
    assert np.array_equal(averages(model), before)
    losses(features, labels)
    moved = averages(model)
    assert not np.allclose(moved, before)
    second, third = detect(features), detect(features)
    assert np.array_equal(averages(model), moved)
    assert np.array_equal(second["detection_scores"], third["detection_scores"])
    assert not np.array_equal(first["detection_scores"], second["detection_scores"])
    losses(features, labels)
    assert not np.allclose(averages(model), moved)


def test_detections(model: OdApiModel, batch: Any) -> None:
    """Boxes within the image, scores falling, classes from 0."""
    found = {name: value.numpy() for name, value in model.detect(batch[0]).items()}
    boxes, scores = found["detection_boxes"], found["detection_scores"]
    assert boxes.shape == (2, 100, 4)
    assert -1e-6 <= boxes.min() <= boxes.max() <= 1 + 1e-6
    assert (np.diff(scores, axis=1) <= 0).all()
    assert set(np.unique(found["detection_classes"])) <= {0.0, 1.0, 2.0}


def test_build_makes_every_variable(model: OdApiModel, batch: Any) -> None:
    """Losses make none, and every moving average has its layer in batch_norms."""
    held = len(model.variables)
    model.losses(*batch)
    assert len(model.variables) == held
    means = [one for one in model.variables if "moving_mean" in one.name]
    assert len(model.batch_norms) == len(means) > 10
    assert len(model.trainable_variables) == held - 2 * len(means)


def test_limits_of_the_config_are_kept(batch: Any) -> None:
    """max_number_of_boxes pads to so many, and the regularization can be left out."""
    config = tiny_ssd()
    config.train_config.max_number_of_boxes = 2
    config.train_config.add_regularization_loss = False
    made = OdApiModel(config)
    features, labels = batch_of(made, street_image(3), street_image(1))
    assert labels["groundtruth_boxes"].shape == (2, 2, 4)
    assert labels["num_groundtruth_boxes"].numpy().tolist() == [2, 1]
    made.build(2)
    names = set(made.losses(features, labels))
    assert names == {"Loss/classification_loss", "Loss/localization_loss"}


def test_bfloat16_is_near_float32(model: OdApiModel, batch: Any) -> None:
    """Of the same weights the losses differ by a few hundredths, in float32 tensors."""
    made = OdApiModel(tiny_ssd(), precision="bfloat16")
    made.build(2)
    for ours, theirs in zip(made.variables, model.variables, strict=True):
        ours.assign(theirs.numpy())
    near, exact = made.losses(*batch), model.losses(*batch)
    for name, value in near.items():
        assert value.dtype.name == "float32"
        assert float(value) == pytest.approx(float(exact[name]), rel=0.05), name


def test_images_of_any_size_are_refused() -> None:
    """A resizer without a fixed size names the settings that give one."""
    config = tiny_ssd()
    config.model.ssd.image_resizer.Clear()
    config.model.ssd.image_resizer.keep_aspect_ratio_resizer.max_dimension = 64
    with pytest.raises(ConfigError, match=r"ssd\.image_resizer gives .*pad_to_max_dimension: true"):
        OdApiModel(config)


@pytest.mark.parametrize(
    ("precision", "said"), [("half", "give one of float32"), ("bfloat16", "use_matmul_crop_and")]
)
def test_precisions_that_do_not_work(precision: ActivationPrecision, said: str) -> None:
    """An unknown one, and one that Faster R-CNN's crops do not know."""
    config = read_pipeline(model_config_path("faster_rcnn_resnet50_v1_640")).message
    with pytest.raises(ConfigError, match=said):
        OdApiModel(config, precision=precision)


def test_small_boxes_teach_nothing() -> None:
    """They weigh nothing; sides are those of the resized image, not the stored one's."""
    every, large = OdApiModel(tiny_ssd()), OdApiModel(tiny_ssd(), min_box_side=24)
    height, width = every.input_size_hw
    _, labels = every.example(street_image(2))
    sides = labels["groundtruth_boxes"].numpy()[:2] * [height, width, height, width]
    sides = (sides[:, 2:] - sides[:, :2]).min(axis=1)
    assert sides[0] < 24 < sides[1]
    assert labels["groundtruth_weights"].numpy()[:2].tolist() == [1, 1]
    _, labels = large.example(street_image(2))
    assert labels["groundtruth_weights"].numpy()[:2].tolist() == [0, 1]


@pytest.fixture(scope="module")
def mask_model() -> OdApiModel:
    """A Faster R-CNN with a mask head at 128 px, and proposals enough to meet a box."""
    config = read_pipeline(model_config_path("mask_rcnn_inception_resnet_v2_640")).message
    rcnn = config.model.faster_rcnn
    rcnn.feature_extractor.type = "faster_rcnn_resnet50_keras"
    rcnn.number_of_stages, rcnn.first_stage_max_proposals = 3, 200
    rcnn.first_stage_nms_iou_threshold = 0.95  # untrained scores must not thin them out
    rcnn.second_stage_batch_size = 16
    size = rcnn.image_resizer.keep_aspect_ratio_resizer
    size.min_dimension = size.max_dimension = 128
    made = OdApiModel(config)
    made.build(1)
    return made


def test_class_heads_of_a_mask_rcnn_are_known(mask_model: OdApiModel) -> None:
    """Fine-tuning finds its rows of classes: scores with background, boxes of 4, masks."""
    found = {
        (rows.part, rows.layout)
        for rows in class_rows(mask_model.trackable, "faster_rcnn").values()
    }
    assert found == {
        ("class head", RowLayout(4, background=1)),
        ("box head", RowLayout(4, width=4)),
        ("mask head", RowLayout(4)),
    }


def test_masks_are_learnt_where_there_are_any(mask_model: OdApiModel) -> None:
    """A record without masks adds no mask loss, one with masks does, and both may share a batch."""
    tf = odapi.open_odapi().tf
    masked = {
        **street_image(2),
        # proposals are clipped to the image, so many meet a box of its size, whatever the weights
        "groundtruth_boxes": tf.constant([[0.0, 0.0, 1.0, 1.0], [0.4, 0.5, 0.9, 0.95]]),
        "groundtruth_instance_masks": tf.ones([2, 90, 120]),
    }
    features, labels = batch_of(mask_model, masked, street_image(1))
    assert labels["groundtruth_instance_mask_weights"][:, :3].numpy().tolist() == [
        [1, 1, 0],
        [0, 0, 0],
    ]
    both = mask_model.losses(features, labels)
    assert float(both["Loss/BoxClassifierLoss/mask_loss"]) > 0
    none = mask_model.losses(*batch_of(mask_model, street_image(2), street_image(1)))
    assert float(none["Loss/BoxClassifierLoss/mask_loss"]) == 0
    assert float(none["Loss/BoxClassifierLoss/classification_loss"]) > 0


def test_models_without_masks_drop_them(model: OdApiModel) -> None:
    """They cost memory and nobody reads them."""
    tf = odapi.open_odapi().tf
    masked = {**street_image(2), "groundtruth_instance_masks": tf.ones([2, 90, 120])}
    _, labels = model.example(masked)
    assert not [name for name in labels if "mask" in name]


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("efficientdet_d0_512", 256),
        ("faster_rcnn_resnet50_v1_640", 128),
        ("centernet_resnet50_v1_fpn_640", 128),
    ],
)
def test_every_architecture_has_a_finite_loss(name: str, side: int) -> None:
    """Built small from configs/models, with an image that has boxes and one that has none."""
    config = read_pipeline(model_config_path(name)).message
    resizer = getattr(config.model, config.model.WhichOneof("model")).image_resizer
    if resizer.HasField("fixed_shape_resizer"):
        resizer.fixed_shape_resizer.height = resizer.fixed_shape_resizer.width = side
    size = resizer.keep_aspect_ratio_resizer
    if resizer.HasField("keep_aspect_ratio_resizer"):
        size.min_dimension = size.max_dimension = side
    made = OdApiModel(config)
    made.build(2)
    losses = made.losses(*batch_of(made, street_image(2), street_image(0)))
    assert len(losses) >= 2
    assert len(class_rows(made.trackable, made.kind)) == 2  # for fine-tuning: kernel and bias
    assert all(np.isfinite(float(value)) for value in losses.values()), losses
