"""mAP of a loaded detector on labelled records, in this process: no Ray, no run folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

from urbandet_ray.errors import InputError, RecordError
from urbandet_ray.evaluation import Metrics, evaluate
from urbandet_ray.frames import Frame, Image
from urbandet_ray.labels import LabelMap
from urbandet_ray.models.detector import Detector
from urbandet_ray.records.data_folder import sources_and_labels
from urbandet_ray.records.images import decode_frame
from urbandet_ray.records.sources import Record, Source, read_source
from urbandet_ray.records.truth_classes import TruthClasses
from urbandet_ray.runs.detections_table import DetectionRow
from urbandet_ray.storage import Storage


def measure_accuracy(detector: Detector, data: str, storage: Storage) -> Metrics:
    """COCO metrics of a detector.

    Args:
        detector: its detections carry the class ids of its label map.
        data: labelled records; bad ones are left out. Classes are matched by name.
        storage: opens them.

    Raises:
        InputError: a record without labels, or nothing to read.
        LabelError: no labelled box is of a class that the detector has.
    """
    sources, own = sources_and_labels(data, storage)
    classes = TruthClasses(detector.labels, own)
    metrics = evaluate(_results(detector, sources, classes, storage), detector.labels)
    for line in classes.lines():
        logging.getLogger(__name__).warning("%s: %s", data, line)
    return metrics


def has_labels(sources: Sequence[Source], storage: Storage) -> bool:
    """Whether the first good record carries labels; where none is good, none does."""
    for source in sources:
        for record in read_source(source, storage):
            if record.frame is not None:
                return record.frame.truth is not None
    return False


def decoded(
    source: Source, storage: Storage, labels: LabelMap | None = None
) -> Iterator[tuple[Record, Frame, Image]]:
    """A source's records with their frames and images; bad ones are left out.

    Args:
        labels: turns class texts into ids; None takes the records' numbers.
    """
    for record in read_source(source, storage, labels=labels):
        if record.frame is None:
            continue
        try:
            image = decode_frame(record.frame)
        except RecordError:
            continue
        yield record, record.frame, image


def _results(
    detector: Detector, sources: Sequence[Source], classes: TruthClasses, storage: Storage
) -> Iterator[DetectionRow]:
    waiting: list[tuple[str, int, Frame, Image]] = []

    def answered() -> Iterator[DetectionRow]:
        found = detector.detect([image for *_, image in waiting])
        for (name, index, frame, image), detections in zip(waiting, found, strict=True):
            key, segment, size_wh = frame.frame_key, frame.segment, (image.shape[1], image.shape[0])
            yield DetectionRow(name, index, key, segment, size_wh, detections, frame.truth)
        waiting.clear()

    for source in sources:
        for record, frame, image in decoded(source, storage, classes.reading):
            if frame.truth is None:
                raise InputError(f"{record.uri}, record {record.index} carries no labels")
            judged = replace(frame, truth=classes.of(frame.truth, frame.frame_key))
            waiting.append((source.name, record.index, judged, image))
            if len(waiting) == detector.batch_size:
                yield from answered()
    yield from answered()
