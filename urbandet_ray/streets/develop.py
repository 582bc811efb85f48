"""From canvas to photograph: shrinking, lamp glow, lens and sensor, each a little per drive."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.frames import Image
from urbandet_ray.streets.canvas import OVERSAMPLING
from urbandet_ray.streets.moods import Mood
from urbandet_ray.streets.stage import Glow


@dataclass(frozen=True)
class Film:
    """Camera habits of one drive: colour gains, exposure, contrast, sharpness, vignette."""

    gains: tuple[float, float, float]
    gamma: float
    contrast: float
    blur: float
    vignette: float


def draw_film(rng: np.random.Generator) -> Film:
    """The camera of a drive."""
    red, green, blue = rng.uniform(0.95, 1.05, 3) * rng.uniform(0.93, 1.07)
    return Film(
        (float(red), float(green), float(blue)), float(rng.uniform(0.9, 1.12)),
        float(rng.uniform(0.95, 1.12)), float(rng.uniform(0.35, 0.75)),
        float(rng.uniform(0.06, 0.22)),
    )  # fmt: skip


def develop(
    canvas: Image, glows: list[Glow], film: Film, mood: Mood, frame_seed: tuple[int, int]
) -> Image:
    """The canvas as the camera would have delivered it, at frame size."""
    import cv2

    size = (canvas.shape[1] // OVERSAMPLING, canvas.shape[0] // OVERSAMPLING)
    image = np.asarray(cv2.resize(canvas, size, interpolation=cv2.INTER_AREA), np.uint8)
    if glows:
        cv2.add(image, _glow_layer(size, glows), image)
    soft = cv2.LUT(cv2.GaussianBlur(image, (3, 3), film.blur), _curve(film))
    shaded = cv2.multiply(soft, _vignette(size, film.vignette), scale=1 / 255)
    noise = _noise(mood.noise)
    rng = np.random.default_rng([*frame_seed, 61])
    rows, columns = rng.integers(0, noise.shape[0], 2)
    rolled = np.roll(noise, (int(rows), int(columns)), axis=(0, 1))
    repeat = (-(-size[1] // noise.shape[0]), -(-size[0] // noise.shape[1]), 1)
    grain = np.tile(rolled, repeat)[: size[1], : size[0]]
    return np.asarray(cv2.add(shaded, np.ascontiguousarray(grain), dtype=cv2.CV_8U), np.uint8)


def _glow_layer(size_wh: tuple[int, int], glows: list[Glow]) -> Image:
    import cv2

    quarter = (max(size_wh[0] // 2, 1), max(size_wh[1] // 2, 1))
    layer: Image = np.zeros((quarter[1], quarter[0], 3), np.uint8)
    for glow in glows:
        at = glow.pixel / (2 * OVERSAMPLING)
        if not (np.abs(at) < 20_000).all():
            continue
        reach = min(max(glow.radius_px / (2 * OVERSAMPLING), 1.0), 0.03 * quarter[0])
        tone = (glow.rgb * 0.6).tolist()
        cv2.circle(layer, (int(at[0]), int(at[1])), round(reach), tone, -1, cv2.LINE_AA)
    near = cv2.GaussianBlur(layer, (0, 0), 0.006 * quarter[0] + 0.5)
    far = cv2.GaussianBlur(layer, (0, 0), 0.014 * quarter[0] + 0.5)
    return np.asarray(cv2.resize(cv2.add(near, far), size_wh, interpolation=cv2.INTER_LINEAR))


@lru_cache(maxsize=16)
def _curve(film: Film) -> NDArray[np.uint8]:
    x = np.arange(256)[:, None] / 255 * np.array(film.gains)
    x = np.clip(x, 0, 1) ** film.gamma
    x = np.clip(0.5 + (x - 0.5) * film.contrast, 0, 1)
    return np.asarray(np.round(x * 247 + 4), np.uint8)[None]


@lru_cache(maxsize=4)
def _vignette(size_wh: tuple[int, int], strength: float) -> NDArray[np.uint8]:
    x = np.linspace(-1, 1, size_wh[0])[None]
    y = np.linspace(-1, 1, size_wh[1])[:, None]
    fall = 255 * (1 - strength * (x**2 + y**2) ** 1.3 / 2)
    return np.repeat(np.clip(fall, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


@lru_cache(maxsize=4)
def _noise(sigma: float) -> NDArray[np.int16]:
    import cv2

    rng = np.random.default_rng(67)
    grain = rng.standard_normal((256, 256, 3)) * 0.6 + rng.standard_normal((256, 256, 1)) * 0.8
    return np.asarray(np.round(cv2.GaussianBlur(grain, (3, 3), 0.5) * 1.3 * sigma), np.int16)
