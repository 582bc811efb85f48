"""Houses, trees, lamps, lights, signs and wires beside the street, drawn far to near."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from urbandet_ray.frames import Image
from urbandet_ray.streets.camera import NEAR_M, Points
from urbandet_ray.streets.canvas import Canvas, Rgb
from urbandet_ray.streets.layout import Layout, Piece, house_sizes
from urbandet_ray.streets.moods import Mood
from urbandet_ray.streets.stage import Stage
from urbandet_ray.streets.textures import SHADE, facade_texture, tree_sprite

_POLE = np.array([78.0, 80.0, 82.0])
_HEDGE = np.array([70.0, 90.0, 50.0])
_SIGNS = ((30, 70, 150), (40, 110, 70), (190, 40, 36), (228, 190, 60))
_SIGNALS = ((220, 40, 30), (235, 170, 40), (50, 210, 120))
_TREES, _SPRITES = 7, 32


def draw_piece(stage: Stage, layout: Layout, piece: Piece) -> None:
    """Draw one thing of a block; what it hides loses its pixels in the id buffer."""
    match piece.kind:
        case "building":
            _draw_building(stage, layout, piece)
        case "hedge":
            _draw_hedge(stage, piece)
        case "tree":
            _draw_tree(stage, layout.seed, piece)
        case "wire":
            _draw_wire(stage, piece)
        case _:
            if piece.z0 - stage.camera.z > NEAR_M + 0.8:
                _draw_pole(stage, piece)


@lru_cache(maxsize=128)
def _facade(layout: Layout, variant: int, mood: Mood, coarse: int) -> Image:
    """The front of a kind of house in the shade, halved `coarse` times."""
    import cv2

    if coarse:
        finer = _facade(layout, variant, mood, coarse - 1)
        size = (max(finer.shape[1] // 2, 4), max(finer.shape[0] // 2, 4))
        return np.asarray(cv2.resize(finer, size, interpolation=cv2.INTER_AREA))
    return facade_texture(layout.seed, variant, house_sizes(layout)[variant], mood)


def _draw_building(stage: Stage, layout: Layout, piece: Piece) -> None:
    camera = stage.camera
    side, high = float(np.sign(piece.x)), piece.height
    ahead = piece.z0 - camera.z
    if piece.bare and ahead > NEAR_M + 0.3:
        depth = 14.0
        wall = np.array([[piece.x, high, piece.z0], [piece.x + side * depth, high, piece.z0],
                         [piece.x + side * depth, 0, piece.z0],
                         [piece.x, 0, piece.z0]])  # fmt: skip
        _lay(stage, layout, piece, wall, (0.0, 0.0), depth)
    start = max(piece.z0, camera.z + NEAR_M + 0.3)
    if start > piece.z1 - 0.2:
        return
    front = np.array([[piece.x, high, start], [piece.x, high, piece.z1],
                      [piece.x, 0, piece.z1], [piece.x, 0, start]])  # fmt: skip
    _lay(stage, layout, piece, front, (side, start - piece.z0), piece.z1 - piece.z0)


def _lay(
    stage: Stage, layout: Layout, piece: Piece, quad: Points,
    cut: tuple[float, float], length: float,
) -> None:  # fmt: skip
    """Warp a front's texture onto its quad (upper left, upper right, lower right, lower left)."""
    import cv2

    canvas, camera, mood = stage.canvas, stage.camera, stage.mood
    seen = camera.to_camera(quad)
    if (seen[:, 2] < NEAR_M * 0.5).any():
        return
    pixels = camera.to_pixels(seen)
    low = np.maximum(np.floor(pixels.min(axis=0)).astype(int) - 1, 0)
    high = np.minimum(np.ceil(pixels.max(axis=0)).astype(int) + 1, camera.size_wh)
    if (high - low < 4).any():
        return
    side, skipped = cut
    tall_px = float(np.abs(pixels[3, 1] - pixels[0, 1] + pixels[2, 1] - pixels[1, 1])) / 2
    coarse = int(np.clip(np.log2(max(piece.height * 24 / max(tall_px, 1), 1)) + 0.7, 0, 4))
    texture = _facade(layout, piece.variant, mood, coarse)
    height, width = texture.shape[:2]
    u0 = width * skipped / length
    corners = np.array([[u0, 0], [width, 0], [width, height], [u0, height]], np.float32)
    matrix = cv2.getPerspectiveTransform(corners, (pixels - low).astype(np.float32))
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    warped = cv2.warpPerspective(
        texture, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    share = mood.haze_share(float(np.mean(seen[:, 2])))
    normal = np.array([[-side, 0.0, -1.0 if side == 0 else 0.0]])
    light = mood.lit(np.full((1, 3), 100.0), normal)[0] / (100 * SHADE * mood.ambient)
    blend = np.concatenate([np.diag(light * (1 - share)), (mood.sky_low * share)[:, None]], axis=1)
    hazed: Image = np.asarray(cv2.transform(warped, blend), np.uint8)
    patch = Canvas(
        np.zeros((size[1], size[0], 3), np.uint8), np.zeros((size[1], size[0]), np.uint16)
    )
    patch.fill(pixels - low, np.zeros(3), 1)
    canvas.paste(hazed, (patch.ids * 255).astype(np.uint8), (int(low[0]), int(low[1])))


def _draw_hedge(stage: Stage, piece: Piece) -> None:
    canvas, camera, mood = stage.canvas, stage.camera, stage.mood
    start = max(piece.z0, camera.z + NEAR_M)
    if start >= piece.z1:
        return
    for z0 in np.arange(start, piece.z1, 2.0):
        z1 = min(z0 + 2.0, piece.z1)
        tops = piece.height + 0.25 * np.sin(np.array([z0, z1]) * 2.1)
        corners = np.array(
            [[piece.x, 0, z0], [piece.x, 0, z1], [piece.x, tops[1], z1], [piece.x, tops[0], z0]]
        )
        shade = 0.92 + 0.16 * abs(np.sin(z0 * 12.9898))
        canvas.fill(camera.polygon(corners), _tone(mood, _HEDGE * shade, z0 - camera.z), 0)


def _draw_tree(stage: Stage, seed: int, piece: Piece) -> None:
    import cv2

    canvas, camera, mood = stage.canvas, stage.camera, stage.mood
    foot = camera.to_camera(np.array([[piece.x, 0.0, piece.z0]]))
    if foot[0, 2] < 2.5:
        return
    pixel = camera.to_pixels(foot)[0]
    tall = int(piece.height * camera.focal_px / foot[0, 2])
    wide = int(tall * 0.75)
    if tall < 4 or pixel[0] + wide < 0 or pixel[0] - wide > camera.size_wh[0]:
        return
    share = mood.haze_share(float(foot[0, 2]))
    sprite = tree_sprite((seed * 5 + piece.variant % _TREES) % _SPRITES)
    size = (max(wide, 2), tall)
    how = cv2.INTER_LINEAR if tall > 256 else cv2.INTER_AREA
    light = np.diag((mood.ambient + 0.55 * mood.sun_light) * (1 - share))
    blend = np.concatenate([light, (mood.sky_low * share)[:, None]], axis=1)
    picture = cv2.transform(cv2.resize(sprite.image, size, interpolation=how), blend)
    shape = cv2.resize(sprite.mask, size, interpolation=cv2.INTER_LINEAR)
    _, shape = cv2.threshold(shape, 127, 255, cv2.THRESH_BINARY)
    corner = (int(pixel[0] - wide / 2), int(pixel[1] - tall))
    canvas.paste(np.asarray(picture, np.uint8), np.asarray(shape, np.uint8), corner)


def _tone(mood: Mood, rgb: Rgb, distance: float) -> Rgb:
    return mood.hazed(mood.lit(rgb[None], np.array([[0.0, 0.2, -0.98]]))[0], distance)


def _draw_wire(stage: Stage, piece: Piece) -> None:
    canvas, camera, mood = stage.canvas, stage.camera, stage.mood
    start = max(piece.z0, camera.z + 1.5)
    if start > piece.z1 - 1:
        return
    z = np.linspace(start, piece.z1, 9)
    part = (z - piece.z0) / (piece.z1 - piece.z0)
    rgb = _tone(mood, np.array([40.0, 40, 44]), start - camera.z + 10)
    for lift in (0.0, 0.5):
        sag = piece.height + lift - 1.8 * part * (1 - part)
        line = np.stack([np.full(9, piece.x), sag, z], axis=1)
        canvas.stroke(camera.to_pixels(camera.to_camera(line)), rgb, 1, None)
    if piece.variant == 0:
        across = np.linspace(-1, 1, 9)
        ends = np.stack(
            [across * abs(piece.x), 6.6 + 0.6 * across**2, np.full(9, piece.z1)], axis=1
        )
        canvas.stroke(camera.to_pixels(camera.to_camera(ends)), rgb, 1, None)


def _draw_pole(stage: Stage, piece: Piece) -> None:
    """A street lamp, a traffic light on its arm, or a sign."""
    canvas, camera, mood = stage.canvas, stage.camera, stage.mood
    side, x, z, high = float(np.sign(piece.x)), piece.x, piece.z0, piece.height
    scale, rgb = camera.pixels_per_metre(z), _tone(mood, _POLE, z - camera.z)

    def line(points: list[tuple[float, float, float]], width_m: float) -> Points:
        pixels = camera.to_pixels(camera.to_camera(np.array(points)))
        canvas.stroke(pixels, rgb, width_m * scale, 0)
        return pixels

    if piece.kind == "lamp":
        arm = x - side * 1.7
        end = line(
            [(x, 0, z), (x, high - 0.4, z), (x - side * 0.5, high, z), (arm, high, z)], 0.13
        )[-1]
        line([(arm, high, z), (arm - side * 0.5, high, z)], 0.22)
        if mood.lamps_on:
            canvas.disc(end, 0.18 * scale, np.array([255.0, 226, 170]), 0)
            stage.glow(end, 1.0 * scale, np.array([190.0, 140, 80]))
        return
    if piece.kind == "light":
        arm = side * max(abs(x) - 3.4, 0.6)
        line([(x, 0, z), (x, high + 0.9, z), (arm, high + 0.9, z)], 0.14)
        for at in (x, arm):
            _draw_signal(stage, (at, high - (1.2 if at == x else 0), z), piece)
        return
    line([(x, 0, z), (x, high, z)], 0.07)
    plate = np.array(_SIGNS[piece.variant], np.float64)
    w, y = 0.34, high - 0.25
    corners = np.array([[x - w, y - w, z], [x + w, y - w, z], [x + w, y + w, z], [x - w, y + w, z]])
    canvas.fill(camera.polygon(corners), _tone(mood, plate, z - camera.z), 0)
    inner = corners.mean(axis=0) + (corners - corners.mean(axis=0)) * np.array([0.6, 0.22, 1])
    canvas.fill(camera.polygon(inner), _tone(mood, np.array([235.0, 235, 230]), z - camera.z), 0)


def _draw_signal(
    stage: Stage, at: tuple[float, float, float], piece: Piece
) -> None:  # fmt: skip
    canvas, camera, mood = stage.canvas, stage.camera, stage.mood
    x, y, z = at
    scale = camera.pixels_per_metre(z)
    box = np.array([[x - 0.19, y, z], [x + 0.19, y, z], [x + 0.19, y + 1, z], [x - 0.19, y + 1, z]])
    canvas.fill(camera.polygon(box), _tone(mood, np.array([34.0, 34, 32]), z - camera.z), 0)
    lit = 0 if piece.x < 0 else 2
    for number in range(3):
        centre = camera.to_pixels(camera.to_camera(np.array([[x, y + 0.84 - 0.33 * number, z]])))[0]
        rgb = np.array(_SIGNALS[number], np.float64)
        canvas.disc(centre, 0.12 * scale, rgb if number == lit else rgb * 0.22, 0)
        if number == lit and mood.lamps_on:
            stage.glow(centre, 0.35 * scale, rgb * 0.5)
