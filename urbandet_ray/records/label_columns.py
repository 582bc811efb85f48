"""The object columns of a tf.Example: each stands for itself, so an odd one costs itself alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.errors import RecordError
from urbandet_ray.records.images import encode_png

Column = list[Any]
Features = Mapping[str, Any]
"""Feature messages by key."""

OBJECT = "image/object/"
BBOX = ("ymin", "xmin", "ymax", "xmax")
ODD_COLUMN = "odd-column"
"""Reason of a problem that cost a column; the boxes are there."""

_COLUMNS: tuple[tuple[str, str, type[np.generic] | None], ...] = (
    ("class/label", "int64", np.int32),
    ("class/text", "bytes", None),
    ("difficult", "int64", np.bool_),
    ("is_crowd", "int64", np.bool_),
    ("group_of", "int64", np.bool_),
    ("area", "float", np.float32),
    ("weight", "float", np.float32),
)


def column(features: Features, key: str, kind: str) -> Column | None:
    """The values of a key; None where it is absent or of another kind."""
    feature = features.get(key)
    if feature is None or feature.WhichOneof("kind") not in (f"{kind}_list", None):
        return None
    return list(getattr(feature, f"{kind}_list").value)


def numbers(features: Features, key: str) -> Column:
    """The numbers of a key, floats or integers; none where it is absent or holds bytes."""
    return column(features, key, "float") or column(features, key, "int64") or []


def read_corners(features: Features, problems: list[str]) -> NDArray[np.float32]:
    """The boxes as they stand, [n, 4] ymin, xmin, ymax, xmax; integers count as numbers.

    Raises:
        RecordError: bad-labels: one of the four is not of numbers, or of another length.
    """
    sides = []
    for side in BBOX:
        key = f"{OBJECT}bbox/{side}"
        kind = features[key].WhichOneof("kind") if key in features else None
        if kind == "bytes_list":
            raise RecordError("bad-labels", f"{key} is a {kind}, expected a float_list")
        if kind == "int64_list":
            problems.append(f"{ODD_COLUMN}: {key} is an {kind}, expected a float_list: it is read")
        sides.append(numbers(features, key))
        if len(sides[-1]) != len(sides[0]):
            raise RecordError(
                "bad-labels",
                f"{key} has {len(sides[-1])} values, {OBJECT}bbox/ymin has {len(sides[0])}",
            )
    return np.stack([np.array(one, np.float32) for one in sides], axis=1)


def read_columns(features: Features, n: int, problems: list[str]) -> dict[str, Any]:
    """Columns of n values beside the boxes by name; empty where absent or odd, which is told.

    Raises:
        RecordError: bad-labels: the class ids are odd and no class names can stand in for them.
    """
    found: dict[str, Any] = {}
    odd: dict[str, str] = {}
    for name, kind, dtype in _COLUMNS:
        values, fault = _sound(features, OBJECT + name, kind, n)
        if not fault and name == "class/label":
            fault = _beyond_32_bits(values)
        if fault:
            values, odd[name] = [], fault
        found[name] = values if dtype is None else np.array(values, dtype)
    if "class/label" in odd and not any(found["class/text"]):
        raise RecordError("bad-labels", odd["class/label"])
    problems += [f"{ODD_COLUMN}: {fault}: it is left out" for fault in odd.values()]
    return found


def read_either(features: Features, name: str, n: int, problems: list[str]) -> Column | None:
    """A column that the OD API's own converters write as numbers of either kind; None without it.

    create_pascal_tf_record.py writes integers, create_kitti_tf_record.py floats. Neither is what
    boxes rest on, so a column of another length is left out, and told.
    """
    key = OBJECT + name
    values = numbers(features, key)
    if len(values) == n:
        return values if n else None
    if key in features and features[key].WhichOneof("kind") is not None:
        fault = f"{key} has {len(values)} numbers, there are {n} boxes"
        problems.append(f"{ODD_COLUMN}: {fault}: it is left out")
    return None


def read_masks(
    features: Features, n: int, size_wh: tuple[int, int], problems: list[str]
) -> tuple[bytes, ...] | None:
    """A PNG a box, from PNGs or from numbers of the whole frame each; None where there are none.

    Both are forms of the OD API (InstanceMaskType PNG_MASKS and NUMERICAL_MASKS).
    """
    key = f"{OBJECT}mask"
    if key not in features or features[key].WhichOneof("kind") != "float_list":
        values, fault = _sound(features, key, "bytes", n)
        if fault:
            problems.append(f"{ODD_COLUMN}: {fault}: it is left out")
        return None if fault else tuple(values) or None
    width, height = size_wh
    pixels = np.array(features[key].float_list.value, np.float32)
    if not len(pixels):
        return None
    if len(pixels) != n * height * width:
        problems.append(
            f"{ODD_COLUMN}: {key} has {len(pixels)} floats, expected a PNG for each of {n} boxes "
            f"or {n} x {height} x {width} floats: it is left out"
        )
        return None
    masks = (pixels.reshape(n, height, width) > 0).astype(np.uint8) * np.uint8(255)
    return tuple(encode_png(mask) for mask in masks)


def _sound(features: Features, key: str, kind: str, n: int) -> tuple[Column, str]:
    """The values, and what is odd about them; "" where nothing is."""
    values = column(features, key, kind)
    if values is None:
        found = features[key].WhichOneof("kind") if key in features else None
        return [], f"{key} is a {found}, expected a {kind}_list" if found else ""
    fault = f"{key} has {len(values)} values, {OBJECT}bbox/ymin has {n}"
    return values, fault if values and len(values) != n else ""


def _beyond_32_bits(values: Column) -> str:
    if all(-(2**31) <= value < 2**31 for value in values):
        return ""
    return f"{OBJECT}class/label has an id beyond 32 bits: {max(values, key=abs)}"
