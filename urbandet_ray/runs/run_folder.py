"""The run folder of an inference: where each file stands, and what makes a shard count as done.

    run.json                          what was run, with its fingerprint
    detections/SHARD.parquet          a row a frame
    frames/SOURCE/000012.jpg          annotated frames
    dead_letter/SHARD.jsonl, *.bin    records that could not be used: where, why, raw bytes
    commit/SHARD.json                 the marker, written last; without it the shard does not exist
    tracks.json                       how the detections got their track ids, written after them
    backend.json                      what backend=auto measured and chose, written first
    coco/, metrics.json               results over the whole run
    writer.json                       held while somebody writes here (runs/lock.py)
    attempts/                         timings, one file a try; nothing else depends on the clock

Every name derives from the source and the record's index, so a repeated try overwrites the same
bytes. Readers start from the markers (the completion marker of datatrove's executor, per shard).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from urbandet_ray.errors import NotFoundError, RunError
from urbandet_ray.runs.detections_table import DetectionRow, rows_from_parquet
from urbandet_ray.storage.files import Storage, join_uri

FORMAT = 1
LOCK_NAME, TRACKS_NAME, BACKEND_NAME = "writer.json", "tracks.json", "backend.json"


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

    def frame_uri(self, source: str, index: int) -> str:
        """URI of an annotated frame."""
        return f"{self.path('frames', source)}/{index:06d}.jpg"

    def manifest(self) -> dict[str, Any]:
        """run.json of an existing run.

        Raises:
            NotFoundError: there is no run in this folder.
            RunError: run.json is damaged or of another version of this package.
        """
        try:
            text = self.storage.read_bytes(self.path("run.json"))
        except NotFoundError:
            raise NotFoundError(
                f"{self.uri} is not a run folder: it has no run.json. "
                "Give the folder that `urbandet infer --out` wrote"
            ) from None
        try:
            manifest: dict[str, Any] = json.loads(text)
        except ValueError:
            raise RunError(f"{self.path('run.json')} is damaged: it is not JSON") from None
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise RunError(f"{self.path('run.json')} is not a run of this version's format")
        return manifest

    def begin(self, manifest: Mapping[str, Any]) -> bool:
        """Start a run here, or go on with the one that is here.

        Args:
            manifest: with `fingerprint` {part: hash}; equal parts make it the same run.

        Returns:
            True where an earlier try is resumed.

        Raises:
            RunError: the folder holds another run, or files that are no run at all.
        """
        try:
            existing = self.manifest()
        except NotFoundError:
            early = (self.path(LOCK_NAME), self.path(BACKEND_NAME))
            stray = next((f.uri for f in self._own_files() if f.uri not in early), None)
            if stray is not None:
                raise RunError(
                    f"{self.uri} is not empty and not a run ({stray} is in it): "
                    "choose another output folder"
                ) from None
            self.storage.write_bytes(self.path("run.json"), to_json({"format": FORMAT, **manifest}))
            return False
        ours, theirs = manifest["fingerprint"], existing["fingerprint"]
        other = sorted(part for part in ours if ours[part] != theirs.get(part))
        if other:
            raise RunError(
                f"{self.uri} holds a run with another {', '.join(other)}: "
                "choose another output folder, or repeat the settings in its run.json to resume it"
            )
        return True

    def _own_files(self) -> Iterator[Any]:
        try:
            yield from self.storage.list_files(self.uri)
        except NotFoundError:
            return

    def commit(self, marker: Marker) -> None:
        """Make a shard count. All its files must have been written."""
        self.storage.write_bytes(
            self.path("commit", f"{marker.shard}.json"), to_json(asdict(marker))
        )

    def markers(self) -> list[Marker]:
        """All committed shards in drive order."""
        try:
            files = [f.uri for f in self.storage.list_files(self.path("commit"))]
        except NotFoundError:
            return []
        with ThreadPoolExecutor(16) as pool:
            texts = pool.map(self.storage.read_bytes, files)
            markers = [Marker(**json.loads(text)) for text in texts]
        return sorted(markers, key=lambda m: (m.source_order, m.first_index))

    def finished_markers(self) -> list[Marker]:
        """All shards of a run that is done, in drive order.

        Raises:
            NotFoundError: there is no run here.
            RunError: it is not done: figures and videos of a part would pass for the whole.
        """
        sources = self.manifest()["sources"]
        markers = self.markers()
        open_sources = unfinished_sources(markers, sources)
        if open_sources:
            raise RunError(
                f"{self.uri} is not finished: {open_sources} of {sources} files are not fully "
                "committed. Repeat the `urbandet infer` command, it resumes"
            )
        return markers

    def rows(self, marker: Marker) -> list[DetectionRow]:
        """Detections of a committed shard, a row a frame, in record order."""
        uri = self.detections_uri(marker.shard)
        return list(rows_from_parquet(self.storage.read_bytes(uri), uri))


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


def to_json(value: object) -> bytes:
    """JSON bytes that are the same for the same value."""
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()
