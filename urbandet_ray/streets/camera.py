"""A pinhole camera on a car: world metres (x right, y up, z along the street) to canvas pixels.

The world is a straight street. A bend is put in here, as a sideways shift that grows with the
square of the distance, so that scene and traffic need to know nothing of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
"""[n, 3] metres, or [n, 2] pixels once projected."""

NEAR_M = 0.7
"""Nothing nearer than this is drawn."""


@dataclass(frozen=True)
class Camera:
    """Where the camera is in one frame.

    Attributes:
        size_wh: the canvas, pixels.
        focal_px: focal length; pixels are square.
        horizon_px: canvas row of the horizon; pitch is a shift of it.
        x, y, z: position in the street, metres.
        yaw: radians, positive to the right.
        bend: sideways metres per squared metre of distance.
    """

    size_wh: tuple[int, int]
    focal_px: float
    horizon_px: float
    x: float
    y: float
    z: float
    yaw: float
    bend: float

    def to_camera(self, world: Points) -> Points:
        """[n, 3] world metres to [n, 3] metres right of, above and ahead of the camera."""
        dz = world[:, 2] - self.z
        dx = world[:, 0] - self.x + self.bend * np.square(np.maximum(dz, 0))
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        seen = np.empty(world.shape)
        seen[:, 0] = dx * cos - dz * sin
        seen[:, 1] = world[:, 1] - self.y
        seen[:, 2] = dx * sin + dz * cos
        return seen

    def to_pixels(self, seen: Points) -> Points:
        """[n, 3] camera metres, all ahead of the camera, to [n, 2] canvas pixels."""
        scale = self.focal_px / seen[:, 2]
        pixels = np.empty((len(seen), 2))
        pixels[:, 0] = self.size_wh[0] / 2 + seen[:, 0] * scale
        pixels[:, 1] = self.horizon_px - seen[:, 1] * scale
        return pixels

    def polygon(self, world: Points) -> Points | None:
        """Project a polygon, cut where it passes the camera; None where nothing is left."""
        seen = clip_near(self.to_camera(world))
        return self.to_pixels(seen) if len(seen) >= 3 else None

    def pixels_per_metre(self, z: float) -> float:
        """Scale at a street position ahead of the camera."""
        return self.focal_px / max(z - self.z, NEAR_M)


def clip_near(seen: Points) -> Points:
    """Cut a polygon [n, 3] of camera metres at the near plane (Sutherland-Hodgman)."""
    inside = seen[:, 2] >= NEAR_M
    if inside.all():
        return seen
    if not inside.any():
        return seen[:0]
    kept: list[Points] = []
    for index in range(len(seen)):
        here, there = seen[index], seen[(index + 1) % len(seen)]
        if inside[index]:
            kept.append(here)
        if inside[index] != inside[(index + 1) % len(seen)]:
            part = (NEAR_M - here[2]) / (there[2] - here[2])
            kept.append(here + part * (there - here))
    return np.array(kept)
