"""Waymo Open Dataset, version 1: TFRecords of Frames, each with the images of all cameras."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from urbandet_ray.datasets.annotated import AnnotatedImage, Dataset
from urbandet_ray.datasets.file_index import FileIndex, folder_of, split_in
from urbandet_ray.datasets.oddities import Tally
from urbandet_ray.datasets.waymo_names import (
    WAYMO_CLASSES,
    camera_name,
    image_name,
    waymo_box,
)
from urbandet_ray.errors import RecordError
from urbandet_ray.records.tfrecord import read_records
from urbandet_ray.records.waymo_proto import waymo_frame_class
from urbandet_ray.storage import Storage

_FILE = re.compile(r"\.tfrecords?$|tfrecord", re.I)


@dataclass(frozen=True)
class WaymoImage:
    """One camera's image in a frame's record.

    Attributes:
        uri: the TFRecord file.
        offset: where the record begins.
        camera: the camera's number.
    """

    uri: str
    offset: int
    camera: int

    def read(self, storage: Storage) -> bytes:
        """The JPEG.

        Raises:
            RecordError: the record is damaged, or has changed.
        """
        with storage.open_read(self.uri, self.offset) as stream:
            record = next(read_records(stream, offset=self.offset), None)
        frame = None if record is None or record.error else parse_frame(record.raw)
        for image in frame.images if frame is not None else ():
            if image.name == self.camera:
                return bytes(image.image)
        raise RecordError("unreadable-file", f"{self.uri} has changed since it was read")


def parse_frame(data: bytes) -> Any | None:
    """The Frame of a record; None where it is something else."""
    from google.protobuf.message import DecodeError

    frame = waymo_frame_class()()
    try:
        frame.ParseFromString(data)
    except DecodeError:
        return None
    return frame if frame.context.name and frame.images else None


def waymo_evidence(index: FileIndex, storage: Storage) -> str | None:
    """The first TFRecord file, where its first record is a Frame of Waymo's."""
    first = next(record_files(index), None)
    if first is None:
        return None
    with storage.open_read(index.uri_of(first)) as stream:
        record = next(read_records(stream), None)
    is_frame = record is not None and record.error is None and parse_frame(record.raw)
    return first if is_frame else None


def read_waymo_frames(index: FileIndex, storage: Storage, evidence: str) -> Dataset:
    """Read the camera labels of all files; the images are read when they are written.

    A camera that has no entry in a frame's camera_labels is not labelled, as in the testing part;
    one with an empty entry holds nothing.
    """
    tally = Tally()
    images = [
        image for path in record_files(index) for image in _images(index, path, storage, tally)
    ]
    return Dataset("Waymo Open Dataset v1", index.uri, evidence, images, WAYMO_CLASSES, tally)


def record_files(index: FileIndex) -> Iterator[str]:
    """The TFRecord files of a dataset."""
    for path in index.files if index.chosen is None else [index.chosen]:
        if _FILE.search(path.rpartition("/")[2]):
            yield path


def _images(
    index: FileIndex, path: str, storage: Storage, tally: Tally
) -> Iterator[AnnotatedImage]:
    uri = index.uri_of(path)
    with storage.open_read(uri) as stream:
        for record in read_records(stream):
            frame = parse_frame(record.raw) if record.error is None else None
            if frame is None:
                why = record.error or "no Frame of Waymo's"
                tally.add("record-damaged", f"{path}, record {record.index}: {why}")
                continue
            yield from _cameras(frame, uri, path, record.offset, tally)


def _cameras(
    frame: Any, uri: str, path: str, offset: int, tally: Tally
) -> Iterator[AnnotatedImage]:
    labelled = {one.name: one.labels for one in frame.camera_labels}
    context = frame.context.name.decode("utf-8", "replace")
    for image in frame.images:
        name = image_name(context, frame.timestamp_micros, image.name)
        if image.name not in labelled:
            tally.add("image-unlabelled", name)
            continue
        boxes = tuple(
            waymo_box(
                (one.box.center_x, one.box.center_y),
                (one.box.length, one.box.width),
                one.type,
                one.detection_difficulty_level,
            )
            for one in labelled[image.name]
        )
        yield AnnotatedImage(
            name,
            uri,
            boxes,
            drive=context,
            split=split_in(folder_of(path)),
            camera=camera_name(image.name),
            timestamp_us=frame.timestamp_micros,
            within=WaymoImage(uri, offset, image.name),
        )
