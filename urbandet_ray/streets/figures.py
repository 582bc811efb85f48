"""People on foot and on bicycles, as jointed figures drawn limb by limb."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from urbandet_ray.streets.camera import NEAR_M, Points
from urbandet_ray.streets.canvas import Rgb
from urbandet_ray.streets.stage import Stage

_SKIN = ((236, 196, 168), (214, 168, 134), (168, 118, 84), (112, 76, 54), (86, 58, 42))
_HAIR = ((28, 24, 22), (62, 44, 30), (120, 88, 50), (168, 150, 120), (90, 90, 92))
_TOPS = (
    (40, 44, 56), (150, 34, 36), (44, 78, 140), (208, 206, 200), (70, 92, 62), (206, 168, 60),
    (96, 52, 100), (34, 36, 38), (110, 112, 116), (218, 116, 60), (120, 170, 196), (90, 66, 48),
)  # fmt: skip
_LEGS = ((34, 40, 58), (26, 27, 30), (92, 84, 72), (56, 70, 98), (70, 70, 74), (128, 116, 96))


@dataclass(frozen=True, eq=False)
class Look:
    """Build and clothes of one person; heights in metres."""

    height: float
    girth: float
    skin: Rgb
    hair: Rgb
    top: Rgb
    legs: Rgb
    coat: bool
    bag: bool
    helmet: bool
    phase: float
    paint: Rgb


def draw_look(seed: int) -> Look:
    """The look of a seed."""
    rng = np.random.default_rng([seed, 17])

    def pick(palette: tuple[tuple[int, int, int], ...]) -> Rgb:
        return np.clip(
            np.array(palette[rng.integers(len(palette))]) * rng.uniform(0.85, 1.12, 3), 0, 255
        )

    child = rng.random() < 0.08
    return Look(
        rng.uniform(1.1, 1.4) if child else rng.normal(1.71, 0.08), rng.uniform(0.9, 1.15),
        pick(_SKIN), pick(_HAIR), pick(_TOPS), pick(_LEGS), bool(rng.random() < 0.25),
        bool(rng.random() < 0.35), bool(rng.random() < 0.6), rng.uniform(0, 6.28), pick(_TOPS),
    )  # fmt: skip


class Pen:
    """Draws limbs of one figure: local metres (right, up, ahead) at a place and heading."""

    def __init__(
        self, stage: Stage, at_xz: tuple[float, float], heading: float, ident: int
    ) -> None:
        self.canvas, self.camera, self.mood = stage.canvas, stage.camera, stage.mood
        self.ident = ident
        self.at = np.array([at_xz[0], 0.0, at_xz[1]])
        cos, sin = np.cos(heading), np.sin(heading)
        self.turn = np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])
        self.scale = self.camera.pixels_per_metre(at_xz[1])
        self.distance = at_xz[1] - self.camera.z

    def pixels(self, local: Points) -> Points:
        """Local points [n, 3] to canvas pixels."""
        seen = self.camera.to_camera(local @ self.turn + self.at)
        seen[:, 2] = np.maximum(seen[:, 2], NEAR_M)
        return self.camera.to_pixels(seen)

    def tone(self, rgb: Rgb, shade: float = 1.0) -> Rgb:
        """A colour in this light at this distance."""
        side = np.array([[0.0, 0.35, -0.94]])
        return self.mood.hazed(self.mood.lit(rgb[None] * shade, side)[0], self.distance)

    def limb(self, points: list[tuple[float, float, float]], width_m: float, rgb: Rgb) -> None:
        """A chain of round-ended bones."""
        self.canvas.stroke(self.pixels(np.array(points)), rgb, width_m * self.scale, self.ident)

    def ball(self, centre: tuple[float, float, float], radius_m: float, rgb: Rgb) -> None:
        """A round part."""
        self.canvas.disc(self.pixels(np.array([centre]))[0], radius_m * self.scale, rgb, self.ident)

    def slab(self, points: list[tuple[float, float, float]], rgb: Rgb, edge_m: float) -> None:
        """A filled shape with soft edges of a given thickness."""
        pixels = self.pixels(np.array(points))
        self.canvas.fill(pixels, rgb, self.ident)
        self.canvas.stroke(pixels, rgb, edge_m * self.scale, self.ident, closed=True)


def draw_pedestrian(pen: Pen, look: Look, walked_m: float, pace: float) -> None:
    """Somebody walking (or standing, at pace 0)."""
    h = look.height
    if h * pen.scale < 24:
        _draw_afar(pen, look)
        return
    swing = 0.0 if pace == 0 else 0.42 * np.sin(2 * np.pi * walked_m / (0.82 * h) + look.phase)
    bob = 0.0 if pace == 0 else 0.015 * np.cos(4 * np.pi * walked_m / (0.82 * h) + 2 * look.phase)
    hip_y, shoulder_y = 0.52 * h + bob, 0.81 * h + bob
    half_hip, half_shoulder = 0.085 * look.girth, 0.17 * look.girth
    trousers, top, skin = pen.tone(look.legs), pen.tone(look.top), pen.tone(look.skin)
    order = _far_side_first(pen)
    for side in order:
        s = side * swing
        knee = (side * half_hip, hip_y * 0.54, 0.5 * s * hip_y + 0.05)
        foot = (side * half_hip, 0.05 + 0.12 * max(-s, 0), s * hip_y - 0.1 * max(-s, 0))
        tone = trousers * (0.82 if side == order[0] else 1.0)
        pen.limb([(side * half_hip, hip_y, 0.0), knee, foot], 0.125 * look.girth, tone)
        pen.limb([foot, (foot[0], 0.04, foot[2] + 0.15)], 0.085, pen.tone(np.array([30.0, 28, 28])))
    _arm(pen, look, order[0], -swing, (shoulder_y, half_shoulder))
    hem = 0.36 * h if look.coat else 0.5 * h
    waist = half_hip * (1.5 if look.coat else 1.2)
    pen.slab(
        [(-waist, hem, 0), (waist, hem, 0), (half_shoulder * 0.92, shoulder_y - 0.03, 0),
         (-half_shoulder * 0.92, shoulder_y - 0.03, 0)], top, 0.13 * look.girth,
    )  # fmt: skip
    if look.bag:
        pack = pen.tone(look.paint)
        pen.slab([(-0.11, 0.58 * h, -0.16), (0.11, 0.58 * h, -0.16), (0.11, 0.78 * h, -0.16),
                  (-0.11, 0.78 * h, -0.16)], pack, 0.06)  # fmt: skip
    pen.limb([(0, shoulder_y, 0), (0, 0.87 * h, 0.02)], 0.1, skin * 0.85)
    _arm(pen, look, order[1], -swing, (shoulder_y, half_shoulder))
    _head(pen, look, (0, 0.925 * h + bob, 0.02))


def _far_side_first(pen: Pen) -> tuple[float, float]:
    return (1.0, -1.0) if pen.turn[0, 2] >= 0 else (-1.0, 1.0)


def _draw_afar(pen: Pen, look: Look) -> None:
    h = look.height
    pen.limb([(0, 0.1, 0), (0, 0.5 * h, 0)], 0.26, pen.tone(look.legs))
    pen.limb([(0, 0.52 * h, 0), (0, 0.76 * h, 0)], 0.42, pen.tone(look.top))
    pen.ball((0, 0.925 * h, 0), 0.108, pen.tone(look.hair))


def _arm(pen: Pen, look: Look, side: float, swing: float, frame: tuple[float, float]) -> None:
    y, half = frame
    shade = 0.92 if side == _far_side_first(pen)[1] else 0.75
    h, s = look.height, side * swing * 0.8
    elbow = (side * (half + 0.03), y - 0.17 * h, s * 0.16 * h)
    hand = (side * (half + 0.02), y - 0.32 * h, s * 0.36 * h + 0.06)
    pen.limb(
        [(side * half, y - 0.03, 0), elbow, hand], 0.085 * look.girth, pen.tone(look.top, shade)
    )
    pen.ball(hand, 0.045, pen.tone(look.skin))


def _head(pen: Pen, look: Look, at: tuple[float, float, float]) -> None:
    x, y, z = at
    facing = pen.turn[2, 2] < 0
    pen.ball((x, y, z), 0.108, pen.tone(look.hair))
    if facing or abs(pen.turn[2, 2]) < 0.7:
        pen.ball((x, y - 0.03, z + 0.05), 0.09, pen.tone(look.skin))
    if not facing:
        pen.ball(
            (x, y + 0.01, z - 0.01),
            0.106 if abs(pen.turn[2, 2]) > 0.7 else 0.085,
            pen.tone(look.hair),
        )


def draw_cyclist(pen: Pen, look: Look, ridden_m: float) -> None:
    """A bicycle and its rider."""
    metal, tyre = pen.tone(look.paint), pen.tone(np.array([24.0, 24, 26]))
    turn = np.linspace(0, 2 * np.pi, 21)[:-1]
    ring = np.stack([np.zeros(20), 0.34 + 0.33 * np.sin(turn), 0.33 * np.cos(turn)], axis=1)
    for z in (-0.52, 0.52):
        pixels = pen.pixels(ring + np.array([0, 0, z]))
        pen.canvas.stroke(pixels, tyre, 0.045 * pen.scale, pen.ident, closed=True)
    seat, crank, head = (0.0, 0.93, -0.22), (0.0, 0.3, -0.05), (0.0, 0.88, 0.36)
    for bones in (
        [(0.0, 0.34, -0.52), crank, head, seat, crank], [(0.0, 0.34, -0.52), seat],
        [(0.0, 0.34, 0.52), head, (0.0, 1.0, 0.33)],
        [(-0.25, 1.0, 0.36), (0.25, 1.0, 0.36)],
    ):  # fmt: skip
        pen.limb(bones, 0.035, metal)
    angle = ridden_m / 0.9 + look.phase
    hip, shoulder = (0.0, 1.02, -0.2), (0.0, 1.5, 0.1)
    order = _far_side_first(pen)
    for side in order:
        foot = (side * 0.11, 0.3 + 0.17 * np.sin(angle + side * np.pi / 2) + 0.04,
                -0.05 + 0.17 * np.cos(angle + side * np.pi / 2))  # fmt: skip
        knee = (side * 0.12, (hip[1] + foot[1]) / 2 + 0.07, (hip[2] + foot[2]) / 2 + 0.24)
        tone = pen.tone(look.legs, 0.8 if side == order[0] else 1.0)
        pen.limb([(side * 0.09, hip[1], hip[2]), knee, foot], 0.12 * look.girth, tone)
        pen.limb([foot, (foot[0], foot[1] - 0.03, foot[2] + 0.14)], 0.08, tyre)
        reach = [(side * 0.17, 1.46, 0.08), (side * 0.25, 1.2, 0.18), (side * 0.22, 1.03, 0.36)]
        pen.limb(reach, 0.08 * look.girth, pen.tone(look.top, 0.85))
    top = pen.tone(look.top)
    pen.slab([(-0.1, hip[1], hip[2]), (0.1, hip[1], hip[2]), (0.16, shoulder[1], shoulder[2]),
              (-0.16, shoulder[1], shoulder[2])], top, 0.17 * look.girth)  # fmt: skip
    if look.bag:
        pen.slab([(-0.1, 1.15, -0.26), (0.1, 1.15, -0.26), (0.11, 1.42, -0.08),
                  (-0.11, 1.42, -0.08)],
                 pen.tone(look.paint, 0.8), 0.08)  # fmt: skip
    _head(pen, look, (0.0, 1.68, 0.2))
    if look.helmet:
        pen.ball((0.0, 1.74, 0.18), 0.11, pen.tone(look.paint, 1.2))
