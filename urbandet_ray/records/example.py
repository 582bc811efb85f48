"""TF Example <-> Frame, with every key of the OD API's decoder.

Keys and meanings: object_detection/data_decoders/tf_example_decoder.py. Boxes are stored
normalised to [0, 1] and are xyxy pixels in a Frame.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.boxes import boxes_from_yxyx_norm, boxes_to_yxyx_norm, clip_boxes
from urbandet_ray.errors import RecordError
from urbandet_ray.frames import Frame, Truth
from urbandet_ray.labels import LabelMap
from urbandet_ray.phrases import printable, some_of
from urbandet_ray.records.class_column import class_ids_of
from urbandet_ray.records.example_proto import example_class
from urbandet_ray.records.image_headers import IMAGE_SUFFIXES, image_size
from urbandet_ray.records.images import encode_png
from urbandet_ray.records.label_columns import (
    BBOX,
    OBJECT,
    Column,
    column,
    read_columns,
    read_corners,
    read_either,
    read_masks,
)
from urbandet_ray.records.label_faults import usable_rows


def frame_from_example(
    data: bytes, *, default_key: str, segment: str, labels: LabelMap | None = None
) -> Frame:
    """Read a frame; labels that cannot be used are left out (see frame_and_problems_from_example).

    Raises:
        RecordError: not-an-example, or no-image-key.
    """
    return frame_and_problems_from_example(
        data, default_key=default_key, segment=segment, labels=labels
    )[0]


def frame_and_problems_from_example(
    data: bytes, *, default_key: str, segment: str, labels: LabelMap | None = None
) -> tuple[Frame, tuple[str, ...]]:
    """Read a frame and what is wrong with its labels; the frame can be inferred all the same.

    Boxes are clipped to the image; those that are not finite, in another unit than shares of the
    image, inverted or empty after clipping are left out of the truth. An odd column is left out
    alone; without corners or classes that can be read the truth is None. A record without any
    image/object key is unlabelled: its truth is None, and no problem.

    Args:
        data: a serialised tf.train.Example.
        default_key: the frame_key where the record names its frame only by the file it is in.
        segment: the drive.
        labels: turns class texts into ids (class_column.py); None takes the numbers.

    Returns:
        The frame, and "reason: detail" a problem: bad-labels (no truth), odd-column,
        no-class-id, size-mismatch; for each box that is left out box-not-finite, box-pixels,
        box-percent, box-inverted or box-empty; box-outside for one that is clipped.

    Raises:
        RecordError: not-an-example, or no-image-key.
    """
    features = parse_features(data)
    encoded = _only(features, "image/encoded", "bytes")
    if not isinstance(encoded, bytes) or not encoded:
        raise RecordError(
            "no-image-key",
            f"no image/encoded bytes in the record; it has {some_of(sorted(features), 8)}",
        )
    problems: list[str] = []
    image_format, size_wh = _format_and_size(features, encoded, problems)
    frame = Frame(
        frame_key=_frame_key(features, default_key, segment),
        segment=segment,
        encoded=encoded,
        format=image_format,
        size_wh=size_wh,
        truth=_read_truth(features, size_wh, labels, problems),
        camera=_text(_only(features, "image/camera", "bytes")),
        timestamp_us=_only(features, "image/timestamp_us", "int64"),
    )
    return frame, tuple(problems)


def example_from_frame(frame: Frame, source_name: str = "") -> bytes:
    """Serialise a frame as a tf.train.Example the OD API reads.

    Args:
        frame: encoded as JPEG or PNG; a missing size is read from the image.
        source_name: image/source_id; the frame_key where it is empty.

    Raises:
        RecordError: raw-image (encode it first), or undecodable-image where the size is needed.
    """
    if frame.format not in ("jpeg", "png"):
        raise RecordError(
            "raw-image",
            f"frame {frame.frame_key} is {frame.format}: encode it as JPEG or PNG first",
        )
    width, height = frame.size_wh or image_size(frame.encoded)[1:]
    example = example_class()()
    feature = example.features.feature
    for key, value in (
        ("image/encoded", frame.encoded),
        ("image/format", frame.format.encode()),
        ("image/filename", os.fsencode(frame.file_name or frame.frame_key)),
        ("image/source_id", os.fsencode(source_name or frame.frame_key)),
        ("image/key/sha256", hashlib.sha256(frame.encoded).hexdigest().encode()),
    ):
        feature[key].bytes_list.value.append(value)
    feature["image/width"].int64_list.value.append(width)
    feature["image/height"].int64_list.value.append(height)
    if frame.camera:
        feature["image/camera"].bytes_list.value.append(frame.camera.encode())
    if frame.timestamp_us is not None:
        feature["image/timestamp_us"].int64_list.value.append(frame.timestamp_us)
    if frame.truth is not None:
        _write_truth(feature, frame.truth, (width, height))
    serialised: bytes = example.SerializeToString(deterministic=True)
    return serialised


def repaired_example(data: bytes, labels: LabelMap | None = None) -> bytes:
    """An Example whose object columns are what was read of them: no odd column, no useless box, and
    the numbers that the label map has for the class texts; boxes of no class of it are left out.

    Raises:
        RecordError: not-an-example, or no-image-key.
    """
    frame = frame_from_example(data, default_key="", segment="", labels=labels)
    example = example_class()()
    example.ParseFromString(data)
    feature = example.features.feature
    for key in [key for key in feature if key.startswith(OBJECT)]:
        del feature[key]
    if frame.truth is not None and frame.size_wh is not None:
        truth = (
            frame.truth if labels is None else frame.truth.keep(labels.has(frame.truth.class_ids))
        )
        _write_truth(feature, truth, frame.size_wh)
    repaired: bytes = example.SerializeToString(deterministic=True)
    return repaired


def parse_features(data: bytes) -> Mapping[str, Any]:
    """The Feature messages of a serialised Example by key.

    Raises:
        RecordError: not-an-example.
    """
    from google.protobuf.message import DecodeError

    example = example_class()()
    try:
        example.ParseFromString(data)
    except DecodeError as error:
        raise RecordError(
            "not-an-example", f"{len(data)} bytes are no tf.Example: {error}"
        ) from None
    features: Mapping[str, Any] = example.features.feature
    if not features:
        raise RecordError("not-an-example", f"{len(data)} bytes hold no tf.Example features")
    return features


def _only(features: Mapping[str, Any], key: str, kind: str) -> Any:
    values = column(features, key, kind)
    return values[0] if values else None


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""


def _frame_key(features: Mapping[str, Any], default_key: str, segment: str) -> str:
    """source_id or filename, unless it names the whole file (Waymo converters write that)."""
    for key in ("image/source_id", "image/filename"):
        value = _only(features, key, "bytes")
        name = printable(os.fsdecode(value)).strip() if isinstance(value, bytes) else ""
        base = name.rsplit("/", 1)[-1]
        stem, dot, suffix = base.rpartition(".")
        is_image = f"{dot}{suffix}".lower() in IMAGE_SUFFIXES and bool(stem)
        names_file = "tfrecord" in base or f"--{segment}".endswith(f"--{base}")
        if is_image or (base[-1:].isdigit() and not names_file):
            return name[: -len(suffix) - 1] if is_image else name
    return default_key


def _format_and_size(
    features: Mapping[str, Any], encoded: bytes, problems: list[str]
) -> tuple[str, tuple[int, int] | None]:
    """Both from the image's own header, as its pixels decide; else from the keys."""
    width = _only(features, "image/width", "int64")
    height = _only(features, "image/height", "int64")
    stated = (width, height) if width and height and min(width, height) > 0 else None
    try:
        image_format, *size = image_size(encoded)
    except RecordError:
        named = _text(_only(features, "image/format", "bytes")).lower()
        return ("png" if named == "png" else "jpeg"), stated
    actual = (size[0], size[1])
    if stated is not None and stated != actual:
        problems.append(
            f"size-mismatch: image/width, image/height say {stated[0]}x{stated[1]}, the image is "
            f"{actual[0]}x{actual[1]}; boxes are taken relative to the image"
        )
    return image_format, actual


def _read_truth(
    features: Mapping[str, Any],
    size_wh: tuple[int, int] | None,
    labels: LabelMap | None,
    problems: list[str],
) -> Truth | None:
    if not any(key.startswith(OBJECT) for key in features):
        return None
    if size_wh is None:
        problems.append("bad-labels: the image's size is unknown, so boxes have no pixels")
        return None
    try:
        boxes_norm = read_corners(features, problems)
        columns = read_columns(features, len(boxes_norm), problems)
    except RecordError as error:
        problems.append(str(error))
        return None
    n = len(boxes_norm)
    texts = tuple(_text(text) for text in columns["class/text"]) or ("",) * n
    ids = class_ids_of(texts, columns["class/label"], labels, problems)
    truth = Truth.of(
        clip_boxes(boxes_from_yxyx_norm(boxes_norm, size_wh), size_wh),
        ids,
        texts,
        difficult=_or_none(columns["difficult"]),
        is_crowd=_or_none(columns["is_crowd"]),
        group_of=_or_none(columns["group_of"]),
        masks_png=read_masks(features, n, size_wh, problems),
        areas_px=_or_none(columns["area"]),
        weights=_or_none(columns["weight"]),
        truncated=read_either(features, "truncated", n, problems),
        occluded=read_either(features, "occluded", n, problems),
    )
    usable = usable_rows(boxes_norm, truth.boxes_xyxy, size_wh, problems)
    return truth if usable.all() else truth.keep(usable)


def _or_none(values: NDArray[Any]) -> NDArray[Any] | None:
    return values if len(values) else None


def _write_truth(feature: Any, truth: Truth, size_wh: tuple[int, int]) -> None:
    boxes_norm = boxes_to_yxyx_norm(truth.boxes_xyxy, size_wh)
    for values, side in zip(boxes_norm.T, BBOX, strict=True):
        _put(feature, f"bbox/{side}", "float", values.tolist())
    _put(feature, "class/label", "int64", truth.class_ids.tolist())
    if all(truth.class_texts):  # the OD API looks up "" too, and finds another class or none
        _put(feature, "class/text", "bytes", [text.encode() for text in truth.class_texts])
    for name in ("difficult", "is_crowd", "group_of"):
        _put(feature, name, "int64", getattr(truth, name).astype(int).tolist())
    if truth.areas_px is not None:
        _put(feature, "area", "float", truth.areas_px.tolist())
    if truth.weights is not None:
        _put(feature, "weight", "float", truth.weights.tolist())
    if truth.truncated is not None:
        _put(feature, "truncated", "float", truth.truncated.tolist())
    if truth.occluded is not None:
        _put(feature, "occluded", "int64", truth.occluded.tolist())
    if any(truth.masks_png):
        # the OD API decodes every mask: one that is missing among others is an empty picture
        width, height = size_wh
        blank = b"" if all(truth.masks_png) else encode_png(np.zeros((height, width), np.uint8))
        _put(feature, "mask", "bytes", [mask or blank for mask in truth.masks_png])


def _put(feature: Any, name: str, kind: str, values: Column) -> None:
    target = getattr(feature[OBJECT + name], f"{kind}_list")
    target.SetInParent()  # an empty column is still there: the frame is labelled, with nothing
    target.value.extend(values)
