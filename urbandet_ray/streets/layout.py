"""The street itself: lanes, kerbs and blocks of buildings, trees and lamps, drawn from a seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

HOUSES = 12
"""Kinds of houses in one street."""


@dataclass(frozen=True)
class Piece:
    """One thing beside the street.

    Attributes:
        kind: building, tree, lamp, light (traffic light), sign, hedge or wire.
        x: signed distance of its street side from the centre line, metres.
        z0, z1: extent along the street.
        height: metres.
        variant: which texture or sprite of the drive.
        bare: the wall that faces us is not hidden by a neighbour.
    """

    kind: str
    x: float
    z0: float
    z1: float
    height: float
    variant: int
    bare: bool = True


@dataclass(frozen=True)
class Block:
    """From one side street to the next: houses from `start` to `corner`, then the side street."""

    number: int
    start: float
    corner: float
    end: float
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Layout:
    """Cross-section of the street and habits of its blocks; metres.

    Attributes:
        lanes: per direction. lane_m, bike_m, park_m, pavement_m, yard_m: widths, 0 where absent.
        block_m: length of a block with its side street; side_half: half the latter's width.
        offset_m: where block 0 starts.
        parked_share: part of the parking places that is taken.
        walkers: people on the pavements, mean per block.
        storeys: typical height of the houses. green: share of trees and open plots, 0..1.
        wires: overhead wires between the lamps.
    """

    seed: int
    lanes: int
    lane_m: float
    bike_m: float
    park_m: float
    pavement_m: float
    yard_m: float
    block_m: float
    side_half: float
    offset_m: float
    parked_share: float
    walkers: float
    storeys: float
    green: float
    wires: bool

    @property
    def kerb_x(self) -> float:
        """Distance of the kerbs from the centre line."""
        return self.lanes * self.lane_m + self.bike_m + self.park_m

    @property
    def wall_x(self) -> float:
        """Distance of the house fronts from the centre line."""
        return self.kerb_x + self.pavement_m + self.yard_m

    def blocks(self, low_z: float, high_z: float) -> Iterator[Block]:
        """Blocks touching a stretch of the street, near ones first."""
        first = int(np.floor((low_z - self.offset_m) / self.block_m))
        last = int(np.floor((high_z - self.offset_m) / self.block_m))
        for number in range(first, last + 1):
            yield _build_block(self, number)


def draw_layout(seed: int) -> Layout:
    """The street of a seed."""
    rng = np.random.default_rng([seed, 2])
    green = float(rng.choice([0.15, 0.5, 0.85], p=[0.5, 0.3, 0.2]))
    return Layout(
        seed=seed,
        lanes=int(rng.choice([1, 2], p=[0.6, 0.4])),
        lane_m=float(rng.uniform(3.2, 3.6)),
        bike_m=float(rng.choice([0.0, 1.5], p=[0.4, 0.6])),
        park_m=float(rng.choice([0.0, 2.2], p=[0.12, 0.88])),
        pavement_m=float(rng.uniform(2.8, 4.5)),
        yard_m=float(rng.choice([0.0, 4.0], p=[0.75, 0.25]) + 4 * (green > 0.8)),
        block_m=float(rng.uniform(75, 120)),
        side_half=float(rng.uniform(4.2, 5.5)),
        offset_m=float(-rng.uniform(15, 80)),
        parked_share=float(rng.uniform(0.35, 0.8)),
        walkers=float(rng.uniform(4.5, 9.0)),
        storeys=float(rng.uniform(2.0, 4.6) * (1 - 0.4 * green)),
        green=green,
        wires=bool(rng.random() < 0.4),
    )


@lru_cache(maxsize=8)
def house_sizes(layout: Layout) -> tuple[tuple[float, float], ...]:
    """Length and height in metres of the HOUSES kinds of houses that a street is built of."""
    rng = np.random.default_rng([layout.seed, 4])
    sizes = []
    for number in range(HOUSES):
        storeys = int(np.clip(round(layout.storeys * rng.uniform(0.6, 1.6)), 1, 9))
        storeys += int(rng.integers(3, 7)) if number == 0 else 0
        sizes.append((float(rng.uniform(9, 20)), 3.3 * storeys + float(rng.uniform(0.8, 1.6))))
    return tuple(sizes)


@lru_cache(maxsize=256)
def _build_block(layout: Layout, number: int) -> Block:
    rng = np.random.default_rng([layout.seed, 3, number + 1000])
    start = layout.offset_m + number * layout.block_m
    end = start + layout.block_m
    corner = end - 2 * layout.side_half
    pieces: list[Piece] = []
    for side in (-1.0, 1.0):
        pieces += _houses(layout, side, start, corner, rng)
        pieces += _greenery(layout, side, start, corner, rng)
        pieces += _furniture(layout, side, start, corner, rng)
    return Block(number, start, corner, end, tuple(pieces))


def _houses(
    layout: Layout, side: float, start: float, corner: float, rng: np.random.Generator
) -> Iterator[Piece]:
    z = start + (0.0 if layout.yard_m == 0 else 2.0) + layout.pavement_m * 0.7
    stop = corner - layout.pavement_m * 0.7
    covered = 0.0
    while z < stop - 6:
        length = min(rng.uniform(9, 22), stop - z)
        if rng.random() < 0.12 * layout.green + 0.03:
            yield Piece("hedge", side * (layout.wall_x + 0.5), z, z + length, 1.6, 0)
            covered = 0.0
        else:
            variant = int(rng.integers(HOUSES))
            long, height = house_sizes(layout)[variant]
            length = min(long, stop - z)
            x = side * (layout.wall_x + rng.uniform(0, 0.5 + layout.yard_m * 0.3))
            yield Piece("building", x, z, z + length, height, variant, height > covered)
            covered = height
        z += length
        if rng.random() < 0.2 + layout.green * 0.6:
            z += rng.uniform(1.5, 6)
            covered = 0.0


def _greenery(
    layout: Layout, side: float, start: float, corner: float, rng: np.random.Generator
) -> Iterator[Piece]:
    z = start + rng.uniform(6, 14)
    while z < corner - 5:
        if rng.random() < 0.3 + 0.6 * layout.green:
            x = side * (layout.kerb_x + rng.uniform(0.8, 1.2))
            yield Piece("tree", x, z, z, rng.uniform(4.5, 8.5), int(rng.integers(1 << 20)))
        if layout.green > 0.4 and rng.random() < layout.green * 0.7:
            x = side * (layout.wall_x + rng.uniform(6, 22))
            yield Piece("tree", x, z + 3, z + 3, rng.uniform(7, 14), int(rng.integers(1 << 20)))
        z += rng.uniform(8, 17)


def _furniture(
    layout: Layout, side: float, start: float, corner: float, rng: np.random.Generator
) -> Iterator[Piece]:
    x = side * (layout.kerb_x + 0.5)
    places = np.arange(start + 14 + 9 * (side > 0), corner - 6, 29.0)
    for z in places:
        yield Piece("lamp", x, float(z), float(z), 7.6, 0)
        if layout.wires:
            yield Piece("wire", x, float(z), float(z) + 29.0, 7.2, int(rng.integers(4)))
    if rng.random() < 0.75:
        yield Piece("sign", x, start + 12, start + 12, 2.6, int(rng.integers(4)))
    at = corner - 0.6 if side > 0 else corner + 2 * layout.side_half + 0.6
    yield Piece("light", x, at, at, 4.6, int(rng.integers(3)))
