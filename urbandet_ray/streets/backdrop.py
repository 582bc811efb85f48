"""Sky, ground and markings: everything that lies behind or under the actors."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.frames import Image
from urbandet_ray.streets.camera import Camera, Points
from urbandet_ray.streets.canvas import OVERSAMPLING, Canvas, Rgb, fixed_point
from urbandet_ray.streets.layout import Block, Layout
from urbandet_ray.streets.moods import Mood
from urbandet_ray.streets.textures import (
    GROUND_TILE_M,
    cloud_sky,
    ground_tile,
    smooth_noise,
)

FAR_M = 420.0
_UP = np.array([[0.0, 1.0, 0.0]])
_STEPS = np.array([0.0, 3, 6, 10, 15, 22, 32, 46, 66, 95, 140, 210, 300, FAR_M])
_ASPHALT = np.array([112.0, 113, 117])
_PAVEMENT = np.array([158.0, 154, 147])
_KERB = np.array([182.0, 180, 174])
_PAINT = np.array([226.0, 226, 220])
_YELLOW = np.array([214.0, 168, 62])
_GRASS = np.array([104.0, 112, 66])


@lru_cache(maxsize=4)
def _sky_picture(seed: int, mood: Mood, size_wh: tuple[int, int]) -> Image:
    """Sky down to the horizon with a far skyline, at frame scale, wider than the canvas."""
    import cv2

    width, height = size_wh
    rng = np.random.default_rng([seed, 51])
    down = np.linspace(0, 1, height, dtype=np.float32)[:, None, None] ** 1.5
    sky = mood.sky_top * (1 - down) + mood.sky_low * down
    sky = np.broadcast_to(sky, (height, width, 3)).astype(np.float32)
    cloud = cloud_sky(seed, size_wh, mood.cloud_cover)[..., None] * 0.85
    shade = mood.cloud * (0.9 + 0.1 * cloud)
    sky = np.ascontiguousarray(sky * (1 - cloud) + shade * cloud, np.float32)
    for depth, tallest in ((0.84, 0.10), (0.66, 0.055)):
        tone = mood.sky_low * depth + np.array([84.0, 92, 96]) * mood.ambient * (1 - depth)
        hills = smooth_noise(rng, (8, 512), 8)[0]
        x = 0
        while x < width:
            span = int(rng.uniform(0.008, 0.035) * width) + 1
            rise = (rng.random() ** 2.5 * tallest + 0.012) * height
            rise += max(float(hills[(x * 3) % 512]), 0) * 0.012 * height
            cv2.rectangle(sky, (x, int(height - rise)), (x + span, height), tone.tolist(), -1)
            x += span
    return np.asarray(np.clip(sky, 0, 255), np.uint8)


def draw_sky(canvas: Canvas, camera: Camera, mood: Mood, seed: int) -> None:
    """Fill the canvas down to the horizon."""
    import cv2

    width, height = camera.size_wh
    horizon = int(np.clip(camera.horizon_px, 1, height))
    margin = 1.3
    size = (int(width * margin / OVERSAMPLING), int(height * 0.62 / OVERSAMPLING))
    picture = _sky_picture(seed, mood, size)
    left = width * (margin - 1) / 2 + camera.yaw * camera.focal_px
    shift = np.array(
        [[OVERSAMPLING, 0, -left], [0, OVERSAMPLING, horizon - size[1] * OVERSAMPLING]], np.float64
    )
    cv2.warpAffine(
        picture, shift, (width, horizon), canvas.image[:horizon], cv2.INTER_LINEAR,
        cv2.BORDER_REPLICATE,
    )  # fmt: skip


def _stretch(camera: Camera, x0: float, x1: float, z0: float, z1: float) -> Points | None:
    """A strip of ground along the street, following its bend."""
    if z1 - z0 < 4:
        corners = np.array([[x0, 0.0, z0], [x0, 0.0, z1], [x1, 0.0, z1], [x1, 0.0, z0]])
        return camera.polygon(corners)
    steps = np.clip(_STEPS + camera.z, z0, z1)
    z = np.unique(np.concatenate([[z0], steps, [z1]]))
    left = np.stack([np.full(len(z), x0), np.zeros(len(z)), z], axis=1)
    right = np.stack([np.full(len(z), x1), np.zeros(len(z)), z], axis=1)[::-1]
    return camera.polygon(np.concatenate([left, right]))


def _flat(mood: Mood, rgb: Rgb) -> Rgb:
    """A colour lying on the ground."""
    return np.asarray(mood.lit(rgb[None], _UP)[0])


def draw_ground(
    canvas: Canvas, camera: Camera, mood: Mood, layout: Layout, blocks: list[Block],
    shadows: list[tuple[Points, float]],
) -> None:  # fmt: skip
    """Street, pavements, markings, cast shadows, texture and haze."""
    horizon = int(np.clip(camera.horizon_px, 1, camera.size_wh[1] - 1))
    near, far = camera.z, camera.z + FAR_M
    rng = np.random.default_rng([layout.seed, 53])
    asphalt = _flat(mood, _ASPHALT * rng.uniform(0.75, 1.1) * rng.uniform(0.97, 1.03, 3))
    plot = _GRASS if layout.green > 0.4 else _PAVEMENT * 0.8
    canvas.image[horizon:] = _flat(mood, plot)
    pavement, kerb = _flat(mood, _PAVEMENT * rng.uniform(0.8, 1.05)), layout.kerb_x
    for side in (-1, 1):
        edge = side * (kerb + layout.pavement_m)
        canvas.fill(_stretch(camera, side * kerb, edge, near, far), pavement)
        canvas.fill(
            _stretch(camera, side * kerb, side * (kerb + 0.28), near, far), _flat(mood, _KERB)
        )
    _draw_joints(canvas, camera, layout, pavement * 0.86)
    canvas.fill(_stretch(camera, -kerb, kerb, near, far), asphalt)
    for side in (-1, 1):
        gutter = _stretch(camera, side * (kerb - 0.35), side * kerb, near, far)
        canvas.fill(gutter, asphalt * 0.8 + pavement * 0.1)
    for block in blocks:
        corners = np.array(
            [
                [-150.0, 0, block.corner],
                [150, 0, block.corner],
                [150, 0, block.end],
                [-150, 0, block.end],
            ]
        )
        canvas.fill(camera.polygon(corners), asphalt * 0.97)
    _draw_markings(canvas, camera, mood, layout, blocks)
    _texture(canvas, camera, mood, layout.seed, horizon, shadows)


def _draw_joints(canvas: Canvas, camera: Camera, layout: Layout, rgb: Rgb) -> None:
    first = np.ceil(camera.z / 1.5) * 1.5
    for z in np.arange(first, camera.z + 26, 1.5):
        for side in (-1, 1):
            x0, x1 = side * (layout.kerb_x + 0.28), side * (layout.kerb_x + layout.pavement_m)
            canvas.fill(_stretch(camera, x0, x1, z, z + 0.035), rgb)


def _draw_markings(
    canvas: Canvas, camera: Camera, mood: Mood, layout: Layout, blocks: list[Block]
) -> None:
    white = _flat(mood, _PAINT) * 0.93
    yellow = _flat(mood, _YELLOW) * 0.95
    for block in blocks:
        low = max(block.start + 0.5, camera.z)
        high = min(block.corner - 5.0, camera.z + 260)
        if high > low:
            for x in (-0.18, 0.18):
                canvas.fill(_stretch(camera, x - 0.06, x + 0.06, low, high), yellow)
            if layout.bike_m:
                for side in (-1, 1):
                    x = side * layout.lanes * layout.lane_m
                    canvas.fill(_stretch(camera, x - 0.06, x + 0.06, low, high), white)
            if layout.lanes > 1:
                for z in np.arange(block.start + 3, block.corner - 8, 9.0):
                    if low < z + 3 and z < camera.z + 130:
                        for x in (-layout.lane_m, layout.lane_m):
                            canvas.fill(_stretch(camera, x - 0.06, x + 0.06, z, z + 3), white)
        _draw_crossing(canvas, camera, layout, block, white)


def _draw_crossing(
    canvas: Canvas, camera: Camera, layout: Layout, block: Block, white: Rgb
) -> None:
    """Zebra stripes before and after the side street, and the stop line."""
    if block.corner - camera.z > 110 or block.end + 4 < camera.z:
        return
    for z in (block.corner - 3.0, block.end + 0.4):
        for x in np.arange(-layout.kerb_x + 0.4, layout.kerb_x - 0.5, 1.1):
            canvas.fill(_stretch(camera, x, x + 0.55, z, z + 2.6), white)
    stop = block.corner - 4.6
    reach = layout.lanes * layout.lane_m
    canvas.fill(_stretch(camera, 0.25, reach, stop, stop + 0.4), white)


def _texture(
    canvas: Canvas, camera: Camera, mood: Mood, seed: int, horizon: int,
    shadows: list[tuple[Points, float]],
) -> None:  # fmt: skip
    """Multiply the ground by its texture and shadows, then lay the haze over it."""
    import cv2

    scale = OVERSAMPLING
    width, height = camera.size_wh[0] // scale, camera.size_wh[1] // scale
    first = horizon // scale
    rows = np.arange(first, height, dtype=np.float32)[:, None] * scale + scale / 2
    drop = np.maximum(rows - np.float32(camera.horizon_px), np.float32(0.5))
    ahead = np.float32(camera.focal_px * camera.y) / drop
    columns = (np.arange(width, dtype=np.float32)[None] + 0.5) * scale - camera.size_wh[0] / 2
    step = np.float32(512 / GROUND_TILE_M)
    side = columns.astype(np.float32) * (ahead / np.float32(camera.focal_px))
    bent = np.float32(camera.x) - np.float32(camera.bend) * np.square(ahead)
    map_x = (side + bent) * step
    map_z = (ahead + np.float32(camera.z % GROUND_TILE_M)) * step + np.zeros_like(side)
    tile = ground_tile(seed)
    light = cv2.remap(
        tile, map_x - 512 * np.floor(map_x / 512), map_z - 512 * np.floor(map_z / 512),
        cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP,
    )  # fmt: skip
    fade = np.clip(1.25 - ahead / 45, 0.0, 1.0)
    light = np.asarray((light.astype(np.float32) - 128) * fade + 128)
    share = 1 - np.exp(-np.minimum(ahead, 2000) / np.float32(mood.haze_m))
    light = light * _shadow_map((width, height - first), first, shadows) * (1 - share)
    size = (camera.size_wh[0], camera.size_wh[1] - first * scale)
    big = cv2.resize(light.astype(np.uint8), size)[horizon - first * scale :]
    haze = (share[:, :, None] * mood.sky_low).astype(np.uint8)
    veil = cv2.resize(haze, size)[horizon - first * scale :]
    ground = canvas.image[horizon:]
    cv2.multiply(ground, cv2.merge([big, big, big]), ground, 1 / 128)
    cv2.add(ground, veil, ground)


def _shadow_map(
    size_wh: tuple[int, int], first: int, shadows: list[tuple[Points, float]]
) -> NDArray[np.float32]:
    """Soft shadows below row `first` of the frame, as factors in 0..1."""
    import cv2

    shade = np.full((size_wh[1], size_wh[0]), 255, np.uint8)
    for polygon, dark in shadows:
        corners = fixed_point(polygon / OVERSAMPLING - np.array([0, first]))
        cv2.fillPoly(shade, [corners], (int(255 * (1 - dark)),), cv2.LINE_8, 3)
    return np.asarray(cv2.blur(shade, (5, 3)), np.float32) / np.float32(255)
