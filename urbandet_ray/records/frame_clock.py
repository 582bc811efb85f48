"""The time of each frame of a video, as its container says it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

_TS_DISCONT = 0x0200
"""AVFMT_TS_DISCONT of FFmpeg's avformat.h: time stamps of the format may leap."""

_JUMP_US = 10_000_000
"""As ffmpeg's -dts_delta_threshold: what is more is another recording that was joined on."""
_BACK_US = 1_000_000


class FrameClock:
    """Microseconds since the start of the container, increasing from frame to frame."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        """Take start, time base and usual pace from the container; nothing is read."""
        self._base_us = (stream.time_base or 0) * 1_000_000
        self._shift_us = -(container.start_time or 0)
        self._is_from_start = container.start_time is not None
        self._is_joined = bool(container.format.flags & _TS_DISCONT)
        rate = stream.average_rate or stream.base_rate
        self._step_us = round(1_000_000 / rate) if rate else 100_000
        self._last_us: int | None = None

    def at(self, pts: int) -> int:
        """When a frame is shown, by its own time stamp alone."""
        return round(pts * self._base_us) + self._shift_us

    def next(self, pts: int | None) -> int:
        """Time of the next frame shown.

        A frame without a time stamp follows the one before at the usual pace. So does one whose
        stamp leaps (back by a second, or ahead by ten in a format that is cut and joined as it
        is, such as MPEG-TS): all after it are shifted alike.
        """
        last, step = self._last_us, self._step_us
        if pts is None:
            now = 0 if last is None else last + step
        else:
            if last is None and not self._is_from_start:
                self._shift_us = -round(pts * self._base_us)
            now = self.at(pts)
            if last is not None and (now < last - _BACK_US or self._leaps(now - last)):
                self._shift_us += last + step - now
                now = last + step
        if last is not None:
            now = max(now, last + 1)
            self._step_us = min(now - last, _BACK_US)
        self._last_us = now
        return now

    def _leaps(self, gap_us: int) -> bool:
        return self._is_joined and gap_us > _JUMP_US
