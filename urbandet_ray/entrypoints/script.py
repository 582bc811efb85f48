"""The common frame of jobs/*.py: a YAML and overrides in, plain lines and an exit code out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from urbandet_ray.config import load_config
from urbandet_ray.errors import UrbandetError

Config = TypeVar("Config", bound=BaseModel)


def run_job(
    kind: type[Config],
    arguments: Sequence[str],
    work: Callable[[Config], tuple[str, int]],
    on_error: Callable[[str], None] = lambda _: None,
) -> int:
    """Read the config, do the work, print what it says.

    Args:
        kind: the config's class.
        arguments: an optional YAML path first, then `key=value` overrides.
        work: does it; returns the text to print and the exit code.
        on_error: told the message of an error, beside the log.

    Returns:
        The exit code; 1 after an error, which is printed as one message.
    """
    path = Path(arguments[0]) if arguments and "=" not in arguments[0] else None
    overrides = arguments[1:] if path else arguments
    try:
        text, code = work(load_config(kind, path, overrides))
    except UrbandetError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)  # the log of a job
        on_error(str(error))
        return 1
    print(text, flush=True)  # the log of a job
    return code
