"""What is done to training images: presets, or any list of the OD API's own augmentations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.errors import ConfigError
from urbandet_ray.models.odapi import open_odapi, without_autograph
from urbandet_ray.models.pipeline_config import parse_augmentations
from urbandet_ray.training.augmentation.box_columns import (
    BOXES,
    CLASSES,
    IMAGE,
    MASKS,
    WEIGHTS,
    clip_rows,
    columns_of,
    sometimes,
)
from urbandet_ray.training.augmentation.cut_out import cut_out
from urbandet_ray.training.augmentation.mixup import mixup
from urbandet_ray.training.augmentation.mosaic import mosaic
from urbandet_ray.training.model import Tensors

Companion = Callable[[int], Tensors]
"""Another image by its number, 0 to 2; decoded only where it is asked for."""

PRESETS = ("config", "none", "flip", "course", "strong")

_FLIP = "data_augmentation_options { random_horizontal_flip { } }"
_COURSE_CROP = """
data_augmentation_options {
  random_crop_image { min_object_covered: 0.0 min_aspect_ratio: 0.75 max_aspect_ratio: 3.0
    min_area: 0.75 max_area: 1.0 overlap_thresh: 0.0 }
}"""
_SCALE_CROP_PAD = """
data_augmentation_options {{
  random_scale_crop_and_pad_to_square {{ output_size: {size} scale_min: 0.5 scale_max: 2.0 }}
}}"""
_COLOURS = """
data_augmentation_options { random_adjust_brightness { max_delta: 0.125 } }
data_augmentation_options { random_adjust_contrast { min_delta: 0.5 max_delta: 1.5 } }
data_augmentation_options { random_adjust_saturation { min_delta: 0.5 max_delta: 1.5 } }
data_augmentation_options { random_adjust_hue { max_delta: 0.05 } }"""
_CONFIDENCES = "groundtruth_confidences"
_LOSES_MASKS = frozenset(
    {
        "autoaugment_image",
        "random_crop_pad_image",
        "random_self_concat_image",
        "ssd_random_crop_pad",
        "ssd_random_crop_pad_fixed_aspect_ratio",
    }
)


@dataclass(frozen=True)
class Mosaic:
    """Four images in one (augment/mosaic.py), on a share of the images."""

    probability: float
    scale_min: float = 0.5
    keep_share: float = 0.3


@dataclass(frozen=True)
class Mixup:
    """Two images blended (augment/mixup.py), on a share of the images."""

    probability: float
    alpha: float = 1.5


@dataclass(frozen=True)
class CutOut:
    """Grey patches (augment/cut_out.py), on a share of the images."""

    probability: float
    patches: int = 2
    side_min: float = 0.1
    side_max: float = 0.3
    covered_max: float = 0.7


@dataclass(frozen=True, eq=False)
class OdApiOptions:
    """Augmentations of the OD API, one after another.

    Attributes:
        names: as in data_augmentation_options.
        functions: (function, keyword arguments), as its preprocessor_builder makes them.
    """

    names: tuple[str, ...]
    functions: tuple[tuple[Any, dict[str, Any]], ...]


Step = Mosaic | Mixup | CutOut | OdApiOptions


@dataclass(frozen=True, eq=False)
class Augmentation:
    """Steps that are applied in a row to one image's tensors (training/model.py), in graph mode.

    All columns of the boxes keep one length, and boxes stay in [0, 1] and have some area.
    """

    steps: tuple[Step, ...]

    @property
    def companions(self) -> int:
        """How many other images a call may ask for: 0 or 3."""
        return 3 if any(isinstance(step, Mosaic | Mixup) for step in self.steps) else 0

    def most_boxes(self, boxes: NDArray[np.int32]) -> int:
        """The most boxes that an image may hold afterwards, of [n] images with so many each.

        A mosaic joins four images and mixup two; each may be the one with the most, but one.
        """
        images = 1
        for step in self.steps:
            if isinstance(step, Mosaic):
                images += 3
            elif isinstance(step, Mixup):
                images += 1
            elif isinstance(step, OdApiOptions):
                images <<= step.names.count("random_self_concat_image")
        held = int(boxes.max(initial=0))
        return held if images == 1 else int(np.sort(boxes)[-images:].sum())

    @without_autograph
    def __call__(self, image: Tensors, companion: Companion | None = None) -> Tensors:
        """The image augmented; `companion` is needed where `companions` is not 0."""
        if self.companions and companion is None:
            raise ValueError("mosaic and mixup need companions")
        for step in self.steps:
            image = _apply(step, image, companion)
        return image


def augmentation(
    choice: str, output_size_hw: tuple[int, int], config_options: Iterable[Any] = ()
) -> Augmentation:
    """Make an augmentation.

    Args:
        choice: a preset; or text with data_augmentation_options { .. } blocks, as in a
            pipeline.config. `course` is what the course's config does. `strong`: mosaic on half
            of the images, mixup on 15 %, then scaled, cropped and padded to the output size,
            flipped, colours changed, cut-out on half.
        output_size_hw: what the model takes, in pixels; `strong` makes squares of the longer side.
        config_options: train_config.data_augmentation_options, what `config` stands for.

    Raises:
        ConfigError: neither a preset nor such text, or options the OD API does not take.
    """
    if choice == "config":
        return Augmentation(_built(config_options))
    if choice == "none":
        return Augmentation(())
    if choice == "flip":
        return Augmentation(_parsed(_FLIP))
    if choice == "course":
        return Augmentation(_parsed(_FLIP + _COURSE_CROP))
    if choice == "strong":
        # colours after the crop, where there are fewer pixels; a hue of 0.05 as in SSD (Liu et al.
        # 2016), random_distort_color's 0.2 makes green and violet streets
        scaled = _SCALE_CROP_PAD.format(size=max(output_size_hw)) + _FLIP + _COLOURS
        return Augmentation((Mosaic(0.5), Mixup(0.15), *_parsed(scaled), CutOut(0.5)))
    if "{" not in choice:
        raise ConfigError(
            f"augmentation {choice!r} is not known: choose one of {', '.join(PRESETS)}, or write "
            "data_augmentation_options { .. } blocks as in a pipeline.config"
        )
    return Augmentation(_parsed(choice))


def _parsed(text: str) -> tuple[Step, ...]:
    return _built(parse_augmentations(text))


def _built(options: Iterable[Any]) -> tuple[Step, ...]:
    names, functions = [], []
    for option in options:
        name = option.WhichOneof("preprocessing_step")
        if name is None:
            raise ConfigError("data_augmentation_options { } is empty: name an augmentation in it")
        try:
            functions.append(open_odapi().preprocessor_builder.build(option))
        except (ValueError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"the OD API cannot make the augmentation {name}: {error}: change its "
                "settings or leave it out"
            ) from error
        names.append(str(name))
    return (OdApiOptions(tuple(names), tuple(functions)),) if names else ()


def _apply(step: Step, image: Tensors, companion: Companion | None) -> Tensors:
    if isinstance(step, OdApiOptions):
        return _apply_options(step, image)
    if isinstance(step, CutOut):
        return sometimes(
            step.probability,
            lambda: cut_out(
                image,
                patches=step.patches,
                side_min=step.side_min,
                side_max=step.side_max,
                covered_max=step.covered_max,
            ),
            image,
        )
    other = _given(companion)
    if isinstance(step, Mixup):
        return sometimes(step.probability, lambda: mixup(image, other(0), alpha=step.alpha), image)
    return sometimes(
        step.probability,
        lambda: mosaic(
            image,
            [other(number) for number in range(3)],
            scale_min=step.scale_min,
            keep_share=step.keep_share,
        ),
        image,
    )


def _given(companion: Companion | None) -> Companion:
    if companion is None:
        raise ValueError("mosaic and mixup need companions")
    return companion


def _apply_options(step: OdApiOptions, image: Tensors) -> Tensors:
    """The OD API's functions on what they know; the other columns follow by row number.

    They drop boxes with their classes, weights, masks and confidences, and overlook all other
    columns: so row numbers travel as confidences.
    """
    odapi = open_odapi()
    tf = odapi.tf
    if MASKS in image:
        _refuse_losing_masks(step.names)
    known = {name: image[name] for name in (IMAGE, BOXES, CLASSES, WEIGHTS, MASKS) if name in image}
    count = tf.shape(image[BOXES])[0]
    known[_CONFIDENCES] = tf.cast(tf.range(count), tf.float32)
    options = [(function, dict(arguments)) for function, arguments in step.functions]
    done = odapi.inputs.augment_input_data(known, options)
    rows = tf.cast(done.pop(_CONFIDENCES), tf.int32)
    for name, column in columns_of(image).items():
        if name not in done:
            done[name] = tf.gather(column, rows)
    done[CLASSES] = tf.cast(done[CLASSES], tf.int64)
    done[IMAGE] = tf.ensure_shape(tf.cast(done[IMAGE], tf.float32), [None, None, 3])
    return clip_rows({**image, **done})


def _refuse_losing_masks(names: Sequence[str]) -> None:
    for name in names:
        if name in _LOSES_MASKS:
            raise ConfigError(
                f"the augmentation {name} does not move masks with their boxes, and this model "
                "trains masks: leave it out, random_crop_image and random_pad_image do"
            )
