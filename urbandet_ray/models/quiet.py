"""Keeps what libraries print and nobody can act on off a person's terminal."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_start() -> Iterator[None]:
    """Hold back what is written to file descriptor 2 while the block runs.

    Ray's core announces the log level it was given, TensorFlow the libraries it looked for, and
    nothing turns that off. What was written is shown where the block fails.
    """
    kept = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            yield
        except BaseException:
            written.seek(0)
            os.write(kept, written.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@contextmanager
def quiet_saving() -> Iterator[None]:
    """Hold back TensorFlow's warnings while a SavedModel is written.

    It warns of each of a model's hundred layers that it could not make a Keras model of again.
    """
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
