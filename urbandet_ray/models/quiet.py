"""Keeps what native libraries print while they start off a person's terminal."""

from __future__ import annotations

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
