"""Odd things in a dataset, counted by kind, so that nothing is dropped or changed unsaid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

PLACES_KEPT = 1000
"""So many places of each kind are kept by name; all are counted."""

TOLD = {
    "image-missing": "images that the labels name but are not there, left out",
    "image-ambiguous": "images that the labels do not tell apart by name, left out",
    "image-damaged": "damaged images, left out",
    "record-damaged": "damaged records, left out",
    "image-unlabelled": "images without labels, left out",
    "image-unlisted": "images in no list of the dataset's parts, left out",
    "image-negative": "images without an object, kept as negatives",
    "image-converted": "images that are neither JPEG nor PNG, written as PNG",
    "image-upright": "images that their EXIF tag turns, written upright, as PNG",
    "image-joined": "images that are described twice, all labels kept",
    "image-twice": "images that are described twice, the first labels kept",
    "name-twice": "images of one name, told apart by a number behind it",
    "size-differs": "images of another size than the labels say, their boxes scaled to the image",
    "box-outside": "boxes that reach beyond the image, cut to it",
    "box-beyond": "boxes that lie beyond the image, left out",
    "box-empty": "boxes without an area, left out",
    "box-inverted": "boxes that end before they begin, left out",
    "box-not-finite": "boxes with a side that is no number, left out",
    "box-looks-like-shares": "boxes within the first pixel, as shares of the image look where "
    "pixels are expected, left out",
    "box-looks-like-pixels": "boxes above 1, as pixels look where shares of the image are "
    "expected, left out",
    "box-from-polygon": "outlines, of which the bounding box is kept",
    "box-from-mask": "masks, of which the bounding box is kept",
    "box-rotated": "rotated boxes, of which the upright box around them is kept",
    "box-twice": "boxes that stand twice in one image, kept once",
    "mask-left-out": "outlines beside boxes, left out",
    "label-without-box": "labels without a box, such as lanes or tags, left out",
    "label-damaged": "labels that cannot be read, left out",
    "class-unknown": "boxes of a class that the label map does not have, left out",
    "class-unused": "classes that no box has and that name a group, left out",
    "region-ignored": "regions that are not to be judged and have no class, left out",
    "annotators-several": "images that were labelled several times, the first labels kept",
    "part-missing": "parts that the dataset names but are not there, left out",
    "part-again": "parts with the same images as another part, left out",
    "file-unread": "files of a kind that is not read here, left out",
    "drive-in-two-parts": "drives in two of the dataset's own parts (--split makes new ones)",
    "score-left-out": "scores, for which the format has no place, left out",
    "flag-left-out": "flags (difficult, crowd, truncated, occluded), for which the format has no "
    "place, left out",
    "frame-left-out": "frames that cannot be written, left out",
    "frame-encoded": "frames of a video, written as JPEG",
}
"""What is said of each kind; the count and the first place stand behind it."""

LOSSES = frozenset(
    {
        "image-missing", "image-ambiguous", "image-damaged", "box-beyond", "box-empty",
        "box-inverted", "box-not-finite", "box-looks-like-shares", "box-looks-like-pixels",
        "label-damaged", "record-damaged", "class-unknown", "frame-left-out", "part-missing",
    }
)  # fmt: skip
"""Kinds by which something is lost that was meant to be there."""


@dataclass
class Tally:
    """How often each kind was met, and where."""

    counts: dict[str, int] = field(default_factory=dict)
    places: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, place: str, count: int = 1) -> None:
        """Count something odd at a place that a person can find.

        Raises:
            KeyError: a kind that TOLD does not have.
        """
        _ = TOLD[kind]
        self.counts[kind] = self.counts.get(kind, 0) + count
        kept = self.places.setdefault(kind, [])
        if len(kept) < PLACES_KEPT:
            kept.append(place)

    def merge(self, counts: Mapping[str, int], places: Mapping[str, list[str]]) -> None:
        """Add what another tally counted."""
        for kind, count in counts.items():
            self.counts[kind] = self.counts.get(kind, 0) + count
            kept = self.places.setdefault(kind, [])
            kept += places.get(kind, [])[: PLACES_KEPT - len(kept)]

    @property
    def losses(self) -> int:
        """How much is lost that was meant to be there."""
        return sum(count for kind, count in self.counts.items() if kind in LOSSES)

    def lines(self) -> list[str]:
        """A line a kind, in the table's order: what, how often, the first place."""
        return [
            f"{said}: {self.counts[kind]} ({self._where(kind)})"
            for kind, said in TOLD.items()
            if kind in self.counts
        ]

    def _where(self, kind: str) -> str:
        first = self.places[kind][0]
        return first if self.counts[kind] == 1 else f"first: {first}"
