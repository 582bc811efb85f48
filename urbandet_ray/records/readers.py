"""Reads the records of one source, in order and streamed: a TFRecord file, or images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import PurePosixPath

from urbandet_ray.errors import (
    AccessError,
    ArchivedError,
    ConflictError,
    NotFoundError,
    RecordError,
)
from urbandet_ray.frames import Frame
from urbandet_ray.labels import LabelMap
from urbandet_ray.phrases import printable
from urbandet_ray.records.bytestream import ByteStream, skip_bytes
from urbandet_ray.records.example import frame_and_problems_from_example
from urbandet_ray.records.image_headers import sniff_format
from urbandet_ray.records.orientation import exif_orientation
from urbandet_ray.records.sampling import FrameSampler
from urbandet_ray.records.source import Record, Source
from urbandet_ray.records.tfrecord import (
    HEADER_BYTES,
    decompress,
    is_gzip,
    read_records,
)
from urbandet_ray.storage import FileInfo, Storage, is_remote
from urbandet_ray.storage.prefetch import fetched_ahead

MAX_IMAGE_FILE_BYTES = 256 << 20
_READ_AHEAD = 16
_READ_THREADS = 8


def read_tfrecord(
    source: Source,
    storage: Storage,
    first_index: int,
    offset: int,
    labels: LabelMap | None,
    sampler: FrameSampler,
) -> Iterator[Record]:
    """Records from a byte offset on; gzip cannot be entered midway and is unpacked up to there."""
    with ExitStack() as opened:
        stream: ByteStream
        if offset and not _is_gzip(source, storage):
            stream = opened.enter_context(storage.open_read(source.uri, offset, source.version))
        else:
            stream = opened.enter_context(storage.open_read(source.uri, 0, source.version))
            if offset:
                stream = decompress(stream)
                skip_bytes(stream, offset)
        for raw in read_records(stream, first_index=first_index, offset=offset):
            if raw.error is not None or sampler.takes(raw.index):
                yield _parsed(raw, source, labels)


def _is_gzip(source: Source, storage: Storage) -> bool:
    with storage.open_read(source.uri, 0, source.version) as stream:
        return is_gzip(stream.read(HEADER_BYTES))


def _parsed(record: Record, source: Source, labels: LabelMap | None) -> Record:
    frame, error = None, record.error
    problems: tuple[str, ...] = ()
    if error is None:
        try:
            key = f"{source.segment}-{record.index:06d}"
            frame, problems = frame_and_problems_from_example(
                record.raw, default_key=key, segment=source.segment, labels=labels
            )
        except RecordError as bad:
            error = bad
    return replace(record, frame=frame, error=error, uri=source.uri, problems=problems)


def read_images(
    source: Source, storage: Storage, first_index: int, sampler: FrameSampler
) -> Iterator[Record]:
    """Images in natural order; from S3 a few are fetched ahead."""
    stems = Counter(PurePosixPath(info.uri).stem for info in source.files)

    def read(index: int) -> Record:
        info = source.files[index]
        path = PurePosixPath(info.uri)
        key = printable(path.stem if stems[path.stem] == 1 else path.name)
        try:
            data, error = _read_image_file(info, storage), None
        except RecordError as bad:
            data, error = b"", bad
        frame = None
        if error is None:
            frame = Frame(
                key,
                source.segment,
                data,
                sniff_format(data) or "jpeg",
                orientation=exif_orientation(data),
            )
        return Record(index, index, index + 1, data, error, frame, info.uri)

    indexes = [i for i in range(first_index, len(source.files)) if sampler.takes(i)]
    if not is_remote(source.uri):
        return map(read, indexes)
    return fetched_ahead(read, indexes, threads=_READ_THREADS, ahead=_READ_AHEAD)


def _read_image_file(info: FileInfo, storage: Storage) -> bytes:
    """The whole file.

    Raises:
        RecordError: this one file is gone, changed, closed to us or absurdly large.
        StorageError: storage as a whole does not answer.
    """
    if info.size_bytes > MAX_IMAGE_FILE_BYTES:
        detail = f"{info.uri} has {info.size_bytes} bytes; at most {MAX_IMAGE_FILE_BYTES} are read"
        raise RecordError("image-too-large", detail)
    try:
        with storage.open_read(info.uri, 0, info.version) as stream:
            return stream.read()
    except (NotFoundError, AccessError, ArchivedError, ConflictError) as error:
        raise RecordError("unreadable-file", str(error)) from error
