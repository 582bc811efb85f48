"""What runs a network: one class a runtime, each a function from a batch to named arrays."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.errors import MissingExtraError, ModelError
from urbandet_ray.models.backends.saved_model import open_tensorflow
from urbandet_ray.models.network import NetworkFacts

Answer = dict[str, NDArray[np.float32]]

_SIZES_KEPT = 4
"""Compiled for so many frame sizes at a time; a drive has one."""


class NetworkRuntime(Protocol):
    """A loaded network."""

    def run(self, images: NDArray[np.uint8]) -> Answer:
        """Its outputs by name for images [n, height, width, 3]."""
        ...


def load_runtime(facts: NetworkFacts, folder: Path, source: str, threads: int) -> NetworkRuntime:
    """Load a network's model.

    Args:
        source: the model's name in messages.
        threads: of the runtime on the CPU.

    Raises:
        MissingExtraError: the runtime is not installed.
        ModelError: the model does not load.
    """
    made: dict[str, Callable[[Path, NetworkFacts, int], NetworkRuntime]] = {
        "savedmodel": SavedModelRuntime,
        "openvino": OpenVinoRuntime,
        "onnx": OnnxRuntime,
        "tflite": TfliteRuntime,
    }
    try:
        return made[facts.runtime](facts.model_path(folder), facts, threads)
    except ImportError as error:
        raise MissingExtraError(
            f"{source} is a network for {facts.runtime}, which is not installed ({error}): "
            "pip install 'urbandet-ray[fast]', or export it in another format"
        ) from error
    except (RuntimeError, ValueError, OSError) as error:
        detail = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{source} does not load into {facts.runtime} ({detail}): copy or export it again"
        ) from error


class SavedModelRuntime:
    """TensorFlow, on the CPU or a GPU whose memory it takes as it needs it."""

    def __init__(self, model: Path, facts: NetworkFacts, threads: int) -> None:
        del facts
        self._tf = open_tensorflow(threads)
        self._model = self._tf.saved_model.load(str(model))  # its variables go with it
        self._signature = self._model.signatures["serving_default"]

    def run(self, images: NDArray[np.uint8]) -> Answer:
        """See `NetworkRuntime.run`."""
        answered = self._signature(images=self._tf.constant(images))
        return {name: value.numpy() for name, value in answered.items()}


class OpenVinoRuntime:
    """OpenVINO: a network compiled for each size of frames, for batches of any number."""

    def __init__(self, model: Path, facts: NetworkFacts, threads: int) -> None:
        os.environ.setdefault("CI", "true")  # openvino-telemetry sends nothing then
        import openvino

        self._core = openvino.Core()
        self._model = self._core.read_model(str(model))
        self._hints = {
            "INFERENCE_PRECISION_HINT": "bf16" if facts.precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
        }
        self._compiled = lru_cache(_SIZES_KEPT)(self._compile)

    def _compile(self, height: int, width: int) -> Any:
        self._model.reshape({0: [-1, height, width, 3]})
        return self._core.compile_model(self._model, "CPU", self._hints).create_infer_request()

    def run(self, images: NDArray[np.uint8]) -> Answer:
        """See `NetworkRuntime.run`."""
        request = self._compiled(images.shape[1], images.shape[2])
        answered = request.infer({0: images}, share_inputs=True, share_outputs=False)
        return {output.get_any_name(): value for output, value in answered.items()}


class OnnxRuntime:
    """ONNX Runtime: TensorRT or CUDA where it is built with them and finds a GPU, else the CPU."""

    def __init__(self, model: Path, facts: NetworkFacts, threads: int) -> None:
        del facts
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        there = onnxruntime.get_available_providers()
        wanted = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
        self._session = onnxruntime.InferenceSession(
            str(model), options, providers=[name for name in wanted if name in there]
        )
        self._input = self._session.get_inputs()[0].name
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, images: NDArray[np.uint8]) -> Answer:
        """See `NetworkRuntime.run`."""
        values = self._session.run(self._outputs, {self._input: images})
        return dict(zip((_plain(name) for name in self._outputs), values, strict=True))


class TfliteRuntime:
    """LiteRT; its input is resized where the batch or the size of the frames changes."""

    def __init__(self, model: Path, facts: NetworkFacts, threads: int) -> None:
        del facts
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(str(model), num_threads=threads)
        self._runner = self._interpreter.get_signature_runner("serving_default")
        (self._input,) = self._runner.get_input_details()

    def run(self, images: NDArray[np.uint8]) -> Answer:
        """See `NetworkRuntime.run`."""
        return dict(self._runner(**{self._input: images}))


def _plain(name: str) -> str:
    """`Identity:0` and its like have no place in a name."""
    return name.partition(":")[0]
