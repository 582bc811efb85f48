"""Trails: the way each track has come, as a fading line beneath the boxes.

A trail has its class's colour, lighter, within a dark rim. A hue for each track would soon be one
of a class's, or one that colour-blind people can't tell from it; a track is told by its place and
by the number in its label.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.boxes import box_areas, clip_boxes
from urbandet_ray.detections import Detections
from urbandet_ray.frames import Image
from urbandet_ray.rendering.annotate import DrawStyle
from urbandet_ray.rendering.labels_text import check_image
from urbandet_ray.rendering.palette import INK, WHITE, Colour, class_colour

SHIFT = 4
"""Binary places of the coordinates OpenCV is given: lines move by a sixteenth of a pixel."""

LIGHTER = 0.4
"""How far a trail's colour lies from its class's towards white."""

STRENGTH, RIM_SHARE = 0.9, 0.6
"""Cover of the newest part of a trail, in [0, 1], and its rim's share of it."""

UNSEEN = 4
"""The trail of what is not seen any more goes this many times as fast as its points do."""

Line = tuple[float, NDArray[np.int32]]
"""Cover in [0, 1], and [2, 2] ends in fixed point."""


@dataclass
class _Way:
    """Where a track's boxes stood: frame counts and points on the ground, newest last."""

    class_id: int
    frames: deque[int] = field(default_factory=deque)
    points: deque[tuple[float, float]] = field(default_factory=deque)


class Trails:
    """Draws the trails of one video; it must see the frames in the order in which they play."""

    def __init__(self, frames: int = 20) -> None:
        """Start with nothing seen.

        Args:
            frames: a point of a trail fades away over this many frames, at least 1.
        """
        if frames < 1:
            raise ValueError(f"a trail of {frames} frames: it needs at least 1")
        self._frames = frames
        self._segment: str | None = None
        self._count = 0
        self._ways: dict[int, _Way] = {}

    def draw(self, scene: Image, detections: Detections, segment: str) -> Image:
        """Draw on `scene` itself, before its boxes, and return it.

        Args:
            scene: [height, width, 3] uint8 RGB, writable.
            detections: of this frame; those without a track id are passed over.
            segment: the frame's; where it changes, all trails end.

        Raises:
            ValueError: `scene` is read-only or not [height, width, 3] uint8.
        """
        size_wh = check_image(scene)
        if not scene.flags.writeable:
            raise ValueError("cannot draw on a read-only image: pass scene.copy()")
        if segment != self._segment:
            self._segment, self._count, self._ways = segment, 0, {}
        self._count += 1
        self._extend(detections, size_wh)
        self._forget()
        by_class: dict[int, list[Line]] = {}
        for way in self._ways.values():
            by_class.setdefault(way.class_id, []).extend(self._lines(way))
        thick = DrawStyle.for_size(size_wh).line  # OpenCV's smooth lines are some 2 px wider
        rims = [(cover * RIM_SHARE, ends) for lines in by_class.values() for cover, ends in lines]
        _blend(scene, rims, thick + 2, INK)
        for class_id, lines in sorted(by_class.items()):
            _blend(scene, lines, thick, trail_colour(class_id))
        return scene

    def _extend(self, detections: Detections, size_wh: tuple[int, int]) -> None:
        boxes = clip_boxes(detections.boxes_xyxy, size_wh)
        for row in np.flatnonzero((detections.track_ids >= 0) & (box_areas(boxes) > 0)).tolist():
            x0, _, x1, y1 = boxes[row].tolist()
            track_id, class_id = int(detections.track_ids[row]), int(detections.class_ids[row])
            way = self._ways.setdefault(track_id, _Way(class_id))
            way.frames.append(self._count)
            way.points.append(((x0 + x1) / 2, y1))

    def _forget(self) -> None:
        for track_id, way in list(self._ways.items()):
            while way.frames and way.frames[0] <= self._count - self._frames:
                way.frames.popleft()
                way.points.popleft()
            if not way.frames:
                del self._ways[track_id]

    def _lines(self, way: _Way) -> list[Line]:
        """The way's lines, each as old as its newer end; they bridge frames without a box."""
        # OpenCV puts whole numbers into the middle of a pixel
        ends = np.rint((np.array(way.points) - 0.5) * 2**SHIFT).astype(np.int32)
        ages = self._count - np.array(way.frames)
        unseen = UNSEEN * ages[-1] / self._frames
        covers = STRENGTH * (1 - ages[1:] / self._frames) * max(0.0, 1 - unseen)
        return [(cover, ends[i : i + 2]) for i, cover in enumerate(covers.tolist()) if cover]


@cache
def trail_colour(class_id: int) -> Colour:
    """The colour of a class's trails."""
    red, green, blue = (
        round(channel + (other - channel) * LIGHTER)
        for channel, other in zip(class_colour(class_id), WHITE, strict=True)
    )
    return red, green, blue


def _blend(scene: Image, lines: Iterable[Line], thick: int, colour: Colour) -> None:
    """Lay lines over `scene`, the stronger on the weaker: none is cut by a fainter one."""
    import cv2

    cover = np.zeros(scene.shape[:2], np.uint8)
    by_value: dict[int, list[NDArray[np.int32]]] = {}
    for share, ends in lines:
        by_value.setdefault(round(255 * share), []).append(ends)
    for value in sorted(by_value):
        cv2.polylines(cover, by_value[value], False, value, thick, cv2.LINE_AA, SHIFT)
    # a flat search is some ten times as fast, and most of a frame is not touched
    rows, columns = np.divmod(np.flatnonzero(cover > 0), scene.shape[1])
    weights = cover[rows, columns].astype(np.uint16)[:, None]
    below = scene[rows, columns] * (255 - weights)
    scene[rows, columns] = (below + np.array(colour, np.uint16) * weights + 127) // 255
