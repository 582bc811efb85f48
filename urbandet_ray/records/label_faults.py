"""Boxes that cannot be used: what they look like, how many, and an example of each kind."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.boxes import Boxes
from urbandet_ray.records.class_column import FROM_ZERO, OTHER_NUMBER, UNKNOWN_TEXT
from urbandet_ray.records.label_columns import BBOX

SHARES_MAX = 2.0
"""A coordinate beyond this is no share of the image's side that overshoots, but another unit."""

_OUTSIDE_TOLERANCE = 1e-4
"""So far outside [0, 1] is rounding, not a wrong label: 0.06 px on 640 px."""
_PERCENT_MAX, _PERCENT_SIDE = 100.5, 130
_PIXELS, _PERCENT = "box-pixels", "box-percent"
_DIVIDE = "the OD API reads shares of the image in [0, 1]; divide them by "
_KINDS = {
    _PIXELS: ("look like pixels", f"{_DIVIDE}the image's width and height"),
    _PERCENT: ("look like percent", f"{_DIVIDE}100"),
    "box-inverted": (
        "have a max below their min",
        "corners are ymin, xmin, ymax, xmax; look for x, y, width, height, or swapped sides",
    ),
    "box-empty": ("have no area inside the image", "leave them out, or mend their corners"),
    "box-not-finite": ("are not finite", "look for a division by zero where they were written"),
}

_CLASS_KINDS = {
    UNKNOWN_TEXT: (
        "have a class text that the label map does not have: training and evaluation leave them "
        "out, as the OD API does",
        "to use them, add the class to the label map, or write the text as it stands there",
    ),
    OTHER_NUMBER: (
        "have a class/label that is another class's number than their class/text",
        "the text decides, as in the OD API; use the label map that the records were made with, "
        "if the texts are not what you mean",
    ),
    FROM_ZERO: (
        "have a class/label that is one less than the label map's number",
        "the text decides, as in the OD API, so nothing has to be done",
    ),
}
_COLUMN_KINDS = {
    "odd-column": "columns of another kind or length than the OD API's",
    "bad-labels": "frames' labels, which cannot be read",
}


@dataclass
class LabelFaults:
    """Boxes and columns that were left out, counted record by record.

    Attributes:
        counts: by reason.
        examples: the first of each reason, as text.
    """

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, problems: tuple[str, ...], place: str) -> None:
        """Count the boxes among a record's problems; `place` names the record."""
        for problem in problems:
            reason, _, detail = problem.partition(": ")
            if reason in _KINDS or reason in _COLUMN_KINDS or reason in _CLASS_KINDS:
                self.counts[reason] += 1
                self.examples.setdefault(reason, f"{place}: {detail}")

    @property
    def boxes(self) -> int:
        """Boxes that are left out."""
        return sum(self.counts[reason] for reason in _KINDS)

    def settled(self) -> LabelFaults:
        """With one unit for all: where some boxes can only be pixels, small ones are too."""
        if not (self.counts[_PIXELS] and self.counts[_PERCENT]):
            return self
        counts, examples = self.counts.copy(), dict(self.examples)
        counts[_PIXELS] += counts.pop(_PERCENT)
        examples.pop(_PERCENT)
        return LabelFaults(counts, examples)

    def class_lines(self) -> list[str]:
        """A line a kind of boxes whose class text and number do not agree."""
        counts = self.counts.copy()
        if counts[OTHER_NUMBER]:  # some of the numbers of another map are one less by chance
            counts[OTHER_NUMBER] += counts.pop(FROM_ZERO, 0)
        return [
            f"{counts[reason]:,} boxes {what} ({self.examples[reason]}): {cure}"
            for reason, (what, cure) in _CLASS_KINDS.items()
            if counts[reason]
        ]

    def to_lines(self) -> list[str]:
        """A line a kind of what is left out: how many boxes, how they look, where, what to do."""
        own = self.settled()
        return [
            *(
                f"{own.counts[reason]:,} boxes {look} ({own.examples[reason]}): {cure}"
                for reason, (look, cure) in _KINDS.items()
                if own.counts[reason]
            ),
            *(
                f"{own.counts[reason]:,} {what} ({own.examples[reason]})"
                for reason, what in _COLUMN_KINDS.items()
                if own.counts[reason]
            ),
        ]


def settled_reason(reason: str, counts: Counter[str]) -> str:
    """The reason of a box in the light of all boxes' (LabelFaults.settled)."""
    return _PIXELS if reason == _PERCENT and counts[_PIXELS] else reason


def usable_rows(
    boxes_norm: NDArray[np.float32],
    clipped_xyxy: Boxes,
    size_wh: tuple[int, int],
    problems: list[str],
) -> NDArray[np.bool_]:
    """Which boxes are some part of the image, [n]; a problem for each other, and for overshoots.

    Args:
        boxes_norm: [n, 4] ymin, xmin, ymax, xmax as they stand.
        clipped_xyxy: the same clipped to the image, px.
        size_wh: of the image, px.
        problems: grows by "reason: detail" a box.
    """
    low, high = boxes_norm[:, :2], boxes_norm[:, 2:]
    if ((low >= 0) & (low < high) & (high <= 1)).all():  # nearly always; false for NaN
        return np.ones(len(boxes_norm), bool)
    finite = np.isfinite(boxes_norm).all(axis=1)
    scaled = finite & (np.abs(boxes_norm) > SHARES_MAX).any(axis=1)
    inverted = finite & ~scaled & (high < low).any(axis=1)
    empty = finite & ~scaled & ~inverted & (clipped_xyxy[:, 2:] <= clipped_xyxy[:, :2]).any(axis=1)
    usable = np.asarray(finite & ~scaled & ~inverted & ~empty, bool)
    overshoot = (boxes_norm < -_OUTSIDE_TOLERANCE) | (boxes_norm > 1 + _OUTSIDE_TOLERANCE)
    for reason, rows in (
        ("box-not-finite", ~finite),
        (_unit(boxes_norm[scaled], size_wh), scaled),
        ("box-inverted", inverted),
        ("box-outside", usable & overshoot.any(axis=1)),
        ("box-empty", empty),
    ):
        for row in np.flatnonzero(rows):
            sides = ", ".join(
                f"{side} {value:g}" for side, value in zip(BBOX, boxes_norm[row], strict=True)
            )
            problems.append(f"{reason}: box {row} has {sides}")
    return usable


def _unit(boxes: NDArray[np.float32], size_wh: tuple[int, int]) -> str:
    """Percent where an image is larger than 100 px and no coordinate passes 100."""
    is_percent = min(size_wh) >= _PERCENT_SIDE and (boxes <= _PERCENT_MAX).all()
    return _PERCENT if is_percent else _PIXELS
