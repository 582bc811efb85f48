"""What a .tflite file says about itself: its detection op, class count and TFLite Metadata.

Tensor names say nothing reliable (StatefulPartitionedCall:3 may be the boxes), so the outputs are
taken from the TFLite_Detection_PostProcess op itself, whose order is fixed by its kernel
(tensorflow/lite/kernels/detection_postprocess.cc): boxes, classes, scores, count.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from typing import Any

from urbandet_ray.errors import ModelError

DETECTION_OP = "TFLite_Detection_PostProcess"
_LABEL_FILE_ENDS = (".txt", ".pbtxt")


@dataclass(frozen=True)
class TfliteFacts:
    """Facts of one file.

    Attributes:
        boxes, classes, scores, count: tensor indices of the detection op's outputs.
        class_count: classes without background; None where the op does not say.
        mean, std: normalisation of the input, a number or one a channel; None where not said.
        labels_text: the label file inside; None where there is none.
    """

    boxes: int
    classes: int
    scores: int
    count: int
    class_count: int | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    labels_text: str | None


def read_tflite_facts(content: bytes, source: str) -> TfliteFacts:
    """Read the facts of a .tflite file whose flatbuffer the interpreter has accepted.

    Raises:
        ModelError: it has no detection post-process op.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content, 0)
    outputs, options = _detection_op(model, source)
    mean, std = _normalisation(_metadata_buffer(model))
    class_count = options.get("num_classes")
    boxes, classes, scores, kept = outputs
    return TfliteFacts(
        boxes=boxes,
        classes=classes,
        scores=scores,
        count=kept,
        class_count=int(class_count) if class_count else None,
        mean=mean,
        std=std,
        labels_text=_packed_labels(content),
    )


def _detection_op(model: Any, source: str) -> tuple[list[int], dict[str, Any]]:
    from flatbuffers import flexbuffers

    graph = model.Subgraphs(0)
    for index in range(graph.OperatorsLength()):
        op = graph.Operators(index)
        code = model.OperatorCodes(op.OpcodeIndex()).CustomCode()
        if code is None or code.decode(errors="replace") != DETECTION_OP:
            continue
        outputs = [op.Outputs(i) for i in range(op.OutputsLength())]
        if len(outputs) == 4:
            packed = op.CustomOptionsAsNumpy()
            options = flexbuffers.Loads(bytearray(packed.tobytes())) if len(packed) else {}
            return outputs, options
    found = [
        f"{model.Subgraphs(0).Tensors(i).ShapeAsNumpy().tolist()}"
        for i in graph.OutputsAsNumpy().tolist()
    ]
    raise ModelError(
        f"{source} is a TFLite model without the {DETECTION_OP} op (its outputs: "
        f"{', '.join(found)}); expected an SSD-like detector exported with its post-process "
        "(export_tflite_graph_tf2.py of the Object Detection API, then the TFLite converter)"
    )


def _packed_labels(content: bytes) -> str | None:
    """The label file among the associated files, which TFLite Metadata appends as a zip."""
    if content.rfind(b"PK\x05\x06", max(0, len(content) - 66_000)) < 0:
        return None
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [name for name in archive.namelist() if name.endswith(_LABEL_FILE_ENDS)]
            names.sort(key=lambda name: "label" not in name.lower())
            return archive.read(names[0]).decode("utf-8-sig", "replace") if names else None
    except zipfile.BadZipFile:
        return None


def _metadata_buffer(model: Any) -> bytes | None:
    for index in range(model.MetadataLength()):
        entry = model.Metadata(index)
        if entry.Name() == b"TFLITE_METADATA":
            packed = model.Buffers(entry.Buffer()).DataAsNumpy()
            return packed.tobytes() if len(packed) else None
    return None


def _normalisation(
    packed: bytes | None,
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Mean and std of the first input's NormalizationOptions.

    Field numbers as in tflite_support's metadata_schema.fbs: ModelMetadata.subgraph_metadata 3,
    SubGraphMetadata.input_tensor_metadata 2, TensorMetadata.process_units 4, ProcessUnit
    options_type 0 and options 1, NormalizationOptions (union member 1) mean 0 and std 1.
    """
    if packed is None:
        return None, None
    from flatbuffers.number_types import Uint8Flags
    from flatbuffers.table import Table

    root = Table(packed, int.from_bytes(packed[:4], "little"))
    for graph in _tables(root, 3)[:1]:
        for tensor in _tables(graph, 2)[:1]:
            for unit in _tables(tensor, 4):
                kind, at = unit.Offset(4), unit.Offset(6)
                if kind and at and unit.Get(Uint8Flags, unit.Pos + kind) == 1:
                    options = Table(packed, unit.Indirect(unit.Pos + at))
                    return _floats(options, 0), _floats(options, 1)
    return None, None


def _tables(table: Any, field: int) -> list[Any]:
    at = table.Offset(4 + 2 * field)
    if not at:
        return []
    start = table.Vector(at)
    return [
        type(table)(table.Bytes, table.Indirect(start + 4 * i)) for i in range(table.VectorLen(at))
    ]


def _floats(table: Any, field: int) -> tuple[float, ...] | None:
    from flatbuffers.number_types import Float32Flags

    at = table.Offset(4 + 2 * field)
    if not at or not table.VectorLen(at):
        return None
    start = table.Vector(at)
    return tuple(table.Get(Float32Flags, start + 4 * i) for i in range(table.VectorLen(at)))
