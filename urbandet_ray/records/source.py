"""What frames are read from, and what comes out: the values that listing and readers share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from urbandet_ray.errors import RecordError
from urbandet_ray.frames import Frame
from urbandet_ray.storage import FileInfo

SourceKind = Literal["tfrecord", "images", "video"]


@dataclass(frozen=True)
class Source:
    """One thing frames are read from: a TFRecord file, a folder of images, or a video.

    Attributes:
        kind: what it is.
        uri: the file, or the folder of images.
        name: unique among the sources of a listing, safe as a file name, and the same for a
            local folder and its copy on S3.
        segment: the drive its frames belong to.
        size_bytes: of the file, or of all images together.
        version: changes when the content does.
        files: the images in natural order; empty for the other kinds.
    """

    kind: SourceKind
    uri: str
    name: str
    segment: str
    size_bytes: int
    version: str
    files: tuple[FileInfo, ...] = ()


@dataclass(frozen=True)
class Record:
    """One record of a source, from its bytes to its frame; or the reason why there is none.

    Attributes:
        index: position in the source; bad ones count.
        offset: where reading may start again: the first byte of the record's header in the
            (decompressed) TFRecord file, the position of an image or video frame.
        next_offset: the offset of the record after it.
        raw: the bytes as they were stored; where the framing itself is broken the damaged span
            from `offset` on (at most KEPT_DAMAGE_BYTES of it); the pixels of a video frame.
        error: why the record cannot be used, None where it can.
        frame: what the bytes hold; None until they are parsed, and where there is an error.
        uri: the file it came from; "" while only its bytes are known.
        problems: what is wrong with the frame's labels (frame_and_problems_from_example).
    """

    index: int
    offset: int
    next_offset: int
    raw: bytes
    error: RecordError | None = None
    frame: Frame | None = None
    uri: str = ""
    problems: tuple[str, ...] = ()
