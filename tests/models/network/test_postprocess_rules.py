"""Post-processing refuses rules that mean nothing and shapes that do not fit."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from urbandet_ray.errors import ConfigError, ModelError
from urbandet_ray.models.network.postprocess import PostProcess, detect_from_boxes, detect_from_raw

LIMITS: dict[str, Any] = {"score_min": 0.1, "iou_max": 0.5, "max_per_class": 100, "max_total": 100}
RULES = PostProcess(score_converter="identity", background=False, **LIMITS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score_converter": "relu"}, "score_converter is 'relu': give sigmoid, softmax or ident"),
        ({"iou_max": 1.2}, r"iou_max is 1\.2: give a number in \[0, 1\]"),
        ({"logit_scale": 0.0}, "logit_scale 0 and box_scales .* must be above 0"),
        ({"box_scales": (1.0, 1.0, 0.0, 1.0)}, r"box_scales \(1\.0, 1\.0, 0\.0, 1\.0\) must be"),
        ({"soft_nms_sigma": -1.0}, "soft_nms_sigma -1 not below"),
        ({"max_per_class": 0}, "max_per_class 0, max_total 100: give at least 1"),
        ({"max_total": 0}, "max_per_class 100, max_total 0: give at least 1"),
    ],
    ids=str,
)
def test_impossible_rules(change: dict[str, Any], message: str) -> None:
    """Rules that mean nothing are refused with the value and what to give."""
    with pytest.raises(ConfigError, match=message):
        replace(RULES, **change)


def test_shapes_that_do_not_fit() -> None:
    """Shapes of another model are named, with what was expected."""
    logits, anchors = np.zeros((2, 5, 3)), np.zeros((5, 4))
    with pytest.raises(ModelError, match=r"box encodings \(2, 4, 4\), logits \(2, 5, 3\) and"):
        detect_from_raw(np.zeros((2, 4, 4)), logits, anchors, RULES)
    with pytest.raises(ModelError, match=r"anchors \(6, 4\) do not fit: expected \[n, a, 4\]"):
        detect_from_raw(np.zeros((2, 5, 4)), logits, np.zeros((6, 4)), RULES)
    with pytest.raises(ModelError, match=r"logits \(5,\) and anchors"):
        detect_from_raw(np.zeros((5, 4)), np.zeros(5), anchors, RULES)
    with pytest.raises(ModelError, match=r"boxes \(2, 5, 2, 4\) and logits .* with one column mo"):
        detect_from_boxes(np.zeros((2, 5, 2, 4)), logits, RULES)
    with pytest.raises(ModelError, match=r"logits \(2, 5, 1\) hold no class"):
        detect_from_boxes(np.zeros((2, 5, 4)), logits[:, :, :1], replace(RULES, background=True))
