"""The canvas: colours and, pixel for pixel, which object is seen there.

It is drawn at twice the frame's size without antialiasing, so that colours and ids agree exactly,
and shrunk at the end, which antialiases.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.frames import Image
from urbandet_ray.streets.camera import Points

OVERSAMPLING = 2
_SHIFT = 3
_FAR_PX = 60_000.0

Rgb = NDArray[np.float64]
"""[3] red, green, blue in 0..255."""


@dataclass(frozen=True, eq=False)
class Canvas:
    """What is being drawn.

    Attributes:
        image: [h, w, 3] uint8 RGB.
        ids: [h, w] uint16; 0 is scenery.
    """

    image: Image
    ids: NDArray[np.uint16]

    @classmethod
    def blank(cls, size_wh: tuple[int, int]) -> Canvas:
        """A black canvas for a frame of `size_wh`."""
        shape = (size_wh[1] * OVERSAMPLING, size_wh[0] * OVERSAMPLING)
        return cls(np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.uint16))

    def fill(self, pixels: Points | None, rgb: Rgb, ident: int | None = None) -> None:
        """Fill a polygon [n, 2]; `ident` None leaves the ids, for what lies on an object."""
        import cv2

        if pixels is None or len(pixels) < 3:
            return
        corners = fixed_point(pixels)
        cv2.fillPoly(self.image, [corners], tuple(rgb), cv2.LINE_8, _SHIFT)
        if ident is not None:
            cv2.fillPoly(self.ids, [corners], (ident,), cv2.LINE_8, _SHIFT)

    def stroke(
        self, pixels: Points, rgb: Rgb, width_px: float, ident: int | None, closed: bool = False
    ) -> None:
        """Draw a line through [n, 2] points with round ends."""
        import cv2

        corners, width = fixed_point(pixels), max(round(width_px), 1)
        cv2.polylines(self.image, [corners], closed, tuple(rgb), width, cv2.LINE_8, _SHIFT)
        if ident is not None:
            cv2.polylines(self.ids, [corners], closed, (ident,), width, cv2.LINE_8, _SHIFT)

    def disc(self, centre: Points, radius_px: float, rgb: Rgb, ident: int | None) -> None:
        """Fill a circle around a point [2]."""
        import cv2

        at = tuple(int(value) for value in fixed_point(centre))
        radius = max(round(radius_px * (1 << _SHIFT)), 1 << _SHIFT)
        cv2.circle(self.image, at, radius, tuple(rgb), -1, cv2.LINE_8, _SHIFT)
        if ident is not None:
            cv2.circle(self.ids, at, radius, (ident,), -1, cv2.LINE_8, _SHIFT)

    def paste(self, sprite: Image, mask: NDArray[np.uint8], corner_xy: tuple[int, int]) -> None:
        """Copy a sprite where its mask [h, w] is set, as scenery, cut at the canvas."""
        import cv2

        x, y = corner_xy
        height, width = self.ids.shape
        x0, y0 = max(x, 0), max(y, 0)
        x1, y1 = min(x + mask.shape[1], width), min(y + mask.shape[0], height)
        if x0 >= x1 or y0 >= y1:
            return
        part = (slice(y0 - y, y1 - y), slice(x0 - x, x1 - x))
        area = (slice(y0, y1), slice(x0, x1))
        cv2.copyTo(sprite[part], mask[part], self.image[area])
        self.ids[area][mask[part] > 0] = 0


def fixed_point(pixels: Points) -> NDArray[np.int32]:
    """Pixels as OpenCV's fixed-point coordinates; pixel centres lie at whole numbers there."""
    kept = np.minimum(np.maximum(pixels, -_FAR_PX), _FAR_PX)
    return np.rint((kept - 0.5) * (1 << _SHIFT)).astype(np.int32)
