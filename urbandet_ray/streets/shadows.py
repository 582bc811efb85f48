"""Shadows on the ground: under, and cast by, actors, trees and houses."""

from __future__ import annotations

import numpy as np

from urbandet_ray.streets.actors import actor_size, footprint
from urbandet_ray.streets.camera import Camera, Points
from urbandet_ray.streets.layout import Block
from urbandet_ray.streets.moods import Mood
from urbandet_ray.streets.traffic import Actor


def cast_shadows(
    camera: Camera, mood: Mood, blocks: list[Block], placed: list[tuple[Actor, tuple[float, float]]]
) -> list[tuple[Points, float]]:
    """Polygons on the ground with their darkness 0..1, light ones first."""
    found: list[tuple[Points, float]] = []
    slant = -mood.sun[[0, 2]] / max(float(mood.sun[1]), 0.25)

    def add(corners: Points, dark: float) -> None:
        polygon = camera.polygon(corners)
        if polygon is not None:
            found.append((polygon, dark))

    for piece in (p for block in blocks for p in block.pieces):
        if piece.kind == "building" and slant[0] * piece.x < 0:
            reach = float(np.clip(slant[0] * piece.height, -1.6 * abs(piece.x), 1.6 * abs(piece.x)))
            tip = piece.x + reach
            add(np.array([[piece.x, 0, piece.z0], [tip, 0, piece.z0], [tip, 0, piece.z1],
                          [piece.x, 0, piece.z1]]), mood.shadow * 0.8)  # fmt: skip
    for piece in (p for block in blocks for p in block.pieces):
        if piece.kind == "tree" and camera.z + 1 < piece.z0 < camera.z + 120:
            add(_crown_shadow(piece.x, piece.z0, piece.height, slant), mood.shadow * 0.75)
    for actor, at_xz in placed:
        height = actor_size(actor)[1]
        base = footprint(actor, at_xz, -0.05)
        push = np.array([slant[0], 0, slant[1]]) * height * 0.75
        cast = _hull(np.concatenate([base, base + push])) if mood.shadow > 0.26 else base
        add(cast, mood.shadow)
        if actor.class_id == 1:
            add(base, 0.72)
        add(footprint(actor, at_xz, 0.12), mood.shadow * 0.7)
    return sorted(found, key=lambda item: item[1])


def _crown_shadow(x: float, z: float, height: float, slant: Points) -> Points:
    turn = np.linspace(0, 2 * np.pi, 15)[:-1]
    ragged = 0.3 * height * (1 + 0.22 * np.sin(5 * turn + x + z) + 0.1 * np.sin(9 * turn + z))
    return np.stack(
        [x + slant[0] * height * 0.55 + ragged * np.cos(turn), np.zeros(14),
         z + slant[1] * height * 0.55 + ragged * np.sin(turn)], axis=1,
    )  # fmt: skip


def _hull(points: Points) -> Points:
    import cv2

    flat = np.asarray(points[:, [0, 2]], np.float32)
    kept = cv2.convexHull(flat)[:, 0]
    return np.stack([kept[:, 0], np.zeros(len(kept)), kept[:, 1]], axis=1).astype(np.float64)
