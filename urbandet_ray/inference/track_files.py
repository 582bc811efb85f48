"""Track ids of a run's detections, and tracks.json, which says how they were made."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from urbandet_ray.config import TrackConfig
from urbandet_ray.errors import NotFoundError, RunError
from urbandet_ray.inference.tracks import track_run, tracker_version
from urbandet_ray.json_files import read_value, to_json
from urbandet_ray.runs.detections_table import rows_to_parquet
from urbandet_ray.runs.run_folder import TRACKS_NAME, RunFolder


@dataclass(frozen=True)
class TracksFile:
    """tracks.json: what the ids of a run's detections were made by, and how many there are."""

    rules: dict[str, Any]
    trackforge: str
    tracks: int
    tracked: int
    detections: int


@dataclass(frozen=True)
class TrackReport:
    """What tracking came to.

    Attributes:
        run: the run folder.
        tracks: how many there are.
        tracked, detections: how many detections belong to one, and how many there are.
        changed: False where the run had these very ids already.
    """

    run: str
    tracks: int
    tracked: int
    detections: int
    changed: bool

    def to_text(self) -> str:
        """One line for a person."""
        text = f"{self.run}: {self.tracks} tracks"
        text += f", {self.tracked} of {self.detections} detections belong to one"
        return text + ("" if self.changed else " (as before)")


def write_tracks(folder: RunFolder, rules: TrackConfig, check: Callable[[], None]) -> TrackReport:
    """Do it, for who holds the run's WriterLock; tracks.json is written last.

    Args:
        folder: a finished run.
        rules: what makes a track.
        check: called before each write; raises where the lock was lost.
    """
    made_by = {"rules": rules.model_dump(), "trackforge": tracker_version()}
    known = None
    with contextlib.suppress(NotFoundError, RunError):  # a damaged file is written anew
        known = read_tracks(folder)
    is_there = any(folder.storage.list_folder(folder.path("tracks")))  # versions before had none
    if known is not None and is_there and made_by == {key: getattr(known, key) for key in made_by}:
        counts = (known.tracks, known.tracked, known.detections)
        return TrackReport(folder.uri, *counts, changed=False)
    storage, place = folder.storage, folder.path(TRACKS_NAME)
    storage.delete(place)
    tracks = tracked = detections = 0
    for shard, rows in track_run(folder, rules):
        for row in rows:
            ids = row.detections.track_ids
            tracks = max(tracks, int(ids.max(initial=0)))
            tracked += int((ids > 0).sum())
            detections += len(ids)
        check()
        storage.write_bytes(folder.tracks_uri(shard), rows_to_parquet(rows))
    check()
    counted = {"tracks": tracks, "tracked": tracked, "detections": detections}
    storage.write_bytes(place, to_json({**made_by, **counted}))
    return TrackReport(folder.uri, **counted, changed=True)


def read_tracks(folder: RunFolder) -> TracksFile:
    """tracks.json; without it the detections have no ids, or tracks/ is of a try that was cut off.

    Raises:
        NotFoundError: there is none.
        RunError: it is damaged.
    """
    command = f"run `urbandet track {folder.uri}`"
    try:
        remedy = f"To have it written anew, {command}"
        return read_value(folder.path(TRACKS_NAME), folder.storage, TracksFile, remedy)
    except NotFoundError:
        raise NotFoundError(
            f"{folder.uri} has no track ids (no {TRACKS_NAME}): {command} first"
        ) from None
