"""What a dataset says of its images: the values that every format is read into."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from urbandet_ray.datasets.oddities import Tally
from urbandet_ray.storage import Storage

Corners = tuple[float, float, float, float]
"""x0, y0, x1, y1 in double precision, as formats state them."""


@dataclass(frozen=True, slots=True)
class LabelledBox:
    """One object of an image, as its dataset states it, not checked yet.

    Attributes:
        class_name: the dataset's name for its class.
        xyxy: its corners; in pixels, or in shares of the image (AnnotatedImage.normalised).
        difficult, crowd: as Pascal VOC's and COCO's flags.
        truncated: share outside the image, 1 for a plain flag; None where the format has none.
        occluded: how much is hidden, 0 not at all; None where the format has none.
        area_px: of the object itself, not of its box; None where the format has none.
        score: of a prediction; None for a label.
    """

    class_name: str
    xyxy: Corners
    difficult: bool = False
    crowd: bool = False
    truncated: float | None = None
    occluded: int | None = None
    area_px: float | None = None
    score: float | None = None


class Within(Protocol):
    """Where an image lies within one of the dataset's own files."""

    def read(self, storage: Storage) -> bytes:
        """The image's bytes."""
        ...


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """One image of a dataset and its labels; no box means that nothing is in it.

    Attributes:
        name: its file in the dataset, with folder and ending; unique there.
        uri: where the file is, or the file that it lies within.
        boxes: its objects.
        size_wh: as the dataset states it, in pixels; None where it does not.
        normalised: corners are shares of the image's width and height.
        drive: what must never be in two parts, such as a video; "" where nobody says.
        split: "train", "val" or "test" as the dataset has it; "" where it does not say.
        camera, timestamp_us: as in a Frame.
        within: its place in the file at `uri`; None where that file is the image.
    """

    name: str
    uri: str
    boxes: tuple[LabelledBox, ...]
    size_wh: tuple[int, int] | None = None
    normalised: bool = False
    drive: str = ""
    split: str = ""
    camera: str = ""
    timestamp_us: int | None = None
    within: Within | None = None


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset that was recognised and read.

    Attributes:
        kind: its format, as people call it.
        uri: where it is.
        evidence: the file that told the format.
        images: all annotated images, in the dataset's order; may be gone through several times.
        class_ids: the dataset's classes and their ids from 1, by name.
        tally: what was odd in it.
        version: changes when a file of it does.
    """

    kind: str
    uri: str
    evidence: str
    images: Iterable[AnnotatedImage]
    class_ids: Mapping[str, int]
    tally: Tally = field(default_factory=Tally)
    version: str = ""


def numbered(names: Iterable[str]) -> dict[str, int]:
    """Ids from 1 in the order given; a name that comes again keeps its first id."""
    ids: dict[str, int] = {}
    for name in names:
        ids.setdefault(name, len(ids) + 1)
    return ids
