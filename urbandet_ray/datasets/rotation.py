"""Upright boxes around what annotation tools draw: rotated boxes, ellipses, outlines."""

from __future__ import annotations

import math
from collections.abc import Sequence

from urbandet_ray.datasets.annotated import Corners


def around_rotated(corners: Corners, degrees: float, pivot: tuple[float, float]) -> Corners:
    """The upright box around a box that is turned clockwise about a pivot; both in pixels."""
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    x0, y0, x1, y1 = corners
    xs, ys = [], []
    for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1)):
        dx, dy = x - pivot[0], y - pivot[1]
        xs.append(pivot[0] + dx * cos - dy * sin)
        ys.append(pivot[1] + dx * sin + dy * cos)
    return (min(xs), min(ys), max(xs), max(ys))


def around_ellipse(cx: float, cy: float, rx: float, ry: float, degrees: float) -> Corners:
    """The upright box around an ellipse that is turned about its centre."""
    angle = math.radians(degrees)
    half_width = math.hypot(rx * math.cos(angle), ry * math.sin(angle))
    half_height = math.hypot(rx * math.sin(angle), ry * math.cos(angle))
    return (cx - half_width, cy - half_height, cx + half_width, cy + half_height)


def around_points(points: Sequence[tuple[float, float]]) -> Corners:
    """The upright box around points, of which there is at least one."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return (min(xs), min(ys), max(xs), max(ys))
