"""Reads the records of one source, in order and streamed: a TFRecord file, images, a video."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from urbandet_ray.errors import (
    AccessError,
    ArchivedError,
    ConflictError,
    NotFoundError,
    RecordError,
)
from urbandet_ray.frames import Frame
from urbandet_ray.labels import LabelMap
from urbandet_ray.records.bytestream import ByteStream, skip_bytes
from urbandet_ray.records.example import frame_and_problems_from_example
from urbandet_ray.records.images import MAX_PIXELS, sniff_format
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
    source: Source, storage: Storage, first_index: int, offset: int, labels: LabelMap | None = None
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


def read_images(source: Source, storage: Storage, first_index: int) -> Iterator[Record]:
    """Images in natural order; from S3 a few are fetched ahead."""
    stems = Counter(PurePosixPath(info.uri).stem for info in source.files)

    def read(index: int) -> Record:
        info = source.files[index]
        path = PurePosixPath(info.uri)
        key = path.stem if stems[path.stem] == 1 else path.name
        try:
            data, error = _read_image_file(info, storage), None
        except RecordError as bad:
            data, error = b"", bad
        frame = None
        if error is None:
            frame = Frame(key, source.segment, data, sniff_format(data) or "jpeg")
        return Record(index, index, index + 1, data, error, frame, info.uri)

    indexes = range(first_index, len(source.files))
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


def read_video(source: Source, storage: Storage, first_index: int) -> Iterator[Record]:
    """Decoded frames from `first_index` on; what comes before is decoded and dropped.

    A video that breaks midway ends with one error record: "bad-video" or "truncated-video".
    """
    import av

    with ExitStack() as opened:
        path = _local_video(source, storage, opened)
        index = 0
        try:
            container = opened.enter_context(av.open(path))
            if not container.streams.video:
                raise RecordError("bad-video", f"{source.uri} has no video stream")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for picture in container.decode(stream):
                if index >= first_index:
                    yield _video_record(picture, index, source)
                index += 1
            if stream.frames - index > max(5, stream.frames // 20):
                raise RecordError(
                    "truncated-video",
                    f"{source.uri} ends after {index} frames; its header says {stream.frames}",
                )
        except (av.FFmpegError, RecordError) as error:
            bad = error if isinstance(error, RecordError) else _bad_video(source, index, error)
            at = max(index, first_index)
            yield Record(at, at, at + 1, b"", bad, uri=source.uri)


def _bad_video(source: Source, index: int, error: Exception) -> RecordError:
    return RecordError("bad-video", f"{source.uri} cannot be decoded at frame {index}: {error}")


def _local_video(source: Source, storage: Storage, opened: ExitStack) -> str:
    """A path FFmpeg can seek in; removed with `opened` where it is a copy."""
    if not is_remote(source.uri):
        storage.open_read(source.uri, 0, source.version).close()  # still the listed version
        return source.uri
    folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="urbandet-video-"))
    path = Path(folder) / f"video{PurePosixPath(source.uri).suffix}"
    storage.open_read(source.uri, 0, source.version).close()
    storage.download_file(source.uri, path)
    return str(path)


def _video_record(picture: Any, index: int, source: Source) -> Record:
    if picture.width * picture.height > MAX_PIXELS:
        raise RecordError("image-too-large", f"{source.uri}: {picture.width}x{picture.height}")
    image = picture.to_ndarray(format="rgb24", threads=1)
    turns = round(picture.rotation / 90) % 4
    if turns:
        image = np.rot90(image, turns)
    pixels = image.tobytes()
    size_wh = (image.shape[1], image.shape[0])
    frame = Frame(f"{source.segment}-{index:06d}", source.segment, pixels, "raw", size_wh)
    return Record(index, index, index + 1, pixels, frame=frame, uri=source.uri)
