"""How far a run is, how fast it goes, and which stage holds it up."""

from __future__ import annotations

import time
from dataclasses import dataclass

from urbandet_ray.inference.job import STAGES, ShardSummary


@dataclass(frozen=True)
class Progress:
    """A snapshot.

    Attributes:
        frames, detections, dead_letters: in committed shards, earlier tries included.
        frames_per_s: of this try, since its first shard was started.
        fraction: share of the input's bytes done, in [0, 1].
        left_s: seconds left at this pace; None while unknown.
        shares: share of all busy time by stage; bottleneck is the largest, "" before any.
    """

    frames: int
    detections: int
    dead_letters: int
    frames_per_s: float
    fraction: float
    left_s: float | None
    shares: dict[str, float]
    bottleneck: str


class ProgressMeter:
    """Adds up summaries.

    Args:
        sizes_bytes: size of each source by name, done and undone.
        done: share of each source that earlier tries have done.
        frames, detections, dead_letters: what earlier tries have committed.
    """

    def __init__(
        self,
        sizes_bytes: dict[str, int],
        done: dict[str, float],
        *,
        frames: int = 0,
        detections: int = 0,
        dead_letters: int = 0,
    ) -> None:
        self._sizes = sizes_bytes
        self._extent = dict(done)
        self._frames, self._detections, self._dead = frames, detections, dead_letters
        self._earlier_frames = frames
        self._earlier_fraction = self._fraction()
        self._begin: float | None = None
        self._busy = dict.fromkeys(STAGES, 0.0)

    def add(self, summary: ShardSummary) -> None:
        """Count a committed shard."""
        self._begin = min(self._begin or summary.started, summary.started)
        self._frames += summary.frames
        self._detections += summary.detections
        self._dead += len(summary.dead_letters)
        known = self._extent.get(summary.source, 0.0)
        self._extent[summary.source] = min(known + summary.extent, 1.0)
        for stage, spent in summary.busy_s.items():
            self._busy[stage] = self._busy.get(stage, 0.0) + spent

    def snapshot(self) -> Progress:
        """The state now."""
        elapsed = time.time() - self._begin if self._begin is not None else 0.0
        pace = (self._frames - self._earlier_frames) / elapsed if elapsed > 0 else 0.0
        fraction = self._fraction()
        gained = fraction - self._earlier_fraction
        total = sum(self._busy.values())
        return Progress(
            frames=self._frames,
            detections=self._detections,
            dead_letters=self._dead,
            frames_per_s=pace,
            fraction=fraction,
            left_s=elapsed * (1 - fraction) / gained if gained > 0 else None,
            shares={stage: spent / total for stage, spent in self._busy.items() if total},
            bottleneck=max(self._busy, key=self._busy.__getitem__) if total else "",
        )

    def _fraction(self) -> float:
        whole = sum(self._sizes.values())
        if not whole:
            return 0.0
        return sum(self._sizes[name] * part for name, part in self._extent.items()) / whole


def bottleneck_hint(bottleneck: str) -> str:
    """What to do about the slowest stage, in a few words."""
    hints = {
        "read": "the storage is the limit",
        "decode": "more actors, or actors.decode_threads beside a GPU",
        "model": "more actors or a faster model",
        "draw": "draw.enabled=false, or more cores",
        "encode": "draw.enabled=false, or more cores",
        "write": "actors.draw_threads higher hides the storage's latency",
    }
    return hints.get(bottleneck, "")
