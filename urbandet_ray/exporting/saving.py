"""SavedModels hold what a model answers, not how Keras would build it again."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def saved_without_layers() -> Iterator[None]:
    """Let TensorFlow save a model's functions and variables, and leave its layers alone.

    Keras would trace every layer's own call as well, for a Keras model that nobody can load: an OD
    API model is none. That is two thirds of an export's time, half of its graph, and the time to
    load it. It also warns of each of the hundred layers, which is held back.
    """
    layers = importlib.import_module("tf_keras.src.saving.legacy.saved_model.utils")
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with layers.keras_option_scope(save_traces=False, in_tf_saved_model_scope=False):
            yield
    finally:
        logger.setLevel(level)
