"""How long each frame of a video is shown, from the frames' own times."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from statistics import median

USUAL_S = Fraction(1, 10)
"""A frame whose time nobody says; Waymo's cameras run at 10 a second."""

_NEAR = 1.5


def pace_of(times_s: Sequence[float | None], frames_before: int = 0) -> list[Fraction] | None:
    """Seconds that each frame of one drive lasts: until the next one, the last one as usual there.

    Args:
        times_s: when each frame was taken, in seconds.
        frames_before: frames of the source that stand before the first one and are not shown. Where
            the first one's time counts from them, it is shown from their start on, so that a video
            that lost its beginning keeps its length.

    Returns:
        None where a time lacks, or is not above the one before: of several cameras, for example.
    """
    known = [Fraction(round(time * 1_000_000), 1_000_000) for time in times_s if time is not None]
    if len(known) < len(times_s) or not known:
        return None
    steps = [after - before for before, after in pairwise(known)]
    if any(step <= 0 for step in steps):
        return None
    usual = median(steps) if steps else USUAL_S
    lasting = [*steps, usual]
    if frames_before and 0 < known[0] <= frames_before * usual * Fraction(_NEAR):
        lasting[0] += known[0]
    return lasting
