"""Deals drives to train, val and test: seeded, each class in all parts, no drive in two."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.datasets.annotated import AnnotatedImage
from urbandet_ray.errors import ConfigError

PARTS = ("train", "val", "test")
_NUMBERED = re.compile(r"^(.*?)[_\-. ]?(\d+)$")
_STEADY = 0.8
"""Numbers of which so many follow each other by the same step are frames of one drive."""


def read_shares(text: str) -> tuple[float, float, float]:
    """Shares of train, val and test from `80,10,10`; they are taken relative to their sum.

    Raises:
        ConfigError: not two or three numbers of at least 0, the first above 0.
    """
    try:
        given = [float(word) for word in text.split(",")]
    except ValueError:
        given = []
    if len(given) not in (2, 3) or min(given) < 0 or given[0] <= 0 or not np.isfinite(sum(given)):
        raise ConfigError(
            f"--split is {text!r}: give the shares of train, val and test, such as 80,10,10"
        )
    whole = sum(given)
    train, val, test = (*given, 0.0)[:3]
    return (train / whole, val / whole, test / whole)


def drives_of(
    images: Sequence[AnnotatedImage], pattern: str | None = None
) -> tuple[list[str], str]:
    """The drive of each image, and how it is known; "" for one that stands for itself.

    By the pattern's first group in the image's name; else as the dataset states it; else by
    folders that are no parts; else by names that count on: street_0001, street_0002.

    Raises:
        ConfigError: the pattern is none, or matches no image.
    """
    if pattern is not None:
        return _by_pattern(images, pattern), f"by {pattern}"
    if any(image.drive for image in images):
        return [image.drive for image in images], "as the dataset states them"
    counted = _by_counting(images)
    if any(counted):
        return counted, "by file names that count on"
    return counted, "none are stated"


def _by_pattern(images: Sequence[AnnotatedImage], pattern: str) -> list[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"--drive is {pattern!r}, no regular expression: {error}") from None
    found = [compiled.search(image.name) for image in images]
    if not any(found):
        raise ConfigError(
            f"--drive {pattern!r} matches no image, such as {images[0].name}: its first group, or "
            "else the whole match, names the drive"
        )
    return [(one[1] if compiled.groups else one[0]) or "" if one else "" for one in found]


def _by_counting(images: Sequence[AnnotatedImage]) -> list[str]:
    groups: dict[str, list[int]] = defaultdict(list)
    stems: list[tuple[str, int] | None] = []
    for image in images:
        path = PurePosixPath(image.name)
        match = _NUMBERED.match(path.stem)
        name = f"{path.parent}/{match[1]}" if match and match[1] else ""
        stems.append((name, int(match[2])) if match and name else None)
        if match and name:
            groups[name].append(int(match[2]))
    drives = {name for name, numbers in groups.items() if _counts_on(numbers)}
    return [one[0] if one and one[0] in drives else "" for one in stems]


def _counts_on(numbers: list[int]) -> bool:
    steps = np.diff(np.sort(numbers)).tolist()
    return len(steps) > 1 and Counter(steps).most_common(1)[0][1] >= _STEADY * len(steps)


def deal(
    boxes: Mapping[str, Mapping[str, int]], shares: Sequence[float], seed: int
) -> dict[str, str]:
    """The part of each drive: frames and each class's boxes come near to the shares in all parts.

    Large drives are dealt first, each to the part where it brings all shares nearest (in squares),
    equal ones in the seed's order. A part with a share gets a drive where there are enough.

    Args:
        boxes: of each drive, how many boxes of each class, and its frames under "".
        shares: of train, val and test, 1 together.
        seed: of the order.
    """
    names = sorted(boxes)
    random.Random(seed).shuffle(names)
    classes = sorted({name for counts in boxes.values() for name in counts})
    place = {name: at for at, name in enumerate(classes)}
    counts = np.zeros((len(names), len(classes)))
    for row, drive in enumerate(names):
        for name, count in boxes[drive].items():
            counts[row, place[name]] = count
    counts /= np.maximum(counts.sum(axis=0), 1)
    order = np.argsort(-counts.max(axis=1, initial=0), kind="stable")
    parts = _dealt(counts, order, np.asarray(shares, float))
    return {names[row]: PARTS[part] for row, part in enumerate(parts)}


def _dealt(
    counts: NDArray[np.float64], order: NDArray[np.intp], shares: NDArray[np.float64]
) -> list[int]:
    have = np.zeros((3, counts.shape[1]))
    parts = [0] * len(counts)
    open_parts = [part for part in range(3) if shares[part] > 0]
    for row in order.tolist():
        gap = have - shares[:, None]
        # by putting the drive there, the squares grow by 2 * gap * drive + drive ** 2
        costs = [(float((2 * gap[part] * counts[row]).sum()), part) for part in open_parts]
        parts[row] = min(costs)[1]
        have[parts[row]] += counts[row]
    for part in open_parts[1:]:
        if part in parts:
            continue
        others = [row for row in range(len(parts)) if parts.count(parts[row]) > 1]
        if others:
            nearest = min(others, key=lambda row: abs(counts[row].mean() - shares[part]))
            parts[nearest] = part
    return parts


def drives_in_two_parts(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Drives that a dataset's own parts tear apart; of (drive, part) pairs."""
    found: dict[str, set[str]] = defaultdict(set)
    for drive, part in pairs:
        if drive:
            found[drive].add(part)
    return sorted(drive for drive, parts in found.items() if len(parts) > 1)
