"""What runs a network: one class a runtime, each a function from a batch to named arrays."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.errors import MissingExtraError, ModelError, UrbandetError
from urbandet_ray.models.backends.answers import Device
from urbandet_ray.models.backends.saved_model import open_tensorflow
from urbandet_ray.models.network import NetworkFacts, Precision

Answer = dict[str, NDArray[np.float32]]

_SIZES_KEPT = 4
"""Compiled for so many frame sizes at a time; a drive has one."""

_CUDA = "CUDAExecutionProvider"
_CUDA_OPTIONS = {
    "cudnn_conv_algo_search": "HEURISTIC",
    "arena_extend_strategy": "kSameAsRequested",
}


class NetworkRuntime(Protocol):
    """A loaded network."""

    def run(self, images: NDArray[np.uint8]) -> Answer:
        """Its outputs by name for images [n, height, width, 3]."""
        ...


def load_runtime(
    facts: NetworkFacts, folder: Path, source: str, threads: int, device: Device = "auto"
) -> NetworkRuntime:
    """Load a network's model.

    Args:
        source: the model's name in messages.
        threads: of the runtime on the CPU.
        device: where it runs; OpenVINO and TFLite know the CPU alone.

    Raises:
        MissingExtraError: the runtime is not installed.
        ModelError: the model does not load, or the runtime does not get at a GPU it is to have.
    """
    made: dict[str, Callable[[Path, NetworkFacts, int, Device], NetworkRuntime]] = {
        "savedmodel": SavedModelRuntime,
        "openvino": OpenVinoRuntime,
        "onnx": OnnxRuntime,
        "tflite": TfliteRuntime,
    }
    try:
        return made[facts.runtime](facts.model_path(folder), facts, threads, device)
    except ImportError as error:
        raise MissingExtraError(
            f"{source} is a network for {facts.runtime}, which is not installed ({error}): "
            "pip install 'urbandet-ray[fast]', or export it in another format"
        ) from error
    except UrbandetError:
        raise
    except Exception as error:  # each runtime has its own kinds
        detail = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{source} does not load into {facts.runtime} ({detail}): copy or export it again"
        ) from error


def computes_in(facts: NetworkFacts) -> Precision:
    """What this machine computes a network in: a processor without bf16 takes f32 instead.

    Raises:
        MissingExtraError: the runtime is not installed.
    """
    if (facts.runtime, facts.precision) != ("openvino", "bf16"):
        return facts.precision
    try:
        able = _openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except ImportError as error:
        raise MissingExtraError(
            f"OpenVINO is not installed ({error}): pip install 'urbandet-ray[fast]'"
        ) from error
    return "bf16" if "BF16" in able else "f32"


def _openvino() -> Any:
    os.environ.setdefault("CI", "true")  # openvino-telemetry sends nothing then
    import openvino

    return openvino


class SavedModelRuntime:
    """TensorFlow, on the CPU or a GPU whose memory it takes as it needs it."""

    def __init__(self, model: Path, facts: NetworkFacts, threads: int, device: Device) -> None:
        del facts
        self._tf = open_tensorflow(threads, device)
        self._model = self._tf.saved_model.load(str(model))  # its variables go with it
        self._signature = self._model.signatures["serving_default"]

    def run(self, images: NDArray[np.uint8]) -> Answer:
        """See `NetworkRuntime.run`."""
        answered = self._signature(images=self._tf.constant(images))
        return {name: value.numpy() for name, value in answered.items()}


class OpenVinoRuntime:
    """OpenVINO: a network compiled for each size of frames, for batches of any number."""

    def __init__(self, model: Path, facts: NetworkFacts, threads: int, device: Device) -> None:
        del device
        self._core = _openvino().Core()
        self._model = self._core.read_model(str(model))
        self._hints = {
            "INFERENCE_PRECISION_HINT": "bf16" if computes_in(facts) == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # actors side by side would all be pinned to the same core
        }
        self._compiled = lru_cache(_SIZES_KEPT)(self._compile)

    def _compile(self, height: int, width: int) -> Any:
        model = self._model.clone()
        model.reshape({0: [-1, height, width, 3]})
        for node in model.get_ops():
            if node.get_type_name() != "Interpolate":
                continue
            given, made = node.input_value(0), node.output(0)
            if given.partial_shape == made.partial_shape:  # else OpenVINO does resize to the same
                made.replace(given)
        return self._core.compile_model(model, "CPU", self._hints).create_infer_request()

    def run(self, images: NDArray[np.uint8]) -> Answer:
        """See `NetworkRuntime.run`."""
        request = self._compiled(images.shape[1], images.shape[2])
        answered = request.infer({0: images}, share_inputs=True, share_outputs=False)
        return {output.get_any_name(): value for output, value in answered.items()}


class OnnxRuntime:
    """ONNX Runtime: CUDA where it is built with it and the machine has a GPU, else the CPU.

    Not TensorRT, though a build may have it: it makes an engine for each batch and frame size.

    Attributes:
        provider: what runs the network, by ONNX Runtime's name.
    """

    def __init__(self, model: Path, facts: NetworkFacts, threads: int, device: Device) -> None:
        del facts
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        providers: list[Any] = ["CPUExecutionProvider"]
        able = device != "cpu" and _CUDA in onnxruntime.get_available_providers()
        on_gpu = able and _sees_gpu()
        if device == "gpu" and not on_gpu:
            why = "sees no GPU here" if able else "is not built for CUDA"
            raise ModelError(
                f"ONNX Runtime {onnxruntime.__version__} {why}: pip uninstall onnxruntime, pip "
                "install 'onnxruntime-gpu[cuda,cudnn]' on a machine with NVIDIA's driver, or set "
                "actors.gpus=0 to run on the CPU"
            )
        if on_gpu:
            onnxruntime.preload_dlls()  # CUDA and cuDNN that pip installed
            providers.insert(0, (_CUDA, _CUDA_OPTIONS))
        self._session = onnxruntime.InferenceSession(
            str(model), options, providers=providers, enable_fallback=0
        )
        self.provider: str = self._session.get_providers()[0]
        if on_gpu and self.provider != _CUDA:
            raise ModelError(
                f"ONNX Runtime {onnxruntime.__version__} is built for CUDA and does not get at the "
                "GPU here: it needs the CUDA and cuDNN it was built with (pip install "
                "'onnxruntime-gpu[cuda,cudnn]')"
            )
        self._input = self._session.get_inputs()[0].name
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._most = 0

    def run(self, images: NDArray[np.uint8]) -> Answer:
        """See `NetworkRuntime.run`."""
        count = len(images)
        if self.provider == _CUDA:
            images = self._filled(images)
        values = self._session.run(self._outputs, {self._input: images})
        names = (_plain(name) for name in self._outputs)
        return {name: value[:count] for name, value in zip(names, values, strict=True)}

    def _filled(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """As many as the largest batch yet: at each other number cuDNN plans anew, for seconds."""
        self._most = max(self._most, len(images))
        missing = self._most - len(images)
        return np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0))) if missing else images


def _sees_gpu() -> bool:
    """Whether there is a CUDA driver and it shows a GPU to this process."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return False
    return count.value > 0


class TfliteRuntime:
    """LiteRT; its input is resized where the batch or the size of the frames changes."""

    def __init__(self, model: Path, facts: NetworkFacts, threads: int, device: Device) -> None:
        del facts, device
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
