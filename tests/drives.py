"""Small drives and a detector for tests: images whose content says which frame they are."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from urbandet_ray.detections import Detections
from urbandet_ray.errors import ModelError
from urbandet_ray.frames import Frame, Image, Truth
from urbandet_ray.labels import STREET_LABELS, LabelMap
from urbandet_ray.records.images import encode_jpeg
from urbandet_ray.records.writer import write_frames


def frame_image(index: int, size_wh: tuple[int, int] = (64, 48)) -> Image:
    """A grey image with a bright square that moves right by two pixels a frame."""
    image = np.full((size_wh[1], size_wh[0], 3), 40, np.uint8)
    left = 4 + 2 * (index % 20)
    image[10:30, left : left + 16] = 250
    return image


def square_of(index: int) -> list[float]:
    """Where the bright square of `frame_image` is."""
    left = 4.0 + 2 * (index % 20)
    return [left, 10.0, left + 16, 30.0]


def make_frame(index: int, segment: str = "drive") -> Frame:
    """Frame `index` of a drive, labelled."""
    return Frame(
        frame_key=f"{segment}-{index:06d}",
        segment=segment,
        encoded=encode_jpeg(frame_image(index), 95),
        format="jpeg",
        size_wh=(64, 48),
        truth=Truth.of([square_of(index)], [1], ("vehicle",)),
    )


def write_drive(path: Path, count: int) -> Path:
    """A TFRecord of `count` frames."""
    write_frames((make_frame(index, path.stem) for index in range(count)), path)
    return path


@dataclass
class SquareDetector:
    """Finds the bright square by its pixels; a whole detector, if a narrow one."""

    labels: LabelMap = field(default_factory=lambda: STREET_LABELS)
    batch_size: int = 1

    def detect(self, images: Sequence[Image]) -> list[Detections]:
        """One vehicle a frame: the extent of what is bright."""
        return [self._one(image) for image in images]

    def _one(self, image: Image) -> Detections:
        ys, xs = np.nonzero(image[..., 0] > 150)
        if not len(xs):
            return Detections.empty()
        box = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        return Detections.of([box], [0.9], [1])


@dataclass
class WaitingDetector(SquareDetector):
    """Waits for each call and each image, as for an accelerator that likes batches."""

    batch_size: int = 4
    call_s: float = 0.02
    image_s: float = 0.001

    def detect(self, images: Sequence[Image]) -> list[Detections]:
        """As the square's, later."""
        time.sleep(self.call_s + self.image_s * len(images))
        return super().detect(images)


class BreakingDetector(SquareDetector):
    """Runs out of memory."""

    def detect(self, images: Sequence[Image]) -> list[Detections]:
        """Never answers."""
        raise RuntimeError("out of memory")


def refuse_to_load() -> SquareDetector:
    """A model whose runtime is not there."""
    raise ModelError("this runtime is not installed")
