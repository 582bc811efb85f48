"""Progress as a person wants it: a bar on a terminal, plain lines in a job's log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from urbandet_ray.inference.progress import Progress, bottleneck_hint
from urbandet_ray.training.doctor.findings import Finding

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


class TrainProgress:
    """Turns a run's notices into one line each time there is something to say."""

    def __init__(self, show: Callable[[float, str], None], say: Callable[[str], None]) -> None:
        self._show, self._say = show, say
        self._steps, self._best = 1, ""
        self._begin: tuple[float, int] | None = None

    def __call__(self, notice: dict[str, Any]) -> None:
        """Take a notice of `commands.train.train`."""
        kind = notice["kind"]
        if kind == "plan":
            self._steps = notice["steps"]
            if notice["data"]:
                self._say(notice["data"])
            self._say(f"{self._steps} steps of {notice['images']} images")
        elif kind == "waiting":
            self._say(notice["text"])
        elif kind == "start":
            self._say(f"{notice['workers']} workers of {notice['threads']} cores each have started")
        elif kind == "event" and notice["text"] != "checkpoint":
            self._say(f"step {notice['step']}: {notice['text']}")
        elif kind == "evaluation":
            self._say(self._evaluation(notice))
        elif kind == "steps":
            self._show(notice["step"] / self._steps, self._line(notice))

    def _evaluation(self, notice: dict[str, Any]) -> str:
        metrics = notice["metrics"]
        parts = [
            f"{name} {value['ap']:.3f}"
            for name, value in metrics["by_class"].items()
            if value["ap"] is not None
        ]
        figure = "-" if metrics["map"] is None else f"{metrics['map']:.3f}"
        if notice["best"]:
            self._best = f", best mAP {figure} at step {notice['step']}"
        half = "-" if metrics["ap50"] is None else f"{metrics['ap50']:.3f}"
        mark = " (the best so far)" if notice["best"] else ""
        return f"step {notice['step']}: mAP {figure}, AP50 {half} ({', '.join(parts)}){mark}"

    def _line(self, notice: dict[str, Any]) -> str:
        now, step = time.monotonic(), notice["step"]
        self._begin = self._begin or (now, step)
        since, first = self._begin
        left = "unknown"
        if step > first:
            left = clock((now - since) / (step - first) * (self._steps - step))
        return (
            f"step {step} of {self._steps}, loss {notice['total']:.3f}, "
            f"rate {notice['rate']:.2g}, {notice['images_per_s']:.1f} images/s, "
            f"{notice['input_wait']:.0%} waiting for input{self._best}, {left} left"
        )


@contextmanager
def train_progress() -> Iterator[Callable[[dict[str, Any]], None]]:
    """A callback for a training's notices: a bar and lines on a terminal, lines in a log."""
    if sys.stderr.isatty():
        from rich.console import Console

        console = Console(stderr=True)
        with _bar("steps", console) as show:
            yield TrainProgress(show, lambda text: console.print(text, highlight=False))
        return
    with _lines() as show:
        yield TrainProgress(show, lambda text: print(text, file=sys.stderr, flush=True))


def show_findings(findings: Sequence[Finding]) -> None:
    """What the doctor warns of, a line each; errors are the caller's to refuse."""
    for one in findings:
        if one.severity != "note":
            print(f"doctor: {one.severity}: {one.place}: {one.what} -> {one.fix}", file=sys.stderr)


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
def _bar(noun: str, console: Any = None) -> Iterator[Callable[[float, str], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (BarColumn(bar_width=24), TextColumn("{task.description}"))
    console = console or Console(stderr=True)
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"starting ({noun})", total=1.0)
        yield lambda fraction, text: bar.update(task, completed=fraction, description=text)
