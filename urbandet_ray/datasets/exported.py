"""What an export writes for one image, and what every format's writer does with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from urbandet_ray.datasets.annotated import LabelledBox
from urbandet_ray.datasets.oddities import Tally
from urbandet_ray.labels import LabelMap

IMAGES = "images"
"""The folder of the images in an export."""


@dataclass(frozen=True, eq=False)
class ExportedImage:
    """One image on its way into a dataset.

    Attributes:
        name: its file below the folder of the images, with the part's folder.
        size_wh: in pixels.
        boxes: labels, or predictions where they have scores; corners in pixels.
        labelled: False where nobody says what is in it.
        part: train, val or test; "" where there are no parts.
        drive, camera, timestamp_us: as in a Frame; the segment is the drive.
    """

    name: str
    size_wh: tuple[int, int]
    boxes: tuple[LabelledBox, ...]
    labelled: bool
    part: str = ""
    drive: str = ""
    camera: str = ""
    timestamp_us: int | None = None

    @property
    def place(self) -> dict[str, Any]:
        """Drive, camera and time, those that are known, under the names that imports read."""
        known = {
            "segment": self.drive,
            "camera": self.camera,
            "timestamp_us": self.timestamp_us,
        }
        return {key: value for key, value in known.items() if value not in ("", None)}


@dataclass
class ExportDesk:
    """What a writer works with.

    Attributes:
        labels: the classes.
        write: writes a file by its path in the export.
        tally: counts what the format has no place for.
    """

    labels: LabelMap
    write: Callable[[str, bytes], None]
    tally: Tally = field(default_factory=Tally)


class DatasetWriter(Protocol):
    """Takes images one by one; `finish` writes the files that hold all of them.

    Attributes:
        takes_unlabelled: an image that nobody labelled is told from one that holds nothing.
    """

    takes_unlabelled: bool

    def add(self, image: ExportedImage) -> None:
        """Take the labels of an image, whose file is written already."""
        ...

    def finish(self) -> None:
        """Write what stands for the whole set, last."""
        ...


def flags_of(box: LabelledBox) -> dict[str, float]:
    """The flags of a box that are set, by name."""
    values = {
        "difficult": int(box.difficult),
        "crowd": int(box.crowd),
        "truncated": box.truncated,
        "occluded": box.occluded,
    }
    return {name: value for name, value in values.items() if value}
