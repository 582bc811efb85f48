"""Where a model runs: what this machine has, and TensorFlow set up for it."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any, Literal

from urbandet_ray.errors import MissingExtraError, ModelError

Device = Literal["auto", "cpu", "gpu"]
"""Where a model runs; auto is a GPU where the runtime has one, gpu fails where it has none."""


def open_tensorflow(threads: int, device: Device = "auto") -> Any:
    """TensorFlow with Keras 2 and GPU memory taken as needed.

    Args:
        threads: on the CPU; without effect once TensorFlow has run something.
        device: where it is to compute.

    Raises:
        MissingExtraError: it is not installed.
        ModelError: it sees no GPU, and is to compute on one.
    """
    # decided at TensorFlow's first import: the OD API needs Keras 2 in the same process (odapi.py)
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    try:
        import tensorflow as tf
    except ImportError as error:
        raise MissingExtraError(
            "a SavedModel needs TensorFlow, which is not installed: "
            "pip install 'urbandet-ray[train]', or use a .tflite model"
        ) from error
    gpus = tf.config.list_physical_devices("GPU") if device != "cpu" else []
    if device == "gpu" and not gpus:
        raise ModelError(
            f"TensorFlow {tf.__version__} sees no GPU here: it needs NVIDIA's driver and the CUDA "
            "it was built with (pip install 'tensorflow[and-cuda]'); to run on the CPU, set "
            "actors.gpus=0"
        )
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        if device == "cpu":
            tf.config.set_visible_devices([], "GPU")
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError:
        pass  # TensorFlow is already running in this process and keeps its settings
    return tf


def sees_gpu() -> bool:
    """Whether there is a CUDA driver and it shows a GPU to this process."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return False
    return count.value > 0


def processor_has(*flags: str) -> bool:
    """Whether Linux lists one of these for the processor; elsewhere none is known."""
    try:
        words = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
    return not set(flags).isdisjoint(words)
