"""The OD API's StringIntLabelMap message without the OD API, for label_map.pbtxt as text.

Fields and numbers: object_detection/protos/string_int_label_map.proto. Where that proto takes the
last of several values, these classes keep all of them: so a reader can tell that some were lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "urbandet"
_FIELDS = (
    ("name", 1, _Field.TYPE_STRING, ""),
    ("id", 2, _Field.TYPE_INT32, ""),
    ("display_name", 3, _Field.TYPE_STRING, ""),
    ("keypoints", 4, _Field.TYPE_MESSAGE, "StringIntLabelMapItem.KeypointMap"),
    ("ancestor_ids", 5, _Field.TYPE_INT32, ""),
    ("descendant_ids", 6, _Field.TYPE_INT32, ""),
    ("frequency", 7, _Field.TYPE_ENUM, "LVISFrequency"),
    ("instance_count", 8, _Field.TYPE_INT32, ""),
)

_ITEM = re.compile(r"(?m)^\s*item\s*:?\s*[{<\[]|[}>]\s*[,;]?\s*item\s*:?\s*[{<\[]")
_TOKEN = re.compile(
    r"""\#[^\n]*|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|(?P<open>[{<])|(?P<close>[}>])"""
    r"""|(?P<item>\bitem\b)|[:\s]+|(?P<other>.)"""
)


def is_label_map_text(text: str) -> bool:
    """Whether a text is a StringIntLabelMap's, and no list of names."""
    return bool(_ITEM.search(text))


def item_places(text: str) -> Iterator[tuple[int, int]]:
    """Line and column of each item, from 1, in a text that protobuf reads."""
    depth, word = 0, None
    for token in _TOKEN.finditer(text):
        if token["open"]:
            if not depth:
                at = token.start() if word is None else word
                yield text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
            depth, word = depth + 1, None
        elif token["close"]:
            depth -= 1
        elif token["item"] and not depth:
            word = token.start()
        elif token["other"]:
            word = None


@cache
def label_map_class() -> Any:
    """The StringIntLabelMap message class; all fields of an item are repeated."""
    file = descriptor_pb2.FileDescriptorProto(
        name="urbandet/label_map.proto", package=_PACKAGE, syntax="proto2"
    )
    item = file.message_type.add(name="StringIntLabelMapItem")
    keypoint = item.nested_type.add(name="KeypointMap")
    for name, number, kind in (("id", 1, _Field.TYPE_INT32), ("label", 2, _Field.TYPE_STRING)):
        _add(keypoint, name, number, kind, "")
    for name, number, kind, type_name in _FIELDS:
        _add(item, name, number, kind, type_name)
    frequency = file.enum_type.add(name="LVISFrequency")
    for number, name in enumerate(("UNSPECIFIED", "FREQUENT", "COMMON", "RARE")):
        frequency.value.add(name=name, number=number)
    whole = file.message_type.add(name="StringIntLabelMap")
    _add(whole, "item", 1, _Field.TYPE_MESSAGE, "StringIntLabelMapItem")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = pool.FindMessageTypeByName(f"{_PACKAGE}.StringIntLabelMap")
    return message_factory.GetMessageClass(found)


def _add(message: Any, name: str, number: int, kind: int, type_name: str) -> None:
    field = message.field.add(name=name, number=number, type=kind, label=_Field.LABEL_REPEATED)
    if type_name:
        field.type_name = f".{_PACKAGE}.{type_name}"
