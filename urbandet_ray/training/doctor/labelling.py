"""Is all that the labels say used: boxes left out, turned pictures, keypoints, too many boxes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from urbandet_ray.records.class_column import OTHER_NUMBER, UNKNOWN_TEXT
from urbandet_ray.training.doctor.case import Case
from urbandet_ray.training.doctor.dataset import DataSplit
from urbandet_ray.training.doctor.findings import Edit, Finding, Severity

_MOST_LEFT_OUT = 0.05
_TASKS = {
    "keypoint_estimation_task": "keypoints",
    "densepose_estimation_task": "DensePose's surface points",
    "track_estimation_task": "tracks",
    "temporal_offset_task": "offsets to the frame before",
}


def check_labelling(case: Case) -> Iterator[Finding]:
    """What the records say and no training hears."""
    yield from _check_tasks(case)
    for split, reader in ((case.train, "train_input_reader"), (case.val, "eval_input_reader")):
        if split is None:
            continue
        yield from _check_faults(case, split, reader)
        yield from _check_texts(case, split, reader)
        yield from _check_turns(case, split, reader)
        yield from _check_formats(case, split, reader)
        if split.keypoints and not _tasks_of(case):
            yield case.finding(
                "note",
                "keypoints-unread",
                f"{reader}.num_keypoints",
                f"{split.keypoints:,} of {split.frames:,} frames of {split.uri} hold keypoints: "
                "their boxes are read, the keypoints are not",
                "nothing, where boxes are wanted",
            )
    if case.train is not None and len(case.train.boxes_per_frame):
        yield from _check_limit(case, case.train)


def _tasks_of(case: Case) -> list[str]:
    """Fields of a model that learns more than boxes and masks."""
    if case.model is None:
        return []
    fields = case.model.DESCRIPTOR.fields_by_name
    found = []
    for name in _TASKS:
        if name in fields:
            value = getattr(case.model, name)
            repeated = name == "keypoint_estimation_task"
            if (repeated and len(value)) or (not repeated and case.model.HasField(name)):
                found.append(name)
    return found


def _check_tasks(case: Case) -> Iterator[Finding]:
    for name in _tasks_of(case):
        yield case.finding(
            "error",
            "task-not-trained",
            f"model.{case.kind}.{name}",
            f"the model learns {_TASKS[name]}, which urbandet reads from no record: it trains, "
            "evaluates and exports boxes and masks alone, and the first step would end with an "
            "error",
            f"leave {name} out to train boxes, or train {_TASKS[name]} with the OD API's own loop",
        )


def _check_faults(case: Case, split: DataSplit, reader: str) -> Iterator[Finding]:
    lost, kept = split.faults.boxes, len(split.class_ids)
    for line in split.faults.to_lines():
        share = lost / max(lost + kept, 1)
        yield case.finding(
            "error" if share > _MOST_LEFT_OUT else "warning",
            "labels-left-out",
            f"{reader}.tf_record_input_reader.input_path",
            f"{split.uri}: {line}; {kept:,} boxes are left",
            "mend the records; `urbandet data validate` lists each",
        )


def _check_texts(case: Case, split: DataSplit, reader: str) -> Iterator[Finding]:
    """Class texts that are no class, and numbers that are not their texts'."""
    counts, place = split.faults.counts, f"{reader}.label_map_path"
    lines = split.faults.class_lines()
    if counts[UNKNOWN_TEXT]:
        nothing_left = counts[UNKNOWN_TEXT] >= len(split.class_ids)
        severity: Severity = "error" if nothing_left else "warning"
    else:
        severity = "warning" if counts[OTHER_NUMBER] else "note"
    for line in lines:
        told, _, cure = line.rpartition("): ")
        yield case.finding(severity, "class-text", place, f"{split.uri}: {told})", cure)


def _check_turns(case: Case, split: DataSplit, reader: str) -> Iterator[Finding]:
    if split.turned:
        yield case.finding(
            "warning",
            "exif-turn",
            f"{reader}.tf_record_input_reader.input_path",
            f"{split.turned:,} of {split.frames:,} frames of {split.uri} have an EXIF tag that "
            "turns them: their pixels are used as they are encoded, as the OD API does, and boxes "
            "of the upright picture lie elsewhere",
            "look at them with `urbandet data show`; turn the pictures before they are written",
        )


def _check_formats(case: Case, split: DataSplit, reader: str) -> Iterator[Finding]:
    if split.untrainable:
        count = len(split.untrainable)
        yield case.finding(
            "error" if count == split.frames else "warning",
            "untrainable-image",
            f"{reader}.tf_record_input_reader.input_path",
            f"{count:,} of {split.frames:,} frames of {split.uri} cannot be trained on, though "
            f"inference reads them: {split.untrainable[0]}",
            "write the images of these records as JPEG or PNG",
        )


def _check_limit(case: Case, train: DataSplit) -> Iterator[Finding]:
    """The OD API cuts each image's boxes at max_number_of_boxes, in their order."""
    reader, config = case.config.train_input_reader, case.config.train_config
    most = int(train.boxes_per_frame.max())
    by_reader = reader.HasField("max_number_of_boxes") or not config.max_number_of_boxes
    place = "train_input_reader" if by_reader else "train_config"
    limit = int((reader if by_reader else config).max_number_of_boxes)
    if most <= limit:
        return
    cut = int((train.boxes_per_frame - limit).clip(min=0).sum())
    frames = int((train.boxes_per_frame > limit).sum())
    yield case.finding(
        "warning",
        "box-limit",
        f"{place}.max_number_of_boxes",
        f"a limit of {limit} boxes an image would lose {cut:,} of {len(train.class_ids):,} boxes, "
        f"the last ones of {frames:,} training frames, which hold up to {most}: the OD API's loop "
        "cuts them without a word, urbandet train makes room for all",
        f"max_number_of_boxes: {most}",
        _set_limit(most),
    )


def _set_limit(most: int) -> Edit:
    def edit(config: Any) -> None:
        config.train_input_reader.max_number_of_boxes = most
        config.train_config.max_number_of_boxes = most

    return edit
