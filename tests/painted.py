"""Frames whose boxes are painted in the colour of their class: pixels tell where boxes are."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.frames import Frame, Image, Truth
from urbandet_ray.records.example import example_from_frame
from urbandet_ray.records.images import encode_png
from urbandet_ray.records.tfrecord import RecordWriter

COLOURS = np.array(
    [(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255)], np.uint8
)
"""By class id; 0 is the background."""
CLASSES = len(COLOURS) - 1


def random_boxes(
    seed: int, count: int, size_wh: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Up to `count` boxes of whole pixels that do not touch, and class ids: [n, 4] xyxy, [n]."""
    draw = np.random.default_rng(seed)
    columns, rows = 3, 2
    cell_wh = np.array(size_wh) // (columns, rows)
    boxes = []
    for cell in draw.permutation(columns * rows)[:count]:
        corner = cell_wh * (cell % columns, cell // columns)
        side = draw.integers(cell_wh // 3, cell_wh - 4)
        begin = corner + draw.integers(1, cell_wh - side)
        boxes.append([*begin, *(begin + side)])
    ids = draw.integers(1, CLASSES + 1, len(boxes))
    return np.array(boxes, np.float32).reshape(-1, 4), ids.astype(np.int64)


def paint(
    boxes_xyxy: NDArray[np.float32], ids: NDArray[np.int64], size_wh: tuple[int, int]
) -> Image:
    """The image of these boxes."""
    image = np.zeros((size_wh[1], size_wh[0], 3), np.uint8)
    for (x0, y0, x1, y1), class_id in zip(boxes_xyxy.astype(int), ids, strict=True):
        image[y0:y1, x0:x1] = COLOURS[class_id]
    return image


def painted_example(seed: int, count: int, size_wh: tuple[int, int] = (96, 64)) -> bytes:
    """A record with such an image, without loss."""
    boxes, ids = random_boxes(seed, count, size_wh)
    truth = Truth.of(boxes, ids, is_crowd=ids % 2 == 1)
    encoded = encode_png(paint(boxes, ids, size_wh))
    return example_from_frame(Frame(f"frame-{seed}", "drive", encoded, "png", size_wh, truth))


def grey_example(level: int, class_ids: Sequence[int] | None = (1,)) -> bytes:
    """A record of 32 x 24 pixels of one grey, with a box for each class id; None is unlabelled."""
    encoded = encode_png(np.full((24, 32, 3), level, np.uint8))
    truth = None
    if class_ids is not None:
        truth = Truth.of([[4.0, 4.0, 20.0, 16.0]] * len(class_ids), class_ids)
    return example_from_frame(Frame(f"frame-{level}", "drive", encoded, "png", (32, 24), truth))


def write_records(path: Path, records: Sequence[bytes], *, compress: bool = False) -> Path:
    """A TFRecord file of these records."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file, RecordWriter(file, compress=compress) as writer:
        for record in records:
            writer.write(record)
    return path
