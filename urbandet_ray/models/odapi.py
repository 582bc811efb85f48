"""The one door to the TF Object Detection API (the `object_detection` package).

It is the December 2022 tree, written for Keras 2 and for a TensorFlow that still had estimators.
`open_odapi` mends what newer TensorFlow took away, before the package's first import;
`export_saved_model` and `export_tflite` then call the package's own code.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import operator
import os
import sys
import types
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from urbandet_ray.chatter import lower_log_level, saving_warnings_held, stderr_held
from urbandet_ray.errors import (
    MissingExtraError,
    ModelError,
    NotFoundError,
    RunError,
)

Weights = Literal["float32", "float16", "dynamic-range"]
"""How a TFLite file stores its weights."""

_NEEDED = ("tensorflow", "tf_keras", "tf_slim", "object_detection")
_INSTALL = (
    "pip install 'urbandet-ray[train]' && pip install --no-deps -r requirements/odapi.lock "
    "(the OD API goes in without its dependencies: its metadata asks for packages it never imports)"
)


@dataclass(frozen=True)
class ObjectDetection:
    """The modules of the OD API this project uses, opened."""

    tf: Any
    config_util: Any
    pipeline_pb2: Any
    model_builder: Any
    model_lib_v2: Any
    exporter_lib_v2: Any
    export_tflite_lib: Any
    fields: Any
    inputs: Any
    model_lib: Any
    tf_example_decoder: Any
    preprocessor_builder: Any
    preprocessor_pb2: Any
    image_resizer_builder: Any
    optimizer_builder: Any


@cache
def open_odapi() -> ObjectDetection:
    """Import TensorFlow with Keras 2 and the OD API on top, mended for this TensorFlow.

    Raises:
        MissingExtraError: TensorFlow, Keras 2, tf_slim or the OD API is not installed.
        RunError: TensorFlow was imported with Keras 3 before; Keras can't be changed afterwards.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"training and export need {', '.join(missing)}, not installed here: {_INSTALL}"
        )
    tf = _import_tensorflow()
    _mend_tensorflow(tf)
    modules = {
        "config_util": "utils.config_util",
        "pipeline_pb2": "protos.pipeline_pb2",
        "model_builder": "builders.model_builder",
        "model_lib_v2": "model_lib_v2",
        "exporter_lib_v2": "exporter_lib_v2",
        "export_tflite_lib": "export_tflite_graph_lib_tf2",
        "fields": "core.standard_fields",
        "inputs": "inputs",
        "model_lib": "model_lib",
        "tf_example_decoder": "data_decoders.tf_example_decoder",
        "preprocessor_builder": "builders.preprocessor_builder",
        "preprocessor_pb2": "protos.preprocessor_pb2",
        "image_resizer_builder": "builders.image_resizer_builder",
        "optimizer_builder": "builders.optimizer_builder",
    }
    try:
        with warnings.catch_warnings():
            # tensorflow_io's own file systems do not load on this TensorFlow; nothing uses them
            warnings.filterwarnings("ignore", module="tensorflow_io")
            opened = {
                field: importlib.import_module(f"object_detection.{name}")
                for field, name in modules.items()
            }
    except ImportError as error:
        raise MissingExtraError(
            f"the OD API does not open: {error}. It needs the `train` extra: {_INSTALL}"
        ) from error
    _mend_optimizers(tf)
    return ObjectDetection(tf=tf, **opened)


KERAS_2 = {"TF_USE_LEGACY_KERAS": "1"}
"""Environment in which TensorFlow comes with the Keras that the OD API is written for."""


def _import_tensorflow() -> Any:
    if "tensorflow" not in sys.modules:
        os.environ.update(KERAS_2)
        lower_log_level("tensorflow")
    with stderr_held():
        tf = importlib.import_module("tensorflow")
        tf.config.list_physical_devices()  # looks for CUDA, and says so where there is none
    keras = "Keras 3"
    if os.environ.get("TF_USE_LEGACY_KERAS") in ("1", "true", "True"):
        keras = str(tf.keras.Model.__module__).split(".", maxsplit=1)[0]
    if keras != "tf_keras":
        raise RunError(
            f"TensorFlow was imported earlier in this process with {keras}, the OD API needs "
            "Keras 2: set TF_USE_LEGACY_KERAS=1 in the environment before tensorflow is imported"
        )
    return tf


def _mend_tensorflow(tf: Any) -> None:
    """Give TensorFlow >= 2.16 back the three names the OD API and tf_slim import."""
    compat_v1 = importlib.import_module("tensorflow.compat.v1")
    if not hasattr(compat_v1, "estimator"):
        estimator = types.ModuleType("tensorflow.compat.v1.estimator")
        estimator.__dict__["ModeKeys"] = types.SimpleNamespace(
            TRAIN="train", EVAL="eval", PREDICT="infer"
        )
        sys.modules[estimator.__name__] = estimator
        compat_v1.__dict__["estimator"] = estimator
    control_flow = importlib.import_module("tensorflow.python.ops.control_flow_ops")
    for name in ("case", "cond"):
        if not hasattr(control_flow, name):
            setattr(control_flow, name, getattr(tf.compat.v1, name))


class _Overlay:
    """A module with some of its names replaced, for one importer of it."""

    def __init__(self, module: Any, **names: Any) -> None:
        self.__dict__.update(names, _module=module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _mend_optimizers(tf: Any) -> None:
    """Let the OD API build Keras' legacy optimizers, the ones it was written for.

    It hands its learning rate schedule over as a function of no arguments. The optimizers of
    TF >= 2.11 call that once, when they are made, and without a word train to the end at the
    warm-up's first rate; the Model Garden's moving average needs the legacy ones too.
    """
    builder: Any = importlib.import_module("object_detection.builders.optimizer_builder")
    keras = _Overlay(tf.keras, optimizers=tf.keras.optimizers.legacy)
    builder.tf = _Overlay(builder.tf, keras=keras)


@contextmanager
def lean_layers() -> Iterator[None]:
    """Within, models are built and traced with cheaper operations for the same arithmetic.

    The OD API enlarges feature maps by stacking copies, and sums a BiFPN's inputs as a matrix
    product of their stack: made for TPUs, and a third of an EfficientDet's time on a CPU. Here
    they are a resize and a sum of products: equal up to float rounding. Variables and their names
    stay.
    """
    tf = open_odapi().tf
    ops: Any = importlib.import_module("object_detection.utils.ops")
    combine: Any = importlib.import_module("object_detection.utils.bifpn_utils").BiFPNCombineLayer

    def enlarge(
        input_tensor: Any,
        scale: int | None = None,
        height_scale: int | None = None,
        width_scale: int | None = None,
        name: str = "nearest_neighbor_upsampling",
    ) -> Any:
        factors = height_scale or scale, width_scale or scale
        sides = input_tensor.shape[1:3]
        if not sides.is_fully_defined():
            sides = tf.unstack(tf.shape(input_tensor)[1:3])
        size = [side * factor for side, factor in zip(sides, factors, strict=True)]
        return tf.raw_ops.ResizeNearestNeighbor(images=input_tensor, size=size, name=name)

    def weighted_sum(layer: Any, inputs: Sequence[Any]) -> Any:
        return _sum_of_products(inputs, layer.per_input_weights)

    def attention(layer: Any, inputs: Sequence[Any]) -> Any:
        return _sum_of_products(inputs, tf.nn.softmax(layer.per_input_weights))

    def fast_attention(layer: Any, inputs: Sequence[Any]) -> Any:
        weights = tf.nn.relu(layer.per_input_weights)
        return _sum_of_products(inputs, weights / (tf.reduce_sum(weights) + 0.0001))

    with ExitStack() as replaced:
        for owner, name, lean in (
            (ops, "nearest_neighbor_upsampling", enlarge),
            (combine, "_combine_weighted_sum", weighted_sum),
            (combine, "_combine_attention", attention),
            (combine, "_combine_fast_attention", fast_attention),
        ):
            replaced.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, lean)
        yield


def _sum_of_products(inputs: Sequence[Any], weights: Any) -> Any:
    products = [one * weights[i, 0] for i, one in enumerate(inputs)]
    return functools.reduce(operator.add, products)


def last_checkpoint(checkpoint_dir: Path) -> str:
    """The newest checkpoint's prefix (".../ckpt-7").

    Raises:
        NotFoundError: the folder holds no checkpoint.
    """
    found = open_odapi().tf.train.latest_checkpoint(str(checkpoint_dir))
    if found is None:
        raise NotFoundError(f"no checkpoint in {checkpoint_dir}: train first, or name its folder")
    return str(found)


def export_saved_model(config: Any, checkpoint_dir: Path, out_dir: Path) -> Path:
    """Export with the OD API's stock exporter: uint8 [1, None, None, 3] in, 100 boxes out.

    Args:
        config: TrainEvalPipelineConfig message.
        checkpoint_dir: its newest checkpoint is exported.
        out_dir: gets saved_model/, checkpoint/ and pipeline.config.

    Returns:
        The SavedModel folder.

    Raises:
        NotFoundError: no checkpoint.
    """
    last_checkpoint(checkpoint_dir)
    with saving_warnings_held():
        open_odapi().exporter_lib_v2.export_inference_graph(
            input_type="image_tensor",
            pipeline_config=config,
            trained_checkpoint_dir=str(checkpoint_dir),
            output_directory=str(out_dir),
        )
    return out_dir / "saved_model"


def export_tflite(
    config: Any,
    checkpoint_dir: Path,
    out_dir: Path,
    *,
    weights: Weights = "float16",
    max_detections: int = 100,
    regular_nms: bool = False,
    score_min: float | None = None,
) -> Path:
    """Export an SSD to TFLite with the detection post-process op inside.

    The file takes float32 [1, height, width, 3] in [-1, 1] and answers boxes (ymin, xmin, ymax,
    xmax in [0, 1]), classes from 0, scores and the count.

    Args:
        config: TrainEvalPipelineConfig message; not changed.
        checkpoint_dir: its newest checkpoint is exported.
        out_dir: gets model.tflite and the intermediate saved_model/.
        weights: storage of the weights; dynamic-range is int8 with float activations.
        max_detections: boxes a call.
        regular_nms: suppress per class (slower) instead of across classes.
        score_min: boxes below never enter the suppression; None keeps the config's threshold.

    Returns:
        Path of model.tflite.

    Raises:
        NotFoundError: no checkpoint.
        ModelError: the model is no SSD, or does not convert.
    """
    kind = config.model.WhichOneof("model")
    if kind != "ssd":
        raise ModelError(f"the pipeline.config describes a {kind} model: only ssd goes to TFLite")
    if score_min is not None:
        given, config = config, type(config)()
        config.CopyFrom(given)
        config.model.ssd.post_processing.batch_non_max_suppression.score_threshold = score_min
    last_checkpoint(checkpoint_dir)
    with saving_warnings_held():
        open_odapi().export_tflite_lib.export_tflite_model(
            config, str(checkpoint_dir), str(out_dir), max_detections, regular_nms
        )
    path = out_dir / "model.tflite"
    path.write_bytes(_convert_to_tflite(out_dir / "saved_model", weights))
    return path


def _convert_to_tflite(saved_model: Path, weights: Weights) -> bytes:
    tf = open_odapi().tf
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    converter.allow_custom_ops = True
    if weights != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if weights == "float16":
        converter.target_spec.supported_types = [tf.float16]
    try:
        return bytes(converter.convert())
    except Exception as error:  # the converter raises its own bare types
        raise ModelError(f"{saved_model} does not convert to TFLite: {error}") from error
