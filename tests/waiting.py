"""Waiting for a condition, with an end that says what was waited for."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

END_S = 300.0
"""Far beyond what a busy machine needs: who gets there has waited for what never comes."""


def wait_for(condition: Callable[[], T], what: str, end_s: float = END_S) -> T:
    """The condition's first true answer."""
    until = time.monotonic() + end_s
    while not (found := condition()):
        if time.monotonic() > until:
            raise AssertionError(f"waited {end_s:.0f} s for {what}")
        time.sleep(0.02)
    return found
