"""From a traced network to a folder that a runtime takes: SavedModel, OpenVINO, ONNX, TFLite."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from urbandet_ray.errors import MissingExtraError, ModelError, first_line
from urbandet_ray.exporting.saving import saved_without_layers
from urbandet_ray.exporting.tracing import TracedNetwork
from urbandet_ray.frames import Image
from urbandet_ray.models.network.facts import (
    ANCHORS_NAME,
    MODEL_NAMES,
    NetworkFacts,
    Precision,
    Runtime,
    check_precision,
    write_facts,
)
from urbandet_ray.models.odapi import open_odapi

_OPSET = 17
"""ONNX operators; ONNX Runtime has had them since 1.12."""


def write_network(
    network: TracedNetwork,
    folder: Path,
    *,
    runtime: Runtime,
    precision: Precision,
    frames: Sequence[Image] = (),
    calibrated_on: str | None = None,
) -> NetworkFacts:
    """Write a network's folder, network.json last.

    Args:
        folder: is made; should not hold anything yet.
        frames: what int8 is calibrated on: [height, width, 3] uint8 RGB, all of one size.
        calibrated_on: their name, for people.

    Raises:
        ConfigError: a precision that the runtime is not exported at.
        MissingExtraError: a converter is not installed.
        ModelError: the network does not convert, or int8 without frames.
    """
    check_precision(runtime, precision)
    if precision == "int8" and not frames:
        raise ModelError("int8 needs frames to calibrate on: name records (--calibrate DATA)")
    folder.mkdir(parents=True, exist_ok=True)
    write = {
        "savedmodel": _write_saved_model,
        "openvino": _write_openvino,
        "onnx": _write_onnx,
        "tflite": _write_tflite,
    }[runtime]
    write(network, folder / MODEL_NAMES[runtime], precision, frames)
    if network.anchors is not None:
        np.save(folder / ANCHORS_NAME, network.anchors)
    facts = NetworkFacts(
        runtime=runtime,
        precision=precision,
        answers="detections" if network.rules is None else "raw",
        resizing=network.resizing,
        rules=network.rules,
        calibrated_on=calibrated_on if precision == "int8" else None,
    )
    write_facts(facts, folder)
    return facts


def _write_saved_model(
    network: TracedNetwork, target: Path, precision: Precision, frames: Sequence[Image]
) -> None:
    del precision, frames
    tf = open_odapi().tf
    with saved_without_layers():
        tf.saved_model.save(network.module, str(target), signatures=network.answer)


def _write_openvino(
    network: TracedNetwork, target: Path, precision: Precision, frames: Sequence[Image]
) -> None:
    openvino = _needs("openvino", "openvino")
    with tempfile.TemporaryDirectory(prefix="urbandet-openvino-") as scratch:
        saved = Path(scratch) / "saved_model"
        _write_saved_model(network, saved, "f32", ())
        model = _converted(lambda: openvino.convert_model(str(saved)), "OpenVINO")
    if precision == "int8":
        nncf = _needs("nncf", "nncf")
        size = frames[0].shape[:2]
        model.reshape({0: [-1, *size, 3]})
        model = _quantized(nncf, model, frames, lambda image: image[None])
        model.reshape({0: [-1, -1, -1, 3]})
    openvino.save_model(model, str(target), compress_to_fp16=precision == "fp16")


def _write_onnx(
    network: TracedNetwork, target: Path, precision: Precision, frames: Sequence[Image]
) -> None:
    tf2onnx = _needs("tf2onnx", "tf2onnx")
    graph, inputs, outputs = _frozen(network)
    model, _ = _converted(
        lambda: tf2onnx.convert.from_graph_def(
            graph,
            input_names=inputs,
            output_names=list(outputs),
            opset=_OPSET,
            tensors_to_rename=outputs,
        ),
        "ONNX",
    )
    if precision == "int8":
        nncf = _needs("nncf", "nncf")
        name = model.graph.input[0].name
        # a depthwise convolution's inputs by channel would be finer; ONNX Runtime does not run it
        advanced = _needs("nncf.quantization.advanced_parameters", "nncf")
        whole = advanced.QuantizationParameters(per_channel=False)
        model = _quantized(
            nncf,
            model,
            frames,
            lambda image: {name: image[None]},
            activations_quantization_params=whole,
        )
    target.write_bytes(model.SerializeToString())


def _write_tflite(
    network: TracedNetwork, target: Path, precision: Precision, frames: Sequence[Image]
) -> None:
    tf = open_odapi().tf
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [network.answer.get_concrete_function()], network.module
    )
    if precision != "f32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "fp16":
        converter.target_spec.supported_types = [tf.float16]
    if precision == "int8":
        converter.representative_dataset = lambda: ([image[None]] for image in frames)
    with saved_without_layers():  # the converter saves the network, and reads that
        target.write_bytes(_converted(converter.convert, "TFLite"))


def _frozen(network: TracedNetwork) -> tuple[Any, list[str], dict[str, str]]:
    """The graph with its variables as constants, its input's name, its outputs' names by tensor.

    tf2onnx's own freezing stumbles over the anchors, which the model keeps from tracing.
    """
    constants: Any = importlib.import_module("tensorflow.python.framework.convert_to_constants")
    traced = network.answer.get_concrete_function()
    frozen = constants.convert_variables_to_constants_v2(traced, lower_control_flow=False)
    names = sorted(traced.structured_outputs)  # the order in which a dict is flattened
    outputs = dict(zip([tensor.name for tensor in frozen.outputs], names, strict=True))
    return frozen.graph.as_graph_def(), [tensor.name for tensor in frozen.inputs], outputs


def _quantized(
    nncf: Any,
    model: Any,
    frames: Sequence[Image],
    feed: Callable[[Image], Any],
    **advanced: Any,
) -> Any:
    """int8 weights and activations, ranges measured on the frames; what does not fit stays.

    Weights take half of their range: without VNNI a processor's sums of full ones overflow, and the
    same file would answer otherwise from machine to machine.
    """
    return _converted(
        lambda: nncf.quantize(
            model,
            nncf.Dataset(list(frames), feed),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(frames),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=nncf.OverflowFix.ENABLE, **advanced
            ),
        ),
        "int8",
    )


def _converted(convert: Callable[[], Any], to: str) -> Any:
    try:
        return convert()
    except Exception as error:  # each converter has exceptions of its own
        detail = first_line(error)
        raise ModelError(
            f"the network does not convert to {to} ({detail}): try another format, savedmodel "
            "takes every model"
        ) from error


def _needs(module: str, package: str) -> Any:
    """Import a converter, which must not report to anybody that it is used."""
    os.environ.setdefault("CI", "true")  # openvino-telemetry sends nothing then
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"this export needs {package}, which is not installed: "
            "pip install 'urbandet-ray[fast,convert]'"
        ) from error
