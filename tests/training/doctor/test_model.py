"""The doctor against the OD API itself: its anchors, its checkpoints, its builders."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from urbandet_ray.boxes import iou_matrix
from urbandet_ray.commands.doctor import Diagnosis, diagnose, write_fixed
from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.models.pipeline_config import parse_pipeline, read_pipeline
from urbandet_ray.training.doctor.checkpoint import build_model
from urbandet_ray.training.doctor.correction import correct, why_unbuildable
from urbandet_ray.training.doctor.geometry import anchors_of, best_ious
from urbandet_ray.training.doctor.schedule import cosine_rate

pytestmark = pytest.mark.train

Doctor = Callable[..., Diagnosis]
NO_CHECKPOINT = 'fine_tune_checkpoint: ""'


def codes(found: Diagnosis) -> list[str]:
    """Codes of the findings, in their order."""
    return [finding.code for finding in found.findings]


def checkpoint_findings(found: Diagnosis) -> dict[str, str]:
    """What is said about the checkpoint, by code."""
    return {one.code: one.what for one in found.findings if "checkpoint" in one.code}


@pytest.mark.parametrize("size", [320, 300])
def test_best_overlap_is_that_of_the_od_apis_anchors(doctor: Doctor, size: int) -> None:
    """Every box against every anchor the OD API lays, where the size divides and where not."""
    case = doctor(("height: 320 width: 320", f"height: {size} width: {size}")).examination.case
    builder = importlib.import_module("object_detection.builders.anchor_generator_builder")
    generator = builder.build(case.model.anchor_generator)
    cells = [-(-size // 2**level) for level in range(3, 8)]
    made = generator.generate([(n, n) for n in cells], im_height=size, im_width=size)
    laid = np.concatenate([one.get().numpy() for one in made])[:, [1, 0, 3, 2]] * size
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, size * 0.8, (50, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(4, size * 0.2, (50, 2))], axis=1)
    wanted = iou_matrix(boxes.astype(np.float32), laid.astype(np.float32)).max(axis=1)
    anchors = anchors_of(case)
    assert anchors is not None
    assert np.allclose(best_ious(boxes, anchors, (size, size)), wanted, atol=1e-4)


def test_cosine_is_that_of_the_od_api() -> None:
    """Before, at and after the warm-up, and beyond the end."""
    tf = open_odapi().tf
    schedules = importlib.import_module("object_detection.utils.learning_schedules")
    for step in (0, 5, 10, 60, 100, 101):
        rate = schedules.cosine_decay_with_warmup(tf.Variable(step), 0.08, 100, 0.01, 10)
        assert cosine_rate(step, 0.08, 100, 10, 0.01) == pytest.approx(float(rate()), abs=1e-7)


def test_checkpoint_of_the_model_itself(doctor: Doctor, tmp_path: Path) -> None:
    """Right as it is; wrong type, other heads, another network and sloppy paths are told."""
    case = doctor().examination.case
    model = build_model(case.config.model, "ssd")
    prefix = tmp_path / "zoo" / "checkpoint" / "ckpt-0"
    open_odapi().tf.train.Checkpoint(model=model).write(str(prefix))
    named = (NO_CHECKPOINT, f'fine_tune_checkpoint: "{prefix}"')
    assert checkpoint_findings(doctor(named)) == {}
    assert checkpoint_findings(doctor(named, ("num_classes: 3", "num_classes: 4"))) == {}

    told = checkpoint_findings(doctor(named, ('"detection"', '"classification"')))
    assert "is a detection checkpoint, asked for as classification" in told["checkpoint-type"]

    told = checkpoint_findings(
        doctor(named, ('"detection"', '"full"'), ("num_classes: 3", "num_classes: 4"))
    )
    assert "2 of " in told["checkpoint-type"]
    assert checkpoint_findings(doctor(named, ('"detection"', '"full"'))) == {}

    told = checkpoint_findings(doctor(named, ("depth_multiplier: 0.25", "depth_multiplier: 0.5")))
    assert (
        "variables of ssd_mobilenet_v2_fpn_keras have no counterpart"
        in (told["checkpoint-of-another-model"])
    )

    for sloppy in (f"{prefix}.index", str(prefix.parent), "zoo", "zoo/checkpoint/ckpt-0"):
        found = doctor((NO_CHECKPOINT, f'fine_tune_checkpoint: "{sloppy}"'))
        assert list(checkpoint_findings(found)) == ["checkpoint-path"], sloppy
        fixed = correct(found.examination).pipeline.message.train_config.fine_tune_checkpoint
        assert fixed == str(prefix)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_broken_checkpoint(doctor: Doctor, tmp_path: Path, content: bytes) -> None:
    """A cut-off download is one finding, not a traceback."""
    (tmp_path / "ckpt-0.index").write_bytes(content)
    found = doctor((NO_CHECKPOINT, f'fine_tune_checkpoint: "{tmp_path}/ckpt-0"'))
    assert list(checkpoint_findings(found)) == ["checkpoint-unreadable"]


def test_checkpoint_of_tensorflow_1(doctor: Doctor, tmp_path: Path) -> None:
    """Its variables have names alone, and nothing of an object graph."""
    tf = open_odapi().tf
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        weight = tf.compat.v1.get_variable("weight", [2])
        session.run(weight.initializer)
        tf.compat.v1.train.Saver().save(session, str(tmp_path / "model.ckpt"))
    found = doctor((NO_CHECKPOINT, f'fine_tune_checkpoint: "{tmp_path}/model.ckpt"'))
    assert list(checkpoint_findings(found)) == ["checkpoint-of-tf1"]
    assert found.has_errors


def test_a_model_that_does_not_build(doctor: Doctor, tmp_path: Path) -> None:
    """What the OD API says of it becomes a finding."""
    tf = open_odapi().tf
    model = tf.Module()
    model._feature_extractor = tf.Module()
    model._feature_extractor.weight = tf.Variable([1.0])
    tf.train.Checkpoint(model=model).write(str(tmp_path / "ckpt-0"))
    found = doctor(
        (NO_CHECKPOINT, f'fine_tune_checkpoint: "{tmp_path}/ckpt-0"'),
        ("unmatched_threshold: 0.5", "unmatched_threshold: 0.9"),
    )
    (finding,) = [one for one in found.findings if one.code == "model-does-not-build"]
    assert finding.severity == "error"
    assert "unmatched_threshold" in finding.what


FASTER_RCNN = "alexbababu_faster_rcnn_resnet50.config"
PEOPLE = {
    "udacity_cd2688_efficientdet_d1.config": {
        ("error", "warmup-beyond-run"): "warm-up of 2,500 steps in a run of 2,000",
        ("error", "schedule-longer-than-run"): "decay over 300,000 steps in a run of 2,000",
        ("error", "learning-rate-high"): "0.08 with a global batch of 8 is 16 times too high",
        ("error", "id-beyond-num-classes"): "ids 1, 2, 4: cyclist (195 boxes)",
        ("error", "checkpoint-missing"): "no checkpoint/ckpt-0.index",
    },
    "abhilash1910_pipeline_inception_BROKEN.config": {
        ("error", "unknown-feature-extractor"): "'mask_rcnn_inception_resnet_v2_fpn_keras'",
        ("error", "warmup-beyond-run"): "warm-up of 2,500 steps in a run of 2,000",
        ("error", "learning-rate-high"): "16 times too high",
        ("error", "id-beyond-num-classes"): "cyclist",
    },
    "abhilash1910_pipeline_resnet_BROKEN.config": {
        ("error", "wrong-pyramid-block"): "ssd_resnet50_v1_fpn_keras takes fpn block, not bifpn",
        ("warning", "box-coder-scales"): "1/1/1/1",
        ("error", "schedule-longer-than-run"): "300,000",
        ("error", "id-beyond-num-classes"): "cyclist",
    },
    "alexbababu_ssd_resnet50_v1_fpn_640.config": {
        ("warning", "two-augmentations-in-one-block"): "random_black_patches",
    },
}


@pytest.mark.realdata
@pytest.mark.parametrize("name", PEOPLE)
def test_configs_as_people_committed_them(realdata: Path, tmp_path: Path, name: str) -> None:
    """Each known mistake is found on the real records, and fixed so that the model builds."""
    path, data = realdata / "configs" / name, str(realdata / "waymo")
    found = diagnose(path, data=data, steps=2000)
    told = {(one.severity, one.code): one.what for one in found.findings}
    for key, what in PEOPLE[name].items():
        assert what in told[key]
    diff = write_fixed(found, str(tmp_path / "fixed.config"))
    assert "+    num_classes: 4\n" in diff
    again = diagnose(tmp_path / "fixed.config", data=data, steps=2000)
    errors = [one.code for one in again.findings if one.severity == "error"]
    assert errors == ["checkpoint-missing"]
    assert [one.code for one in again.findings if one.edit is not None] == []
    assert why_unbuildable(read_pipeline(tmp_path / "fixed.config")) == ""


@pytest.mark.realdata
def test_checkpoint_of_another_network(realdata: Path, tmp_path: Path) -> None:
    """A Faster R-CNN config that starts from an SSD's checkpoint."""
    text = (realdata / "configs" / FASTER_RCNN).read_text()
    prefix = realdata / "zoo/ssd_mobilenet_v2_fpnlite_320x320_coco17/checkpoint/ckpt-0"
    path = tmp_path / "pipeline.config"
    path.write_text(text.replace('"checkpoint/ckpt-0"', f'"{prefix}"'))
    told = checkpoint_findings(diagnose(path))
    assert (
        "of faster_rcnn_resnet50_keras have no counterpart" in (told["checkpoint-of-another-model"])
    )


@pytest.mark.realdata
def test_faster_rcnn_checkpoint_of_its_own(realdata: Path, tmp_path: Path) -> None:
    """Both halves of a two-stage model's extractor are compared."""
    text = (realdata / "configs" / FASTER_RCNN).read_text()
    model: Any = build_model(parse_pipeline(text, "x").message.model, "faster_rcnn")
    open_odapi().tf.train.Checkpoint(model=model).write(str(tmp_path / "ckpt-0"))
    path = tmp_path / "pipeline.config"
    path.write_text(text.replace('"checkpoint/ckpt-0"', f'"{tmp_path}/ckpt-0"'))
    assert checkpoint_findings(diagnose(path)) == {}


@pytest.mark.realdata
def test_overlap_with_the_anchors_of_two_stages(realdata: Path) -> None:
    """Faster R-CNN's grid, against every anchor the OD API lays."""
    case = diagnose(realdata / "configs" / FASTER_RCNN).examination.case
    builder = importlib.import_module("object_detection.builders.anchor_generator_builder")
    generator = builder.build(case.model.first_stage_anchor_generator)
    (made,) = generator.generate([(40, 40)])
    laid = made.get().numpy()[:, [1, 0, 3, 2]].astype(np.float32)
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 500, (50, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(8, 140, (50, 2))], axis=1)
    wanted = iou_matrix(boxes.astype(np.float32), laid).max(axis=1)
    anchors = anchors_of(case)
    assert anchors is not None
    assert np.allclose(best_ious(boxes, anchors, (640, 640)), wanted, atol=1e-4)
