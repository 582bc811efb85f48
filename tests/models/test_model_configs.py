"""configs/models: every file parses, fits a short run on street scenes, and builds."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from urbandet_ray.labels import STREET_LABELS
from urbandet_ray.models import odapi
from urbandet_ray.models.pipeline_config import read_pipeline

# read while tests are collected, so before any of them imports TensorFlow into this process
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

FOLDER = Path(__file__).parents[2] / "configs" / "models"
CONFIGS = sorted(path.stem for path in FOLDER.glob("*.config"))
COST = re.compile(r"Cost: ([\d.]+) M parameters, ([\d.]+) GFLOPs")

every_config = pytest.mark.parametrize("name", CONFIGS)


def read(name: str) -> Any:
    """One config as the OD API's message."""
    return read_pipeline(FOLDER / f"{name}.config").message


def model_of(config: Any) -> Any:
    """The block of its meta-architecture."""
    return getattr(config.model, config.model.WhichOneof("model"))


def input_side(config: Any) -> int:
    """The square's side that images are resized to."""
    resizer = model_of(config).image_resizer
    if resizer.HasField("fixed_shape_resizer"):
        assert resizer.fixed_shape_resizer.height == resizer.fixed_shape_resizer.width
        return int(resizer.fixed_shape_resizer.height)
    assert resizer.keep_aspect_ratio_resizer.pad_to_max_dimension
    return int(resizer.keep_aspect_ratio_resizer.max_dimension)


def learning_rate(config: Any) -> Any:
    """Its cosine schedule, whatever the optimizer."""
    optimizer = config.train_config.optimizer
    return getattr(optimizer, optimizer.WhichOneof("optimizer")).learning_rate


def test_all_families_are_there() -> None:
    """One file each, the MobileNet in three sizes."""
    assert CONFIGS == [
        "centernet_resnet50_v1_fpn_640",
        "efficientdet_d0_512",
        "efficientdet_d1_640",
        "faster_rcnn_inception_resnet_v2_640",
        "faster_rcnn_resnet152_v1_640",
        "faster_rcnn_resnet50_v1_640",
        "mask_rcnn_inception_resnet_v2_640",
        "ssd_mobilenet_v2_fpnlite_1280",
        "ssd_mobilenet_v2_fpnlite_320",
        "ssd_mobilenet_v2_fpnlite_640",
        "ssd_resnet50_v1_fpn_640",
    ]


@every_config
def test_header(name: str) -> None:
    """3 to 8 lines: what it is, what it costs, what was tuned and why."""
    lines = (FOLDER / f"{name}.config").read_text("utf-8").splitlines()
    header = [line for line in lines[: lines.index("model {")] if line.startswith("#")]
    assert 3 <= len(header) == lines.index("model {") <= 8
    assert max(map(len, lines)) <= 100
    text = " ".join(line.removeprefix("# ") for line in header)
    assert COST.search(text)
    assert "COCO mAP" in text
    assert "Tuned: " in text


@pytest.mark.train
@every_config
def test_parses_and_suits_a_short_run(name: str) -> None:
    """Classes, input size, schedule, augmentation and evaluation agree with each other."""
    config = read(name)
    assert model_of(config).num_classes == max(STREET_LABELS.names)
    side = input_side(config)
    assert name.endswith(f"_{side}")
    train = config.train_config
    rate = learning_rate(config).cosine_decay_learning_rate
    assert rate.total_steps == train.num_steps == 2500
    assert rate.warmup_steps == 250
    assert rate.warmup_learning_rate == pytest.approx(rate.learning_rate_base / 10)
    assert (train.fine_tune_checkpoint_type, train.fine_tune_checkpoint[-6:]) == (
        "detection",
        "ckpt-0",
    )
    assert not train.use_bfloat16
    crops = [
        option.random_scale_crop_and_pad_to_square
        for option in train.data_augmentation_options
        if option.HasField("random_scale_crop_and_pad_to_square")
    ]
    assert [crop.output_size for crop in crops] == [side]
    assert list(config.eval_config.metrics_set) == ["coco_detection_metrics"]
    reader = config.eval_input_reader[0]
    assert (reader.shuffle, reader.num_epochs) == (False, 1)


@pytest.mark.train
def test_masks_are_three_lines_away(tmp_path: Path) -> None:
    """The lines that the Mask R-CNN's header tells to change make a config with masks."""
    text = (FOLDER / "mask_rcnn_inception_resnet_v2_640.config").read_text("utf-8")
    text = text.replace("number_of_stages: 2", "number_of_stages: 3")
    (tmp_path / "masks.config").write_text(
        re.sub(r"(?m)^  # (.*)  # together with", r"  \1  # together with", text)
    )
    config = read_pipeline(tmp_path / "masks.config").message
    assert config.model.faster_rcnn.second_stage_box_predictor.mask_rcnn_box_predictor.mask_height
    assert config.train_input_reader.load_instance_masks
    assert config.eval_input_reader[0].load_instance_masks
    assert "coco_mask_metrics" in config.eval_config.metrics_set


LINEAR = {"ssd": (0.08, 128), "resnet": (0.04, 64), "inception": (0.008, 16)}
"""Rate and batch of the zoo's own training: the rest follows from the batch."""


@pytest.mark.train
@every_config
def test_learning_rate_follows_from_the_batch(name: str) -> None:
    """Linearly for momentum SGD, by the square root for Adam."""
    config = read(name)
    train = config.train_config
    got = learning_rate(config).cosine_decay_learning_rate.learning_rate_base
    if train.optimizer.HasField("adam_optimizer"):
        assert got == pytest.approx(0.001 * (train.batch_size / 128) ** 0.5)
        return
    family = "inception" if "inception" in name else "resnet" if "resnet" in name else "ssd"
    rate, batch = LINEAR[family]
    assert got == pytest.approx(rate * train.batch_size / batch)


HEAVY = ("inception_resnet", "resnet152", "efficientdet_d1", "1280")
"""Built by `pytest -m long`: each costs what the others cost together."""


@pytest.mark.train
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.long if any(one in name for one in HEAVY) else ())
        for name in CONFIGS
    ],
)
def test_builds_and_costs_what_its_header_says(name: str) -> None:
    """Parameters that an answer takes part in, and operations of one image without its NMS."""
    odapi_opened = odapi.open_odapi()
    tf, config = odapi_opened.tf, read(name)
    model = odapi_opened.model_builder.build(config.model, is_training=False)

    @tf.function(autograph=False)
    def network(images: Any) -> Any:
        return model.predict(*model.preprocess(images))

    side = input_side(config)
    graph = network.get_concrete_function(tf.TensorSpec([1, side, side, 3], tf.float32)).graph
    parameters = sum(variable.shape.num_elements() for variable in graph.variables)
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    operations = tf.compat.v1.profiler.profile(
        graph, options={**options, "output": "none"}
    ).total_float_ops
    tf.keras.backend.clear_session()
    said = COST.search((FOLDER / f"{name}.config").read_text("utf-8"))
    assert said is not None
    assert parameters / 1e6 == pytest.approx(float(said[1]), abs=0.06)
    assert operations / 1e9 == pytest.approx(float(said[2]), abs=0.06)
