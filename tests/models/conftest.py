"""A real TFLite detector of 3 kB, made from the schema: it finds bright cells of a 4x4 grid."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SIDE, CELLS, ANCHOR = 64, 4, 0.3
DETECTION_OP = "TFLite_Detection_PostProcess"


def grid_anchors() -> np.ndarray:
    """[16, 4] (ycenter, xcenter, height, width), a little larger than their cells."""
    centres = (np.arange(CELLS) + 0.5) / CELLS
    y, x = np.meshgrid(centres, centres, indexing="ij")
    size = np.full(CELLS * CELLS, ANCHOR)
    return np.stack([y.ravel(), x.ravel(), size, size], axis=1).astype(np.float32)


def cell_box(row: int, column: int, size_wh: tuple[int, int]) -> list[float]:
    """The xyxy pixels the detector gives for a bright cell."""
    width, height = size_wh
    cy, cx, half = (row + 0.5) / CELLS, (column + 0.5) / CELLS, ANCHOR / 2
    low = [max(cx - half, 0) * width, max(cy - half, 0) * height]
    return [*low, min(cx + half, 1) * width, min(cy + half, 1) * height]


def paint(cells: dict[tuple[int, int], tuple[int, int, int]], size_wh: tuple[int, int]) -> Any:
    """A black image with cells of the grid in a colour."""
    width, height = size_wh
    image = np.zeros((height, width, 3), np.uint8)
    for (row, column), colour in cells.items():
        rows = slice(row * height // CELLS, (row + 1) * height // CELLS)
        columns = slice(column * width // CELLS, (column + 1) * width // CELLS)
        image[rows, columns] = colour
    return image


class _Graph:
    """Collects buffers, tensors and ops of one subgraph."""

    def __init__(self) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema = schema
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.description = "grid"
        self.model.buffers = [schema.BufferT()]
        self.model.operatorCodes, self.model.metadata = [], []
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.model.subgraphs = [self.graph]

    def buffer(self, data: bytes) -> int:
        made = self.schema.BufferT()
        made.data = np.frombuffer(data, np.uint8)
        self.model.buffers.append(made)
        return len(self.model.buffers) - 1

    def tensor(
        self,
        name: str,
        shape: list[int],
        kind: str = "FLOAT32",
        data: np.ndarray | None = None,
        quantized: tuple[float, int] | None = None,
    ) -> int:
        made = self.schema.TensorT()
        made.name, made.shape, made.type = name, shape, getattr(self.schema.TensorType, kind)
        made.buffer = 0 if data is None else self.buffer(data.tobytes())
        if quantized:
            made.quantization = self.schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = [quantized[0]], [quantized[1]]
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def op(self, code: str, inputs: list[int], outputs: list[int]) -> Any:
        known = self.schema.OperatorCodeT()
        builtin = getattr(self.schema.BuiltinOperator, code, None)
        known.builtinCode = self.schema.BuiltinOperator.CUSTOM if builtin is None else builtin
        known.deprecatedBuiltinCode = min(known.builtinCode, 127)
        known.customCode = code if builtin is None else None
        known.version = 2 if code == "AVERAGE_POOL_2D" else 1
        self.model.operatorCodes.append(known)
        made = self.schema.OperatorT()
        made.opcodeIndex = len(self.model.operatorCodes) - 1
        made.inputs, made.outputs = inputs, outputs
        self.graph.operators.append(made)
        return made

    def packed(self) -> bytes:
        import flatbuffers

        builder = flatbuffers.Builder(4096)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def grid_detector(
    kind: str = "FLOAT32",
    *,
    post_process: bool = True,
    normalisation: tuple[list[float], list[float]] | None = None,
    labels: tuple[str, str] | None = None,
    name: str = "",
    side: int = SIDE,
    channels: int = 3,
    custom_op: str | None = None,
) -> bytes:
    """A .tflite whose score for class 0, 1, 2 of a cell is its mean red, green, blue.

    Args:
        kind: input type; UINT8 and INT8 are quantised to pixel / 255.
        post_process: False ends the graph before the detection op.
        normalisation: means and stds to put into TFLite Metadata.
        labels: name and text of an associated file.
        name: prefix of the output tensors' names, which are in a misleading order.
        side: input height and width.
        channels: of the input.
        custom_op: an operator of this name is put before the scores.
    """
    from flatbuffers import flexbuffers

    g = _Graph()
    schema = g.schema
    quantized = {"UINT8": (1 / 255, 0), "INT8": (1 / 255, -128)}.get(kind)
    image = g.tensor("image", [1, side, side, channels], kind, quantized=quantized)
    pooled = g.tensor("pooled", [1, CELLS, CELLS, channels], kind, quantized=quantized)
    pool = g.op("AVERAGE_POOL_2D", [image], [pooled])
    pool.builtinOptionsType = schema.BuiltinOptions.Pool2DOptions
    pool.builtinOptions = schema.Pool2DOptionsT()
    pool.builtinOptions.padding = schema.Padding.VALID
    for field in ("strideW", "strideH", "filterWidth", "filterHeight"):
        setattr(pool.builtinOptions, field, side // CELLS)
    real = pooled
    if quantized:
        real = g.tensor("real", [1, CELLS, CELLS, channels])
        g.op("DEQUANTIZE", [pooled], [real])
    shape = [1, CELLS * CELLS, channels]
    scores = g.tensor("scores", shape)
    wanted = g.tensor("shape", [3], "INT32", np.array(shape, np.int32))
    if custom_op:
        plain, real = real, g.tensor("custom", [1, CELLS, CELLS, channels])
        g.op(custom_op, [plain], [real])
    g.op("RESHAPE", [real, wanted], [scores])
    g.graph.inputs, g.graph.outputs = [image], [scores]
    if post_process:
        cells = CELLS * CELLS
        encodings = g.tensor("enc", [1, cells, 4], data=np.zeros((cells, 4), np.float32))
        anchors = g.tensor("anchors", [cells, 4], data=grid_anchors())
        outputs = [
            g.tensor(f"{name}:{3 - i}", size)
            for i, size in enumerate([[1, 10, 4], [1, 10], [1, 10], [1]])
        ]
        op = g.op(DETECTION_OP, [encodings, scores, anchors], outputs)
        options = {
            "max_detections": 10,
            "max_classes_per_detection": 1,
            "nms_score_threshold": 0.01,
            "nms_iou_threshold": 0.6,
            "num_classes": channels,
            **{"y_scale": 10.0, "x_scale": 10.0, "h_scale": 5.0, "w_scale": 5.0},
        }
        op.customOptions = np.frombuffer(bytes(flexbuffers.Dumps(options)), np.uint8)
        g.graph.outputs = outputs[::-1]
    if normalisation:
        entry = schema.MetadataT()
        entry.name, entry.buffer = "TFLITE_METADATA", g.buffer(metadata(*normalisation))
        g.model.metadata.append(entry)
    return g.packed() + (_zipped(*labels) if labels else b"")


def metadata(means: list[float], stds: list[float]) -> bytes:
    """TFLite Metadata with NormalizationOptions for the first input (metadata_schema.fbs)."""
    import flatbuffers

    b = flatbuffers.Builder(256)

    def floats(values: list[float]) -> Any:
        return b.CreateNumpyVector(np.array(values, np.float32))

    def table(slots: int, fields: dict[int, int]) -> Any:
        b.StartObject(slots)
        for slot, value in fields.items():
            b.PrependUOffsetTRelativeSlot(slot, value, 0)
        return b.EndObject()

    def vector(item: int) -> Any:
        b.StartVector(4, 1, 4)
        b.PrependUOffsetTRelative(item)
        return b.EndVector()

    mean, std = floats(means), floats(stds)
    options = table(2, {0: mean, 1: std})
    b.StartObject(2)
    b.PrependUint8Slot(0, 1, 0)
    b.PrependUOffsetTRelativeSlot(1, options, 0)
    unit = b.EndObject()
    tensor = table(7, {4: vector(unit)})
    graph = table(9, {2: vector(tensor)})
    b.Finish(table(8, {3: vector(graph)}), b"M001")
    return bytes(b.Output())


def _zipped(name: str, text: str) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr(name, text)
    return held.getvalue()


@pytest.fixture
def grid() -> Any:
    """The builders of this file, as one namespace."""
    from types import SimpleNamespace

    return SimpleNamespace(
        detector=grid_detector, box=cell_box, paint=paint, metadata=metadata, side=SIDE
    )


@pytest.fixture
def grid_file(tmp_path: Path) -> Callable[..., str]:
    """Writes a grid detector with labels beside it; returns the .tflite's path."""

    def write(
        kind: str = "FLOAT32", beside: str | None = "vehicle\npedestrian\ncyclist\n", **more: Any
    ) -> str:
        path = tmp_path / "grid.tflite"
        path.write_bytes(grid_detector(kind, **more))
        if beside is not None:
            (tmp_path / "grid_labels.txt").write_text(beside)
        return str(path)

    return write
