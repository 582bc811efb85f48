"""`urbandet video`: the animation of a run, from its frames or drawn anew from its input."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from pathlib import Path

from urbandet_ray.config import VideoConfig
from urbandet_ray.detections import Detections
from urbandet_ray.errors import ConfigError, InputError, NotFoundError
from urbandet_ray.frames import Frame, Image
from urbandet_ray.inference.track_files import read_tracks
from urbandet_ray.records.images import decode_frame, decode_image
from urbandet_ray.records.sources import list_sources, read_source
from urbandet_ray.rendering.annotate import Annotator
from urbandet_ray.rendering.compare import side_by_side
from urbandet_ray.rendering.pace import USUAL_S, pace_of
from urbandet_ray.rendering.trails import Trails
from urbandet_ray.rendering.video_writer import VideoWriter
from urbandet_ray.runs.detections_table import DetectionRow
from urbandet_ray.runs.manifest import InferenceManifest
from urbandet_ray.runs.run_folder import RunFolder, chains
from urbandet_ray.storage import Storage, is_remote
from urbandet_ray.storage.prefetch import fetched_ahead

LOOK_AHEAD = 16
"""Frames fetched ahead of the encoder; bounds memory and hides the storage's latency."""

FramePlace = tuple[str, int]
Painter = Callable[[Frame, Detections], Image]


@dataclass(frozen=True)
class VideoReport:
    """What was written: where, how many frames, how many seconds it plays, at which pace."""

    uri: str
    frames: int
    seconds: float
    pace: str

    def to_text(self) -> str:
        """One line."""
        return f"{self.uri}: {self.frames} frames, {self.seconds:.1f} s, {self.pace}"


def make_video(
    config: VideoConfig, *, on_frame: Callable[[int, int], None] | None = None
) -> VideoReport:
    """Write the run's frames, in drive order, as one video.

    Args:
        config: what to show and how.
        on_frame: called with (frames written, frames in all).

    Raises:
        InputError, NotFoundError: the run has no frames or no track ids, or its input is not where
            it was.
    """
    storage = Storage(config.storage)
    runs = [RunFolder(uri, storage) for uri in (config.run, config.compare) if uri]
    places = _common_places(runs, config.segment)
    frames = _shown(runs, [_drawn(run, places, config, storage) for run in runs])
    lasting, pace = _pace(runs[0], places, config.fps)
    count, total = 0, len(places)
    with tempfile.TemporaryDirectory() as scratch:
        name = config.output.rstrip("/").rsplit("/", 1)[-1]
        target = Path(scratch, name) if is_remote(config.output) else Path(config.output)
        target.parent.mkdir(parents=True, exist_ok=True)
        with VideoWriter(target, fps=config.fps) as video:
            for count, (image, lasts_s) in enumerate(zip(frames, lasting, strict=True), start=1):
                video.write(image, lasts_s)
                if on_frame is not None:
                    on_frame(count, total)
        if is_remote(config.output):
            storage.upload_file(target, config.output)
    return VideoReport(config.output, count, float(video.seconds), pace)


def _pace(
    run: RunFolder, places: frozenset[FramePlace], fps: float | None
) -> tuple[list[Fraction | None], str]:
    """How long each frame lasts, in drive order, and what to say of it."""
    if fps is not None:
        return [None] * len(places), f"{fps:g} frames a second"
    lasting: list[Fraction | None] = []
    timeless = 0
    for source, rows in _rows_by_source(run, None):
        shown = [row for row in rows if (source, row.index) in places]
        for _, group in groupby(shown, key=lambda row: row.segment):
            drive = list(group)
            before = drive[0].index if drive[0] is rows[0] else 0
            own = pace_of([row.time_s for row in drive], before)
            timeless += 0 if own else len(drive)
            lasting += own or [USUAL_S] * len(drive)
    if not timeless:
        return lasting, "at the source's pace"
    few = "" if timeless == len(lasting) else f" for {timeless} frames"
    return lasting, f"10 frames a second{few}, as nobody says their times (--fps sets another)"


def _common_places(runs: list[RunFolder], segment: str | None) -> frozenset[FramePlace]:
    """Frames to show: of the segment, and in every run."""
    places = [
        frozenset((name, row.index) for name, rows in _rows_by_source(run, segment) for row in rows)
        for run in runs
    ]
    for run, own in zip(runs, places, strict=True):
        if not own:
            raise InputError(_nothing_to_show(run, segment))
    common = frozenset.intersection(*places)
    if not common:
        raise InputError("the two runs have no frame in common: compare runs over one input")
    return common


def _nothing_to_show(run: RunFolder, segment: str | None) -> str:
    known = sorted({row.segment for _, rows in _rows_by_source(run, None) for row in rows})
    if known:
        return f"{run.uri} has no segment {segment!r}; it has: {', '.join(known[:8])}"
    return f"{run.uri} has no frames: all its records are dead letters"


def _rows_by_source(
    run: RunFolder, segment: str | None
) -> Iterator[tuple[str, list[DetectionRow]]]:
    """Rows of each source in drive order; one source at a time in memory."""
    for source, shards in chains(run.finished_markers()).items():
        rows = [row for index in sorted(shards) for row in run.rows(shards[index])]
        yield source, [row for row in rows if segment is None or row.segment == segment]


def _shown(runs: list[RunFolder], streams: list[Iterator[Image]]) -> Iterator[Image]:
    if len(streams) == 1:
        yield from streams[0]
        return
    left, right = (run.uri.rstrip("/").rsplit("/", 1)[-1] for run in runs)
    for a, b in zip(*streams, strict=True):
        yield side_by_side(a, b, (left, right))


def _drawn(
    run: RunFolder, places: frozenset[FramePlace], config: VideoConfig, storage: Storage
) -> Iterator[Image]:
    """The run's frames at these places, in drive order, with their boxes."""
    if config.tracks:
        read_tracks(run)  # refuses a run without ids
    manifest = run.manifest()
    draw = manifest.draw
    changed = config.score_min not in (None, draw.score_min) or config.truth != draw.truth
    changed = changed or config.tracks  # frames are drawn before there are tracks
    if config.source == "frames" and (changed or not draw.enabled):
        raise ConfigError(
            "the run's annotated frames do not show that: leave out source=frames, so that they "
            "are drawn anew from the run's input"
        )
    if config.source == "frames" or (config.source == "auto" and draw.enabled and not changed):
        return _from_frames(run, places, storage)
    painter = _painter(manifest, config)
    return _from_records(run, places, config.input or manifest.input, storage, painter)


def _painter(manifest: InferenceManifest, config: VideoConfig) -> Painter:
    """Draws a frame anew; for trails it is given the frames in the order in which they play."""
    score_min = config.score_min
    if score_min is None:
        score_min = manifest.draw.score_min
    annotator = Annotator(manifest.labels, draw_truth=config.truth, draw_ids=config.tracks)
    trails = Trails() if config.tracks else None

    def paint(frame: Frame, detections: Detections) -> Image:
        image, shown = decode_frame(frame), detections.above(score_min)
        if not image.flags.writeable:  # a raw frame's is a view
            image = image.copy()
        if trails is not None:
            trails.draw(image, shown, frame.segment)
        return annotator.annotate(image, shown, frame.truth)

    return paint


def _from_frames(
    run: RunFolder, places: frozenset[FramePlace], storage: Storage
) -> Iterator[Image]:
    in_order = (
        (source, row.index)
        for source, rows in _rows_by_source(run, None)
        for row in rows
        if (source, row.index) in places
    )

    def fetch(place: FramePlace) -> Image:
        return decode_image(storage.read_bytes(run.frame_uri(*place)))

    return fetched_ahead(fetch, in_order, threads=LOOK_AHEAD // 2, ahead=LOOK_AHEAD)


def _from_records(
    run: RunFolder,
    places: frozenset[FramePlace],
    uri: str,
    storage: Storage,
    paint: Painter,
) -> Iterator[Image]:
    """The frames as `paint` draws them, read again from the run's input at `uri`."""
    try:
        sources = {source.name: source for source in list_sources(uri, storage)}
    except NotFoundError as error:
        raise NotFoundError(
            f"the run's input is not where it was ({error}): say where it is now with --input"
        ) from None
    for name, rows in _rows_by_source(run, None):
        wanted = {row.index: row.detections for row in rows if (name, row.index) in places}
        if wanted and name not in sources:
            raise InputError(f"{uri} lacks {name}, which the run has: is it another input?")
        records = read_source(sources[name], storage, labels=run.manifest().labels)
        for record in records if wanted else ():
            detections = wanted.pop(record.index, None)
            if detections is None:
                continue
            if record.frame is None:
                raise InputError(f"{record.uri}, record {record.index} has changed since the run")
            yield paint(record.frame, detections)
        if wanted:
            raise InputError(f"{sources[name].uri} lacks {len(wanted)} frames that the run has")
