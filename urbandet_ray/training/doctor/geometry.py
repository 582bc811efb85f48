"""Anchors against boxes, in NumPy: sizes after the resizer, and the best overlap of each box."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.training.doctor.case import Case
from urbandet_ray.training.doctor.dataset import DataSplit

Floats = NDArray[np.float64]

_CHUNK = 512

ANCHOR_FIELDS = {"ssd": "anchor_generator", "faster_rcnn": "first_stage_anchor_generator"}
"""The field of a meta-architecture that says where anchors lie."""


@dataclass(frozen=True, eq=False)
class Anchors:
    """Anchor shapes, one row a shape and level, each repeated over a grid.

    Attributes:
        sizes_wh: [a, 2] px.
        strides: [a] px between neighbours.
        offsets: [a] px of the first centre.
    """

    sizes_wh: Floats
    strides: Floats
    offsets: Floats

    def scaled(self, factor: float) -> Anchors:
        """The same grid with larger or smaller anchors."""
        return Anchors(self.sizes_wh * factor, self.strides, self.offsets)


def resized_boxes(case: Case, split: DataSplit) -> Floats | None:
    """Boxes of a split in pixels of the network's input, [n, 4] xyxy.

    None where the resizer is of a kind whose output is not known beforehand.
    """
    name, resizer = case.resizer()
    sizes = split.sizes_wh.astype(np.float64)
    if name == "fixed_shape_resizer":
        factors = np.array([resizer.width, resizer.height]) / sizes
    elif name == "keep_aspect_ratio_resizer":
        # preprocessor.resize_to_range: the short side to min_dimension, unless the long one
        # then passes max_dimension
        factor = resizer.min_dimension / sizes.min(axis=1, initial=np.inf)
        factor = np.minimum(factor, resizer.max_dimension / sizes.max(axis=1, initial=0.0))
        factors = np.repeat(factor[:, None], 2, axis=1)
    elif name in ("identity_resizer", "pad_to_multiple_resizer"):
        factors = np.ones_like(sizes)
    else:
        return None
    return np.asarray(split.boxes_xyxy.astype(np.float64) * np.tile(factors, 2))


def anchors_of(case: Case) -> Anchors | None:
    """The anchors of the config; None for a model without, or a generator not covered here."""
    if case.kind not in ANCHOR_FIELDS:
        return None
    generator = getattr(case.model, ANCHOR_FIELDS[case.kind])
    kind = generator.WhichOneof("anchor_generator_oneof")
    if kind == "multiscale_anchor_generator":
        return _multiscale(generator.multiscale_anchor_generator, case.input_size_wh())
    if kind == "grid_anchor_generator":
        return _grid(generator.grid_anchor_generator)
    return None


def _multiscale(config: Any, size_wh: tuple[int, int] | None) -> Anchors:
    octaves = 2.0 ** (np.arange(config.scales_per_octave) / config.scales_per_octave)
    roots = np.sqrt(np.array(config.aspect_ratios or [1.0], np.float64))
    sizes, strides, offsets = [], [], []
    for level in range(config.min_level, config.max_level + 1):
        stride = 2.0**level
        sides = octaves * stride * config.anchor_scale
        sizes.append(_shapes(sides, sides, roots))
        strides.append(np.full(len(sizes[-1]), stride))
        # multiscale_grid_anchor_generator: half a stride only where the image divides by it
        whole = size_wh is None or all(side % stride == 0 for side in size_wh)
        offsets.append(np.full(len(sizes[-1]), stride / 2 if whole else 0.0))
    return Anchors(np.concatenate(sizes), np.concatenate(strides), np.concatenate(offsets))


def _grid(config: Any) -> Anchors:
    scales = np.array(config.scales or [1.0], np.float64)
    roots = np.sqrt(np.array(config.aspect_ratios or [1.0], np.float64))
    sizes = _shapes(scales * config.width, scales * config.height, roots)
    stride = float(config.height_stride)
    return Anchors(
        sizes, np.full(len(sizes), stride), np.full(len(sizes), float(config.height_offset))
    )


def _shapes(widths: Floats, heights: Floats, roots: Floats) -> Floats:
    """Every side with every ratio (given as its square root), [n, 2] wh."""
    return np.stack([np.outer(widths, roots).ravel(), np.outer(heights, 1 / roots).ravel()], axis=1)


def best_ious(boxes_xyxy: Floats, anchors: Anchors, size_wh: tuple[int, int] | None) -> Floats:
    """Overlap of each box with the anchor that fits it best, [n] in [0, 1].

    For one shape the nearest grid point is the best, so only that one is looked at.

    Args:
        boxes_xyxy: [n, 4] px of the network's input.
        anchors: shapes and grids.
        size_wh: the input's size, where the grid ends; None for a grid without end.
    """
    values = (boxes_xyxy, anchors.sizes_wh, anchors.strides, anchors.offsets)
    return _kept_best_ious(*(one.astype(np.float64).tobytes() for one in values), size_wh)


@lru_cache(maxsize=64)  # each fix is examined, and few of them touch boxes or anchors
def _kept_best_ious(
    boxes: bytes, sizes: bytes, strides: bytes, offsets: bytes, size_wh: tuple[int, int] | None
) -> Floats:
    boxes_xyxy = np.frombuffer(boxes).reshape(-1, 4)
    anchors = Anchors(
        np.frombuffer(sizes).reshape(-1, 2), np.frombuffer(strides), np.frombuffer(offsets)
    )
    parts = [
        _best_of(boxes_xyxy[first : first + _CHUNK], anchors, size_wh)
        for first in range(0, len(boxes_xyxy), _CHUNK)
    ]
    return np.concatenate([np.zeros(0), *parts])


def _best_of(boxes: Floats, anchors: Anchors, size_wh: tuple[int, int] | None) -> Floats:
    sides = (boxes[:, 2:] - boxes[:, :2])[:, None, :]
    centres = ((boxes[:, 2:] + boxes[:, :2]) / 2)[:, None, :]
    strides, offsets = anchors.strides[:, None], anchors.offsets[:, None]
    steps = np.round((centres - offsets) / strides)
    ends = np.inf if size_wh is None else np.ceil(np.array(size_wh) / strides) - 1
    nearest = np.clip(steps, 0, ends) * strides + offsets
    reach = (sides + anchors.sizes_wh) / 2 - np.abs(centres - nearest)
    shared = np.clip(np.minimum(reach, np.minimum(sides, anchors.sizes_wh)), 0, None).prod(axis=2)
    areas = sides.prod(axis=2) + anchors.sizes_wh.prod(axis=1)[None, :] - shared
    return np.asarray((shared / np.maximum(areas, 1e-9)).max(axis=1))
