"""The one door to the TF Object Detection API (the `object_detection` package).

It is the December 2022 tree, written for Keras 2 and for a TensorFlow that still had estimators.
`open_odapi` mends what newer TensorFlow took away, before the package's first import.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from urbandet_ray.chatter import lower_log_level, stderr_held
from urbandet_ray.errors import (
    MissingExtraError,
    NotFoundError,
    RunError,
)

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")
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
    box_list_ops: Any
    inputs: Any
    model_lib: Any
    tf_example_decoder: Any
    preprocessor_builder: Any
    preprocessor_pb2: Any
    image_resizer_builder: Any
    optimizer_builder: Any
    ops: Any
    bifpn_utils: Any


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
        "box_list_ops": "core.box_list_ops",
        "inputs": "inputs",
        "model_lib": "model_lib",
        "tf_example_decoder": "data_decoders.tf_example_decoder",
        "preprocessor_builder": "builders.preprocessor_builder",
        "preprocessor_pb2": "protos.preprocessor_pb2",
        "image_resizer_builder": "builders.image_resizer_builder",
        "optimizer_builder": "builders.optimizer_builder",
        "ops": "utils.ops",
        "bifpn_utils": "utils.bifpn_utils",
    }
    try:
        with warnings.catch_warnings(), _stand_ins():
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
    _mend_exporters(tf, opened["exporter_lib_v2"], opened["export_tflite_lib"])
    return ObjectDetection(tf=tf, **opened)


KERAS_2 = {"TF_USE_LEGACY_KERAS": "1"}
"""Environment in which TensorFlow comes with the Keras that the OD API is written for."""


def without_autograph(function: Callable[_Given, _Result]) -> Callable[_Given, _Result]:
    """The function, with itself and all it calls traced as they are written.

    The OD API's code and ours were written for graphs. AutoGraph would rewrite each of the
    thousands of functions that a model's trace calls, which takes most of the trace's time.
    """

    @wraps(function)
    def traced(*args: _Given.args, **kwargs: _Given.kwargs) -> _Result:
        tf = sys.modules["tensorflow"]
        result: _Result = tf.autograph.experimental.do_not_convert(function)(*args, **kwargs)
        return result

    return traced


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


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Other modules than those that the OD API's imports would find, while they are made.

    It means Keras 2 where it says keras, and would be given Keras 3. tf_slim asks whether
    scikit-learn is there for a loss that nothing here uses. The two take a second to import.
    """
    keras = importlib.import_module("tf_keras")
    wanted: dict[str, Any] = {
        "keras": keras,
        "keras.applications": keras.applications,
        "sklearn": None,
    }
    placed = {name: module for name, module in wanted.items() if name not in sys.modules}
    sys.modules.update(placed)  # None is "not installed" to Python
    try:
        yield
    finally:
        for name in placed:
            del sys.modules[name]


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


def _mend_exporters(tf: Any, saved_models: Any, tflite: Any) -> None:
    """Let the OD API's exporters trace a model as it is written; see `without_autograph`."""
    module = saved_models.DetectionInferenceModule
    module._run_inference_on_images = without_autograph(module._run_inference_on_images)
    inference = tflite.SSDModule.inference_fn.python_function
    tflite.SSDModule.inference_fn = tf.function(inference, autograph=False)


def last_checkpoint(checkpoint_dir: Path) -> str:
    """The newest checkpoint's prefix (".../ckpt-7").

    Raises:
        NotFoundError: the folder holds no checkpoint.
    """
    found = open_odapi().tf.train.latest_checkpoint(str(checkpoint_dir))
    if found is None:
        raise NotFoundError(f"no checkpoint in {checkpoint_dir}: train first, or name its folder")
    return str(found)
