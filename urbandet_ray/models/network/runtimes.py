"""What runs a network: one class a runtime, each a function from a batch to named arrays."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.errors import MissingExtraError, ModelError, UrbandetError, first_line
from urbandet_ray.models.devices import Device, open_tensorflow, processor_has, sees_gpu
from urbandet_ray.models.model_cache import cache_folder
from urbandet_ray.models.network.facts import NetworkFacts, Precision, Runtime

Compiler = Literal["xla", "tensorrt"]
COMPILED: dict[Compiler, tuple[tuple[Runtime, Precision], ...]] = {
    "xla": (("savedmodel", "f32"), ("savedmodel", "bf16"), ("savedmodel", "fp16")),
    "tensorrt": (("onnx", "f32"),),
}
"""What each compiler takes. TensorRT's int8 has no ranges that are not symmetric, as ours are."""

Answer = dict[str, NDArray[np.float32]]

_KEPT = 4
"""Compiled for so many sizes and numbers of frames at a time; a drive has one size."""

_MIXED_PRECISION = {"bf16": "auto_mixed_precision_onednn_bfloat16", "fp16": "auto_mixed_precision"}
"""TensorFlow's graph passes that have convolutions and matrix products compute in fewer bits: the
first those on a CPU, the second those on a GPU."""

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_TENSORRT = "TensorrtExecutionProvider"
_CUDA_OPTIONS = {
    "cudnn_conv_algo_search": "HEURISTIC",
    "arena_extend_strategy": "kSameAsRequested",
}


class NetworkRuntime(Protocol):
    """A loaded network.

    Attributes:
        on_gpu: whether it computes there.
    """

    on_gpu: bool

    def run(self, images: NDArray[np.uint8]) -> Answer:
        """Its outputs by name for images [n, height, width, 3]."""
        ...


def load_runtime(
    facts: NetworkFacts,
    folder: Path,
    source: str,
    threads: int,
    device: Device = "auto",
    *,
    compiler: Compiler | None = None,
) -> NetworkRuntime:
    """Load a network's model.

    Args:
        source: the model's name in messages.
        threads: of the runtime on the CPU.
        device: where it runs; OpenVINO and TFLite know the CPU alone.
        compiler: compiles it for each size of frames, and of batches as they grow.

    Raises:
        MissingExtraError: the runtime is not installed.
        ModelError: the model does not load, the runtime does not get at a GPU it is to have, or the
            compiler is for others.
    """
    if compiler is not None and (facts.runtime, facts.precision) not in COMPILED[compiler]:
        raise ModelError(is_not_compiled(source, compiler))
    made: dict[str, Callable[[Path, NetworkFacts, int, Device], NetworkRuntime]] = {
        "savedmodel": partial(SavedModelRuntime, xla=compiler == "xla"),
        "openvino": OpenVinoRuntime,
        "onnx": partial(OnnxRuntime, tensorrt=compiler == "tensorrt"),
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
        detail = first_line(error)
        raise ModelError(
            f"{source} does not load into {facts.runtime} ({detail}): copy or export it again"
        ) from error


def is_not_compiled(source: str, compiler: Compiler) -> str:
    """What to say where a compiler is for other models."""
    runtime, precisions = COMPILED[compiler][0][0], [one for _, one in COMPILED[compiler]]
    return (
        f"{compiler} does not compile {source}: model.compiler={compiler} is for networks made by "
        f"urbandet export --format {runtime} --precision {' or '.join(precisions)}"
    )


def computes_in(facts: NetworkFacts) -> Precision:
    """What this machine computes a network in: where it lacks the precision, f32.

    Raises:
        MissingExtraError: the runtime is not installed.
    """
    able = True
    if (facts.runtime, facts.precision) == ("savedmodel", "fp16"):
        able = sees_gpu()
    elif (facts.runtime, facts.precision) == ("savedmodel", "bf16"):
        able = processor_has("avx512_bf16", "amx_bf16")
    elif (facts.runtime, facts.precision) == ("openvino", "bf16"):
        try:
            able = "BF16" in _openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        except ImportError as error:
            raise MissingExtraError(
                f"OpenVINO is not installed ({error}): pip install 'urbandet-ray[fast]'"
            ) from error
    return facts.precision if able else "f32"


def _openvino() -> Any:
    os.environ.setdefault("CI", "true")  # openvino-telemetry sends nothing then
    import openvino

    return openvino


class SavedModelRuntime:
    """TensorFlow, on the CPU or a GPU whose memory it takes as it needs it."""

    def __init__(
        self, model: Path, facts: NetworkFacts, threads: int, device: Device, xla: bool = False
    ) -> None:
        self._tf = open_tensorflow(threads, device)
        self.on_gpu = bool(self._tf.config.list_logical_devices("GPU"))
        self._model = self._tf.saved_model.load(str(model))  # its variables go with it
        self._signature = self._model.signatures["serving_default"]
        self._xla, self._most = xla, 0
        if xla:
            self._signature = self._tf.function(self._signature, jit_compile=True)
        computed = computes_in(facts)
        self._passes = {name: computed == bits for bits, name in _MIXED_PRECISION.items()}

    def run(self, images: NDArray[np.uint8]) -> Answer:
        """See `NetworkRuntime.run`."""
        count = len(images)
        if self._xla:
            self._most = max(self._most, count)
            images = filled(images, self._most)
        # of the whole process, and read when a graph is first given images of a size
        self._tf.config.optimizer.set_experimental_options(self._passes)
        answered = self._signature(images=self._tf.constant(images))
        return {name: value.numpy()[:count] for name, value in answered.items()}


class OpenVinoRuntime:
    """OpenVINO: a network compiled for each size of frames and for batches of each number.

    Where the number is open it takes 1.2 times as long (bench/inference.py's networks). A batch is
    filled up where the network is there for a larger one of up to twice as many.
    """

    on_gpu = False

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
        self._compiled = lru_cache(_KEPT)(self._compile)
        self._counts: defaultdict[tuple[int, ...], set[int]] = defaultdict(set)

    def _compile(self, count: int, height: int, width: int) -> Any:
        model = self._model.clone()
        model.reshape({0: [count, height, width, 3]})
        for node in model.get_ops():
            if node.get_type_name() != "Interpolate":
                continue
            given, made = node.input_value(0), node.output(0)
            if given.partial_shape == made.partial_shape:  # else OpenVINO does resize to the same
                made.replace(given)
        return self._core.compile_model(model, "CPU", self._hints).create_infer_request()

    def run(self, images: NDArray[np.uint8]) -> Answer:
        """See `NetworkRuntime.run`."""
        count, *size = images.shape[:3]
        counts = self._counts[tuple(size)]
        room = min((one for one in counts if count <= one <= 2 * count), default=count)
        counts.add(room)
        request = self._compiled(room, *size)
        answered = request.infer({0: filled(images, room)}, share_inputs=True, share_outputs=False)
        return {output.get_any_name(): value[:count] for output, value in answered.items()}


class OnnxRuntime:
    """ONNX Runtime: CUDA where it is built with it and the machine has a GPU, else the CPU.

    Attributes:
        provider: what runs the network, by ONNX Runtime's name.
    """

    def __init__(
        self, model: Path, facts: NetworkFacts, threads: int, device: Device, tensorrt: bool = False
    ) -> None:
        del facts
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        providers = _providers(device, tensorrt)
        if len(providers) > 1:
            onnxruntime.preload_dlls()  # CUDA and cuDNN that pip installed
        self._session = onnxruntime.InferenceSession(
            str(model), options, providers=providers, enable_fallback=0
        )
        self.provider: str = self._session.get_providers()[0]
        if self.provider != providers[0][0]:
            name = "TensorRT" if tensorrt else "CUDA"
            also = " and TensorRT (pip install tensorrt)" if tensorrt else ""
            raise ModelError(
                f"ONNX Runtime {onnxruntime.__version__} is built for {name} and does not get at "
                f"the GPU here: it needs the CUDA and cuDNN it was built with{also} (pip install "
                "'onnxruntime-gpu[cuda,cudnn]')"
            )
        self._input = self._session.get_inputs()[0].name
        self._outputs = [output.name for output in self._session.get_outputs()]
        self.on_gpu = self.provider != _CPU
        self._most = 0

    def run(self, images: NDArray[np.uint8]) -> Answer:
        """See `NetworkRuntime.run`."""
        count = len(images)
        if self.provider != _CPU:  # a GPU's would plan anew for each other number, for seconds
            self._most = max(self._most, count)
            images = filled(images, self._most)
        values = self._session.run(self._outputs, {self._input: images})
        names = (_plain(name) for name in self._outputs)
        return {name: value[:count] for name, value in zip(names, values, strict=True)}


def _providers(device: Device, tensorrt: bool) -> list[tuple[str, dict[str, Any]]]:
    """What ONNX Runtime is to compute with, the first wherever it can.

    Raises:
        ModelError: it does not get at the GPU that is asked for.
    """
    import onnxruntime

    if tensorrt and device == "cpu":
        raise ModelError("TensorRT needs a GPU: set actors.gpus, or leave model.compiler out")
    wanted, name = (_TENSORRT, "TensorRT") if tensorrt else (_CUDA, "CUDA")
    able = device != "cpu" and wanted in onnxruntime.get_available_providers()
    if able and sees_gpu():
        gpu: list[tuple[str, dict[str, Any]]] = [(_CUDA, _CUDA_OPTIONS), (_CPU, {})]
        return [(_TENSORRT, _tensorrt_options()), *gpu] if tensorrt else gpu
    if device == "gpu" or tensorrt:
        why = "sees no GPU here" if able else f"is not built for {name}"
        raise ModelError(
            f"ONNX Runtime {onnxruntime.__version__} {why}: pip uninstall onnxruntime, pip "
            "install 'onnxruntime-gpu[cuda,cudnn]' on a machine with NVIDIA's driver, or set "
            "actors.gpus=0 to run on the CPU"
        )
    return [(_CPU, {})]


def _tensorrt_options() -> dict[str, Any]:
    """Engines take minutes to make and are kept beside downloaded models, by model and GPU."""
    kept = cache_folder() / "tensorrt"
    kept.mkdir(parents=True, exist_ok=True)
    return {
        "trt_engine_cache_enable": True,
        "trt_timing_cache_enable": True,
        "trt_engine_cache_path": str(kept),
        "trt_timing_cache_path": str(kept),
    }


def filled(images: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """As many images as wanted: black ones behind those given."""
    missing = count - len(images)
    return np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0))) if missing else images


class TfliteRuntime:
    """LiteRT; its input is resized where the batch or the size of the frames changes."""

    on_gpu = False

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
