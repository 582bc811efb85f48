"""Better eyes for small things: a detector that also looks at parts of the image, enlarged.

An SSD sees its image at 320 x 320 px; a pedestrian of 15 px in a 640 px frame is then 7 px high.
In a tile of a third of the frame the same pedestrian is 20 px high. What the windows found is
brought together by models/merging.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from math import ceil

import numpy as np

from urbandet_ray.config import TilesConfig
from urbandet_ray.detections import Detections
from urbandet_ray.errors import ModelError
from urbandet_ray.frames import Image
from urbandet_ray.models.answers import image_size_wh
from urbandet_ray.models.detector import Detector
from urbandet_ray.models.merging import merge_windows

Window = tuple[int, int, int, int]
"""x0, y0, x1, y1 in whole pixels of the image; x1 and y1 are outside."""


def tile_windows(size_wh: tuple[int, int], tiles: TilesConfig) -> list[Window]:
    """The tiles of an image, row by row: all of one size, together every pixel.

    Tiles of an image with fewer pixels than tiles would repeat themselves; each is given once.

    Args:
        size_wh: the image's width and height in pixels.
        tiles: rows, columns and overlap are used.
    """
    width, height = size_wh
    spans_x = _spans(width, tiles.columns, tiles.overlap)
    spans_y = _spans(height, tiles.rows, tiles.overlap)
    return [(x0, y0, x1, y1) for y0, y1 in spans_y for x0, x1 in spans_x]


def _spans(length: int, count: int, overlap: float) -> list[tuple[int, int]]:
    side = min(ceil(length / (count - (count - 1) * overlap) - 1e-9), length)
    gaps = max(count - 1, 1)
    # rounded halves up in whole numbers: neighbours lie at most `side` apart, so nothing is missed
    starts = ((2 * i * (length - side) + gaps) // (2 * gaps) for i in range(count))
    return list(dict.fromkeys((start, start + side) for start in starts))


class TiledDetector:
    """Any detector, given tiles of its images (and the whole of them)."""

    def __init__(
        self,
        inner: Detector,
        tiles: TilesConfig,
        *,
        max_detections: int = 100,
        score_min: float = 0.0,
    ) -> None:
        """Wrap a detector.

        Args:
            inner: looks at the windows, `inner.batch_size` of them a call.
            tiles: which windows, and how their answers are merged.
            max_detections: the best this many of an image are kept.
            score_min: lower scores are dropped; fusion makes scores lower than any the inner
                detector gave, where other windows missed the object.
        """
        self.labels = inner.labels
        self.batch_size = inner.batch_size
        self._inner = inner
        self._tiles = tiles
        self._max_detections = max_detections
        self._score_min = score_min

    def detect(self, images: Sequence[Image]) -> list[Detections]:
        """Detect objects in n images of any sizes; see `Detector.detect`."""
        sizes = [image_size_wh(image) for image in images]
        plans = [self._windows(size_wh) for size_wh in sizes]
        crops = [
            image[y0:y1, x0:x1]
            for image, windows in zip(images, plans, strict=True)
            for x0, y0, x1, y1 in windows
        ]
        answers = iter(self._look_at(crops))
        return [
            self._merge(list(islice(answers, len(windows))), windows, size_wh)
            for windows, size_wh in zip(plans, sizes, strict=True)
        ]

    def _windows(self, size_wh: tuple[int, int]) -> list[Window]:
        windows = tile_windows(size_wh, self._tiles)
        if self._tiles.whole:
            windows.append((0, 0, *size_wh))
        return list(dict.fromkeys(windows))

    def _look_at(self, crops: list[Image]) -> list[Detections]:
        """The inner detector's answers, in the order of the crops.

        Crops of one shape go together: a network takes a batch of one shape in one go.
        """
        order = sorted(range(len(crops)), key=lambda number: crops[number].shape)
        answers: dict[int, Detections] = {}
        for first in range(0, len(order), self.batch_size):
            batch = order[first : first + self.batch_size]
            found = self._inner.detect([crops[number] for number in batch])
            if len(found) != len(batch):
                raise ModelError(
                    f"the model answered for {len(found)} of {len(batch)} tiles: its export "
                    "cannot batch; export it again with an open batch or a fixed one of 1"
                )
            answers.update(zip(batch, found, strict=True))
        return [answers[number] for number in range(len(crops))]

    def _merge(
        self, answers: list[Detections], windows: list[Window], size_wh: tuple[int, int]
    ) -> Detections:
        """One answer for one image; a single window's is the inner detector's own."""
        if len(windows) == 1:
            return answers[0]
        merged = merge_windows(
            answers,
            np.array(windows, np.float32),
            size_wh,
            tiles=self._tiles,
            max_detections=self._max_detections,
        )
        return merged.above(self._score_min)


def load_tiled(
    load: Callable[[], Detector], tiles: TilesConfig, *, max_detections: int, score_min: float
) -> TiledDetector:
    """Load a detector and give it tiles; a partial of this travels to the actors."""
    return TiledDetector(load(), tiles, max_detections=max_detections, score_min=score_min)
