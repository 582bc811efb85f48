"""Which frames of a source are looked at, where not all are."""

from __future__ import annotations

from collections.abc import Sequence

from urbandet_ray.config import SampleConfig
from urbandet_ray.errors import ConfigError
from urbandet_ray.records.source import Source

_ROUNDING_US = 1


class FrameSampler:
    """Chooses frames of one source, met in order from its start."""

    def __init__(self, sample: SampleConfig) -> None:
        self._every, self._per_second = sample.every, sample.per_second
        self._slot: int | None = None

    def takes(self, index: int, time_us: int = 0) -> bool:
        """Whether this frame is looked at.

        Args:
            index: its place in the source.
            time_us: its time; the first frame of each span of 1 / per_second is taken.
        """
        if self._per_second is None:
            return index % self._every == 0
        slot = int((time_us + _ROUNDING_US) * self._per_second / 1e6)
        is_first = slot != self._slot
        self._slot = slot
        return is_first


def check_sample(sample: SampleConfig, sources: Sequence[Source]) -> None:
    """Refuse frames a second of what has no time.

    Raises:
        ConfigError: the first such source, and what to set instead.
    """
    if sample.per_second is None:
        return
    for source in sources:
        if source.kind != "video":
            what = "a folder of images" if source.kind == "images" else "a TFRecord file"
            raise ConfigError(
                f"sample.per_second (--per-second) is {sample.per_second:g}, and {source.uri} is "
                f"{what}, whose frames come at no known rate: choose every N-th frame instead "
                "(sample.every, --every N)"
            )
