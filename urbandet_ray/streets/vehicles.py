"""Bodies of cars, vans, buses and trucks: small meshes, front at +z, on the ground at y 0."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from urbandet_ray.streets.camera import Points
from urbandet_ray.streets.canvas import Rgb

WHEELS, HULL, TRIM, RIMS, CABIN, GLASS = range(6)
"""Layers, drawn in this order; within one, far faces first."""

_RED = np.array([190.0, 22.0, 20.0])
_WHITE = np.array([238.0, 238.0, 228.0])
_GLASS = np.array([42.0, 52.0, 62.0])
_DARK = np.array([26.0, 27.0, 29.0])
_TYRE = np.array([20.0, 20.0, 21.0])
_RIM = np.array([150.0, 153.0, 158.0])
_PLATE = np.array([225.0, 222.0, 205.0])
_AMBER = np.array([222.0, 140.0, 30.0])


@dataclass(frozen=True, eq=False)
class Mesh:
    """Flat faces.

    Attributes:
        vertices: [v, 3] metres.
        faces: first vertex, and the one after the last, of each of f faces.
        rgb: [f, 3] colours.
        normals, centres: [f, 3] outward normals and middles.
        layers: [f] drawing layer.
        lamps: [f] 0 none, 1 head lamp, 2 tail lamp.
        size: width, height, length in metres.
    """

    vertices: Points
    faces: tuple[tuple[int, int], ...]
    rgb: Points
    normals: Points
    centres: Points
    layers: Points
    lamps: Points
    size: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class _Face:
    corners: Points
    rgb: Rgb
    layer: int
    inside: Points
    lamp: int


@dataclass
class _Builder:
    faces: list[_Face] = field(default_factory=list)

    def face(self, corners: Points, rgb: Rgb, layer: int, inside: Points, lamp: int = 0) -> Points:
        """Add a face whose normal points away from `inside`; returns its corners."""
        self.faces.append(_Face(corners, rgb, layer, inside, lamp))
        return corners

    def loft(self, stations: list[tuple[float, ...]], rgb: Rgb, layer: int) -> dict[str, Points]:
        """Skin a body over rings (z, y_low, y_mid, y_top, half widths low, mid, top)."""
        rings = [_ring(*station) for station in stations]
        inside = np.mean(np.concatenate(rings), axis=0)
        named = {
            "rear": self.face(rings[0], rgb * 0.97, layer, inside),
            "front": self.face(rings[-1], rgb * 0.97, layer, inside),
        }
        shades = (0.9, 1.0, 1.04, 1.0, 0.9)
        for number, (back, ahead) in enumerate(pairwise(rings)):
            for strip, shade in enumerate(shades):
                corners = np.array([back[strip], ahead[strip], ahead[strip + 1], back[strip + 1]])
                middle = inside * np.array([1, 1, 0]) + np.array([0, 0, corners[:, 2].mean()])
                named[f"{number}.{strip}"] = self.face(corners, rgb * shade, layer, middle)
        return named

    def patch(  # noqa: PLR0917 - the parts of a vehicle read best as rows of a table
        self, quad: Points, u: tuple[float, float], v: tuple[float, float], rgb: Rgb,
        layer: int, lamp: int = 0, lift: float = 0.01,
    ) -> None:  # fmt: skip
        """Lay a piece on a quad: u along its first edge, v along its second, both 0..1."""
        a, b, c, d = quad[:4]

        def at(s: float, t: float) -> Points:
            return np.asarray((a * (1 - s) + b * s) * (1 - t) + (d * (1 - s) + c * s) * t)

        corners = np.array([at(u[0], v[0]), at(u[1], v[0]), at(u[1], v[1]), at(u[0], v[1])])
        away = corners.mean(axis=0) * np.array([1, 0, 1])
        self.face(corners + lift * np.sign(away), rgb, layer, np.array([0, 0.8, 0.0]), lamp)

    def wheels(self, half_width: float, radius: float, at_z: tuple[float, ...]) -> None:
        """Tyres under the body and rims on its sides."""
        turn = np.linspace(0, 2 * np.pi, 13)[:-1]
        circle = np.stack([np.zeros(12), radius * np.sin(turn) + radius, radius * np.cos(turn)], 1)
        for z in at_z:
            for side in (-1.0, 1.0):
                outer = circle + np.array([side * half_width, 0, z])
                inner = outer - np.array([side * 0.22, 0, 0])
                hub = np.array([side * (half_width - 0.11), radius, z])
                for k in range(12):
                    tread = [outer[k - 1], outer[k], inner[k], inner[k - 1]]
                    self.face(np.array(tread), _TYRE, WHEELS, hub)
                arch = hub + (outer - hub) * np.array([1, 1.16, 1.16])
                arch[:, 1] = np.maximum(arch[:, 1], radius * 0.75)
                self.face(arch, _DARK * 0.7, TRIM, hub)
                self.face(outer + np.array([side * 0.015, 0, 0]), _TYRE, RIMS, hub)
                rim = hub + (outer - hub) * np.array([1.2, 0.62, 0.62])
                self.face(rim, _RIM, GLASS, hub)
                self.face(hub + (rim - hub) * np.array([1.1, 0.3, 0.3]), _DARK, GLASS, hub)

    def done(self, size: tuple[float, float, float]) -> Mesh:
        """The mesh, its normals and middles computed for all faces at once."""
        counts = np.array([len(face.corners) for face in self.faces])
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        vertices = np.concatenate([face.corners for face in self.faces])
        centres = np.add.reduceat(vertices, starts) / counts[:, None]
        first, second, third = (vertices[starts + k] for k in range(3))
        normals = np.cross(second - first, third - second)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        away = centres - np.array([face.inside for face in self.faces])
        normals[np.einsum("ij,ij->i", normals, away) < 0] *= -1
        spans = tuple((int(start), int(start + n)) for start, n in zip(starts, counts, strict=True))
        return Mesh(
            vertices, spans, np.array([face.rgb for face in self.faces]), normals, centres,
            np.array([face.layer for face in self.faces]),
            np.array([face.lamp for face in self.faces]), size,
        )  # fmt: skip


def _ring(  # noqa: PLR0917 - a row of a table of stations
    z: float, low: float, mid: float, top: float, w_low: float, w_mid: float, w_top: float
) -> Points:
    return np.array(
        [[-w_low, low, z], [-w_mid, mid, z], [-w_top, top, z],
         [w_top, top, z], [w_mid, mid, z], [w_low, low, z]]
    )  # fmt: skip


def _quad(x: float, y0: float, y1: float, z: float) -> Points:
    """An upright rectangle across the vehicle: u from left to right, v upwards."""
    return np.array([[-x, y0, z], [x, y0, z], [x, y1, z], [-x, y1, z]])


def _lamps(b: _Builder, half: float, length: float, low: float, high: float) -> None:
    """Head lamps, grille, tail lamps, bumpers and plates on the two ends."""
    rear, front = _quad(half, low, high, -length / 2), _quad(half, low, high, length / 2)
    for edge in ((0.02, 0.24), (0.76, 0.98)):
        b.patch(rear, edge, (0.5, 0.86), _RED, TRIM, 2, lift=0.02)
        b.patch(front, edge, (0.5, 0.84), _WHITE, TRIM, 1, lift=0.02)
    b.patch(rear, (0.02, 0.98), (0.0, 0.22), _DARK * 1.4, TRIM)
    b.patch(rear, (0.38, 0.62), (0.42, 0.68), _PLATE, TRIM, lift=0.02)
    b.patch(front, (0.27, 0.73), (0.36, 0.8), _DARK, TRIM)
    b.patch(front, (0.05, 0.95), (0.0, 0.24), _DARK * 1.3, TRIM)
    b.patch(front, (0.4, 0.6), (0.26, 0.42), _PLATE, TRIM, lift=0.02)


def build_car(rng: np.random.Generator, rgb: Rgb) -> Mesh:
    """A saloon, hatchback, estate or SUV."""
    style = str(rng.choice(["saloon", "hatch", "estate", "suv"], p=[0.36, 0.22, 0.14, 0.28]))
    tall = style == "suv"
    length = {"saloon": 4.7, "hatch": 4.1, "estate": 4.7, "suv": 4.7}[style] * rng.uniform(
        0.95, 1.05
    )
    half = (0.95 if tall else 0.89) * rng.uniform(0.97, 1.03)
    height = (1.74 if tall else 1.46) * rng.uniform(0.97, 1.04)
    belt, low = height * 0.62, (0.3 if tall else 0.22)
    hood, deck = belt * 0.93, belt * (1.0 if style == "saloon" else 1.02)
    mid, r = (low + belt) / 2 + 0.05, length / 2
    b = _Builder()
    b.loft(
        [(-r, low + 0.1, mid, deck * 0.93, half * 0.82, half * 0.89, half * 0.8),
         (-r + 0.22, low + 0.02, mid, deck, half * 0.93, half * 0.99, half * 0.86),
         (-r * 0.5, low, mid, belt, half * 0.95, half, half * 0.91),
         (r * 0.42, low, mid, belt, half * 0.95, half, half * 0.9),
         (r - 0.38, low + 0.02, mid, hood * 0.94, half * 0.92, half * 0.98, half * 0.82),
         (r, low + 0.08, mid * 0.98, hood * 0.76, half * 0.76, half * 0.84, half * 0.74)],
        rgb, HULL,
    )  # fmt: skip
    _lamps(b, half * 0.84, length, low + 0.12, deck * 0.93)
    rear_foot = {"saloon": 0.72, "hatch": 0.97, "estate": 0.98, "suv": 0.97}[style]
    rear_roof = {"saloon": 0.36, "hatch": 0.72, "estate": 0.84, "suv": 0.83}[style]
    base, roof = (-r * rear_foot, r * 0.46), (-r * rear_roof, r * 0.1)
    _cabin(b, rgb, base, roof, (belt - 0.03, height), (half * 0.9, half * 0.7))
    b.wheels(half * 0.98, 0.36 if tall else 0.32, (-r * 0.58, r * 0.6))
    return b.done((half * 2, height, length))


def _cabin(
    b: _Builder, rgb: Rgb, base: tuple[float, float], roof: tuple[float, float],
    y: tuple[float, float], half: tuple[float, float],
) -> None:  # fmt: skip
    """The glass house of a car: `base` and `roof` are (rear z, front z), y and half (low, high)."""
    inside = np.array([0, y[0], (base[0] + base[1]) / 2])

    def quad(ax: float, az: float, bx: float, bz: float, top: tuple[Points, Points]) -> Points:
        return np.array([[ax, y[0], az], [bx, y[0], bz], top[1], top[0]])

    rl, rr = np.array([-half[1], y[1], roof[0]]), np.array([half[1], y[1], roof[0]])
    fl, fr = np.array([-half[1], y[1], roof[1]]), np.array([half[1], y[1], roof[1]])
    b.face(np.array([rl, rr, fr, fl]), rgb * 1.05, CABIN, inside)
    panes = [(0.12, 0.5), (0.53, 0.92)]
    sides = [
        (quad(-half[0], base[0], half[0], base[0], (rl, rr)), [(0.08, 0.92)], (0.2, 0.88)),
        (quad(-half[0], base[1], half[0], base[1], (fl, fr)), [(0.05, 0.95)], (0.06, 0.93)),
        (quad(-half[0], base[0], -half[0], base[1], (rl, fl)), panes, (0.12, 0.86)),
        (quad(half[0], base[0], half[0], base[1], (rr, fr)), panes, (0.12, 0.86)),
    ]  # fmt: skip
    for corners, openings, rows in sides:
        b.face(corners, rgb, CABIN, inside)
        for pane in openings:
            b.patch(corners, pane, rows, _GLASS, GLASS)


def build_van(rng: np.random.Generator, rgb: Rgb) -> Mesh:
    """A delivery van or minibus."""
    length, half, height = rng.uniform(4.9, 6.0), rng.uniform(0.96, 1.03), rng.uniform(1.95, 2.6)
    r, low = length / 2, 0.3
    b = _Builder()
    skin = b.loft(
        [(-r, low + 0.05, 1.0, height * 0.97, half * 0.94, half * 0.98, half * 0.86),
         (r * 0.38, low, 1.0, height, half * 0.97, half, half * 0.87),
         (r * 0.74, low, 1.0, height * 0.55, half * 0.96, half * 0.99, half * 0.86),
         (r, low + 0.05, 0.78, height * 0.42, half * 0.84, half * 0.9, half * 0.8)],
        rgb, HULL,
    )  # fmt: skip
    _lamps(b, half * 0.9, length, low + 0.12, 1.0)
    b.patch(_quad(half * 0.88, 1.0, height, -r), (0.06, 0.47), (0.3, 0.8), _GLASS, GLASS)
    b.patch(_quad(half * 0.88, 1.0, height, -r), (0.53, 0.94), (0.3, 0.8), _GLASS, GLASS)
    b.patch(skin["1.2"], (0.04, 0.96), (0.06, 0.94), _GLASS, GLASS)
    minibus = rng.random() < 0.5
    for side in (-1.0, 1.0):
        door = np.array([[side * half * 0.96, 1.1, 0.32 * r], [side * half * 0.96, 1.1, 0.66 * r],
                         [side * half * 0.9, height * 0.86, 0.44 * r],
                         [side * half * 0.9, height * 0.86, 0.32 * r]])  # fmt: skip
        b.patch(door, (0, 1), (0, 1), _GLASS, GLASS)
        if minibus:
            row = np.array([[side * half * 0.98, 1.15, -r * 0.9],
                            [side * half * 0.98, 1.15, 0.26 * r],
                            [side * half * 0.92, height * 0.85, 0.26 * r],
                            [side * half * 0.92, height * 0.85, -r * 0.9]])  # fmt: skip
            b.patch(row, (0.03, 0.48), (0, 1), _GLASS, GLASS)
            b.patch(row, (0.52, 0.98), (0, 1), _GLASS, GLASS)
    b.wheels(half * 0.98, 0.36, (-r * 0.6, r * 0.62))
    return b.done((half * 2, height, length))


def build_bus(rng: np.random.Generator, rgb: Rgb) -> Mesh:
    """A city bus with a band of windows."""
    length, half, height = rng.uniform(10.0, 12.0), 1.25, rng.uniform(2.95, 3.2)
    r, low = length / 2, 0.32
    b = _Builder()
    b.loft(
        [(-r, low, 1.2, height * 0.97, half * 0.95, half * 0.97, half * 0.9),
         (-r + 0.2, low, 1.2, height, half * 0.99, half, half * 0.93),
         (r - 0.25, low, 1.2, height, half * 0.99, half, half * 0.93),
         (r, low, 1.2, height * 0.96, half * 0.93, half * 0.95, half * 0.88)],
        rgb, HULL,
    )  # fmt: skip
    _lamps(b, half * 0.93, length, low + 0.1, 1.15)
    b.patch(_quad(half * 0.92, 1.2, height, -r), (0.1, 0.9), (0.3, 0.8), _GLASS, GLASS)
    b.patch(_quad(half * 0.92, 1.0, height, r), (0.04, 0.96), (0.12, 0.78), _GLASS, GLASS)
    b.patch(_quad(half * 0.9, 1.0, height, r), (0.15, 0.85), (0.82, 0.94), _DARK, GLASS)
    b.patch(_quad(half * 0.86, 1.0, height, r), (0.3, 0.7), (0.85, 0.92), _AMBER, GLASS, 0, 0.03)
    stripe = np.minimum(rgb * 0.4 + rng.uniform(60, 150, 3), 255)
    for side in (-1.0, 1.0):
        x = side * half
        flank = np.array(
            [[x, 0.5, -r + 0.3], [x, 0.5, r - 0.3], [x, 2.6, r - 0.3], [x, 2.6, -r + 0.3]]
        )
        b.patch(flank, (0, 1), (0.1, 0.26), stripe, TRIM)
        for k in range(7):
            b.patch(flank, (k / 7 + 0.012, (k + 1) / 7 - 0.012), (0.42, 0.95), _GLASS, GLASS)
    b.wheels(half * 0.98, 0.48, (-r * 0.5, r * 0.52))
    return b.done((half * 2, height, length))


def build_truck(rng: np.random.Generator, rgb: Rgb) -> Mesh:
    """A box truck: a cab before a taller cargo box."""
    length, half, height = rng.uniform(6.5, 8.5), 1.2, rng.uniform(2.9, 3.5)
    r, cab = length / 2, length / 2 - 1.9
    box = np.array([225.0, 226.0, 222.0]) * rng.uniform(0.8, 1.0) if rng.random() < 0.6 else rgb
    b = _Builder()
    b.loft([(-r, 0.85, 1.5, height, half, half, half * 0.99),
            (cab - 0.1, 0.85, 1.5, height, half, half, half * 0.99)], box, HULL)  # fmt: skip
    b.loft(
        [(cab, 0.5, 1.3, 2.35, half * 0.88, half * 0.92, half * 0.82),
         (r - 0.7, 0.45, 1.3, 2.4, half * 0.9, half * 0.94, half * 0.8),
         (r - 0.2, 0.45, 1.3, 1.5, half * 0.9, half * 0.94, half * 0.86),
         (r, 0.5, 0.9, 1.3, half * 0.84, half * 0.9, half * 0.82)],
        rgb, HULL,
    )  # fmt: skip
    _lamps(b, half * 0.86, length, 0.55, 1.2)
    b.patch(_quad(half, 0.85, height, -r), (0.03, 0.49), (0.04, 0.96), box * 0.9, TRIM)
    b.patch(_quad(half, 0.85, height, -r), (0.51, 0.97), (0.04, 0.96), box * 0.9, TRIM)
    b.patch(_quad(half * 0.82, 1.5, 2.4, r - 0.45), (0.02, 0.98), (0.05, 0.92), _GLASS, GLASS)
    logo = rng.uniform(40, 200, 3)
    for side in (-1.0, 1.0):
        x = side * half
        flank = np.array(
            [[x, 0.9, -r], [x, 0.9, cab - 0.1], [x, height, cab - 0.1], [x, height, -r]]
        )
        b.patch(flank, (0.2, 0.8), (0.4, 0.68), logo, TRIM)
        door = np.array([[x * 0.93, 1.4, cab + 0.25], [x * 0.93, 1.4, r - 0.55],
                         [x * 0.84, 2.2, r - 0.8], [x * 0.84, 2.2, cab + 0.25]])  # fmt: skip
        b.patch(door, (0, 1), (0, 1), _GLASS, GLASS)
    b.wheels(half * 0.96, 0.46, (-r * 0.55, r * 0.68))
    return b.done((half * 2, height, length))


BUILDERS = {"car": build_car, "van": build_van, "bus": build_bus, "truck": build_truck}
