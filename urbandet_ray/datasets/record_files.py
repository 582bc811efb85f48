"""Frames to TFRecord files: one a drive and camera, or up to 256 MB of single images."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from urbandet_ray.datasets.annotated import AnnotatedImage
from urbandet_ray.datasets.annotated_frames import frames_of
from urbandet_ray.datasets.oddities import Tally
from urbandet_ray.frames import Frame
from urbandet_ray.json_files import read_value, to_json
from urbandet_ray.labels import LabelMap
from urbandet_ray.records.sources import safe_name
from urbandet_ray.records.writer import write_frames
from urbandet_ray.storage import Storage, is_remote, join_uri

FILE_BYTES = 256 << 20
SINGLE_IMAGES = 4096
"""Images that belong to no drive are done so many at a time: that much a cut-off try repeats."""
_REMEDY = "Delete it and repeat the import: its files are then written anew"


@dataclass(frozen=True, eq=False)
class RecordGroup:
    """Images that are written together, and count as done together.

    Attributes:
        part: train, val or test.
        name: of its files, without number and ending.
        images: in their order.
        drive: what they belong to; "" for single images.
    """

    part: str
    name: str
    images: tuple[AnnotatedImage, ...]
    drive: str


@dataclass(frozen=True)
class WrittenGroup:
    """What became of a group; its file in OUT/import/ says that it is done.

    Attributes:
        part, name: the group's.
        files: frames by file name.
        boxes: by class.
        counts, places: what was odd, as in a Tally.
    """

    part: str
    name: str
    drive: str
    files: dict[str, int]
    boxes: dict[str, int]
    counts: dict[str, int]
    places: dict[str, list[str]]

    def to_dict(self) -> dict[str, Any]:
        """The content of its file."""
        return dict(vars(self))


def grouped(
    images: Sequence[AnnotatedImage], drives: Sequence[str], parts: Sequence[str]
) -> list[RecordGroup]:
    """Images by part, drive and camera, so that a file holds consecutive frames of one camera."""
    groups: dict[tuple[str, str, str], list[AnnotatedImage]] = {}
    for image, drive, part in zip(images, drives, parts, strict=True):
        groups.setdefault((part, drive, image.camera if drive else ""), []).append(image)
    found: list[RecordGroup] = []
    taken: Counter[tuple[str, str]] = Counter()
    for (part, drive, camera), members in groups.items():
        if not drive:
            starts = range(0, len(members), SINGLE_IMAGES)
            for number, start in enumerate(starts):
                some = tuple(members[start : start + SINGLE_IMAGES])
                found.append(RecordGroup(part, f"images-{number:04d}", some, ""))
            continue
        name = safe_name("-".join(filter(None, (drive, camera))))
        name = f"drive-{name}" if name.startswith("images-") else name
        taken[(part, name.casefold())] += 1
        number = taken[(part, name.casefold())]
        name = name if number == 1 else f"{name}-again{number}"
        found.append(RecordGroup(part, name, tuple(members), drive))
    return found


def write_group(
    group: RecordGroup, out: str, labels: LabelMap, storage: Storage, file_bytes: int = FILE_BYTES
) -> WrittenGroup:
    """Write a group's files, each whole or not at all, then the file that says that it is done.

    A group that is done already is not done again.
    """
    done = join_uri(out, "import", f"{group.part}-{group.name}.json")
    if storage.exists(done):
        return read_value(done, storage, WrittenGroup, _REMEDY)
    tally, files = Tally(), {}
    boxes: Counter[str] = Counter()
    frames = frames_of(group.images, labels, storage, tally)
    frames = _counted(_uniquely_named(frames, tally), boxes)
    for number, some in enumerate(_by_size(frames, file_bytes)):
        name = f"{group.name}.tfrecord" if number == 0 else f"{group.name}-{number:04d}.tfrecord"
        files[name] = _write_file(some, join_uri(out, group.part, name), storage)
    written = WrittenGroup(
        group.part, group.name, group.drive, files, dict(boxes), tally.counts, tally.places
    )
    storage.write_bytes(done, to_json(written.to_dict()))
    return written


def _write_file(frames: Iterable[Frame], uri: str, storage: Storage) -> int:
    if not is_remote(uri):
        return write_frames(frames, Path(uri))
    with tempfile.TemporaryDirectory(prefix="urbandet-import-") as scratch:
        path = Path(scratch, "records.tfrecord")
        count = write_frames(frames, path)
        storage.upload_file(path, uri)
    return count


def _by_size(frames: Iterator[Frame], limit: int) -> Iterator[Iterator[Frame]]:
    """Frames in runs that hold up to `limit` bytes of images; each run is to be read whole."""
    first = next(frames, None)
    held: list[Frame] = []

    def run(start: Frame) -> Iterator[Frame]:
        size = 0
        for frame in chain([start], frames):
            size += len(frame.encoded)
            if size > limit and frame is not start:
                held.append(frame)
                return
            yield frame

    while first is not None:
        yield run(first)
        first = held.pop() if held else None


def _counted(frames: Iterator[Frame], boxes: Counter[str]) -> Iterator[Frame]:
    for frame in frames:
        if frame.truth is not None:
            boxes.update(frame.truth.class_texts)
        yield frame


def _uniquely_named(frames: Iterator[Frame], tally: Tally) -> Iterator[Frame]:
    """A number for the second of a.jpg and a.png: to every reader they would be one frame."""
    seen: Counter[str] = Counter()
    for frame in frames:
        seen[frame.frame_key] += 1
        if seen[frame.frame_key] == 1:
            yield frame
            continue
        tally.add("name-twice", frame.file_name)
        key = f"{frame.frame_key}-{seen[frame.frame_key]}"
        suffix = frame.file_name.rpartition(".")[2]
        yield replace(frame, frame_key=key, file_name=f"{key}.{suffix}")


def class_counts(images: Iterable[AnnotatedImage]) -> Mapping[str, int]:
    """Boxes by class, and the images under ""."""
    counts: Counter[str] = Counter()
    for image in images:
        counts[""] += 1
        counts.update(box.class_name for box in image.boxes)
    return counts
