"""What readers and actors need to know about a run, and what they report back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from urbandet_ray.config import InferConfig
from urbandet_ray.labels import LabelMap
from urbandet_ray.models.detector import Detector
from urbandet_ray.runs.lock import Claim
from urbandet_ray.runs.run_folder import RunFolder
from urbandet_ray.storage import Storage

STAGES = ("read", "decode", "model", "draw", "encode", "write")


@dataclass(frozen=True)
class InferJob:
    """One run, small enough to travel to every actor.

    Attributes:
        config: what was asked for, with places that every node understands.
        storage: opens the run's places.
        make_detector: builds the detector inside the actor.
        labels: the run's classes.
        least_wh: JPEGs may be decoded smaller, down to this width and height; None is whole.
        claim: the writer's hold on the run folder; None where nobody else can write there.
    """

    config: InferConfig
    storage: Storage
    make_detector: Callable[[], Detector]
    labels: LabelMap
    least_wh: tuple[int, int] | None = None
    claim: Claim | None = None

    def folder(self) -> RunFolder:
        """The run folder."""
        return RunFolder(self.config.output, self.storage)


@dataclass(frozen=True)
class DeadLetter:
    """A record that could not be used.

    Attributes:
        file: the file it stands in.
        index: its place in the source, from 0.
        offset: bytes into the file (frames for a video, position for a folder of images).
        reason: stable short code; detail: what was found.
        size_bytes: length of the raw bytes kept.
        raw: name of the file beside the list that holds them.
    """

    file: str
    index: int
    offset: int
    reason: str
    detail: str
    size_bytes: int
    raw: str


@dataclass(frozen=True)
class ShardSummary:
    """What an actor reports when a shard is committed; a few hundred bytes.

    Attributes:
        doubts: frames that the strict decoder refused and the tolerant one took, "key: why".
        extent: share of the source that the shard is, in [0, 1].
        busy_s: seconds of work by stage, summed over threads.
        started, ended: wall clock, seconds since 1970.
        actor: process id; memory_mb: the most memory of its own it had during this shard.
        failure: the message that ends the run; everything else is empty then.
    """

    shard: str = ""
    source: str = ""
    source_order: int = 0
    frames: int = 0
    detections: int = 0
    dead_letters: tuple[DeadLetter, ...] = ()
    doubts: tuple[str, ...] = ()
    extent: float = 0.0
    busy_s: dict[str, float] = field(default_factory=dict)
    started: float = 0.0
    ended: float = 0.0
    actor: int = 0
    memory_mb: float = 0.0
    failure: str | None = None
