"""Textures of a drive, made once from its seed: facades, tree crowns, asphalt, clouds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.frames import Image
from urbandet_ray.streets.canvas import Rgb
from urbandet_ray.streets.moods import Mood

FACADE_PX_PER_M = 24
STOREY_M, BAY_M = 3.3, 2.6
GROUND_TILE_M = 18.0
SHADE = 0.72
"""Part of the ambient light that an upright wall gets."""

_WALLS = (
    (196, 178, 150), (164, 96, 76), (206, 200, 188), (142, 132, 122), (178, 150, 120),
    (120, 84, 70), (224, 214, 192), (150, 164, 172), (188, 168, 178), (116, 122, 128),
    (214, 190, 140), (168, 184, 164),
)  # fmt: skip
_AWNINGS = ((150, 40, 40), (40, 84, 62), (40, 60, 110), (190, 150, 60), (90, 90, 92), (196, 96, 50))


@dataclass(frozen=True, eq=False)
class Sprite:
    """A flat picture with a hard mask."""

    image: Image
    mask: NDArray[np.uint8]


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, int], cells: int
) -> NDArray[np.float32]:
    """Tiling noise of several octaves, [h, w] about 0 with standard deviation 1."""
    import cv2

    total = np.zeros(shape, np.float32)
    weight, size = 1.0, cells
    while size <= min(shape):
        grid = rng.standard_normal((size, size)).astype(np.float32)
        grid = np.pad(grid, 2, mode="wrap")
        step_y, step_x = shape[0] / size, shape[1] / size
        wide = (round(shape[1] + 4 * step_x), round(shape[0] + 4 * step_y))
        big = cv2.resize(grid, wide, interpolation=cv2.INTER_CUBIC)
        top, left = round(2 * step_y), round(2 * step_x)
        total += weight * big[top : top + shape[0], left : left + shape[1]]
        weight, size = weight * 0.6, size * 2
    return np.asarray((total - total.mean()) / total.std(), np.float32)


@lru_cache(maxsize=6)
def ground_tile(seed: int) -> NDArray[np.uint8]:
    """Asphalt's brightness over GROUND_TILE_M squared, 128 is plain: [512, 512]."""
    import cv2

    rng = np.random.default_rng([seed, 31])
    tile = 128 + 5 * smooth_noise(rng, (512, 512), 4) + 6 * rng.standard_normal((512, 512))
    tile = tile.astype(np.float32)
    for _ in range(5):
        x, y = rng.integers(0, 440, 2)
        w, h = rng.integers(30, 130, 2)
        tile[y : y + h, x : x + w] += rng.uniform(-9, 5)
    for _ in range(9):
        walk = np.cumsum(rng.normal(0, 1, (26, 2)) * 5 + rng.normal(0, 4, 2), axis=0)
        points = np.round(walk + rng.uniform(60, 450, 2)).astype(np.int32)
        cv2.polylines(tile, [points], False, (float(rng.uniform(88, 108)),), 1, cv2.LINE_AA)
    return np.clip(tile, 40, 220).astype(np.uint8)


@lru_cache(maxsize=6)
def cloud_sky(seed: int, size_wh: tuple[int, int], cover: float) -> NDArray[np.float32]:
    """How much cloud covers the sky, [h, w] in 0..1, thinner and flatter at the horizon."""
    import cv2

    rng = np.random.default_rng([seed, 33])
    noise = smooth_noise(rng, (256, 256), 3)
    width, height = size_wh
    down = np.linspace(1.0, 0.06, height, dtype=np.float32)[:, None]
    across = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    map_x = np.asarray(128 + 90 * across / (0.35 + down), np.float32)
    map_y = np.asarray(120 / (0.35 + down) * np.ones_like(across), np.float32)
    seen = cv2.remap(noise, map_x, map_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_WRAP)
    return np.asarray(np.clip((seen + (cover - 0.5) * 3.2) * 0.7, 0, 1), np.float32)


@lru_cache(maxsize=64)
def tree_sprite(variant: int) -> Sprite:
    """A crown on a trunk, unlit, [256, 192]; its foot is the middle of the lower edge."""
    import cv2

    rng = np.random.default_rng([37, variant])
    image, mask = np.zeros((256, 192, 3), np.uint8), np.zeros((256, 192), np.uint8)
    bark = (74.0, 60.0, 48.0)
    for points in ([(96, 255), (95, 120)], [(95, 150), (60, 90)], [(95, 140), (132, 84)]):
        wide = 7 if points[0][1] == 255 else 4
        cv2.line(image, points[0], points[1], bark, wide)
        cv2.line(mask, points[0], points[1], 255, wide)
    leaf = np.array([[74, 98, 44], [58, 84, 48], [96, 108, 52], [134, 112, 52]][rng.integers(4)])
    slim = rng.uniform(0.62, 1.0)
    clumps = []
    for _ in range(420):
        angle, radius = rng.uniform(0, 6.283), np.sqrt(rng.random())
        x, y = 96 + 80 * slim * radius * np.cos(angle), 86 + 72 * radius * np.sin(angle)
        clumps.append((y + 0.35 * abs(x - 96), x, y))
    for _, x, y in sorted(clumps, reverse=True):
        up = np.clip((150 - y) / 130 + 0.25 * (96 - x) / 80, 0, 1)
        tone = leaf * (0.45 + 0.75 * up) * rng.uniform(0.82, 1.16)
        size = (int(rng.integers(3, 10)), int(rng.integers(2, 6)))
        at, turn = (int(x), int(y)), float(rng.uniform(0, 180))
        cv2.ellipse(image, at, size, turn, 0, 360, np.clip(tone, 0, 255).tolist(), -1)
        cv2.ellipse(mask, at, size, turn, 0, 360, 255, -1)
    speckle = rng.normal(0, 14, (256, 192, 1))
    image = np.clip(image + speckle * (mask > 0)[..., None], 0, 255).astype(np.uint8)
    return Sprite(image, mask)


def facade_texture(seed: int, variant: int, size_m: tuple[float, float], mood: Mood) -> Image:
    """The front of a house in the shade, `size_m` long and high; row 0 is the eaves."""
    rng = np.random.default_rng([seed, 41, variant])
    scale = FACADE_PX_PER_M
    width, height = max(int(size_m[0] * scale), 16), max(int(size_m[1] * scale), 16)
    wall = np.array(_WALLS[rng.integers(len(_WALLS))]) * rng.uniform(0.82, 1.08, 3)
    wall = np.clip(wall, 20, 245)
    image = np.empty((height, width, 3), np.float32)
    shade = SHADE * mood.ambient
    image[:] = wall * shade
    _weather(image, rng)
    bays = max(int(size_m[0] / (BAY_M * rng.uniform(0.8, 1.3))), 1)
    storeys = max(int(size_m[1] / STOREY_M), 1)
    style = _window_style(rng, wall, shade)
    shop = rng.random() < 0.6
    for storey in range(storeys):
        y1 = height - int(storey * STOREY_M * scale)
        y0 = max(y1 - int(STOREY_M * scale), 4)
        if storey == 0 and shop:
            _shop_front(image, (y0, y1), rng, mood)
            continue
        for bay in range(bays):
            x0, x1 = int(bay * width / bays), int((bay + 1) * width / bays)
            _window(image, (x0, y0, x1, y1), style, rng, mood)
        if style.band and storey:
            image[y1 - 4 : y1, :] *= 1.12
            image[y1 : y1 + 3, :] *= 0.72
    image[:5] = wall * shade * 1.12
    image[5:9] *= 0.66
    return np.clip(image, 0, 255).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class _WindowStyle:
    wide: float
    tall: float
    frame: Rgb
    band: bool
    sill: bool


def _window_style(rng: np.random.Generator, wall: Rgb, shade: Rgb) -> _WindowStyle:
    frame = wall * 1.15 if rng.random() < 0.5 else np.array([60.0, 60, 64])
    if rng.random() < 0.3:
        frame = np.array([236.0, 234, 228])
    return _WindowStyle(
        rng.uniform(0.4, 0.82), rng.uniform(0.45, 0.7), np.minimum(frame, 250) * shade,
        bool(rng.random() < 0.5), bool(rng.random() < 0.6),
    )  # fmt: skip


@lru_cache(maxsize=1)
def _stains() -> NDArray[np.float32]:
    rng = np.random.default_rng(43)
    stains = 1 + 0.035 * smooth_noise(rng, (1024, 1024), 8) + rng.normal(0, 0.02, (1024, 1024))
    return stains.astype(np.float32)[..., None]


def _weather(image: NDArray[np.float32], rng: np.random.Generator) -> None:
    height, width = image.shape[:2]
    y, x = rng.integers(0, 1024 - min(height, 1023)), rng.integers(0, 1024 - min(width, 1023))
    part = _stains()[y : y + height, x : x + width]
    image[: part.shape[0], : part.shape[1]] *= part
    image *= np.linspace(1.04, 0.9, height, dtype=np.float32)[:, None, None]
    if rng.random() < 0.5:
        image[::5] *= 0.93


def _window(
    image: NDArray[np.float32], cell: tuple[int, int, int, int], style: _WindowStyle,
    rng: np.random.Generator, mood: Mood,
) -> None:  # fmt: skip
    x0, y0, x1, y1 = cell
    half_w, half_h = (x1 - x0) * style.wide / 2, (y1 - y0) * style.tall / 2
    cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
    left, right, top, low = int(cx - half_w), int(cx + half_w), int(cy - half_h), int(cy + half_h)
    if right - left < 6 or low - top < 8:
        return
    image[top - 3 : low + 3, left - 3 : right + 3] = style.frame
    pane = image[top:low, left:right]
    lit = mood.lamps_on and rng.random() < 0.42
    if lit:
        pane[:] = np.array([255.0, 198, 112]) * rng.uniform(0.6, 1.0)
    else:
        fall = np.linspace(0.55, 0.12, low - top, dtype=np.float32)[:, None, None]
        glass = np.array([44.0, 52, 60]) * rng.uniform(0.7, 1.2)
        pane[:] = glass * (1 - fall) + mood.sky_low * fall * 0.8
    if rng.random() < 0.35:
        drop = int((low - top) * rng.uniform(0.2, 0.7))
        pane[:drop] = pane[:drop] * 0.4 + np.array([200.0, 194, 182]) * 0.5
    middle = (right - left) // 2
    pane[:, middle - 1 : middle + 1] = style.frame
    if style.sill:
        image[low + 3 : low + 6, left - 5 : right + 5] *= 1.1
        image[low + 6 : low + 10, left - 5 : right + 5] *= 0.75
    image[top : top + 3, left:right] *= 0.6


def _shop_front(
    image: NDArray[np.float32], rows: tuple[int, int], rng: np.random.Generator, mood: Mood
) -> None:
    y0, y1 = rows
    width = image.shape[1]
    x, tall = 0, y1 - y0
    while x < width - 40:
        span = min(int(rng.uniform(4, 8) * FACADE_PX_PER_M), width - x)
        right = x + span - 6
        colour = np.array(_AWNINGS[rng.integers(len(_AWNINGS))]) * rng.uniform(0.8, 1.2, 3)
        colour *= SHADE * mood.ambient * (1.5 if mood.lamps_on else 1.0)
        image[y0:y1, x : x + span] *= 0.8
        glass = image[y0 + tall // 3 : y1 - 8, x + 6 : right]
        lit = mood.lamps_on or rng.random() < 0.2
        glass[:] = np.array([236.0, 200, 150]) if lit else np.array([44.0, 48, 52])
        for _ in range(int(rng.integers(3, 9))):
            at = int(rng.integers(0, max(glass.shape[1] - 8, 1)))
            blob = glass[int(tall * rng.uniform(0.1, 0.5)) :, at : at + int(rng.integers(4, 20))]
            blob[:] = blob * 0.5 + rng.uniform(20, 170, 3) * 0.5
        door = x + 6 + int(rng.integers(0, max(span - 40, 1)))
        image[y0 + tall // 3 : y1 - 2, door : door + 22] = colour * 0.5
        sign = image[y0 + 6 : y0 + tall // 3 - 2, x + 4 : right + 2]
        sign[:] = colour
        ink = 235.0 if colour.mean() < 130 else 40.0
        start = int(sign.shape[1] * 0.2)
        for at in range(start, int(sign.shape[1] * 0.8), 7):
            if rng.random() < 0.85:
                sign[5 : max(sign.shape[0] - 5, 6), at : at + int(rng.integers(2, 6))] = ink
        x += span
