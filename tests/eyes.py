"""A detector of tests that sees what it is told to, window by window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from urbandet_ray.config import TilesConfig
from urbandet_ray.detections import Detections
from urbandet_ray.frames import Image
from urbandet_ray.labels import STREET_LABELS
from urbandet_ray.models.tiles import TiledDetector

SIZE_WH = (300, 200)


def located(size_wh: tuple[int, int]) -> Image:
    """An image whose pixels say where they are, so that a crop tells where it was cut out."""
    y, x = np.mgrid[: size_wh[1], : size_wh[0]]
    return np.stack([x & 255, y & 255, (x >> 8) | (y >> 8) << 4], axis=2).astype(np.uint8)


def window_of(crop: Image) -> tuple[int, int, int, int]:
    """Where a crop of a `located` image was cut out."""
    x, y, high = (int(value) for value in crop[0, 0])
    x, y = x | (high & 15) << 8, y | (high >> 4) << 8
    return x, y, x + crop.shape[1], y + crop.shape[0]


class Eye:
    """Sees what the table says of a window, or every box of a scene, cut at the crop's borders.

    The less of an object a crop holds, the surer it is: the hardest case for a merge.
    """

    def __init__(
        self,
        scene: Sequence[tuple[list[float], int]] = (),
        table: dict[tuple[int, int, int, int], Detections] | None = None,
        batch_size: int = 1,
        answers: int | None = None,
    ) -> None:
        self.labels = STREET_LABELS
        self.batch_size = batch_size
        self.calls: list[list[tuple[int, ...]]] = []
        self._scene, self._table, self._answers = scene, table, answers

    def detect(self, images: Sequence[Image]) -> list[Detections]:
        self.calls.append([image.shape for image in images])
        return [self._see(image) for image in images][: self._answers]

    def _see(self, crop: Image) -> Detections:
        window = window_of(crop)
        if self._table is not None:
            return self._table.get(window, Detections.empty())
        found = []
        for box, class_id in self._scene:
            part = np.array([*np.maximum(box[:2], window[:2]), *np.minimum(box[2:], window[2:])])
            if (part[2:] > part[:2]).all():
                share = np.prod(part[2:] - part[:2]) / np.prod(np.subtract(box[2:], box[:2]))
                found.append((0.9 - 0.4 * share, part - np.tile(window[:2], 2), class_id))
        found.sort(key=lambda one: -one[0])
        return Detections.of([b for _, b, _ in found], [s for s, _, _ in found],
                             [c for _, _, c in found])  # fmt: skip


def detect(eye: Eye, tiles: TilesConfig, **settings: Any) -> Detections:
    """What is found in one image of SIZE_WH."""
    return TiledDetector(eye, tiles, **settings).detect([located(SIZE_WH)])[0]
