"""Cuts a source into shards: the unit of work, of retry and of commit."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from urbandet_ray.config import SampleConfig, ShardConfig
from urbandet_ray.config.sizing import SHARD_FRAMES
from urbandet_ray.errors import RecordError, RunError
from urbandet_ray.records.sources import ALL_FRAMES, Record, Source, read_source
from urbandet_ray.runs.run_folder import Marker, shard_name
from urbandet_ray.storage import Storage

_TYPICAL_BYTES = 100_000
"""Of an encoded frame; only the size of shards depends on it."""


@dataclass(frozen=True, eq=False)
class Shard:
    """Consecutive records of one source, on their way to an actor.

    Attributes:
        source, source_order: name of the source and its place in the drive.
        first_index, next_index, first_offset, next_offset, last: as in the marker.
        records: good and bad ones, in order.
        extent: share of the source that it is, in [0, 1].
        read_s: seconds spent reading it.
    """

    source: str
    source_order: int
    first_index: int
    next_index: int
    first_offset: int
    next_offset: int
    last: bool
    records: tuple[Record, ...]
    extent: float
    read_s: float

    @property
    def name(self) -> str:
        """The shard's name in the run folder."""
        return shard_name(self.source, self.first_index)


_CUT = ("frames", "size_bytes", "fine_from", "batch")


@dataclass(frozen=True)
class CutRule:
    """When a shard is full: the same data is always cut the same way."""

    frames: int
    size_bytes: int
    keep_truth: bool = False
    """Labels travel too, for drawing."""
    fine_from: tuple[int, int] | None = None
    """From this source order and offset on a shard has a quarter of the frames, so that the actors
    end together: the last one to finish keeps the others waiting for a quarter as long."""
    batch: int = 1
    """Shards are whole batches: a rest would cost the model a call for a few frames."""
    sample: SampleConfig = ALL_FRAMES
    """Which frames go in at all."""

    def to_dict(self) -> dict[str, Any]:
        """What decides where shards begin, for run.json."""
        return {name: getattr(self, name) for name in _CUT}

    def as_begun(self, cut: Mapping[str, Any], place: str) -> CutRule:
        """This rule, cutting as a run was cut that has begun.

        Args:
            cut: of its run.json; empty where it does not say it.
            place: the run folder, for the message.

        Raises:
            RunError: the run.json does not tell a cut.
        """
        if not cut:
            return self
        try:
            frames, size_bytes, fine, batch = (cut[name] for name in _CUT)
            fine_from = None if fine is None else (int(fine[0]), int(fine[1]))
            numbers = (int(frames), int(size_bytes), int(batch))
        except (KeyError, TypeError, ValueError, IndexError):
            numbers, fine_from = (0, 0, 0), None
        if min(numbers) < 1:
            raise RunError(
                f"run.json of {place} is damaged: its cut is {dict(cut)}. Restore it from a copy, "
                "or repeat the run with another output folder"
            )
        return replace(
            self, frames=numbers[0], size_bytes=numbers[1], batch=numbers[2], fine_from=fine_from
        )

    def frames_at(self, order: int, offset: int) -> int:
        """Records of a shard that starts here, at most."""
        fine = self.fine_from is not None and (order, offset) >= self.fine_from
        return _whole_batches(self.frames / 4 if fine else self.frames, self.batch)


def _whole_batches(frames: float, batch: int) -> int:
    return max(ceil(frames / batch), 1) * batch


def fitting_rule(
    sources: Sequence[Source],
    shard: ShardConfig,
    keep_truth: bool = False,
    batch: int = 1,
    sample: SampleConfig = ALL_FRAMES,
) -> CutRule:
    """The rule for an input: `shard.frames`, else `fitting_frames` a shard, and finer shards in the
    input's last sixteenth.

    Depends on the config, the input's listing and the batch alone. A resumed run cuts as it began
    (CutRule.as_begun).
    """
    size_bytes = shard.megabytes << 20
    if shard.frames:
        return CutRule(shard.frames, size_bytes, keep_truth, sample=sample)
    wholes = [_whole(source) for source in sources]
    rest, fine_from = sum(wholes) * 15 // 16, None
    for order, whole in enumerate(wholes):
        if rest < whole:
            fine_from = (order, rest)
            break
        rest -= whole
    frames = fitting_frames(sources, sample.every)
    return CutRule(frames, size_bytes, keep_truth, fine_from, batch, sample)


def fitting_frames(sources: Sequence[Source], every: int = 1) -> int:
    """Records a shard so that an input makes about 64 shards, from 8 to 64 records each."""
    estimate = sum(
        len(source.files) if source.kind == "images" else source.size_bytes / _TYPICAL_BYTES
        for source in sources
    )
    return int(min(max(estimate / every / 64, 8), SHARD_FRAMES))


def resume_point(done: Mapping[int, Marker]) -> tuple[int, int] | None:
    """Index and offset to read on from, past the committed run of shards at the start.

    Returns:
        None where the source is done to its end.
    """
    index = offset = 0
    while index in done:
        marker = done[index]
        if marker.last:
            return None
        index, offset = marker.next_index, marker.next_offset
    return index, offset


def read_shards(
    source: Source, order: int, storage: Storage, rule: CutRule, done: Mapping[int, Marker]
) -> Iterator[Shard]:
    """Read a source from where it was left and yield the shards that are not committed yet."""
    start = resume_point(done)
    if start is None:
        return
    read = read_source(source, storage, first_index=start[0], offset=start[1], sample=rule.sample)
    records = (_lighten(record, rule.keep_truth) for record in read)
    clock = time.perf_counter()
    for cut_records, last in cut(records, rule, order):
        group = cut_records or (_empty(source),)
        if start[0] not in done:
            read_s = time.perf_counter() - clock
            yield _shard(source, order, start, group, last, read_s)
        start = group[-1].index + 1, group[-1].next_offset
        clock = time.perf_counter()


def _empty(source: Source) -> Record:
    error = RecordError("empty-file", f"{source.uri} holds no records")
    return Record(0, 0, 0, b"", error, uri=source.uri)


def _shard(
    source: Source,
    order: int,
    start: tuple[int, int],
    group: tuple[Record, ...],
    last: bool,
    read_s: float,
) -> Shard:
    """A shard begins where the one before it ended, as records may lack between the two."""
    end = group[-1]
    return Shard(
        source=source.name,
        source_order=order,
        first_index=start[0],
        next_index=end.index + 1,
        first_offset=start[1],
        next_offset=end.next_offset,
        last=last,
        records=group,
        extent=share_of(source, start[1], end.next_offset, last),
        read_s=read_s,
    )


def share_of(source: Source, first_offset: int, next_offset: int, last: bool) -> float:
    """Share of a source between two offsets, in [0, 1], for progress.

    A video says nothing before its end; offsets in a gzip file run ahead of its size.
    """
    if source.kind == "video":
        return float(last)
    whole = _whole(source)
    if not whole:
        return 1.0
    return min(max((whole if last else next_offset) - first_offset, 0) / whole, 1.0)


def _whole(source: Source) -> int:
    """Where its offsets end."""
    return len(source.files) if source.kind == "images" else source.size_bytes


def cut(
    records: Iterable[Record], rule: CutRule, order: int = 0
) -> Iterator[tuple[tuple[Record, ...], bool]]:
    """Group records by the rule; the flag says which group is the last.

    A source without records gives one empty group.
    """
    group: list[Record] = []
    size_bytes = frames = 0
    for record in records:
        weight = _weight(record)
        if group and (len(group) == frames or size_bytes + weight > rule.size_bytes):
            yield tuple(group), False
            group, size_bytes = [], 0
        if not group:
            frames = rule.frames_at(order, record.offset)
        group.append(record)
        size_bytes += weight
    yield tuple(group), True


def _lighten(record: Record, keep_truth: bool) -> Record:
    """Leave out what no later stage needs: a good record's raw bytes, and its labels."""
    if record.frame is None:
        return record
    frame = record.frame if keep_truth else replace(record.frame, truth=None)
    return replace(record, raw=b"", frame=frame)


def _weight(record: Record) -> int:
    return len(record.frame.encoded) if record.frame is not None else len(record.raw)
