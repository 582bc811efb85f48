"""A fix is made where it proves itself, and refused with a reason where it makes anything worse."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from urbandet_ray.commands.doctor import Diagnosis, diagnose, write_fixed
from urbandet_ray.models.zoo import model_config_path
from urbandet_ray.training.doctor.case import setting
from urbandet_ray.training.doctor.correction import Correction, correct, unmade
from urbandet_ray.training.doctor.examine import Examination
from urbandet_ray.training.doctor.findings import Edit, Finding

pytestmark = pytest.mark.train

Doctor = Callable[..., Diagnosis]
ANCHORS = "model.ssd.anchor_generator.multiscale_anchor_generator"
FASTER_RCNN_GRID = """grid_anchor_generator {
        scales: [%s]
        aspect_ratios: [0.5, 1.0, 2.0]
      }"""
MULTISCALE = """multiscale_anchor_generator {
        min_level: %d max_level: %d anchor_scale: %d aspect_ratios: [1.0, 2.0, 0.5]
      }"""


def bad_advice(found: Diagnosis, edit: Edit) -> Examination:
    """The examination, with one more finding whose fix is wrong."""
    finding = Finding("warning", "bad-advice", "model", "nothing is wrong", "a wrong fix", edit)
    return replace(found.examination, findings=(*found.examination.findings, finding))


def refusals(made: Correction) -> dict[str, str]:
    """Reasons by code."""
    return {one.finding.code: one.reason for one in made.refused}


def no_levels(config: Any) -> None:
    """A grid in place of the pyramid's anchors, as --fix once wrote."""
    config.model.ssd.anchor_generator.grid_anchor_generator.scales[:] = [0.5]


def no_resizer_padding(config: Any) -> None:
    """Images of several shapes, which do not stack."""
    config.model.ssd.image_resizer.keep_aspect_ratio_resizer.max_dimension = 320
    config.model.ssd.feature_extractor.bifpn.max_level = 7
    config.model.ssd.feature_extractor.type = "ssd_efficientnet-b0_bifpn_keras"
    config.model.ssd.image_resizer.fixed_shape_resizer.height = 320
    config.model.ssd.image_resizer.fixed_shape_resizer.width = 300


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (no_levels, "it would bring anchor-levels: grid_anchor_generator lays anchors on 1 maps"),
        (no_resizer_padding, "it would bring input-not-divisible"),
        (setting("train_input_reader.label_map_path", "gone"), "it would bring path-missing"),
    ],
)
def test_fix_that_brings_a_finding_is_not_made(doctor: Doctor, edit: Edit, reason: str) -> None:
    """The config stays as it was, and the reason is said."""
    found = doctor()
    made = correct(bad_advice(found, edit))
    assert refusals(made)["bad-advice"].startswith(reason)
    assert made.pipeline.message == found.examination.case.config
    assert unmade(made)[0].startswith("bad-advice: not fixed, ")


@pytest.mark.parametrize(("after", "refused"), [(0.11, True), (0.1, False), (0.02, False)])
def test_fix_that_worsens_a_figure_is_not_made(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, after: float, refused: bool
) -> None:
    """Below the bar of any finding, too."""

    def share(case: Any) -> dict[str, float]:
        scale = case.model.anchor_generator.multiscale_anchor_generator.anchor_scale
        return {"the share of boxes that no anchor fits": after if scale == 3.5 else 0.1}

    monkeypatch.setattr("urbandet_ray.training.doctor.correction.figures", share)
    made = correct(bad_advice(doctor(), setting(f"{ANCHORS}.anchor_scale", 3.5)))
    told = "the share of boxes that no anchor fits would go from 10.0% to 11.0%"
    assert refusals(made) == ({"bad-advice": told} if refused else {})


def test_fix_that_breaks_the_building_is_not_made(doctor: Doctor) -> None:
    """The fixes that do no harm are made all the same."""
    found = doctor(("use_bfloat16: false", "use_bfloat16: true"))
    broken = setting("model.ssd.feature_extractor.depth_multiplier", 7.0)

    def build(pipeline: Any) -> str:
        return "ValueError: too wide" if "depth_multiplier: 7" in pipeline.to_text() else ""

    made = correct(bad_advice(found, broken), build)
    assert refusals(made) == {
        "bad-advice": "the model could not be built with it: ValueError: too wide"
    }
    assert [one.code for one in made.done] == ["bfloat16-without-effect"]
    assert made.unbuilt == ""


def test_copy_says_what_was_not_made(
    doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its top, and below the difference."""
    found = doctor()
    worse = replace(found, examination=bad_advice(found, no_levels))
    monkeypatch.setattr("urbandet_ray.commands.doctor.why_unbuildable", lambda _: "")
    told = write_fixed(worse, str(tmp_path / "out.config"))
    assert "bad-advice: not fixed, it would bring anchor-levels" in told
    assert "# bad-advice: not fixed, it would bring" in (tmp_path / "out.config").read_text()
    assert diagnose(tmp_path / "out.config").findings


def faster_rcnn(tmp_path: Path, data: Path, generator: str, extractor: str = "") -> Diagnosis:
    """The doctor's word on a Faster R-CNN with other anchors."""
    text = model_config_path("faster_rcnn_resnet50_v1_640").read_text()
    start = text.index("grid_anchor_generator")
    end = text.index("}", start) + 1
    text = text[:start] + generator + text[end:]
    if extractor:
        text = re.sub(r"type: .faster_rcnn_resnet50_keras.", extractor, text)
    path = tmp_path / "faster.config"
    path.write_text(text)
    return diagnose(path, data=str(data))


FPN_50 = 'type: "faster_rcnn_resnet50_fpn_keras" fpn { min_level: 2 max_level: 6 }'


@pytest.mark.parametrize(
    ("generator", "extractor", "place", "value"),
    [
        (FASTER_RCNN_GRID % "4.0, 8.0", "", "grid_anchor_generator.scales", [1.0, 2.0]),
        (MULTISCALE % (2, 6, 64), FPN_50, "multiscale_anchor_generator.anchor_scale", 8.0),
        (MULTISCALE % (4, 4, 64), "", "multiscale_anchor_generator.anchor_scale", 8.0),
    ],
)
def test_anchors_are_scaled_in_the_branch_that_is_there(
    tmp_path: Path, data: Path, generator: str, extractor: str, place: str, value: Any
) -> None:
    """The other branch stays unset: an anchor generator can't have both."""
    found = faster_rcnn(tmp_path, data, generator, extractor)
    (finding,) = [one for one in found.findings if one.code == "anchors-miss-boxes"]
    assert finding.place == f"model.faster_rcnn.first_stage_anchor_generator.{place}"
    made = correct(found.examination)
    after = made.pipeline.message.model.faster_rcnn.first_stage_anchor_generator
    branch = place.partition(".")[0]
    assert after.WhichOneof("anchor_generator_oneof") == branch
    assert "anchors-miss-boxes" not in [one.code for one in made.left]


@pytest.mark.parametrize(
    ("generator", "extractor", "what", "levels"),
    [
        (MULTISCALE % (3, 7, 4), FPN_50, "levels 3 to 7, the fpn gives levels 2 to 6", (2, 6)),
        (MULTISCALE % (2, 6, 4), "", "on 5 maps, a network without a feature pyramid", None),
        (FASTER_RCNN_GRID % "0.5, 1.0", FPN_50, "lays anchors on 1 maps, the fpn gives 5", None),
    ],
)  # fmt: skip
def test_anchor_levels_of_a_faster_rcnn(
    tmp_path: Path, data: Path, generator: str, extractor: str, what: str, levels: Any
) -> None:
    """They have to be those of its feature pyramid, and one where it has none."""
    found = faster_rcnn(tmp_path, data, generator, extractor)
    (finding,) = [one for one in found.findings if one.code == "anchor-levels"]
    assert what in finding.what
    assert (finding.edit is not None) == (levels is not None)
    if levels:
        model = correct(found.examination).pipeline.message.model.faster_rcnn
        after = model.first_stage_anchor_generator.multiscale_anchor_generator
        assert (after.min_level, after.max_level) == levels
