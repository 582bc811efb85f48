"""Progress as a person wants it: a bar on a terminal, plain lines in a job's log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from urbandet_ray.inference.progress import Progress, bottleneck_hint

LINE_EVERY_S = 10.0
"""Seconds between lines in a log."""


@contextmanager
def infer_progress() -> Iterator[Callable[[Progress], None]]:
    """A callback that shows a run's progress while the block runs; the end is always shown."""
    last: list[Progress] = []
    with _bar("frames") if sys.stderr.isatty() else _lines() as show:

        def on_progress(progress: Progress) -> None:
            last[:] = [progress]
            show(progress.fraction, describe(progress))

        try:
            yield on_progress
        finally:
            if last and not sys.stderr.isatty():
                print(describe(last[0]), file=sys.stderr, flush=True)  # the log


@contextmanager
def count_progress(noun: str) -> Iterator[Callable[[int, int], None]]:
    """A callback(done, total) for plain counts, such as frames of a video."""
    with _bar(noun) if sys.stderr.isatty() else _lines() as show:
        yield lambda done, total: show(done / max(total, 1), f"{done} of {total} {noun}")


def describe(progress: Progress) -> str:
    """One line: frames done, frames/s, dead letters, time left, and which stage is the limit."""
    parts = [
        f"{progress.frames} frames ({progress.fraction:.0%})",
        f"{progress.frames_per_s:.1f} frames/s",
        f"{progress.dead_letters} dead letters",
    ]
    if progress.fraction < 1:
        left = "unknown" if progress.left_s is None else clock(progress.left_s)
        parts.append(f"{left} left")
    if progress.bottleneck:
        share = progress.shares[progress.bottleneck]
        hint = bottleneck_hint(progress.bottleneck)
        parts.append(f"most time in {progress.bottleneck} ({share:.0%}; {hint})")
    return ", ".join(parts)


def clock(seconds: float) -> str:
    """Seconds as 1:05 or 2:03:04."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@contextmanager
def _lines() -> Iterator[Callable[[float, str], None]]:
    shown = time.monotonic()

    def show(_: float, text: str) -> None:
        nonlocal shown
        if time.monotonic() - shown >= LINE_EVERY_S:
            shown = time.monotonic()
            print(text, file=sys.stderr, flush=True)  # the log of a job

    yield show


@contextmanager
def _bar(noun: str) -> Iterator[Callable[[float, str], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (BarColumn(bar_width=24), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"starting ({noun})", total=1.0)
        yield lambda fraction, text: bar.update(task, completed=fraction, description=text)
