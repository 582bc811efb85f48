"""What every painter of a frame needs at hand: canvas, camera, light, and the lamps that glow."""

from __future__ import annotations

from dataclasses import dataclass, field

from urbandet_ray.streets.camera import Camera, Points
from urbandet_ray.streets.canvas import Canvas, Rgb
from urbandet_ray.streets.moods import Mood


@dataclass(frozen=True)
class Glow:
    """One lit lamp: canvas pixel [2], radius in canvas pixels, colour."""

    pixel: Points
    radius_px: float
    rgb: Rgb


@dataclass(frozen=True, eq=False)
class Stage:
    """One frame being painted."""

    canvas: Canvas
    camera: Camera
    mood: Mood
    glows: list[Glow] = field(default_factory=list)

    def glow(self, pixel: Points, radius_px: float, rgb: Rgb) -> None:
        """Remember a lit lamp; its glow is added when the frame is developed."""
        self.glows.append(Glow(pixel, radius_px, rgb))
