"""Keeps what libraries print and nobody can act on off a person's terminal."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

_LEVELS = {
    "tensorflow": ("TF_CPP_MIN_LOG_LEVEL", "2"),
    "opencv": ("OPENCV_LOG_LEVEL", "ERROR"),
    # Ray Data makes its actors in a way that Ray's core warns of at every start (ray issue 53727)
    "ray": ("RAY_BACKEND_LOG_LEVEL", "fatal"),
}


def lower_log_level(library: Literal["tensorflow", "opencv", "ray"]) -> None:
    """Let a library's C++ code log no remarks; to be called before it is loaded.

    A level that the environment names already stays as it is.
    """
    os.environ.setdefault(*_LEVELS[library])


@contextmanager
def stderr_held(*, show_on_failure: bool = True) -> Iterator[list[str]]:
    """Hold back what is written to file descriptor 2 while the block runs.

    Ray's core announces the log level it was given, TensorFlow the libraries it looked for, TFLite
    its delegates, and nothing turns that off.

    Args:
        show_on_failure: what was written is shown where the block fails.

    Yields:
        A list that gets what was written where the block fails.
    """
    kept, held = os.dup(2), list[str]()
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            yield held
        except BaseException:
            written.seek(0)
            text = written.read()
            held.append(text.decode(errors="replace"))
            if show_on_failure:
                os.write(kept, text)
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
