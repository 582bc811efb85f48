"""Does the data suit the model: anchors, input size, augmentation, splits, epochs, memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from urbandet_ray.boxes import Boxes
from urbandet_ray.records.leaks import find_leaks
from urbandet_ray.training.doctor.case import Case, at, rounded, setting
from urbandet_ray.training.doctor.dataset import DataSplit
from urbandet_ray.training.doctor.findings import Edit, Finding
from urbandet_ray.training.doctor.geometry import (
    ANCHOR_FIELDS,
    anchors_of,
    best_ious,
    resized_boxes,
)

_IOU_MIN = 0.5
_UNCOVERED_SHARE = 0.2
_SMALL_PX, _SMALL_SHARE = 8.0, 0.1
_SCALE_FACTORS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.25, 1.5, 2.0)
_WORTHWHILE = 0.75
_MANY_EPOCHS = 300


def check_data(case: Case) -> Iterator[Finding]:
    """Everything that needs the boxes, and what needs the resizer alone."""
    yield from _check_augmentation_size(case)
    yield from _check_padding(case)
    yield from _check_splits(case)
    train = case.train
    if train is None:
        return
    if not len(train.class_ids):
        yield case.finding(
            "error",
            "no-boxes",
            "train_input_reader",
            f"{train.uri} holds {train.frames:,} frames and not one box: there is nothing to learn",
            "point at labelled records",
        )
        return
    yield from _check_epochs(case, train.frames)
    yield from _check_masks(case, train)
    boxes = resized_boxes(case, train)
    if boxes is not None:
        yield from _check_small(case, boxes, train.boxes_xyxy)
        yield from _check_left_out(case, boxes)
        yield from _check_anchors(case, boxes)


def _check_masks(case: Case, train: DataSplit) -> Iterator[Finding]:
    learns = {
        "faster_rcnn": "number_of_stages",
        "center_net": "mask_estimation_task",
    }.get(case.kind, "")
    if learns == "number_of_stages":
        asked = case.model.number_of_stages == 3
    else:
        asked = bool(learns) and case.model.HasField(learns)
    if asked and not train.has_masks:
        yield case.finding(
            "error",
            "masks-missing",
            f"model.{case.kind}.{learns}",
            f"the model learns masks, and no box of {train.uri} has one: the OD API ends at the "
            "first step, urbandet train learns boxes and leaves the mask head at its start",
            "records with image/object/mask"
            + (", or number_of_stages: 2 for boxes alone" if case.kind == "faster_rcnn" else ""),
        )


def figures(case: Case) -> dict[str, float]:
    """How badly the boxes suit the model, by name in words; the lower, the better."""
    boxes = None if case.train is None else resized_boxes(case, case.train)
    if boxes is None or not len(boxes):
        return {}
    sides = (boxes[:, 2:] - boxes[:, :2]).min(axis=1)
    found = {f"the share of boxes below {_SMALL_PX:g} px": float((sides < _SMALL_PX).mean())}
    anchors = anchors_of(case)
    if anchors is not None:
        best = best_ious(boxes, anchors, case.input_size_wh())
        found["the share of boxes that no anchor fits"] = float((best < _IOU_MIN).mean())
    return found


def _check_small(case: Case, boxes: Any, stored_boxes: Boxes) -> Iterator[Finding]:
    sides = (boxes[:, 2:] - boxes[:, :2]).min(axis=1)
    stored = (stored_boxes[:, 2:] - stored_boxes[:, :2]).min(axis=1)
    small = float((sides < _SMALL_PX).mean())
    if small <= _SMALL_SHARE:
        return
    name, _ = case.resizer()
    size = case.input_size_wh()
    shown = f"{size[0]} x {size[1]}" if size else "the input"
    was = float((stored < _SMALL_PX).mean())
    wanted = float(np.quantile(sides, _SMALL_SHARE))
    grow = f"; {_SMALL_PX / max(wanted, 0.1):.2g} times the input size would bring it to "
    leave_out = "" if case.min_box_side else f"; min_box_side={_SMALL_PX:g} trains without them"
    yield case.finding(
        "warning",
        "boxes-too-small",
        f"model.{case.kind}.image_resizer.{name}",
        f"at {shown}, {small:.0%} of the training boxes have a side below {_SMALL_PX:g} px "
        f"({was:.0%} in the stored frames): the network can hardly see them",
        "a larger input, or tiles" + grow + f"{_SMALL_SHARE:.0%}{leave_out}",
    )


def _check_left_out(case: Case, boxes: Any) -> Iterator[Finding]:
    sides = (boxes[:, 2:] - boxes[:, :2]).min(axis=1)
    below = int((sides < case.min_box_side).sum())
    if below:
        yield case.finding(
            "error" if below == len(sides) else "note",
            "boxes-left-out",
            f"model.{case.kind}.image_resizer",
            f"min_box_side={case.min_box_side:g} leaves {below:,} of {len(sides):,} training boxes "
            "out of training, counted before augmentation; the validation counts them all",
            "a smaller min_box_side" if below == len(sides) else "nothing",
        )


def _check_anchors(case: Case, boxes: Any) -> Iterator[Finding]:
    anchors = anchors_of(case)
    if anchors is None:
        return
    size = case.input_size_wh()

    def uncovered(factor: float) -> float:
        return float((best_ious(boxes, anchors.scaled(factor), size) < _IOU_MIN).mean())

    share = uncovered(1.0)
    if share <= _UNCOVERED_SHARE:
        return
    best = min(_SCALE_FACTORS, key=uncovered)
    after = uncovered(best)
    place, text, edit = _scaling(case, best)
    sides = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
    low, mid, high = np.percentile(sides, [10, 50, 90])
    shapes = np.sqrt(anchors.sizes_wh.prod(axis=1))
    worth = after < _WORTHWHILE * share
    yield case.finding(
        "warning",
        "anchors-miss-boxes",
        place,
        f"{share:.0%} of the training boxes overlap no anchor by {_IOU_MIN:g} or more: boxes have "
        f"sides of {low:.0f}/{mid:.0f}/{high:.0f} px (10th, 50th, 90th percentile), anchors of "
        f"{shapes.min():.0f} to {shapes.max():.0f} px; these boxes get one forced, poor match each",
        f"{text}: {after:.0%} are left (not if a checkpoint's box head is kept: it knows the old)"
        if worth
        else "a larger input, or other aspect_ratios",
        edit if worth else None,
    )


def _scaling(case: Case, factor: float) -> tuple[str, str, Edit]:
    """The field that scales all anchors, its new text, and the edit; their number stays."""
    base = f"model.{case.kind}.{ANCHOR_FIELDS[case.kind]}"
    branch = at(case.config, base).WhichOneof("anchor_generator_oneof")
    name = "anchor_scale" if branch == "multiscale_anchor_generator" else "scales"
    place = f"{base}.{branch}.{name}"
    parent, _, name = place.rpartition(".")
    old = getattr(at(case.config, parent), name)
    if name == "anchor_scale":
        value = rounded(old * factor, 3)
        return place, f"anchor_scale: {value:g}", setting(place, value)
    scales = [rounded(one * factor, 3) for one in old] or [factor]

    def edit(config: Any) -> None:
        getattr(at(config, parent), name)[:] = scales

    return place, f"scales: [{', '.join(f'{one:g}' for one in scales)}]", edit


def _check_augmentation_size(case: Case) -> Iterator[Finding]:
    size = case.input_size_wh()
    if size is None:
        return
    for index, option in enumerate(case.config.train_config.data_augmentation_options):
        step = option.WhichOneof("preprocessing_step")
        place = "train_config.data_augmentation_options" + (f"[{index}]" if index else "")
        if step == "random_scale_crop_and_pad_to_square":
            got = (option.random_scale_crop_and_pad_to_square.output_size,) * 2
            name, wanted = "output_size", f"output_size: {max(size)}"
        elif step == "resize_image":
            got = (option.resize_image.new_width, option.resize_image.new_height)
            name, wanted = "new_height", f"new_width: {size[0]}, new_height: {size[1]}"
        else:
            continue
        if got in (size, (max(size),) * 2):
            continue
        yield case.finding(
            "warning",
            "augmentation-size",
            f"{place}.{step}.{name}",
            f"{step} makes {got[0]} x {got[1]} px, the resizer then makes {size[0]} x {size[1]}: "
            "training sees objects at another scale than evaluation does, and blurred",
            wanted,
            _resize_step(index, step, size),
        )


def _resize_step(index: int, step: str, size: tuple[int, int]) -> Edit:
    def edit(config: Any) -> None:
        message = getattr(config.train_config.data_augmentation_options[index], step)
        if step == "resize_image":
            message.new_width, message.new_height = size
        else:
            message.output_size = max(size)

    return edit


def _check_padding(case: Case) -> Iterator[Finding]:
    name, resizer = case.resizer()
    batch = case.config.train_config.batch_size
    if name != "keep_aspect_ratio_resizer" or resizer.pad_to_max_dimension or batch < 2:
        return
    shapes = 0 if case.train is None else len(np.unique(case.train.sizes_wh, axis=0))
    if shapes == 1:
        return
    place = f"model.{case.kind}.image_resizer.{name}.pad_to_max_dimension"
    yield case.finding(
        "error" if shapes > 1 else "warning",
        "unequal-images-in-batch",
        place,
        f"images of {shapes or 'several'} sizes keep their shape and are not padded: they don't "
        f"stack to a batch of {batch}",
        "pad_to_max_dimension: true",
        setting(place, True),
    )


def _check_splits(case: Case) -> Iterator[Finding]:
    if case.train is None or case.val is None:
        return
    leaks = find_leaks(case.train.pictures, case.val.pictures)
    place = "eval_input_reader.tf_record_input_reader.input_path"
    sampled = f"; {leaks.compared}" if leaks.compared else ""
    for line in leaks.to_lines():
        is_drive = "drives" in line.partition(" (")[0]
        yield case.finding(
            "warning" if is_drive else "error",
            "segments-shared" if is_drive else "frames-shared",
            place,
            f"{line}: the validation mAP shows what was learned by heart{sampled}",
            "split by drive: no frame, and no neighbour of one, on both sides",
        )


def _check_epochs(case: Case, frames: int) -> Iterator[Finding]:
    batch = case.global_batch
    if not batch or not frames:
        return
    per_epoch = frames / batch
    place = "train_config.batch_size"
    if not case.steps:
        epochs = 0.0
        what = f"{frames:,} frames in batches of {batch} make {per_epoch:,.0f} steps an epoch"
    else:
        epochs = case.steps / per_epoch
        what = (
            f"{frames:,} frames in batches of {batch} make {per_epoch:,.0f} steps an epoch; "
            f"{case.steps:,} steps are {epochs:,.3g} epochs"
        )
    if epochs > _MANY_EPOCHS:
        steps = round(_MANY_EPOCHS / 3 * per_epoch)
        yield case.finding(
            "warning",
            "many-epochs",
            "train_config.num_steps",
            f"{what}: the network learns {frames:,} frames by heart long before the end",
            f"about {steps:,} steps (100 epochs), or more data",
        )
    elif case.steps and epochs < 1:
        yield case.finding(
            "warning",
            "less-than-an-epoch",
            "train_config.num_steps",
            f"{what}: part of the frames is never seen",
            f"at least {round(per_epoch):,} steps",
        )
    else:
        yield case.finding("note", "steps-per-epoch", place, what, "nothing")
