"""Track ids for the detections of a finished run: the same object keeps its number over frames.

Shards are committed in whatever order, so tracking waits for all of them and then reads them in
drive order: ids depend on the detections and the rules alone. A frame's detections are joined to
the tracks by ByteTrack (Zhang et al. 2022, arXiv 2110.06864; trackforge's implementation): a Kalman
filter predicts each box, sure detections are matched first, unsure ones to what is then left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.boxes import boxes_to_xywh
from urbandet_ray.config import TrackConfig
from urbandet_ray.detections import Detections
from urbandet_ray.errors import MissingExtraError
from urbandet_ray.runs.detections_table import DetectionRow
from urbandet_ray.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from trackforge import BYTETRACK

UNTRACKED = -1

SIDE_MIN_PX = 1.0
"""Thinner boxes are not tracked: the filter divides by their height."""


def tracker_version() -> str:
    """Which trackforge is installed; ids depend on it beside the rules.

    Raises:
        MissingExtraError: none is.
    """
    try:
        return version("trackforge")
    except PackageNotFoundError:
        raise MissingExtraError(
            "tracks need trackforge, which is not installed: install the package's dependencies "
            "again (pip install --require-hashes -r requirements/core.lock), or infer without track"
        ) from None


def track_run(folder: RunFolder, rules: TrackConfig) -> Iterator[tuple[str, list[DetectionRow]]]:
    """Shards of a finished run with track ids, in drive order; shards without frames are left out.

    A shard is handed out when its segments have been read to their end, so its file may then be
    written anew.

    Raises:
        NotFoundError: there is no run here.
        RunError: it is not done.
        InputError: a file of detections is damaged.
    """
    markers = folder.finished_markers()
    in_drive_order = (row for marker in markers for row in folder.rows_without_ids(marker))
    for shard, rows in groupby(track_rows(in_drive_order, rules), key=lambda row: row.shard):
        yield shard, list(rows)


def track_rows(rows: Iterable[DetectionRow], rules: TrackConfig) -> Iterator[DetectionRow]:
    """Give each detection the id of its track; one segment is in memory at a time.

    A track is of one class and ends with its segment. Missing indices are frames without
    detections.

    Args:
        rows: in drive order: segment by segment, frames by index. Track ids they have are ignored.
        rules: what makes a track.

    Yields:
        The rows in the same order; track_ids are from 1, numbered as they appear, and -1 where a
        detection belongs to no track.

    Raises:
        ValueError: frames of a segment do not follow each other by index.
    """
    first_id = 1
    for _, segment in groupby(rows, key=lambda row: row.segment):
        frames = list(segment)
        numbers = _drop_short(_number_tracks(frames, rules), rules.min_hits)
        for row, own in zip(frames, numbers, strict=True):
            ids = np.where(own == UNTRACKED, UNTRACKED, own + first_id)
            yield replace(row, detections=replace(row.detections, track_ids=ids))
        first_id += max(int(own.max(initial=UNTRACKED)) for own in numbers) + 1


def _number_tracks(frames: Sequence[DetectionRow], rules: TrackConfig) -> list[NDArray[np.int64]]:
    """Number of each detection's track within a segment, from 0 as they appear; -1 for none."""
    trackers: dict[int, BYTETRACK] = {}
    numbers: dict[tuple[int, int], int] = {}
    result = []
    for lost, row in zip(_lost_before(frames), frames, strict=True):
        for tracker in trackers.values():
            for _ in range(min(lost, rules.frames_kept + 1)):  # by then no track is left
                tracker.update([])
        keys = _match_frame(trackers, row.detections, rules)
        own = [UNTRACKED if key is None else numbers.setdefault(key, len(numbers)) for key in keys]
        result.append(np.array(own, np.int64))
    return result


def _lost_before(frames: Sequence[DetectionRow]) -> list[int]:
    """How many frames are missing before each one; none before the first."""
    indices = np.array([row.index for row in frames])
    steps = np.diff(indices)
    if (steps < 1).any():
        place = int(np.argmax(steps < 1))
        raise ValueError(
            f"segment {frames[0].segment}: frame {indices[place + 1]} follows frame "
            f"{indices[place]}, but tracks need frames in drive order"
        )
    return [0, *(steps - 1).tolist()]


def _match_frame(
    trackers: dict[int, BYTETRACK], detections: Detections, rules: TrackConfig
) -> list[tuple[int, int] | None]:
    """Class and the tracker's own id for each detection of the next frame; None for no track."""
    boxes_xywh = boxes_to_xywh(detections.boxes_xyxy)
    sides_fit = (boxes_xywh[:, 2:] >= SIDE_MIN_PX).all(axis=1)
    usable = sides_fit & (detections.scores >= rules.score_low)
    boxes, scores = boxes_xywh.tolist(), detections.scores.tolist()
    keys: list[tuple[int, int] | None] = [None] * len(detections)
    for class_id in {*trackers, *detections.class_ids[usable].tolist()}:
        if class_id not in trackers:
            trackers[class_id] = _new_tracker(rules)
        members = np.flatnonzero(usable & (detections.class_ids == class_id)).tolist()
        seen = [(boxes[k], scores[k], class_id) for k in members]
        for track_id, _, _, _, place in trackers[class_id].update(seen):
            if place is not None:
                keys[members[place]] = (class_id, track_id)
    return keys


def _new_tracker(rules: TrackConfig) -> BYTETRACK:
    from trackforge import BYTETRACK

    return BYTETRACK(
        track_thresh=rules.score_high,
        track_buffer=rules.frames_kept,
        match_thresh=1 - rules.match_iou,  # it counts distances, 1 - IoU
        det_thresh=rules.score_high,
        second_match_thresh=1 - rules.match_iou_low,
    )


def _drop_short(numbers: Sequence[NDArray[np.int64]], min_hits: int) -> list[NDArray[np.int64]]:
    """Tracks of fewer than `min_hits` detections become -1; the others are counted anew."""
    tracked = np.concatenate(numbers)
    hits = np.bincount(tracked[tracked != UNTRACKED])
    kept = hits >= min_hits
    # one entry more than there are tracks, so that -1 finds -1
    anew = np.append(np.where(kept, np.cumsum(kept) - 1, UNTRACKED), UNTRACKED)
    return [anew[own] for own in numbers]
