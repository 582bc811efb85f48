"""Does the evaluation measure anything, and do the paths exist."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np

from urbandet_ray.errors import InputError, NotFoundError, StorageError, first_line
from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.records.data_folder import DataFolder, records_at
from urbandet_ray.storage import Storage
from urbandet_ray.training.doctor.case import Case, setting
from urbandet_ray.training.doctor.findings import Edit, Finding

_HIGH_SCORE = 0.05
_POST = {"ssd": "post_processing", "faster_rcnn": "second_stage_post_processing"}


def check_evaluation(case: Case) -> Iterator[Finding]:
    """Metrics by name, masks, an empty reader, score thresholds, moving averages."""
    yield from _check_metrics(case)
    yield from _check_room(case)
    config = case.config
    if not config.eval_input_reader:
        yield case.finding(
            "error",
            "eval-counts-nothing",
            "eval_input_reader",
            "there is no eval_input_reader: nothing is evaluated, the run is blind",
            "add an eval_input_reader with the validation records",
        )
    if config.eval_config.ignore_groundtruth:
        place = "eval_config.ignore_groundtruth"
        yield case.finding(
            "error",
            "eval-counts-nothing",
            place,
            "ignore_groundtruth: the labels are dropped, so no metric can be computed",
            "ignore_groundtruth: false",
            setting(place, False),
        )
    if case.val is not None and not len(case.val.class_ids):
        yield case.finding(
            "error",
            "eval-counts-nothing",
            "eval_input_reader",
            f"{case.val.uri} holds {case.val.frames:,} frames and not one box: mAP is -1",
            "point at labelled records",
        )
    averages = config.train_config.optimizer.use_moving_average
    if config.eval_config.use_moving_averages and not averages:
        place = "eval_config.use_moving_averages"
        yield case.finding(
            "warning",
            "moving-averages-missing",
            place,
            "the evaluation asks for moving averages of the weights, the optimizer keeps none",
            "use_moving_averages: false",
            setting(place, False),
        )
    yield from _check_threshold(case)


def _check_metrics(case: Case) -> Iterator[Finding]:
    known = open_odapi().model_lib_v2.eval_util.EVAL_METRICS_CLASS_DICT
    metrics = list(case.config.eval_config.metrics_set)
    for index, metric in enumerate(metrics):
        place = "eval_config.metrics_set" + (f"[{index}]" if index else "")
        if metric not in known:
            offered = get_close_matches(metric, list(known), n=1, cutoff=0.0)[0]
            yield case.finding(
                "error",
                "unknown-metric",
                place,
                f"the OD API has no metrics {metric!r}: the evaluation ends before it counts",
                f'metrics_set: "{offered}"',
                _replace_metric(index, offered),
            )
    masks = [metric for metric in metrics if "mask" in metric or "segmentation" in metric]
    if masks and case.val is not None and not case.val.has_masks:
        yield case.finding(
            "error" if len(masks) == len(metrics) else "warning",
            "eval-counts-nothing",
            "eval_config.metrics_set",
            f"{', '.join(masks)} measures masks, and no box of {case.val.uri} has one",
            'metrics_set: "coco_detection_metrics"',
            _only_boxes,
        )


def _only_boxes(config: Any) -> None:
    config.eval_config.metrics_set[:] = ["coco_detection_metrics"]


def _replace_metric(index: int, name: str) -> Edit:
    def edit(config: Any) -> None:
        config.eval_config.metrics_set[index] = name

    return edit


def _check_threshold(case: Case) -> Iterator[Finding]:
    if case.kind not in _POST:
        return
    base = f"model.{case.kind}.{_POST[case.kind]}.batch_non_max_suppression"
    nms = getattr(case.model, _POST[case.kind]).batch_non_max_suppression
    place = f"{base}.score_threshold"
    if nms.score_threshold > _HIGH_SCORE:
        yield case.finding(
            "warning",
            "eval-threshold-high",
            place,
            f"detections below a score of {nms.score_threshold:g} are dropped before they are "
            "counted: mAP comes out too low, early on it is 0",
            "score_threshold: 1e-8",
            setting(place, 1e-8),
        )


def _check_room(case: Case) -> Iterator[Finding]:
    """Suppression keeps so many boxes an image and class: fewer than some frames hold."""
    splits = [split for split in (case.train, case.val) if split is not None]
    if case.kind not in _POST or not splits:
        return
    base = f"model.{case.kind}.{_POST[case.kind]}.batch_non_max_suppression"
    nms = getattr(case.model, _POST[case.kind]).batch_non_max_suppression
    for name, what, columns in (
        ("max_total_detections", "boxes", [one.boxes_per_frame for one in splits]),
        ("max_detections_per_class", "boxes of one class", [one.most_of_a_class for one in splits]),
    ):
        limit, held = int(getattr(nms, name)), np.concatenate(columns)
        over = held > limit
        if limit and over.any():
            most, lost = int(held.max()), int((held[over] - limit).sum())
            yield case.finding(
                "warning",
                "detection-limit",
                f"{base}.{name}",
                f"{name} {limit}: {int(over.sum()):,} frames hold more {what}, up to {most}, so "
                f"{lost:,} boxes can't be found however good the model is",
                f"{name}: {most}",
                setting(f"{base}.{name}", most),
            )


def check_paths(case: Case, storage: Storage, data: DataFolder | None) -> Iterator[Finding]:
    """Label maps and records the config names.

    Args:
        data: what a run was told to take instead; what is missing is then only noted.
    """
    readers = [("train", "train_input_reader", case.config.train_input_reader)]
    readers += [
        ("val", "eval_input_reader" + (f"[{index}]" if index else ""), reader)
        for index, reader in enumerate(case.config.eval_input_reader)
    ]
    labels = data.labels_uri if data else None
    for split, place, reader in readers:
        yield from _check_kind(case, place, reader, split)
        path = reader.label_map_path
        lack = "" if path and path == labels else _lack_of_labels(path, storage)
        if lack:
            spot = f"{place}.label_map_path"
            yield _missing(case, spot, "label map", lack, split, [labels] if labels else [])
        part = data.parts.get(split) if data else None
        given = part.patterns if part else ()
        for pattern in list(reader.tf_record_input_reader.input_path) or [""]:
            lack = "" if pattern in given else _lack_of_records(pattern, storage)
            if lack:
                spot = f"{place}.tf_record_input_reader.input_path"
                yield _missing(case, spot, "records", lack, split, given)


def _check_kind(case: Case, place: str, reader: Any, split: str) -> Iterator[Finding]:
    """Records of whole drives, which neither `urbandet train` nor the records here are."""
    kinds = reader.DESCRIPTOR.fields_by_name["input_type"].enum_type.values_by_number
    if kinds[reader.input_type].name != "TF_SEQUENCE_EXAMPLE":
        return
    held = case.train if split == "train" else case.val
    single = held is not None and held.frames > 0
    spot = f"{place}.input_type"
    yield case.finding(
        "error",
        "sequence-examples",
        spot,
        "TF_SEQUENCE_EXAMPLE asks for records of whole sequences, which urbandet train can't read"
        + (f"; {held.uri} holds single frames" if single and held is not None else ""),
        "input_type: TF_EXAMPLE" + ("" if single else ", and records of single frames"),
        _set_kind(place) if single else None,
    )


def _set_kind(place: str) -> Edit:
    def edit(config: Any) -> None:
        name, _, index = place.partition("[")
        readers = getattr(config, name)
        reader = readers if name == "train_input_reader" else readers[int(index.rstrip("]") or 0)]
        kinds = reader.DESCRIPTOR.fields_by_name["input_type"].enum_type.values_by_name
        reader.input_type = kinds["TF_EXAMPLE"].number

    return edit


def _lack_of_labels(path: str, storage: Storage) -> str:
    """Why the label map cannot be read; "" where it can."""
    try:
        if path and storage.exists(path):
            return ""
    except StorageError as error:
        return first_line(error)
    return f"nothing is at {path}" if path else "no label map is named"


def _lack_of_records(path: str, storage: Storage) -> str:
    """Why there is nothing to train on or to validate with at a path; "" where there is."""
    if not path:
        return "no records is named"
    try:
        records_at(path, storage)
    except NotFoundError:
        return f"nothing is at {path}"
    except (InputError, StorageError) as error:
        return first_line(error)
    return ""


def _missing(
    case: Case, place: str, what: str, reason: str, split: str, given: Sequence[str]
) -> Finding:
    """The finding about a path; `given` is what the run takes in its place."""
    if not given:
        return case.finding(
            "error",
            "path-missing",
            place,
            f"{what}: {reason}: training ends before the first step",
            "a path that exists, or give --data",
        )
    shown = ", ".join(f'"{one}"' for one in given)
    return case.finding(
        "note",
        "path-replaced",
        place,
        f"{reason}; {', '.join(given)} takes its place, as --data says",
        shown,
        _set_path(split, place.rpartition(".")[2], given),
    )


def _set_path(split: str, name: str, values: Sequence[str]) -> Edit:
    def edit(config: Any) -> None:
        readers = [config.train_input_reader] if split == "train" else config.eval_input_reader
        for reader in readers:
            if name == "label_map_path":
                reader.label_map_path = values[0]
            else:
                reader.tf_record_input_reader.input_path[:] = values

    return edit
