"""A frame: one encoded image of a drive, where it stands, and what is known to be in it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.boxes import Boxes

Image = NDArray[np.uint8]
"""[height, width, 3] uint8 RGB."""


@dataclass(frozen=True, eq=False)
class Truth:
    """Labelled objects of one frame, columns of equal length [n].

    Attributes:
        boxes_xyxy: [n, 4] float32, pixels.
        class_ids: [n] int32, ids of the data's label map.
        class_texts: n names; "" where the record has none.
        difficult, is_crowd, group_of: [n] bool.
        masks_png: n PNGs of the whole frame, one channel, non-zero inside; b"" where there is none.
        areas_px: [n] float32 object areas in px², or None where the source does not say.
        weights: [n] float32 loss weights, or None where the source does not say.
        truncated: [n] float32 share of the object outside the image, 1 where the source says no
            more than that; None where it does not say.
        occluded: [n] int32 how much of it is hidden, 0 not at all (KITTI's levels up to 3, else 1);
            None where the source does not say.
    """

    boxes_xyxy: Boxes
    class_ids: NDArray[np.int32]
    class_texts: tuple[str, ...]
    difficult: NDArray[np.bool_]
    is_crowd: NDArray[np.bool_]
    group_of: NDArray[np.bool_]
    masks_png: tuple[bytes, ...]
    areas_px: NDArray[np.float32] | None = None
    weights: NDArray[np.float32] | None = None
    truncated: NDArray[np.float32] | None = None
    occluded: NDArray[np.int32] | None = None

    def __post_init__(self) -> None:
        n = len(self.class_ids)
        lengths = [
            len(column)
            for column in (
                self.boxes_xyxy,
                self.class_texts,
                self.difficult,
                self.is_crowd,
                self.group_of,
                self.masks_png,
            )
        ]
        optional = (self.areas_px, self.weights, self.truncated, self.occluded)
        lengths += [len(column) for column in optional if column is not None]
        if set(lengths) != {n} or self.boxes_xyxy.shape != (n, 4):
            raise ValueError(f"columns of different length: {n} class ids against {lengths}")

    def __len__(self) -> int:
        return len(self.class_ids)

    @classmethod
    def of(
        cls,
        boxes_xyxy: object,
        class_ids: object,
        class_texts: tuple[str, ...] | None = None,
        *,
        difficult: object = None,
        is_crowd: object = None,
        group_of: object = None,
        masks_png: tuple[bytes, ...] | None = None,
        areas_px: object = None,
        weights: object = None,
        truncated: object = None,
        occluded: object = None,
    ) -> Truth:
        """Make from anything array-like; absent columns are empty names, False, no mask.

        Raises:
            ValueError: columns of different length.
        """
        ids = np.asarray(class_ids, np.int32).reshape(-1)
        n = len(ids)

        def flags(column: object) -> NDArray[np.bool_]:
            return np.zeros(n, bool) if column is None else np.asarray(column, bool).reshape(-1)

        def numbers(column: object) -> NDArray[np.float32] | None:
            return None if column is None else np.asarray(column, np.float32).reshape(-1)

        return cls(
            np.ascontiguousarray(np.asarray(boxes_xyxy, np.float32).reshape(-1, 4)),
            ids,
            ("",) * n if class_texts is None else class_texts,
            flags(difficult),
            flags(is_crowd),
            flags(group_of),
            (b"",) * n if masks_png is None else masks_png,
            numbers(areas_px),
            numbers(weights),
            numbers(truncated),
            None if occluded is None else np.asarray(occluded, np.int32).reshape(-1),
        )

    def keep(self, mask: NDArray[np.bool_]) -> Truth:
        """Those where `mask` [n] is true."""
        rows = np.flatnonzero(mask)
        return Truth(
            self.boxes_xyxy[rows],
            self.class_ids[rows],
            tuple(self.class_texts[row] for row in rows),
            self.difficult[rows],
            self.is_crowd[rows],
            self.group_of[rows],
            tuple(self.masks_png[row] for row in rows),
            None if self.areas_px is None else self.areas_px[rows],
            None if self.weights is None else self.weights[rows],
            None if self.truncated is None else self.truncated[rows],
            None if self.occluded is None else self.occluded[rows],
        )

    def with_ids(self, class_ids: NDArray[np.int32]) -> Truth:
        """The same boxes with other class ids, [n]."""
        return replace(self, class_ids=class_ids)

    @classmethod
    def empty(cls) -> Truth:
        """A frame known to hold nothing."""
        return cls.of([], [])


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame as it is stored: the image stays encoded until an actor decodes it.

    Attributes:
        frame_key: names the frame for people and results; unique within its file.
        segment: the drive it belongs to.
        encoded: image bytes in `format`.
        format: "jpeg", "png", "bmp", "gif", "webp", "tiff", or "raw" (uint8 RGB rows, size_wh
            needed).
        size_wh: width, height in pixels; None where the record does not say.
        truth: labels; None where the source carries none (an image folder, a video).
        file_name: the image's file in the data it came from, with folder and ending; "" where it
            has none.
        camera: which camera of the drive; "" where nobody says.
        timestamp_us: when it was taken, in microseconds, of a video from its start; None where
            nobody says.
        orientation: EXIF orientation, 1 to 8, that the decoded pixels are turned by; 1 leaves them
            as they are encoded, as a record's are.
    """

    frame_key: str
    segment: str
    encoded: bytes
    format: str
    size_wh: tuple[int, int] | None = None
    truth: Truth | None = None
    file_name: str = ""
    camera: str = ""
    timestamp_us: int | None = None
    orientation: int = 1
