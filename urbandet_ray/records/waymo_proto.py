"""Waymo Open Dataset's Frame message, version 1: the fields that camera labels need.

Declared in a descriptor pool of our own, wire-compatible with waymo_open_dataset/dataset.proto and
label.proto (proto2); lidar and maps are passed over. Waymo's own package pins old NumPy.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "urbandet.waymo"
_SCALARS = {
    "double": _Field.TYPE_DOUBLE,
    "int64": _Field.TYPE_INT64,
    "enum": _Field.TYPE_INT32,  # alike on the wire; a new name is no error
    "bytes": _Field.TYPE_BYTES,  # strings too: what is no UTF-8 is for the reader to say
}
_MESSAGES: dict[str, tuple[tuple[int, str, str], ...]] = {
    "Box": (
        (1, "center_x", "double"),
        (2, "center_y", "double"),
        (4, "width", "double"),
        (5, "length", "double"),
    ),
    "Label": (
        (1, "box", "Box"),
        (3, "type", "enum"),
        (4, "id", "bytes"),
        (5, "detection_difficulty_level", "enum"),
    ),
    "CameraLabels": ((1, "name", "enum"), (2, "labels", "Label*")),
    "CameraImage": ((1, "name", "enum"), (2, "image", "bytes")),
    "Context": ((1, "name", "bytes"),),
    "WaymoFrame": (
        (1, "context", "Context"),
        (2, "timestamp_micros", "int64"),
        (4, "images", "CameraImage*"),
        (8, "camera_labels", "CameraLabels*"),
    ),
}
"""Number, name and type of each field; `*` is repeated."""


@cache
def waymo_frame_class() -> Any:
    """The Frame message class."""
    file = descriptor_pb2.FileDescriptorProto(
        name="urbandet/waymo.proto", package=_PACKAGE, syntax="proto2"
    )
    for message_name, fields in _MESSAGES.items():
        message = file.message_type.add(name=message_name)
        for number, name, kind in fields:
            one = message.field.add(
                name=name,
                number=number,
                label=_Field.LABEL_REPEATED if kind.endswith("*") else _Field.LABEL_OPTIONAL,
            )
            if kind in _SCALARS:
                one.type = _SCALARS[kind]
            else:
                one.type = _Field.TYPE_MESSAGE
                one.type_name = f".{_PACKAGE}.{kind.rstrip('*')}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.WaymoFrame"))
