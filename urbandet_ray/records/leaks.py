"""Frames of the training part in the validation part: by content, whatever files are called."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.errors import RecordError
from urbandet_ray.frames import Frame
from urbandet_ray.phrases import some_of
from urbandet_ray.records.images import decode_frame

COMPARED = 2000
"""Pictures of a part whose likeness is compared; of more, those with the smallest digests."""

_SIDE, _LOW = 32, 8
_BITS_APART = 4
_LEVELS_APART = 1.5
_PLAIN = 3.0
_DRIVE = re.compile(r"(?=.*\d)(.{8,}?)[-_. ]*\d+$")
_SHOWN = 3


@dataclass(frozen=True, eq=False)
class _Look:
    key: str
    bits: NDArray[np.bool_]
    small: NDArray[np.float32]


@dataclass
class Pictures:
    """What is remembered of a part's pictures to find them again in another.

    Attributes:
        frames: how many.
        digests: of the encoded pictures, with the first key of each.
        drives: what frame keys begin with, where that names a drive: not the file they are in.
        plain: pictures of one colour, which look like any other.
    """

    frames: int = 0
    digests: dict[bytes, str] = field(default_factory=dict)
    drives: set[str] = field(default_factory=set)
    plain: int = 0
    _looks: dict[bytes, _Look | None] = field(default_factory=dict)
    _highest: bytes = b""

    def add(self, frame: Frame) -> None:
        """Remember a frame; its picture is decoded, small, if it is among those compared."""
        self.frames += 1
        digest = blake2b(frame.encoded, digest_size=16).digest()
        self.digests.setdefault(digest, f"{frame.segment}/{frame.frame_key}")
        named = _DRIVE.match(frame.frame_key)
        if named and not frame.frame_key.startswith(f"{frame.segment}-"):
            self.drives.add(named[1])
        if digest in self._looks or (len(self._looks) >= COMPARED and digest > self._highest):
            return
        self._looks[digest] = self._look(frame)
        if len(self._looks) > COMPARED:
            del self._looks[max(self._looks)]
        if len(self._looks) == COMPARED:
            self._highest = max(self._looks)

    @property
    def looks(self) -> dict[bytes, _Look]:
        """Those that are compared, by digest."""
        return {digest: look for digest, look in self._looks.items() if look is not None}

    @property
    def compared(self) -> int:
        """How many pictures are compared by their looks, plain ones included."""
        return len(self._looks)

    def _look(self, frame: Frame) -> _Look | None:
        """None where it does not decode, or shows nothing."""
        import cv2

        try:
            image = decode_frame(frame, least_wh=(2 * _SIDE, 2 * _SIDE))
        except RecordError:
            return None
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
        if small.std() < _PLAIN:
            self.plain += 1
            return None
        low = cv2.dct(small)[:_LOW, :_LOW].ravel()
        return _Look(f"{frame.segment}/{frame.frame_key}", low > np.median(low), small)


@dataclass(frozen=True)
class Leaks:
    """What two parts share.

    Attributes:
        frames: pictures of the later part, such as the validation's.
        same, alike: of them, those that the earlier part has to the byte, and those it has
            re-encoded.
        examples: pairs of keys, "later = earlier".
        drives: drives that frames of both parts name.
        compared: how the likeness was sampled, "" where it was not.
        earlier, later: what the two parts are called.
    """

    frames: int
    same: int
    alike: int
    examples: tuple[str, ...]
    drives: tuple[str, ...]
    compared: str
    earlier: str = "training"
    later: str = "validation"

    def to_lines(self) -> list[str]:
        """What is shared, a line a kind."""
        shown = some_of(self.examples, _SHOWN)
        lines = []
        if self.same:
            lines.append(
                f"{self.same:,} of {self.frames:,} {self.later} pictures are {self.earlier}'s too"
            )
        if self.alike:
            lines.append(
                f"{self.alike:,} of {self.frames:,} {self.later} pictures are {self.earlier}'s, "
                "encoded anew or scaled"
            )
        if lines:
            lines[-1] += f" ({shown})"
        if self.drives:
            named = some_of(self.drives, _SHOWN)
            both = f"{self.earlier} and {self.later}"
            lines.append(f"frames of {len(self.drives)} drives are in both {both} ({named})")
        return lines


def find_leaks(
    train: Pictures, val: Pictures, earlier: str = "training", later: str = "validation"
) -> Leaks:
    """Compare two parts: digests of all pictures, the looks of up to COMPARED of each.

    The later one may be the test part, and the earlier one the validation's.

    The look is a perceptual hash of 64 bits (the signs about the median of the 8 x 8 lowest
    frequencies, Zauner 2010), and a picture of 32 x 32 that has to agree as well.
    """
    same = [digest for digest in val.digests if digest in train.digests]
    examples = [f"{val.digests[one]} = {train.digests[one]}" for one in same]
    looks = [look for digest, look in val.looks.items() if digest not in train.digests]
    pairs = _pairs(looks, list(train.looks.values()))
    examples += [f"{one} = {other}" for one, other in pairs]
    sampled = [
        f"{part.compared:,} of {part.frames:,} {name} pictures"
        for name, part in ((later, val), (earlier, train))
        if part.compared < len(part.digests)
    ]
    return Leaks(
        frames=val.frames,
        same=len(same),
        alike=len(pairs),
        examples=tuple(examples),
        drives=tuple(sorted(train.drives & val.drives)),
        compared=f"likeness is looked for in {' and '.join(sampled)}" if sampled else "",
        earlier=earlier,
        later=later,
    )


def _pairs(looks: list[_Look], others: list[_Look]) -> list[tuple[str, str]]:
    """Keys of each look and of the one among the others that shows the same, if one does."""
    if not looks or not others:
        return []
    bits = np.packbits(np.stack([one.bits for one in others]), axis=1)
    found = []
    for one in looks:
        apart = np.bitwise_count(bits ^ np.packbits(one.bits)).sum(axis=1)
        for at in np.flatnonzero(apart <= _BITS_APART):
            if np.abs(others[at].small - one.small).mean() <= _LEVELS_APART:
                found.append((one.key, others[at].key))
                break
    return found
