"""`urbandet track`: numbers for the objects of a finished run, written beside its detections."""

from __future__ import annotations

from urbandet_ray.config import TrackConfig
from urbandet_ray.inference.track_files import TrackReport, write_tracks
from urbandet_ray.inference.tracks import tracker_version
from urbandet_ray.runs.lock import LOCK_NAME, WriterLock
from urbandet_ray.runs.run_folder import RunFolder
from urbandet_ray.storage import Storage


def track(run_uri: str, rules: TrackConfig, storage: Storage) -> TrackReport:
    """Give the detections of a finished run the ids of their tracks.

    The same rules once more change nothing; other rules, or a try after one that was cut off,
    give all ids anew.

    Args:
        run_uri: the run folder; local or s3://.
        rules: what makes a track.
        storage: opens it.

    Raises:
        NotFoundError: there is no run.
        RunError: it is not finished, or somebody else writes to it.
        MissingExtraError: the tracker is not installed.
    """
    tracker_version()
    folder = RunFolder(run_uri, storage)
    folder.finished_markers()  # a lock would be left in whatever else this may be
    with WriterLock(storage, folder.path(LOCK_NAME), "urbandet track") as lock:
        storage.sweep(folder.uri)
        return write_tracks(folder, rules, lock.check)
