"""The run folder of an inference: where each file stands, and what makes a shard count as done.

    run.json                          what was run, with its fingerprint (runs/manifest.py)
    detections/SHARD.parquet          a row a frame
    tracks/SHARD.parquet              the same with track ids, once there is a tracks.json
    frames/SOURCE/000012.jpg          annotated frames
    dead_letter/SHARD.jsonl, *.bin    records that could not be used: where, why, raw bytes
    commit/SHARD.json                 the marker, written last; without it the shard does not exist
    tracks.json                       how detections got their track ids, written after them
    backend.json                      what backend=auto measured and chose, written first
    coco/, metrics.json               results over the whole run
    writer.json                       held while somebody writes here (runs/lock.py)
    attempts/                         timings, one file a try; nothing else depends on the clock

Every name derives from the source and the record's index, so a repeated try overwrites the same
bytes. What a marker vouches for is not written again. Readers start from the markers (the
completion marker of datatrove's executor, per shard).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise

from urbandet_ray.errors import ConflictError, NotFoundError, RunError
from urbandet_ray.json_files import read_value, to_json
from urbandet_ray.runs.detections_table import DetectionRow, rows_from_parquet
from urbandet_ray.runs.manifest import InferenceManifest, read_manifest
from urbandet_ray.storage.files import Storage, join_uri

TRACKS_NAME = "tracks.json"

_RESUME = "Repeat the `urbandet infer` command"


@dataclass(frozen=True)
class Marker:
    """A committed shard.

    Attributes:
        shard: its name.
        source: name of the file it was cut from; source_order is that file's place in the drive.
        first_index, next_index: records [first, next) of the source, bad ones included.
        first_offset, next_offset: where its records, and the next one, start in the source.
        last: the source ends here.
        frames, detections, dead_letters: what it holds; frames + dead_letters is the record count.
        doubts: of the frames, those that the strict decoder refused and the tolerant one took.
        files, size_bytes: how many files it vouches for, and their bytes together; -1 in markers of
            versions before 0.3.
    """

    shard: str
    source: str
    source_order: int
    first_index: int
    next_index: int
    first_offset: int
    next_offset: int
    last: bool
    frames: int
    detections: int
    dead_letters: int
    doubts: int = 0
    files: int = -1
    size_bytes: int = -1

    def __post_init__(self) -> None:
        if self.first_index < 0 or self.next_index < self.first_index + (not self.last):
            raise ValueError("records in order, from first_index to a higher next_index")

    def may_precede(self, other: Marker) -> bool:
        """Whether both can be of one cut of a source, this one first; others may lack between."""
        if self.last or self.source != other.source or other.first_index < self.next_index:
            return False
        adjoins = other.first_index == self.next_index
        return not adjoins or other.first_offset == self.next_offset


def shard_name(source: str, first_index: int) -> str:
    """Name of the shard of `source` that starts at record `first_index`."""
    return f"{source}-{first_index:08d}"


class RunFolder:
    """Paths and commits of one run, local or on s3://."""

    def __init__(self, uri: str, storage: Storage) -> None:
        self.uri = uri
        self.storage = storage

    def path(self, *parts: str) -> str:
        """URI of a file in the run folder."""
        return join_uri(self.uri, *parts)

    def detections_uri(self, shard: str) -> str:
        """URI of a shard's detections."""
        return self.path("detections", f"{shard}.parquet")

    def tracks_uri(self, shard: str) -> str:
        """URI of a shard's detections with track ids."""
        return self.path("tracks", f"{shard}.parquet")

    def frame_uri(self, source: str, index: int) -> str:
        """URI of an annotated frame."""
        return f"{self.path('frames', source)}/{index:06d}.jpg"

    def manifest(self) -> InferenceManifest:
        """run.json of the inference that is in this folder.

        Raises:
            NotFoundError: there is no run here.
            RunError: run.json is damaged, or tells of a training.
        """
        return read_manifest(self.uri, self.storage, InferenceManifest)

    def commit(self, marker: Marker) -> None:
        """Make a shard count, once. All its files must have been written.

        Raises:
            RunError: it was committed with another content.
        """
        try:
            self.storage.write_bytes(
                self.marker_uri(marker.shard), to_json(asdict(marker)), if_absent=True
            )
        except ConflictError:
            if self.committed(marker.shard) != marker:  # else an answer of ours that got lost
                raise RunError(
                    f"{self.marker_uri(marker.shard)} is there already, and says something else: "
                    "two writers were at work. The one that came first counts"
                ) from None

    def committed(self, shard: str) -> Marker | None:
        """The marker of a shard; None where it is not committed.

        Raises:
            RunError: the marker is damaged.
        """
        try:
            return self._marker(self.marker_uri(shard))
        except NotFoundError:
            return None

    def marker_uri(self, shard: str) -> str:
        """URI of what makes a shard count."""
        return self.path("commit", f"{shard}.json")

    def markers(self) -> list[Marker]:
        """All committed shards in drive order.

        Raises:
            RunError: a marker is damaged, or two of them hold the same records.
        """
        try:
            files = [f.uri for f in self.storage.list_files(self.path("commit"))]
        except NotFoundError:
            return []
        with ThreadPoolExecutor(16) as pool:
            markers = list(pool.map(self._marker, files))
        in_order = sorted(markers, key=lambda m: (m.source_order, m.first_index))
        for one, after in pairwise(in_order):
            if one.source_order == after.source_order and not one.may_precede(after):
                raise RunError(
                    f"{self.uri} was cut in two ways: shard {one.shard} holds the records "
                    f"{one.first_index} to {one.next_index - 1}"
                    f"{', the last ones,' if one.last else ''} and {after.shard} begins at "
                    f"{after.first_index}. Frames would count twice: repeat the run with another "
                    "output folder"
                )
        return in_order

    def _marker(self, uri: str) -> Marker:
        remedy = f"Delete it and resume the run ({_RESUME}): its shard is then done again"
        marker = read_value(uri, self.storage, Marker, remedy)
        if uri.rpartition("/")[2] != f"{marker.shard}.json":
            raise RunError(f"{uri} is no marker of its name: it says {marker.shard}. {remedy}")
        return marker

    def finished_markers(self) -> list[Marker]:
        """All shards of a run that is done, in drive order.

        Raises:
            NotFoundError: there is no run here.
            RunError: it is not done: figures and videos of a part would pass for the whole.
        """
        sources = self.manifest().sources
        markers = self.markers()
        open_sources = unfinished_sources(markers, sources)
        if open_sources:
            raise RunError(
                f"{self.uri} is not finished: {open_sources} of {sources} files are not fully "
                f"committed. {_RESUME}, it resumes"
            )
        return markers

    def rows(self, marker: Marker) -> list[DetectionRow]:
        """Detections of a committed shard, a row a frame, in record order.

        They have track ids where the run was tracked.

        Raises:
            NotFoundError, InputError: its file is gone or damaged.
        """
        if not self.storage.exists(self.path(TRACKS_NAME)):
            return self.rows_without_ids(marker)
        uri = self.tracks_uri(marker.shard)
        try:
            return list(rows_from_parquet(self.storage.read_bytes(uri), uri))
        except NotFoundError as error:
            raise NotFoundError(
                f"{error}: the track ids of a shard are gone. Delete {self.path(TRACKS_NAME)} and "
                f"run `urbandet track {self.uri}`"
            ) from None

    def rows_without_ids(self, marker: Marker) -> list[DetectionRow]:
        """The same as the model's actors wrote them.

        Raises:
            NotFoundError, InputError: its file is gone or damaged.
        """
        uri = self.detections_uri(marker.shard)
        try:
            return list(rows_from_parquet(self.storage.read_bytes(uri), uri))
        except NotFoundError as error:
            raise NotFoundError(
                f"{error}: the detections of a committed shard are gone. Delete "
                f"{self.marker_uri(marker.shard)} and resume the run"
            ) from None


def unfinished_sources(markers: list[Marker], sources: int) -> int:
    """How many of `sources` files are not covered from their first record to their last."""
    done = 0
    for chain in chains(markers).values():
        place = 0
        while place in chain and not chain[place].last:
            place = chain[place].next_index
        done += place in chain
    return sources - done


def chains(markers: list[Marker]) -> dict[str, dict[int, Marker]]:
    """Markers by source, then by first index."""
    table: dict[str, dict[int, Marker]] = {}
    for marker in markers:
        table.setdefault(marker.source, {})[marker.first_index] = marker
    return table
