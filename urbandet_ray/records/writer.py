"""Writes frames as a TFRecord file, for converters and the synthetic streets."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from pathlib import Path

from urbandet_ray.frames import Frame
from urbandet_ray.records.example import example_from_frame
from urbandet_ray.records.tfrecord import RecordWriter


def write_frames(frames: Iterable[Frame], path: Path, *, compress: bool = False) -> int:
    """Write frames to a local TFRecord file, whole or not at all; how many were written.

    Its folder is made as needed; the same frames give the same bytes.

    Raises:
        RecordError: a frame that is not JPEG or PNG, or has no readable size.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.parent / f".{path.name[:180]}.{uuid.uuid4().hex[:12]}.tmp"
    try:
        with unfinished.open("wb") as file, RecordWriter(file, compress=compress) as writer:
            for frame in frames:
                writer.write(example_from_frame(frame))
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return writer.count
