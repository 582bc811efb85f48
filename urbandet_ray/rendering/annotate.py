"""Draw detections and ground truth on a frame, fast enough to keep up with decoding.

All sizes follow the image, so a label reads the same on 640 and on 1920 pixels. Text comes as
cached tiles; drawing a frame is some hundred short copies and no font work.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.boxes import Boxes
from urbandet_ray.detections import Detections
from urbandet_ray.frames import Image, Truth
from urbandet_ray.labels import LabelMap
from urbandet_ray.rendering.labels_text import (
    blit,
    check_image,
    label_tiles,
    place_labels,
    text_tile,
)
from urbandet_ray.rendering.palette import INK, class_colour


@dataclass(frozen=True)
class DrawStyle:
    """Sizes in pixels for one image size."""

    line: int
    font_px: int
    tiny: int
    """Boxes with both sides below this get a thin line and no label."""
    dash: int

    @classmethod
    def for_size(cls, size_wh: tuple[int, int]) -> DrawStyle:
        """Scale with the geometric mean of the sides: 2 px lines and 14 px text on 640x640."""
        unit = float(np.sqrt(size_wh[0] * size_wh[1]))
        return cls(
            line=max(1, round(unit / 320)),
            font_px=max(11, round(unit * 0.0215)),
            tiny=max(12, round(unit * 24 / 640)),
            dash=max(3, round(unit / 128)),
        )


_PIXEL = np.dtype("V3")
_NO_TILES = (np.zeros((0, 0, 3), np.uint8),) * 2
_style_of = lru_cache(maxsize=64)(DrawStyle.for_size)


class Annotator:
    """Draws one run's detections; cheap to pickle, the same pixels for the same input."""

    def __init__(
        self,
        labels: LabelMap,
        *,
        draw_truth: bool = False,
        score_min: float = 0.0,
        draw_ids: bool = False,
    ) -> None:
        """Keep what the frames of a run have in common.

        Args:
            labels: names of the detections' class ids.
            draw_truth: outline the ground truth, where there is some, in dashed black and white.
            score_min: detections below this score are not drawn, in [0, 1].
            draw_ids: put the track's number into the label, "vehicle #12 87%".
        """
        self.labels = labels
        self.draw_truth = draw_truth
        self.score_min = score_min
        self.draw_ids = draw_ids

    def annotate(self, scene: Image, detections: Detections, truth: Truth | None = None) -> Image:
        """Draw on `scene` itself and return it; low scores first, so that high ones stay on top.

        Args:
            scene: [height, width, 3] uint8 RGB, writable.
            detections: pixels of this image; parts outside of it are cut off.
            truth: ground truth of the same frame.

        Raises:
            ValueError: `scene` is read-only or not [height, width, 3] uint8.
        """
        size_wh = _check_scene(scene)
        style = _style_of(size_wh)
        kept = detections.above(self.score_min) if self.score_min > 0 else detections
        best_first = np.argsort(-kept.scores, kind="stable")
        corners, rows = _pixel_corners(kept.boxes_xyxy[best_first], size_wh)
        rows = best_first[rows]
        class_ids = kept.class_ids[rows].tolist()
        _draw_boxes(scene, corners.tolist(), class_ids, style)
        if self.draw_truth and truth is not None:
            draw_dashed(scene, truth.boxes_xyxy, style)
        percents = np.floor(kept.scores[rows] * 100 + 0.5).astype(int).tolist()
        track_ids = kept.track_ids[rows].tolist() if self.draw_ids else [-1] * len(rows)
        said = list(zip(class_ids, percents, track_ids, strict=True))
        self._draw_labels(scene, corners, said, style)
        return scene

    def _draw_labels(
        self,
        scene: Image,
        corners: NDArray[np.int32],
        said: list[tuple[int, int, int]],
        style: DrawStyle,
    ) -> None:
        """Labels of the boxes; `said` is class id, percent and track id (-1 for none) of each."""
        sides = corners[:, 2:] - corners[:, :2]
        wanted = (sides.max(axis=1, initial=0) >= style.tiny).tolist()
        tiles = [
            self._tiles(class_id, percent, track_id, style.font_px) if want else _NO_TILES
            for (class_id, percent, track_id), want in zip(said, wanted, strict=True)
        ]
        sizes_wh = np.array(
            [[tile.shape[1::-1] for tile in variants] for variants in tiles], np.int32
        ).reshape(-1, 2, 2)
        places = place_labels(corners, sizes_wh, (scene.shape[1], scene.shape[0]))
        for variants, place in zip(tiles, places, strict=True):
            if place is not None:
                blit(scene, variants[place[0]], *place[1:])

    def _tiles(
        self, class_id: int, percent: int, track_id: int, font_px: int
    ) -> tuple[Image, Image]:
        """The label and its short form: "vehicle 87%", "87%"; of a track "vehicle #12 87%", "#12".

        A track's are put together from tiles that come back, or each would need font work.
        """
        name = self.labels.name_of(class_id)
        tiles = label_tiles(name, percent, class_id, font_px)
        if track_id < 0:
            return tiles
        colour = class_colour(class_id)
        whose = text_tile(f"{name} #{track_id}", font_px, colour)
        short = text_tile(f"#{track_id}", font_px, colour)
        return np.concatenate([whose, tiles[1]], axis=1), short


def _check_scene(scene: Image) -> tuple[int, int]:
    size_wh = check_image(scene)
    if not scene.flags.writeable:
        raise ValueError("cannot draw on a read-only image: pass scene.copy()")
    return size_wh


def draw_dashed(scene: Image, boxes_xyxy: Boxes, style: DrawStyle) -> None:
    """Outline [n, 4] boxes in thin dashes of white and black, which show on any background."""
    height, width = scene.shape[:2]
    corners, _ = _pixel_corners(boxes_xyxy, (width, height))
    thick = max(1, style.line // 2)
    # Pixels as single items of three bytes: NumPy then copies columns four times as fast.
    pixels = scene.view(_PIXEL)[..., 0]
    pattern = _dashes(max(height, width), style.dash).view(_PIXEL)[..., 0]
    for x0, y0, x1, y1 in corners.tolist():
        across, down = pattern[: x1 + 1 - x0], pattern[: y1 + 1 - y0, None]
        pixels[y0 : y0 + thick, x0 : x1 + 1] = across
        pixels[max(y1 + 1 - thick, y0) : y1 + 1, x0 : x1 + 1] = across
        pixels[y0 : y1 + 1, x0 : x0 + thick] = down
        pixels[y0 : y1 + 1, max(x1 + 1 - thick, x0) : x1 + 1] = down


def _pixel_corners(
    boxes_xyxy: Boxes, size_wh: tuple[int, int]
) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """First and last pixel of each box that has some in the image, [m, 4], and their rows [m]."""
    width, height = size_wh
    limit = np.array([width, height, width, height], np.float32)
    boxes = np.minimum(np.maximum(boxes_xyxy, 0), limit)  # half the cost of np.clip on few rows
    rows = np.flatnonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
    corners = np.rint(boxes[rows]).astype(np.int32)
    corners[:, :2] = np.minimum(corners[:, :2], (width - 1, height - 1))
    corners[:, 2:] = np.maximum(corners[:, 2:] - 1, corners[:, :2])
    return corners, rows


def _draw_boxes(
    scene: Image, corners: list[list[int]], class_ids: list[int], style: DrawStyle
) -> None:
    """Boxes from the last to the first, each with a dark rim outside of its coloured line."""
    import cv2

    rectangle = cv2.rectangle
    for (x0, y0, x1, y1), class_id in zip(reversed(corners), reversed(class_ids), strict=True):
        colour = class_colour(class_id)
        is_tiny = x1 - x0 < style.tiny and y1 - y0 < style.tiny
        line = max(1, style.line // 2) if is_tiny else style.line
        if not is_tiny:
            rectangle(scene, (x0 - 1, y0 - 1), (x1 + 1, y1 + 1), INK, 1)
        # One-pixel rectangles inside each other cost half of cv2's thick polygons.
        for inset in range(min(line, (x1 - x0) // 2 + 1, (y1 - y0) // 2 + 1)):
            rectangle(scene, (x0 + inset, y0 + inset), (x1 - inset, y1 - inset), colour, 1)


@lru_cache(maxsize=16)
def _dashes(length: int, dash: int) -> NDArray[np.uint8]:
    """[length, 3]: white and black in turn, `dash` pixels each."""
    white = (np.arange(length) // dash) % 2 == 0
    return np.repeat(np.where(white, 255, 0).astype(np.uint8)[:, None], 3, axis=1)
