"""Puts actors on the canvas, shaded by the mood and numbered in the id buffer."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from urbandet_ray.streets.camera import NEAR_M, Points, clip_near
from urbandet_ray.streets.figures import Pen, draw_cyclist, draw_look, draw_pedestrian
from urbandet_ray.streets.moods import Mood
from urbandet_ray.streets.stage import Stage
from urbandet_ray.streets.traffic import Actor
from urbandet_ray.streets.vehicles import BUILDERS, GLASS, HULL, TRIM, Mesh

_PAINTS = (
    (232, 232, 230), (198, 201, 204), (150, 154, 158), (96, 99, 104), (34, 35, 38), (20, 21, 24),
    (44, 66, 112), (30, 42, 70), (140, 28, 30), (96, 22, 26), (70, 84, 70), (170, 160, 138),
    (60, 110, 150), (196, 150, 44), (120, 70, 40),
)  # fmt: skip
_PAINT_WEIGHTS = np.array([20, 15, 13, 10, 12, 8, 5, 4, 5, 2, 2, 3, 2, 1, 1], np.float64)
_GLOWS = {1: (0.5, np.array([190.0, 178, 142])), 2: (0.25, np.array([110.0, 10, 6]))}
"""Of head and tail lamps: radius in metres, colour."""

_FLEET = (
    (226, 226, 222),
    (196, 60, 44),
    (36, 92, 150),
    (222, 168, 40),
    (54, 120, 86),
    (90, 94, 100),
)


@lru_cache(maxsize=512)
def build_mesh(kind: str, look: int) -> Mesh:
    """The body of a vehicle."""
    rng = np.random.default_rng([look, 23])
    if kind in ("bus", "truck"):
        rgb = np.array(_FLEET[rng.integers(len(_FLEET))], np.float64)
    elif kind == "van" and rng.random() < 0.6:
        rgb = np.array([230.0, 230.0, 228.0])
    else:
        chosen = rng.choice(len(_PAINTS), p=_PAINT_WEIGHTS / _PAINT_WEIGHTS.sum())
        rgb = np.array(_PAINTS[chosen], np.float64)
    return BUILDERS[kind](rng, np.clip(rgb * rng.uniform(0.92, 1.08, 3), 8, 242))


_look = lru_cache(maxsize=1024)(draw_look)


def actor_size(actor: Actor) -> tuple[float, float, float]:
    """Width, height, length in metres."""
    if actor.kind == "pedestrian":
        return 0.5, _look(actor.look).height, 0.5
    if actor.kind == "cyclist":
        return 0.6, 1.82, 1.75
    return build_mesh(actor.kind, actor.look).size


def footprint(actor: Actor, at_xz: tuple[float, float], grow: float = 0.0) -> Points:
    """The four corners on the ground, [4, 3] metres."""
    width, _, length = actor_size(actor)
    w, r = width / 2 + grow, length / 2 + grow
    cos, sin = np.cos(actor.heading), np.sin(actor.heading)
    corners = np.array([[-w, 0, -r], [w, 0, -r], [w, 0, r], [-w, 0, r]])
    turn = np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])
    return np.asarray(corners @ turn + np.array([at_xz[0], 0, at_xz[1]]))


def draw_actor(
    stage: Stage, actor: Actor, at_xz: tuple[float, float], t: float, ident: int
) -> None:
    """Draw an actor standing at `at_xz` with number `ident`."""
    if actor.class_id != 1:
        if at_xz[1] - stage.camera.z < NEAR_M + 0.6:
            return
        pen = Pen(stage, at_xz, actor.heading, ident)
        if actor.kind == "pedestrian":
            draw_pedestrian(pen, _look(actor.look), actor.pace * t, actor.pace)
        else:
            draw_cyclist(pen, _look(actor.look), actor.pace * t)
        return
    _draw_vehicle(stage, actor, at_xz, ident)


def _draw_vehicle(stage: Stage, actor: Actor, at_xz: tuple[float, float], ident: int) -> None:
    canvas, camera, mood = stage.canvas, stage.camera, stage.mood
    mesh = build_mesh(actor.kind, actor.look)
    cos, sin = np.cos(actor.heading), np.sin(actor.heading)
    turn = np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])
    place = np.array([at_xz[0], 0.0, at_xz[1]])
    seen = camera.to_camera(mesh.vertices @ turn + place)
    centres = camera.to_camera(mesh.centres @ turn + place)
    tips = camera.to_camera((mesh.centres + 0.01 * mesh.normals) @ turn + place)
    facing = np.einsum("ij,ij->i", tips - centres, centres) < 0
    distance = np.linalg.norm(centres, axis=1)
    rgb = _shade(mesh, mesh.normals @ turn, mood, at_xz[1] - camera.z, actor.pace > 0)
    pixels = camera.to_pixels(seen) if (seen[:, 2] >= NEAR_M).all() else None
    small = camera.pixels_per_metre(at_xz[1]) < 14
    order = np.lexsort((-distance, mesh.layers))
    for index in order[facing[order]]:
        layer = mesh.layers[index]
        if small and layer == TRIM and mesh.lamps[index] == 0:
            continue
        first, last = mesh.faces[index]
        if pixels is not None:
            corners = pixels[first:last]
        else:
            kept = clip_near(seen[first:last])
            if len(kept) < 3:
                continue
            corners = camera.to_pixels(kept)
        canvas.fill(corners, rgb[index], None if layer in (TRIM, GLASS) else ident)
        if mesh.lamps[index] and mood.lamps_on and actor.pace > 0 and pixels is not None:
            reach, rgb_lamp = _GLOWS[int(mesh.lamps[index])]
            stage.glow(corners.mean(axis=0), reach * camera.pixels_per_metre(at_xz[1]), rgb_lamp)


def _shade(mesh: Mesh, normals: Points, mood: Mood, distance: float, driving: bool) -> Points:
    rgb = mood.lit(mesh.rgb, normals)
    glass = (mesh.layers == GLASS)[:, None]
    up = np.clip(normals[:, 1:2] * 0.6 + 0.16, 0.1, 0.6)
    rgb = np.where(glass, rgb * (1 - up) + mood.sky_low * up * 0.8, rgb)
    gloss = np.where((mesh.layers == HULL)[:, None], np.clip(normals[:, 1:2], 0, 1) * 0.14, 0)
    rgb = rgb * (1 - gloss) + mood.sky_top * gloss
    lamps = mesh.lamps[:, None]
    if mood.lamps_on and driving:
        rgb = np.where(lamps == 1, np.array([255.0, 248, 222]), rgb)
        rgb = np.where(lamps == 2, np.array([255.0, 46, 34]), rgb)
    return mood.hazed(rgb, distance)
