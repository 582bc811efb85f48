"""Which stream of a video is the one to read: the moving picture, not its cover or a thumbnail."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

_AS_LONG = 0.9
"""A stream of at least this share of the longest one's time is as long."""


def moving_pictures(container: InputContainer) -> list[VideoStream]:
    """The video streams that move, the one to read first; none where there is no video stream.

    Covers, stills and thumbnails are marked as such by the container (FFmpeg's dispositions) or
    have one picture. Of the others the longest comes first; of those that are as long the
    container's default, then the largest, then the first. A lone still is a video of one frame.
    """
    streams = [one for one in container.streams.video if one.codec_context is not None]
    moving = [one for one in streams if not _is_marked_still(one)] or streams[:1]
    moving = [one for one in moving if one.frames != 1] or moving[:1]
    longest = max(map(_seconds, moving), default=0.0)
    return sorted(moving, key=lambda one: _rank(one, longest), reverse=True)


def describe(stream: VideoStream) -> str:
    """`stream 1 (h264, 1920x1080, 30.0 s)`."""
    seconds = _seconds(stream)
    parts = [stream.codec_context.name, f"{stream.width}x{stream.height}"]
    parts += [f"{seconds:.1f} s"] if seconds else []
    return f"stream {stream.index} ({', '.join(parts)})"


def _is_marked_still(stream: VideoStream) -> bool:
    from av.stream import Disposition

    marks = Disposition.attached_pic | Disposition.still_image | Disposition.timed_thumbnails
    return bool(stream.disposition & (marks | Disposition.dependent | Disposition.metadata))


def _seconds(stream: VideoStream) -> float:
    """0 where the container does not say it by stream, as Matroska's."""
    if stream.duration is None or stream.time_base is None:
        return 0.0
    return float(stream.duration * stream.time_base)


def _rank(stream: VideoStream, longest: float) -> tuple[bool, bool, int, int]:
    from av.stream import Disposition

    is_default = bool(stream.disposition & Disposition.default)
    is_long = _seconds(stream) >= _AS_LONG * longest
    return is_long, is_default, stream.width * stream.height, -stream.index
