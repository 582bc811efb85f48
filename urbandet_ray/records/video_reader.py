"""Reads the frames of one video, in the order in which they are shown."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from urbandet_ray.errors import RecordError
from urbandet_ray.frames import Frame
from urbandet_ray.records.images import MAX_PIXELS
from urbandet_ray.records.moving_picture import describe, moving_pictures
from urbandet_ray.records.sampling import FrameSampler
from urbandet_ray.records.source import Record, Source
from urbandet_ray.records.video_decoding import Damage, Picture, PictureDecoder, read_packets
from urbandet_ray.storage import Storage, is_remote

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

VIDEO_ENDINGS = (
    "3g2|3gp|asf|avi|divx|dv|f4v|flv|h264|h265|hevc|ivf|lrv|m2t|m2ts|m2v|m4v|mjpeg|mkv|mov|mp4|mpe|"
    "mpeg|mpg|mts|mxf|nut|obu|ogv|qt|ts|vob|webm|wmv|y4m"
)
"""Endings of video files, as an expression; what is inside, FFmpeg finds out."""

_LENGTH_STATED = frozenset({"mov", "mp4", "matroska", "webm"})
"""Formats whose header states a length that FFmpeg hands on as it is; of others it estimates it."""


def read_video(
    source: Source, storage: Storage, first_index: int, sampler: FrameSampler
) -> Iterator[Record]:
    """Decoded frames from `first_index` on; what comes before is decoded and dropped.

    Damage costs the frames it spoils and is one bad record, "damaged-video", in the place of the
    first of them: the index of the next frame is higher by their number. Other bad records are
    "bad-video" (it cannot be opened, or read on), "truncated-video" (it ends before its header
    says), "unread-stream" (there is a second moving picture) and "image-too-large".
    """
    import av

    with ExitStack() as opened:
        path = _local_video(source, storage, opened)
        index = 0
        try:
            container = opened.enter_context(av.open(path))
            for record in _records_of(container, source, sampler):
                index = record.index + 1
                if record.index >= first_index:
                    yield record
        except (av.FFmpegError, RecordError) as error:
            bad = error if isinstance(error, RecordError) else _bad_video(source, index, error)
            yield _bad(source, max(index, first_index), bad)


def _bad_video(source: Source, index: int, error: Exception) -> RecordError:
    return RecordError("bad-video", f"{source.uri} cannot be decoded at frame {index}: {error}")


def _bad(source: Source, index: int, error: RecordError, raw: bytes = b"") -> Record:
    return Record(index, index, index + 1, raw, error, uri=source.uri)


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


def _records_of(
    container: InputContainer, source: Source, sampler: FrameSampler
) -> Iterator[Record]:
    """Raises RecordError or FFmpegError where nothing more can be read."""
    streams = moving_pictures(container)
    if not streams:
        raise RecordError("bad-video", f"{source.uri} has no video stream")
    decoder, length = PictureDecoder(container, streams[0]), _Length(container, streams[0])
    damage: Damage | None = None
    for found in _decoded(decoder, streams[0], length.watched(read_packets(container))):
        if damage is not None:
            yield _damaged(source, damage)
        damage = found if isinstance(found, Damage) else None
        if isinstance(found, Picture) and sampler.takes(found.index, found.time_us):
            yield _sound(source, found)
    lacking = length.lacking()
    if damage is not None and not lacking:
        yield _damaged(source, damage)
    at = decoder.frames
    if lacking:
        at = at if damage is None else damage.index
        detail = f"{source.uri} ends after {at} frames, {lacking}: copy it again from its camera"
        yield _bad(source, at, RecordError("truncated-video", detail))
        at += 1
    if len(streams) > 1:
        yield _bad(source, at, _unread(source, streams))


def _decoded(
    decoder: PictureDecoder, stream: VideoStream, packets: Iterator[Packet[Any]]
) -> Iterator[Picture | Damage]:
    for packet in packets:
        if packet.stream_index == stream.index:
            yield from decoder.decode(packet)
        else:
            decoder.holes.passed(packet)
    yield from decoder.finish()


def _sound(source: Source, picture: Picture) -> Record:
    index, shown = picture.index, picture.frame
    if shown.width * shown.height > MAX_PIXELS:
        size = f"{shown.width}x{shown.height}"
        raise RecordError("image-too-large", f"{source.uri}: {size}, at most {MAX_PIXELS} pixels")
    image = shown.to_ndarray(format="rgb24", threads=1)
    turns = round(shown.rotation / 90) % 4
    if turns:
        image = np.rot90(image, turns)
    pixels = image.tobytes()
    frame = Frame(
        f"{source.segment}-{index:06d}",
        source.segment,
        pixels,
        "raw",
        (image.shape[1], image.shape[0]),
        timestamp_us=picture.time_us,
    )
    return Record(index, index, index + 1, pixels, frame=frame, uri=source.uri)


def _damaged(source: Source, damage: Damage) -> Record:
    last = damage.index + damage.frames - 1
    frames = f"frame {damage.index}" if damage.frames == 1 else f"frames {damage.index} to {last}"
    detail = f"{source.uri}, {frames} from {damage.time_us / 1e6:.3f} s on: {damage.cause}"
    if damage.packets > 1:
        detail += f" (the first of {damage.packets} damaged packets)"
    if damage.frames > 1:
        detail += "; what was predicted from it is left out, up to the next key frame"
    return _bad(source, damage.index, RecordError("damaged-video", detail), damage.raw)


def _unread(source: Source, streams: list[VideoStream]) -> RecordError:
    others = " and ".join(describe(one) for one in streams[1:])
    return RecordError(
        "unread-stream",
        f"{source.uri} has {len(streams)} moving pictures: {describe(streams[0])} was read, "
        f"{others} not. To read another, make a file of it: "
        f"ffmpeg -i IN -map 0:{streams[1].index} -c copy OUT",
    )


class _Length:
    """How far a video goes, against what its header says."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._stream = stream
        self._names = set(container.format.name.split(","))
        self._start = Fraction(container.start_time or 0, 1_000_000)
        self._whole = Fraction(container.duration or 0, 1_000_000)
        self._end = self._own_end = Fraction(0)
        self._packets = 0

    def watched(self, packets: Iterator[Packet[Any]]) -> Iterator[Packet[Any]]:
        """The packets, one by one; how far they go is noted."""
        for packet in packets:
            if packet.pts is not None and packet.time_base is not None:
                end = (packet.pts + (packet.duration or 0)) * packet.time_base
                self._end = max(self._end, end)
                if packet.stream_index == self._stream.index:
                    self._own_end = max(self._own_end, end)
            self._packets += packet.stream_index == self._stream.index
            yield packet

    def lacking(self) -> str:
        """How much less there is than the header says; "" where it is all there."""
        stream, frames = self._stream, self._packets
        if "avi" in self._names:  # its time base is a frame
            frames = max(frames, round(self._own_end / stream.time_base) if stream.time_base else 0)
            few = stream.frames - frames > max(5, stream.frames // 20)
            return f"and its header says {stream.frames}" if few else ""
        if not self._names & _LENGTH_STATED:
            return ""
        end, whole = self._end - self._start, self._whole
        if stream.duration is not None and stream.time_base is not None:
            start = (stream.start_time or 0) * stream.time_base
            end, whole = self._own_end - start, stream.duration * stream.time_base
        pace = 1 / (stream.average_rate or Fraction(10))
        if whole - end <= max(5 * pace, whole / 20):
            return ""
        return f"at {float(end):.1f} s, and its header says {float(whole):.1f} s"
