"""The tf.train.Example message classes without TensorFlow.

Built in a descriptor pool of our own: wire-compatible with tensorflow/core/example/*.proto,
parsed by protobuf's C code, and no clash with TensorFlow's own classes in the same process.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "urbandet.example"


@cache
def example_class() -> Any:
    """The Example message class."""
    file = descriptor_pb2.FileDescriptorProto(
        name="urbandet/example.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, field_type in (
        ("BytesList", _Field.TYPE_BYTES),
        ("FloatList", _Field.TYPE_FLOAT),
        ("Int64List", _Field.TYPE_INT64),
    ):
        values = file.message_type.add(name=name)
        values.field.add(name="value", number=1, type=field_type, label=_Field.LABEL_REPEATED)
    _add_feature(file)
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=_Field.TYPE_STRING, label=_Field.LABEL_OPTIONAL)
    _add_message_field(entry, "value", 2, "Feature")
    _add_message_field(features, "feature", 1, "Features.FeatureEntry", repeated=True)
    _add_message_field(file.message_type.add(name="Example"), "features", 1, "Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Example"))


def _add_feature(file: Any) -> None:
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (name, kind) in enumerate(
        (("bytes_list", "BytesList"), ("float_list", "FloatList"), ("int64_list", "Int64List")),
        start=1,
    ):
        _add_message_field(feature, name, number, kind)
        feature.field[-1].oneof_index = 0


def _add_message_field(
    message: Any, name: str, number: int, kind: str, *, repeated: bool = False
) -> None:
    message.field.add(
        name=name,
        number=number,
        type=_Field.TYPE_MESSAGE,
        type_name=f".{_PACKAGE}.{kind}",
        label=_Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL,
    )
