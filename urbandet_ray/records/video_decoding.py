"""Decodes a video packet by packet: what a damaged packet spoils is told, and decoding goes on.

A packet that cannot be decoded spoils the pictures that are predicted from it: all up to the next
key frame, or itself alone where the container says that nothing depends on it. Decoders patch
such pictures up or leave them out, each in its own way, so none of them is used.

Decoding has one thread: with several, FFmpeg's H.264 decoder keeps errors within a slice to itself,
and what passes as sound depends on the number of cores. Videos are read beside one another instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from urbandet_ray.records.file_holes import HoleFinder
from urbandet_ray.records.frame_clock import FrameClock
from urbandet_ray.records.tfrecord import KEPT_DAMAGE_BYTES

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_ONE_EACH = frozenset({"libdav1d", "av1", "mjpeg", "prores", "dnxhd", "rawvideo", "ffv1"})
"""Decoders that give a picture for each packet, in their order. Elsewhere a packet may rightly have
none: VP8's hidden frames, the second field of an H.264 picture."""

_PICTURE_START = dict.fromkeys(("mpeg1video", "mpeg2video"), b"\0\0\1\0")
"""Start code of a picture (ISO/IEC 13818-2, table 6-1); a packet without it is passed over by
FFmpeg's decoder in silence."""

_OPTIONS = {
    "mjpeg": {"err_detect": "explode"},  # else the rest of a damaged picture is grey, unsaid
    "libdav1d": {"max_frame_delay": "1"},
}
_SHOWS_KEYS_AGAIN = "libdav1d"
"""After damage it may show an old key frame in the place of another, and calls it one."""

_FAILED_READS = 100
_REORDERED = 16
"""Pictures that a decoder may hold back, at most (H.264's and HEVC's reference frames)."""


@dataclass(frozen=True)
class Picture:
    """A sound picture: its place among the video's frames, its time, and the decoder's frame."""

    index: int
    time_us: int
    frame: VideoFrame


@dataclass(frozen=True)
class Damage:
    """Consecutive frames that cannot be used.

    Attributes:
        index: place of the first one.
        frames: how many.
        time_us: when the first one would have been shown.
        packets: how many packets are damaged; 0 where none is, but something before them lacks.
        cause: what the decoder said of the first of them.
        raw: its bytes, at most KEPT_DAMAGE_BYTES.
    """

    index: int
    frames: int
    time_us: int
    packets: int
    cause: str
    raw: bytes


@dataclass
class _Sent:
    """A packet that the decoder got and has not answered yet."""

    order: int
    """Its place in the file."""
    shown: int
    """Its time stamp: a packet's picture comes before those that are shown later."""
    is_key: bool
    is_timed: bool = True
    """Whether `shown` is when it is shown; else it is when it is decoded."""

    def precedes(self, answered: _Sent) -> bool:
        """Whether its picture should have come before the one that came."""
        waited = self.is_timed or self.order + _REORDERED < answered.order
        return self.shown < answered.shown and waited


@dataclass(frozen=True)
class _Hurt:
    """A packet that spoils what is decoded after it."""

    order: int
    shown: int
    alone: bool
    """Nothing is predicted from it."""


@dataclass
class _Gap:
    """Damage that is not over yet; sound frames that come in between wait behind it."""

    index: int
    time_us: int
    frames: int = 0


class PictureDecoder:
    """One stream's pictures, in the order in which they are shown.

    decoder = PictureDecoder(container, stream)
    for packet in packets:
        yield from decoder.decode(packet)
    yield from decoder.finish()
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        """Set the decoder up; nothing is read."""
        from av.codec.context import Flags

        self.codec = stream.codec_context
        self.codec.thread_type, self.codec.thread_count = "NONE", 1
        self.codec.flags |= Flags.copy_opaque.value
        self.codec.options = _OPTIONS.get(self.codec.name, {})
        self.clock = FrameClock(container, stream)
        self.frames = 0
        """Frames that were answered for, damaged ones included."""
        self._sent: dict[int, _Sent] = {}
        self._packets = 0
        self._hurts: list[_Hurt] = []
        self._gap: _Gap | None = None
        self._held: list[Picture] = []
        self._bad_packets = 0
        self._cause, self._raw = "", b""
        self._had_lone = False
        self.holes = HoleFinder(container)

    def decode(self, packet: Packet[Any]) -> Iterator[Picture | Damage]:
        """Give the decoder a packet; whatever it has ready then."""
        from av.error import FFmpegError

        hole = self.holes.before(packet)
        if hole is not None:
            lost = self._next_sent(hole.pts, is_key=False)
            self._sent[lost.order] = lost
            self._hurt(lost, str(hole))
        sent = self._next_sent(packet.pts, packet.dts, is_key=packet.is_keyframe)
        packet.opaque = sent.order
        if not packet.is_discard:  # before the start that the container's edit list sets
            self._sent[sent.order] = sent
        cause, frames = self._unfit(packet), []
        try:
            frames = self.codec.decode(packet)
        except FFmpegError as error:
            cause = cause or error.strerror or str(error)
        if cause:
            # Of two in a group of pictures what both are predicted from may be damaged.
            alone = packet.is_disposable and not self._had_lone
            self._had_lone = True
            self._hurt(sent, cause, packet, alone=alone)
        for frame in frames:
            yield from self._answered(frame)

    def finish(self) -> Iterator[Picture | Damage]:
        """What the decoder still holds, after the last packet."""
        from av.error import FFmpegError

        try:
            for frame in self.codec.decode(None):
                yield from self._answered(frame)
        except FFmpegError:  # of a packet that was told, or is among the lost
            pass
        self._count_lost(self._sent.values())
        self._sent = {}
        yield from self._close()

    def _next_sent(self, pts: int | None, dts: int | None = None, *, is_key: bool) -> _Sent:
        order, stamp = self._packets, dts if pts is None else pts
        self._packets += 1
        return _Sent(order, order if stamp is None else stamp, is_key, pts is not None)

    def _unfit(self, packet: Packet[Any]) -> str:
        """What is wrong with a packet that the decoder may take without a word; "" for nothing."""
        if packet.is_corrupt:
            return "the container says that part of a packet is missing"
        start = _PICTURE_START.get(self.codec.name)
        if start is not None and start not in bytes(packet):
            return "a packet holds no picture"
        return ""

    def _hurt(
        self, sent: _Sent, cause: str, packet: Packet[Any] | None = None, *, alone: bool = False
    ) -> None:
        if not self._hurts:
            self._cause = cause
            self._raw = b"" if packet is None else bytes(packet)[:KEPT_DAMAGE_BYTES]
        self._bad_packets += packet is not None
        self._hurts.append(_Hurt(sent.order, sent.shown, alone))

    def _is_spoilt(self, order: int) -> bool:
        return any(
            hurt.order == order or (hurt.order < order and not hurt.alone) for hurt in self._hurts
        )

    def _answered(self, frame: VideoFrame) -> Iterator[Picture | Damage]:
        order: Any = frame.opaque
        shown = frame.pts if frame.pts is not None else order
        sent = self._sent.pop(order, None) or _Sent(order, shown, False)
        lost = [one for one in self._sent.values() if one.precedes(sent)]
        for one in lost:
            del self._sent[one.order]
        self._count_lost(lost)
        if frame.is_corrupt and not self._is_spoilt(order):
            self._hurt(sent, "the decoder patched a picture up")
        if sent.is_key or (frame.key_frame and self.codec.name != _SHOWS_KEYS_AGAIN):
            self._hurts = [hurt for hurt in self._hurts if hurt.order >= order]
            self._had_lone = False
        time_us = self.clock.next(frame.pts)
        if self._is_spoilt(order):
            self._spoil(time_us)
            return
        self._hurts = [hurt for hurt in self._hurts if not hurt.alone or hurt.shown > sent.shown]
        picture = Picture(self.frames, time_us, frame)
        self.frames += 1
        if self._gap is not None and self._hurts:  # decoded before the damage, shown within it
            self._held.append(picture)
            return
        yield from self._close()
        yield picture

    def _count_lost(self, lost: Iterable[_Sent]) -> None:
        """Count packets that no picture came of; some rightly have none."""
        begins = self.frames == 0
        for one in sorted(lost, key=lambda sent: sent.shown):
            silent = not self._is_spoilt(one.order)
            if silent and begins and not one.is_key:
                self._hurt(one, "the video begins without a key frame", alone=True)
            elif silent and self.codec.name in _ONE_EACH:
                self._hurt(one, "a packet gives no picture")
            elif silent:
                continue
            self._spoil(self.clock.at(one.shown))

    def _spoil(self, time_us: int) -> None:
        if self._gap is None:
            self._gap = _Gap(self.frames, time_us)
        self._gap.frames += 1
        self.frames += 1

    def _close(self) -> Iterator[Picture | Damage]:
        """The damage is over: tell it, then what waited behind it."""
        gap, self._gap = self._gap, None
        if gap is None:
            return
        yield Damage(gap.index, gap.frames, gap.time_us, self._bad_packets, self._cause, self._raw)
        self._bad_packets = 0
        yield from self._held
        self._held = []


def read_packets(container: InputContainer) -> Iterator[Packet[Any]]:
    """The packets of all streams in the file's order, past places where the file is damaged.

    Raises:
        FFmpegError: reading fails again and again.
    """
    from av.error import EOFError as EndOfFile
    from av.error import FFmpegError

    failed = 0
    while True:
        try:
            for packet in container.demux():
                failed = 0
                if packet.size:
                    yield packet
            return
        except EndOfFile:
            return
        except FFmpegError:
            failed += 1
            if failed > _FAILED_READS:
                raise
