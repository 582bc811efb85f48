"""Every fault is found at its line, with its number and its fix, and none in a sound config."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from urbandet_ray.commands.doctor import Diagnosis, diagnose
from urbandet_ray.errors import ConfigError
from urbandet_ray.models.zoo import model_config_path
from urbandet_ray.storage import Storage
from urbandet_ray.training.doctor.correction import correct
from urbandet_ray.training.doctor.examine import examine
from urbandet_ray.training.doctor.findings import Finding

pytestmark = pytest.mark.train

Doctor = Callable[..., Diagnosis]
COSINE = "train_config.optimizer.momentum_optimizer.learning_rate.cosine_decay_learning_rate"
COSINE_TEXT = """cosine_decay_learning_rate {
          learning_rate_base: 0.00125
          total_steps: 100
          warmup_learning_rate: 0.0001
          warmup_steps: 10
        }"""
STEPS_TEXT = "manual_step_learning_rate { initial_learning_rate: 0.001\n %s }"
DROP = "schedule { step: %d learning_rate: 0.0005 }\n"
EXTRACTOR = '"ssd_mobilenet_v2_fpn_keras"'
FPN = "fpn { min_level: 3 max_level: 7 additional_layer_depth: 32 }"

# what is replaced by what; severity and code; place below; part of the text; value of the fix
FAULTS: dict[str, tuple[list[tuple[str, str]], str, str, str, str, object]] = {
    "decay far beyond the run": (
        [("total_steps: 100", "total_steps: 30000")],
        "error", "schedule-longer-than-run", f"{COSINE}.total_steps",
        r"over 30,000 steps in a run of 100: the rate still stands at 0.00125 \(100%", 100,
    ),
    "decay half beyond the run": (
        [("total_steps: 100", "total_steps: 160")],
        "warning", "schedule-longer-than-run", f"{COSINE}.total_steps", r"40% of the decay", 100,
    ),
    "decay ends early": (
        [("total_steps: 100", "total_steps: 70")],
        "warning", "schedule-shorter-than-run", f"{COSINE}.total_steps",
        r"0 for the last 30 steps, 30% of the run", 100,
    ),
    "decay ends before the warm-up": (
        [("total_steps: 100", "total_steps: 5")],
        "error", "schedule-shorter-than-run", f"{COSINE}.total_steps", r"refuses to train", 100,
    ),
    "warm-up beyond the run": (
        [("warmup_steps: 10", "warmup_steps: 250"), ("total_steps: 100", "total_steps: 300")],
        "error", "warmup-beyond-run", f"{COSINE}.warmup_steps",
        r"warm-up of 250 steps in a run of 100: .*\(0.00056 of 0.00125\)", 5,
    ),
    "long warm-up": (
        [("warmup_steps: 10", "warmup_steps: 40")],
        "warning", "warmup-long", f"{COSINE}.warmup_steps", r"40 of 100 steps, 40%", 5,
    ),
    "warm-up from above": (
        [("warmup_learning_rate: 0.0001", "warmup_learning_rate: 0.01")],
        "error", "warmup-above-base", f"{COSINE}.warmup_learning_rate", r"0.01, above .* 0.00125",
        pytest.approx(0.000125),
    ),
    "rate of a larger batch": (
        [("learning_rate_base: 0.00125", "learning_rate_base: 0.02")],
        "warning", "learning-rate-high", f"{COSINE}.learning_rate_base",
        r"global batch of 2 is 16 times too high .*batch of 32 images", pytest.approx(0.00125),
    ),
    "stock rate of another batch": (
        [("learning_rate_base: 0.00125", "learning_rate_base: 0.08")],
        "error", "learning-rate-high", f"{COSINE}.learning_rate_base",
        r"global batch of 2 is 64 times too high .*batch of 128 images", pytest.approx(0.00125),
    ),
    "rate of a smaller batch": (
        [("learning_rate_base: 0.00125", "learning_rate_base: 2e-5"),
         ("warmup_learning_rate: 0.0001", "warmup_learning_rate: 1e-6")],
        "warning", "learning-rate-low", f"{COSINE}.learning_rate_base", r"62.5 times too low",
        pytest.approx(0.00125),
    ),
    "drops after the end": (
        [(COSINE_TEXT, STEPS_TEXT % (DROP % 500 + DROP % 1000))],
        "warning", "schedule-longer-than-run",
        f"{COSINE.replace('cosine_decay', 'manual_step')}.schedule",
        r"2 of 2 drops .* run of 100 steps \(at 500, 1,000\)", None,
    ),
    "drops out of order": (
        [(COSINE_TEXT, STEPS_TEXT % (DROP % 50 + DROP % 20))],
        "error", "steps-out-of-order", f"{COSINE.replace('cosine_decay', 'manual_step')}.schedule",
        r"\[50, 20\] do not increase", None,
    ),
    "exponential decay that hardly moves": (
        [(COSINE_TEXT, "exponential_decay_learning_rate {\n initial_learning_rate: 0.001\n"
          "decay_steps: 5000 }")],
        "warning", "schedule-longer-than-run",
        f"{COSINE.replace('cosine', 'exponential')}.decay_steps", r"each 5,000 steps", 10,
    ),
    "no run length": (
        [("num_steps: 100", "")], "warning", "no-run-length", "train_config.num_steps",
        r"num_steps is not set", None,
    ),
    "unused classes": (
        [("num_classes: 3", "num_classes: 90")],
        "warning", "num-classes-unused", "model.ssd.num_classes", r"87 outputs have no class", 3,
    ),
    "unknown extractor": (
        [(EXTRACTOR, '"ssd_mobilnet_v2_fpn_kears"')],
        "error", "unknown-feature-extractor", "model.ssd.feature_extractor.type",
        r"ssd has no feature extractor 'ssd_mobilnet_v2_fpn_kears'", "ssd_mobilenet_v2_fpn_keras",
    ),
    "extractor of another architecture": (
        [(EXTRACTOR, '"faster_rcnn_resnet50_keras"'),
         (FPN, "bifpn { min_level: 3 max_level: 7 num_iterations: 4 num_filters: 88 }")],
        "error", "unknown-feature-extractor", "model.ssd.feature_extractor.type",
        r"belongs under faster_rcnn", "ssd_efficientnet-b1_bifpn_keras",
    ),
    "pyramid of another kind": (
        [(FPN, "bifpn { min_level: 3 max_level: 7 }")],
        "error", "wrong-pyramid-block", "model.ssd.feature_extractor.bifpn",
        r"takes fpn block, not bifpn", None,
    ),
    "no pyramid wanted": (
        [(EXTRACTOR, '"ssd_mobilenet_v2_keras"')],
        "error", "wrong-pyramid-block", "model.ssd.feature_extractor.fpn", r"takes no block", None,
    ),
    "input that a bifpn can't halve": (
        [(EXTRACTOR, '"ssd_efficientnet-b0_bifpn_keras"'), (FPN, "bifpn { }"),
         ("y_scale: 10.0 x_scale: 10.0 height_scale: 5.0 width_scale: 5.0", "y_scale: 1")],
        "error", "input-not-divisible", "model.ssd.image_resizer.fixed_shape_resizer",
        r"320 x 320 px is no multiple of 128", None,
    ),
    "anchors on other levels": (
        [("        min_level: 3", "        min_level: 2")],
        "error", "anchor-levels",
        "model.ssd.anchor_generator.multiscale_anchor_generator.min_level",
        r"levels 2 to 7, the fpn gives levels 3 to 7", 3,
    ),
    "box coder of another model": (
        [("y_scale: 10.0 x_scale: 10.0 height_scale: 5.0 width_scale: 5.0",
          "y_scale: 1.0 x_scale: 1.0 height_scale: 1.0 width_scale: 1.0")],
        "warning", "box-coder-scales", "model.ssd.box_coder.faster_rcnn_box_coder.y_scale",
        r"are 1/1/1/1; .* tuned with 10/10/5/5.*0.15 times", 10.0,
    ),
    "bfloat16": (
        [("use_bfloat16: false", "use_bfloat16: true")],
        "note", "bfloat16-without-effect", "train_config.use_bfloat16", r"TPUs only", False,
    ),
    "augmentation at another size": (
        [("output_size: 320", "output_size: 512")],
        "warning", "augmentation-size",
        "train_config.data_augmentation_options[1].random_scale_crop_and_pad_to_square.output_size",
        r"512 x 512 px, the resizer then makes 320 x 320", None,
    ),
    "input too small": (
        [("height: 320 width: 320", "height: 32 width: 32"),
         ("output_size: 320", "output_size: 32")],
        "warning", "boxes-too-small", "model.ssd.image_resizer.fixed_shape_resizer",
        r"at 32 x 32, 100% .* below 8 px \(0% in the stored", None,
    ),
    "anchors too large": (
        [("anchor_scale: 4.0", "anchor_scale: 24.0")],
        "warning", "anchors-miss-boxes",
        "model.ssd.anchor_generator.multiscale_anchor_generator.anchor_scale",
        r"100% .* sides of 60/60/60 px .* anchors of 192 to", None,
    ),
    "metric without a name": (
        [("coco_detection_metrics", "coco_detection_metric")],
        "error", "unknown-metric", "eval_config.metrics_set", r"no metrics 'coco_detection_metric'",
        None,
    ),
    "masks of boxes": (
        [("coco_detection_metrics", "coco_mask_metrics")],
        "error", "eval-counts-nothing", "eval_config.metrics_set", r"no box of .* has one", None,
    ),
    "labels dropped": (
        [('metrics_set: "coco_detection_metrics"', "ignore_groundtruth: true")],
        "error", "eval-counts-nothing", "eval_config.ignore_groundtruth", r"no metric", False,
    ),
    "averages nobody keeps": (
        [('metrics_set: "coco_detection_metrics"', "use_moving_averages: true")],
        "warning", "moving-averages-missing", "eval_config.use_moving_averages", r"keeps none",
        False,
    ),
    "score threshold": (
        [("score_threshold: 1e-8", "score_threshold: 0.3")],
        "warning", "eval-threshold-high",
        "model.ssd.post_processing.batch_non_max_suppression.score_threshold", r"score of 0.3",
        pytest.approx(1e-8),
    ),
    "missing checkpoint": (
        [('fine_tune_checkpoint: ""', 'fine_tune_checkpoint: "nowhere/ckpt-0"')],
        "error", "checkpoint-missing", "train_config.fine_tune_checkpoint",
        r"no nowhere/ckpt-0.index", None,
    ),
    "checkpoint type": (
        [('"detection"', '"detect"'), ('_checkpoint: ""', '_checkpoint: "nowhere"')],
        "error", "checkpoint-type", "train_config.fine_tune_checkpoint_type",
        r"'detect' is not one of detection, classification, full", "detection",
    ),
    "checkpoint version": (
        [("version: V2", "version: V1"), ('_checkpoint: ""', '_checkpoint: "nowhere"')],
        "error", "checkpoint-version", "train_config.fine_tune_checkpoint_version", r"is V1", 2,
    ),
    "checkpoint on S3": (
        [('_checkpoint: ""', '_checkpoint: "s3://bucket/ckpt-0"')],
        "warning", "checkpoint-not-checked", "train_config.fine_tune_checkpoint", r"not looked at",
        None,
    ),
    "missing records": (
        [("{data}/val/*.tfrecord", "{data}/valid/*.tfrecord")],
        "error", "path-missing", "eval_input_reader.tf_record_input_reader.input_path",
        r"valid/\*\.tfrecord", None,
    ),
    "missing label map": (
        [("{data}/label_map.pbtxt", "{data}/labels.pbtxt")],
        "error", "path-missing", "train_input_reader.label_map_path", r"labels\.pbtxt", None,
    ),
    "validation on training records": (
        [("{data}/val/*.tfrecord", "{data}/train/*.tfrecord")],
        "error", "frames-shared", "eval_input_reader.tf_record_input_reader.input_path",
        r"8 of 8 validation pictures are training's too", None,
    ),
    "huge batch": (
        [("batch_size: 2", "batch_size: 4096"), ("rate_base: 0.00125", "rate_base: 2.0")],
        "warning", "batch-too-large", "train_config.batch_size", r"batch of 4096 at 320 x 320",
        None,
    ),
    "less than an epoch": (
        [("num_steps: 100", "num_steps: 3"), (COSINE_TEXT,
          "constant_learning_rate { learning_rate: 0.001 }")],
        "warning", "less-than-an-epoch", "train_config.num_steps",
        r"4 steps an epoch; 3 steps are 0.75",
        None,
    ),
    "frozen for TF1": (
        [("batch_size: 2", "batch_size: 2 freeze_variables: 'FeatureExtractor'")],
        "warning", "freezes-nothing", "train_config.freeze_variables",
        r"1 patterns \(FeatureExtractor\) choose what is trained in TF1 alone", None,
    ),
    "very many epochs": (
        [("num_steps: 100", "num_steps: 9000"), ("total_steps: 100", "total_steps: 9000")],
        "warning", "many-epochs", "train_config.num_steps", r"are 2.25e\+03 epochs", None,
    ),
}  # fmt: skip


def codes(found: Diagnosis) -> list[str]:
    """Codes of the findings, in their order."""
    return [finding.code for finding in found.findings]


def only(found: Diagnosis, code: str) -> Finding:
    """The one finding with a code."""
    (finding,) = [finding for finding in found.findings if finding.code == code]
    return finding


def value_at(config: Any, place: str) -> Any:
    """The value at a path without indices."""
    for name in place.split("."):
        config = getattr(config, name)
    return config


def test_a_sound_config_has_nothing_wrong(doctor: Doctor) -> None:
    """The negative of every check: it only lacks a checkpoint, and hears its epochs."""
    found = doctor()
    assert codes(found) == ["from-scratch", "steps-per-epoch"]
    assert not found.has_errors
    assert "8 frames in batches of 2 make 4 steps an epoch; 100 steps are 25 epochs" in (
        only(found, "steps-per-epoch").what
    )


@pytest.mark.parametrize("fault", FAULTS)
def test_finds(doctor: Doctor, fault: str, tmp_path: Path) -> None:
    """The fault, at its place and line, with its number; its fix cures it and sets the value."""
    changes, severity, code, place, what, value = FAULTS[fault]
    found = doctor(*changes)
    finding = only(found, code)
    assert (finding.severity, finding.place) == (severity, place)
    assert re.search(what, finding.what), finding.what
    text = (tmp_path / "pipeline.config").read_text().splitlines()
    name = place.rpartition(".")[2].partition("[")[0]
    if any(re.search(rf"\b{name}\b", line) for line in text):
        assert finding.line is not None
        assert re.search(rf"\b{name}\b", text[finding.line - 1])
    if finding.edit is not None:
        made = correct(found.examination)
        config, done = made.pipeline, made.done
        assert code in [one.code for one in done]
        path = tmp_path / "fixed.config"
        path.write_text(config.to_text())
        left = [one for one in diagnose(path).findings if one.code == code and one.edit]
        assert left == []
        if value is not None:
            assert value_at(config.message, place) == value
    else:
        assert value is None


def test_global_batch_counts_all_workers(doctor: Doctor) -> None:
    """A rate right for one worker's batch is too low for 32 workers together."""
    finding = only(doctor(workers=64), "learning-rate-low")
    assert "global batch of 128 (2 x 64 workers) is 64 times too low" in finding.what
    assert "learning-rate-low" not in codes(doctor(workers=4))


@pytest.mark.parametrize(("side", "severity"), [(59.0, None), (61.0, "error"), (0.0, None)])
def test_boxes_that_a_run_leaves_out(doctor: Doctor, side: float, severity: str | None) -> None:
    """How many, of those that the network's input would show smaller; all of them is an error."""
    pipeline = doctor().examination.case.pipeline
    found = examine(pipeline, Storage(), min_box_side=side).findings
    told = [one for one in found if one.code == "boxes-left-out"]
    assert [one.severity for one in told] == ([severity] if severity else [])
    assert all(re.search(r"leaves ([\d,]+) of \1 training boxes", one.what) for one in told)


def test_steps_given_replace_those_of_the_file(doctor: Doctor) -> None:
    """The schedule is held to the run that is meant."""
    found = doctor(steps=20)
    assert "in a run of 20" in only(found, "schedule-longer-than-run").what
    assert correct(found.examination).pipeline.message.train_config.num_steps == 20


def test_adam_has_a_reference_of_its_own(doctor: Doctor) -> None:
    """0.001 for 128 with the square root: 0.000125 for 2."""
    changes = (
        ("momentum_optimizer", "adam_optimizer"),
        ("learning_rate_base: 0.00125", "learning_rate_base: 0.000125"),
    )
    assert "learning-rate-high" not in codes(doctor(*changes))
    changes = (changes[0], (changes[1][0], "learning_rate_base: 0.00125"))
    assert "is 10 times too high (square root" in only(doctor(*changes), "learning-rate-high").what


def test_two_augmentations_in_one_block(doctor: Doctor, tmp_path: Path) -> None:
    """The OD API takes the second and drops the first without a word; --fix takes them apart."""
    found = doctor(
        ("random_horizontal_flip { }", "random_horizontal_flip { }\n random_vertical_flip { }")
    )
    finding = only(found, "two-augmentations-in-one-block")
    text = (tmp_path / "pipeline.config").read_text().splitlines()
    assert finding.line is not None
    assert "random_vertical_flip" in text[finding.line - 1]
    config = correct(found.examination).pipeline
    steps = [
        one.WhichOneof("preprocessing_step")
        for one in config.message.train_config.data_augmentation_options
    ]
    assert steps[:2] == ["random_horizontal_flip", "random_vertical_flip"]
    assert finding.severity == "warning"
    assert "random_horizontal_flip is lost" in finding.what


def test_four_augmentations_in_two_blocks(doctor: Doctor) -> None:
    """Each comes back at its place."""
    flips = "random_horizontal_flip { }\n random_vertical_flip { }\n random_rotation90 { }"
    more = "random_adjust_hue { } }\n data_augmentation_options { random_crop_image { }\n"
    found = doctor(
        ("random_horizontal_flip { }", f"{flips} }}\n data_augmentation_options {{ {more} "
         "random_adjust_contrast { }")
    )  # fmt: skip
    options = correct(found.examination).pipeline.message.train_config.data_augmentation_options
    assert [one.WhichOneof("preprocessing_step") for one in options][:6] == [
        "random_horizontal_flip",
        "random_vertical_flip",
        "random_rotation90",
        "random_adjust_hue",
        "random_crop_image",
        "random_adjust_contrast",
    ]


def test_given_twice(doctor: Doctor) -> None:
    """A value that another replaces is a finding; a block in two parts is only noted."""
    found = doctor(
        ("num_steps: 100", "num_steps: 40 num_steps: 100"),
        ("model {", 'eval_config { metrics_set: "coco_detection_metrics" }\nmodel {'),
    )
    lost = only(found, "overwritten")
    assert lost.severity == "warning"
    assert "says num_steps: 40, line" in lost.what
    assert only(found, "given-twice").place == "eval_config"
    assert not found.has_errors


@pytest.mark.parametrize(
    ("path", "read", "meant"),
    [
        (r"C:\tf\train\ckpt-0", "C:<0x09>f<0x09>rain", "C:/tf/train/ckpt-0"),
        (r"runs\new\ckpt-0", "runs<0x0a>ew", "runs/new/ckpt-0"),
        (r"D:\data\ckpt-0", r"D:\data\ckpt-0 is a path", "D:/data/ckpt-0"),
    ],
)
def test_windows_path(doctor: Doctor, path: str, read: str, meant: str) -> None:
    """What is read instead is shown, and forward slashes are the fix."""
    found = doctor(('fine_tune_checkpoint: ""', f'fine_tune_checkpoint: "{path}"'))
    finding = only(found, "backslash-path")
    assert read in finding.what
    assert finding.fix == f'write forward slashes: "{meant}"'
    assert correct(found.examination).pipeline.message.train_config.fine_tune_checkpoint == meant


def test_encoding_is_told(doctor: Doctor, tmp_path: Path) -> None:
    """Read here, but not by the OD API's own programs."""
    doctor()
    path = tmp_path / "pipeline.config"
    path.write_text(path.read_text(), encoding="utf-16")
    finding = only(diagnose(path), "text-encoding")
    assert (finding.severity, finding.line) == ("note", 1)
    assert "the file is UTF-16" in finding.what


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("num_classes: 3", "num_clases: 3"),
         r":3: Ssd has no field 'num_clases'; did you mean num_classes"),
        (("num_classes: 3", "num_classes: three"), r":3: not a pipeline config.*integer: three"),
        (("num_classes: 3", "num_classes 3"), r':3: not a pipeline config.*Expected ":"'),
        (("version: V2", "version: V9"), r"no value named V9"),
        (("model {", "modell {"), r":1: .*no field 'modell'; did you mean model\?"),
        (("eval_config {", "eval_config {{"), r":\d+: not a pipeline config"),
    ],
)  # fmt: skip
def test_what_is_no_pipeline_config(doctor: Doctor, change: tuple[str, str], message: str) -> None:
    """One line that names file, line and the nearest field."""
    with pytest.raises(ConfigError, match=message) as caught:
        doctor(change)
    assert "\n" not in str(caught.value)
    assert "pipeline.config:" in str(caught.value)


def test_batch_norm_frozen_over_random_weights_is_found(tmp_path: Path) -> None:
    """With a checkpoint it is right to freeze it; without one, losses run into the hundreds."""
    text = model_config_path("faster_rcnn_resnet50_v1_640").read_text()
    config = tmp_path / "pipeline.config"
    config.write_text(re.sub(r"fine_tune_checkpoint: .*", "", text))
    found = diagnose(config)
    finding = only(found, "frozen-batch-norm")
    assert "activations grow" in finding.what
    place = "model.faster_rcnn.feature_extractor.batch_norm_trainable"
    assert finding.place == place
    assert value_at(correct(found.examination).pipeline.message, place) is True
    config.write_text(text.replace("batch_norm_trainable: false", "batch_norm_trainable: true"))
    assert "frozen-batch-norm" not in codes(diagnose(config))
