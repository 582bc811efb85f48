"""Are a checkpoint's anchors the model's: what its box head says depends on them, not on shapes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from urbandet_ray.training.finetune.rows import Floats

_SCALES = ("y_scale", "x_scale", "height_scale", "width_scale")
_CODE = 4
_PROPOSAL_SCALES = (10.0, 10.0, 5.0, 5.0)
"""Of a Faster R-CNN's first stage; no config changes them (target_assigner.py)."""

_GENERATORS = {"ssd": "anchor_generator", "faster_rcnn": "first_stage_anchor_generator"}
_ALIKE = {
    "multiscale_anchor_generator": ("aspect_ratios", "scales_per_octave", "normalize_coordinates"),
    "grid_anchor_generator": (
        "aspect_ratios",
        "height_stride",
        "width_stride",
        "height_offset",
        "width_offset",
    ),
}
"""What has to be the same in two generators whose anchors are to differ in scale alone."""


@dataclass(frozen=True)
class CodeChange:
    """How box codes ty, tx, th, tw change so that boxes stay, where anchors are scaled.

    A code becomes factors * code + offsets (faster_rcnn_box_coder.py, _decode). Where a Faster
    R-CNN infers, it cuts off anchors at the image's edge: the boxes of those stay only nearly.

    Attributes:
        factors, offsets: of ty, tx, th, tw.
    """

    factors: tuple[float, ...] = (1.0,) * _CODE
    offsets: tuple[float, ...] = (0.0,) * _CODE

    @property
    def is_none(self) -> bool:
        """Whether the head says the same boxes as it is."""
        return self == CodeChange()

    def kernel(self, values: Floats) -> Floats:
        """A kernel [..., anchors * 4] of a box head's last layer, for the new anchors."""
        return values * np.tile(np.array(self.factors, np.float32), values.shape[-1] // _CODE)

    def bias(self, values: Floats) -> Floats:
        """Its bias [anchors * 4]."""
        more = np.tile(np.array(self.offsets, np.float32), len(values) // _CODE)
        return self.kernel(values) + more


def code_change(kind: str, old: Any, new: Any) -> CodeChange | None:
    """What a box head needs to say the same boxes with the new model's anchors, level by level.

    The head is an SSD's, or that of a Faster R-CNN's region proposals.

    Args:
        kind: ssd or faster_rcnn.
        old, new: its messages in the checkpoint's and in the model's pipeline.config.

    Returns:
        None where anchors differ in more than their scale, or are coded in another way.
    """
    before, after = (getattr(one, _GENERATORS[kind]) for one in (old, new))
    if before == after and (kind != "ssd" or old.box_coder == new.box_coder):
        return CodeChange()
    was, now = (_coder_scales(kind, one) for one in (old, new))
    scale = _scale_between(before, after)
    if was is None or now is None or scale is None:
        return None
    ratios = [b / a for a, b in zip(was, now, strict=True)]
    return CodeChange(
        factors=(ratios[0] / scale, ratios[1] / scale, ratios[2], ratios[3]),
        offsets=(0.0, 0.0, -now[2] * math.log(scale), -now[3] * math.log(scale)),
    )


def _coder_scales(kind: str, message: Any) -> tuple[float, ...] | None:
    if kind == "faster_rcnn":
        return _PROPOSAL_SCALES
    if message.box_coder.WhichOneof("box_coder_oneof") != "faster_rcnn_box_coder":
        return None
    return tuple(getattr(message.box_coder.faster_rcnn_box_coder, name) for name in _SCALES)


def _scale_between(old: Any, new: Any) -> float | None:
    """How much larger all new anchors are; None where they differ in more, or nobody can tell."""
    kind = new.WhichOneof("anchor_generator_oneof")
    if kind not in _ALIKE or kind != old.WhichOneof("anchor_generator_oneof"):
        return None
    before, after = getattr(old, kind), getattr(new, kind)
    if any(getattr(before, name) != getattr(after, name) for name in _ALIKE[kind]):
        return None
    if kind == "multiscale_anchor_generator":
        return float(after.anchor_scale / before.anchor_scale)
    sizes = [
        np.array([[one.height], [one.width]]) * np.array(one.scales) for one in (before, after)
    ]
    if sizes[0].shape != sizes[1].shape or not sizes[0].all():
        return None
    ratios = sizes[1] / sizes[0]
    return float(ratios[0, 0]) if np.allclose(ratios, ratios[0, 0], rtol=1e-6) else None
