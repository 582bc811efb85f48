"""mAP of a loaded detector on labelled records, in this process: no Ray, no run folder."""

from __future__ import annotations

from collections.abc import Iterator

from urbandet_ray.errors import InputError
from urbandet_ray.evaluation import FrameResult, Metrics, evaluate
from urbandet_ray.frames import Image, Truth
from urbandet_ray.models.detector import Detector
from urbandet_ray.records.images import decode_frame
from urbandet_ray.records.sources import list_sources, read_source
from urbandet_ray.storage import Storage


def measure_accuracy(detector: Detector, data: str, storage: Storage) -> Metrics:
    """COCO metrics of a detector.

    Args:
        detector: its detections carry the class ids of the labels.
        data: labelled records; bad ones are left out.
        storage: opens them.

    Raises:
        InputError: a record without labels, or nothing to read.
    """
    return evaluate(_results(detector, data, storage), detector.labels)


def _results(detector: Detector, data: str, storage: Storage) -> Iterator[FrameResult]:
    waiting: list[tuple[str, Truth, Image]] = []

    def answered() -> Iterator[FrameResult]:
        found = detector.detect([image for _, _, image in waiting])
        for (key, truth, image), detections in zip(waiting, found, strict=True):
            yield FrameResult(key, (image.shape[1], image.shape[0]), truth, detections)
        waiting.clear()

    for source in list_sources(data, storage):
        for record in read_source(source, storage):
            if record.frame is None:
                continue
            if record.frame.truth is None:
                raise InputError(f"{record.uri}, record {record.index} carries no labels")
            key = f"{source.name}-{record.index:08d}"
            waiting.append((key, record.frame.truth, decode_frame(record.frame)))
            if len(waiting) == detector.batch_size:
                yield from answered()
    yield from answered()
