"""Finds bytes of a video file that its demuxer passed over without a word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet

_BACK_TO_BACK = frozenset({"matroska", "webm", "flv"})
"""Formats whose packets lie one behind the other and are searched for after damage. MP4 and AVI
have an index that names every packet; MPEG-TS counts its own."""

_HEADERS_BYTES = 256
_LATE = 1.5


@dataclass(frozen=True)
class Hole:
    """Bytes of the file that hold no packet, where frames lack too.

    Attributes:
        at, size_bytes: the bytes.
        frames: how many frames lack, by the time between those around them.
        pts: when the first one would have been shown, in the stream's time base.
    """

    at: int
    size_bytes: int
    frames: int
    pts: int

    def __str__(self) -> str:
        """What is said of it."""
        lacking = "a frame lacks" if self.frames == 1 else f"about {self.frames} frames lack"
        return f"the {self.size_bytes} bytes from {self.at} on hold no packet, and {lacking}"


class HoleFinder:
    """Looks at one stream's packets in the file's order."""

    def __init__(self, container: InputContainer) -> None:
        """Nothing is found in formats that have another way to tell."""
        self._looks = bool(_BACK_TO_BACK & set(container.format.name.split(",")))
        self._end: int | None = None
        self._shown: int | None = None
        self._step = 0

    def passed(self, packet: Packet[Any]) -> None:
        """Note a packet of another stream."""
        if packet.pos is not None and packet.pos >= 0:
            self._end = packet.pos + packet.size

    def before(self, packet: Packet[Any]) -> Hole | None:
        """The hole before this packet, if there is one: bytes and time lack at once.

        Time alone is a camera that dropped frames; bytes alone are an index or padding.
        """
        end, shown, step = self._end, self._shown, self._step
        self.passed(packet)
        if not self._looks or packet.pts is None or packet.pos is None:
            return None
        if shown is None or packet.pts > shown:
            if shown is not None:
                self._step = packet.pts - shown
            self._shown = packet.pts
        if end is None or shown is None or not step or packet.pos - end < _HEADERS_BYTES:
            return None
        gap = packet.pts - shown
        if gap < _LATE * step:
            return None
        self._step = step
        return Hole(end, packet.pos - end, max(round(gap / step) - 1, 1), shown + step)
