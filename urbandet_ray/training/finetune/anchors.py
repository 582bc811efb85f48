"""Are a checkpoint's anchors the model's: what its box head says depends on them, not on shapes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from urbandet_ray.training.finetune.rows import Floats

_SCALES = ("y_scale", "x_scale", "height_scale", "width_scale")
_CODE = 4


@dataclass(frozen=True)
class CodeChange:
    """How box codes ty, tx, th, tw change so that boxes stay, where anchors are scaled.

    A code becomes factors * code + offsets (faster_rcnn_box_coder.py, _decode).

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


def code_change(old: Any, new: Any) -> CodeChange | None:
    """What a box head needs to say the same boxes with the new model's anchors.

    Args:
        old, new: Ssd messages of the checkpoint's and of the model's pipeline.config.

    Returns:
        None where anchors differ in more than their scale, or are coded in another way.
    """
    if old.anchor_generator == new.anchor_generator and old.box_coder == new.box_coder:
        return CodeChange()
    kinds = {one.anchor_generator.WhichOneof("anchor_generator_oneof") for one in (old, new)}
    coders = {one.box_coder.WhichOneof("box_coder_oneof") for one in (old, new)}
    if kinds != {"multiscale_anchor_generator"} or coders != {"faster_rcnn_box_coder"}:
        return None
    before, after = (one.anchor_generator.multiscale_anchor_generator for one in (old, new))
    for name in ("aspect_ratios", "scales_per_octave", "min_level", "max_level"):
        if getattr(before, name) != getattr(after, name):
            return None
    scale = after.anchor_scale / before.anchor_scale
    was, now = (
        [getattr(one.box_coder.faster_rcnn_box_coder, name) for name in _SCALES]
        for one in (old, new)
    )
    ratios = [b / a for a, b in zip(was, now, strict=True)]
    return CodeChange(
        factors=(ratios[0] / scale, ratios[1] / scale, ratios[2], ratios[3]),
        offsets=(0.0, 0.0, -now[2] * math.log(scale), -now[3] * math.log(scale)),
    )
