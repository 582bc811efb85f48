"""Weights rounded to bfloat16 and stored as float32: what runs the one runs the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.models.odapi import open_odapi

_KERNEL_OPS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED")


def to_bfloat16(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """The weights rounded to the nearest bfloat16, ties to even; still float32."""
    bits = np.ascontiguousarray(weights, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(
        0xFFFF0000
    )
    result = rounded.astype(np.uint32).view(np.float32).reshape(np.shape(weights))
    return np.where(np.isnan(weights), weights, result)  # the carry would make a NaN a number


def round_checkpoint(prefix: str) -> None:
    """Write a checkpoint anew at its place, every float32 of it rounded to bfloat16.

    Raises:
        tf.errors.OpError: it cannot be read.
    """
    tf = open_odapi().tf
    reader = tf.train.load_checkpoint(prefix)
    tensors = {}
    for name, kind in reader.get_variable_to_dtype_map().items():
        value = reader.get_tensor(name)
        tensors[name] = tf.constant(to_bfloat16(value) if kind == tf.float32 else value, kind)
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )


def round_tflite(content: bytes) -> bytes:
    """A .tflite file with its float32 kernels rounded to bfloat16.

    In the file, as the converter has multiplied batch norm into them. Biases and anchors, which
    are constants too, stay: they take no room, and an anchor would move by a pixel.
    """
    from ai_edge_litert import schema_py_generated as schema

    data = bytearray(content)
    model = schema.Model.GetRootAs(data, 0)
    codes = {getattr(schema.BuiltinOperator, name) for name in _KERNEL_OPS}
    for graph in map(model.Subgraphs, range(model.SubgraphsLength())):
        for op in map(graph.Operators, range(graph.OperatorsLength())):
            if model.OperatorCodes(op.OpcodeIndex()).BuiltinCode() not in codes:
                continue
            tensor = graph.Tensors(op.Inputs(1))
            buffer = model.Buffers(tensor.Buffer())
            if tensor.Type() == schema.TensorType.FLOAT32 and buffer.DataLength():
                kernel = buffer.DataAsNumpy().view(np.float32)  # of `data`, not a copy
                kernel[:] = to_bfloat16(kernel)
    return bytes(data)
