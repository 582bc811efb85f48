"""Moods: time of day and weather of a drive, and how they colour a surface."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from urbandet_ray.streets.camera import Points
from urbandet_ray.streets.canvas import Rgb


@dataclass(frozen=True, eq=False)
class Mood:
    """Light of one drive; colours are RGB 0..255, lights factors.

    Attributes:
        sky_top, sky_low: sky overhead and at the horizon; the haze has the colour of the latter.
        cloud, cloud_cover: colour of clouds and how much of the sky they take, 0..1.
        haze_m: distance at which haze takes 63 % of a colour.
        sun: [3] unit vector to the sun.
        sun_light, ambient: [3] factors on a surface's colour.
        shadow: how dark cast shadows are, 0..1.
        lamps_on: head lamps, street lamps and windows are lit.
        noise: standard deviation of the sensor noise, grey levels.
    """

    sky_top: Rgb
    sky_low: Rgb
    cloud: Rgb
    cloud_cover: float
    haze_m: float
    sun: Points
    sun_light: Points
    ambient: Points
    shadow: float
    lamps_on: bool
    noise: float

    def lit(self, rgb: Points, normals: Points) -> Points:
        """Colours [n, 3] of surfaces with world normals [n, 3]."""
        direct = np.maximum(normals @ self.sun, 0)[:, None] * self.sun_light
        sky = (0.72 + 0.28 * normals[:, 1:2]) * self.ambient
        return np.minimum(rgb * (direct + sky), 255)

    def hazed(self, rgb: Points, distance_m: float) -> Points:
        """Colours as they arrive over a distance."""
        share = self.haze_share(distance_m)
        return rgb * (1 - share) + self.sky_low * share

    def haze_share(self, distance_m: float) -> float:
        """Part of a colour that haze has taken, 0..1."""
        return float(1 - np.exp(-max(distance_m, 0) / self.haze_m))


def _rgb(red: float, green: float, blue: float) -> Rgb:
    return np.array([red, green, blue], np.float64)


_MOODS = {
    "noon": Mood(
        _rgb(62, 118, 190), _rgb(186, 208, 228), _rgb(246, 248, 250), 0.35, 900,
        _rgb(0.5, 0.8, 0.2), _rgb(0.62, 0.59, 0.53), _rgb(0.58, 0.61, 0.66), 0.5, False, 2.0,
    ),
    "overcast": Mood(
        _rgb(150, 160, 172), _rgb(206, 211, 215), _rgb(226, 229, 232), 0.8, 420,
        _rgb(0.1, 0.98, 0.1), _rgb(0.14, 0.14, 0.14), _rgb(0.83, 0.85, 0.88), 0.22, False, 2.6,
    ),
    "hazy": Mood(
        _rgb(158, 180, 196), _rgb(218, 216, 204), _rgb(232, 230, 222), 0.5, 170,
        _rgb(-0.4, 0.75, 0.5), _rgb(0.38, 0.36, 0.31), _rgb(0.68, 0.68, 0.67), 0.32, False, 2.4,
    ),
    "dusk": Mood(
        _rgb(44, 58, 100), _rgb(214, 146, 108), _rgb(190, 118, 112), 0.45, 420,
        _rgb(0.75, 0.3, 0.55), _rgb(0.30, 0.21, 0.15), _rgb(0.52, 0.50, 0.56), 0.25, True, 3.6,
    ),
    "morning": Mood(
        _rgb(96, 146, 196), _rgb(240, 220, 186), _rgb(252, 238, 216), 0.4, 360,
        _rgb(-0.8, 0.42, 0.4), _rgb(0.68, 0.56, 0.40), _rgb(0.50, 0.54, 0.62), 0.48, False, 2.2,
    ),
}  # fmt: skip
_WEIGHTS = {"noon": 0.3, "overcast": 0.22, "hazy": 0.14, "dusk": 0.16, "morning": 0.18}


def draw_mood(rng: np.random.Generator) -> Mood:
    """A mood with its own small differences."""
    name = rng.choice(list(_WEIGHTS), p=list(_WEIGHTS.values()))
    mood = _MOODS[str(name)]
    sun = mood.sun * np.array([rng.choice([-1.0, 1.0]), rng.uniform(0.8, 1.2), rng.uniform(-1, 1)])
    tint = rng.uniform(0.975, 1.025, 3)
    return replace(
        mood,
        sky_top=np.minimum(mood.sky_top * rng.uniform(0.88, 1.1) * tint, 255),
        sky_low=np.minimum(mood.sky_low * tint, 255),
        cloud_cover=float(np.clip(mood.cloud_cover + rng.uniform(-0.25, 0.2), 0.05, 1)),
        haze_m=mood.haze_m * rng.uniform(0.7, 1.4),
        sun=sun / np.linalg.norm(sun),
        sun_light=mood.sun_light * rng.uniform(0.9, 1.1),
        ambient=mood.ambient * tint * rng.uniform(0.92, 1.08),
        noise=mood.noise * rng.uniform(0.6, 1.4),
    )
