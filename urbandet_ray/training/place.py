"""Where a worker stands, and how long its steps take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from urbandet_ray.training.board import Notice


@dataclass(frozen=True)
class Place:
    """Where a worker stands among the others, and how it speaks to the world.

    Attributes:
        rank, world: its number from 0, and how many there are.
        threads: CPU threads.
        notice: passes a dict on to whoever watches the run.
        report: tells Ray Train; every worker has to call it as often as the others.
        reclaimed: whether a node of the run is about to be taken away.
    """

    rank: int = 0
    world: int = 1
    threads: int | None = None
    notice: Notice = lambda _: None
    report: Callable[[dict[str, Any]], None] = lambda _: None
    reclaimed: Callable[[], bool] = lambda: False


class Meter:
    """Means of the figures between two log lines, and where the time went."""

    def __init__(self, images_a_step: int) -> None:
        self._images = images_a_step
        self.restart()

    def restart(self) -> None:
        """Forget what was; after an evaluation, whose time is not the steps'."""
        self._begin = time.perf_counter()
        self._waited = 0.0
        self._sums: dict[str, float] = {}
        self._count = 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time input is waited for."""
        begin = time.perf_counter()
        yield
        self._waited += time.perf_counter() - begin

    def add(self, losses: dict[str, float], gradient_norm: float) -> None:
        """A step's figures."""
        self._count += 1
        for name, value in {**losses, "gradient_norm": gradient_norm}.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def elapsed(self) -> float:
        """Seconds since the last line."""
        return time.perf_counter() - self._begin

    def take(self) -> dict[str, float]:
        """The means, and begin anew."""
        seconds, count = max(self.elapsed(), 1e-9), max(self._count, 1)
        figures = {name: total / count for name, total in self._sums.items()}
        figures["step_s"] = seconds / count
        figures["images_per_s"] = self._images * self._count / seconds
        figures["input_wait"] = self._waited / seconds
        self.restart()
        return figures
