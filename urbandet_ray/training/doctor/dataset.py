"""What the records hold, as columns the checks can compute with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.boxes import Boxes
from urbandet_ray.errors import RecordError
from urbandet_ray.frames import Frame
from urbandet_ray.labels import LabelMap
from urbandet_ray.records.example import parse_features
from urbandet_ray.records.images import frame_size
from urbandet_ray.records.label_columns import OBJECT
from urbandet_ray.records.label_faults import LabelFaults
from urbandet_ray.records.leaks import Pictures
from urbandet_ray.records.orientation import exif_orientation
from urbandet_ray.records.source import Record, Source
from urbandet_ray.records.sources import read_source
from urbandet_ray.storage import Storage
from urbandet_ray.training.data.tensorflow_images import check_trainable

_KEYPOINT = f"{OBJECT}keypoint/"


@dataclass(frozen=True, eq=False)
class DataSplit:
    """One split of a data set; only the images that are compared are decoded, and small.

    Attributes:
        uri: what was read; several patterns are joined by a space.
        segments: names of its drives.
        frames: frames that can be read.
        boxes_xyxy: [n, 4] float32, pixels of the stored image.
        class_ids: [n] int32.
        sizes_wh: [n, 2] float32, pixels of the image each box is in.
        frames_with: frames that hold at least one box, by class id.
        names: the records' own class names, by id; empty where they carry none.
        has_masks: some box has a mask.
        pictures: to find frames again in another split.
        boxes_per_frame: [frames with boxes] how many each holds.
        most_of_a_class: [frames with boxes] the boxes of the class that each holds most of.
        faults: boxes and columns that were left out.
        turned: frames whose EXIF tag says that they are to be turned.
        untrainable: frames that only TensorFlow does not decode as others do, with the reason.
        keypoints: frames whose record holds keypoints.
    """

    uri: str
    segments: frozenset[str]
    frames: int
    boxes_xyxy: Boxes
    class_ids: NDArray[np.int32]
    sizes_wh: NDArray[np.float32]
    frames_with: dict[int, int]
    names: dict[int, str]
    has_masks: bool
    pictures: Pictures
    boxes_per_frame: NDArray[np.int32]
    most_of_a_class: NDArray[np.int32]
    faults: LabelFaults
    turned: int
    untrainable: tuple[str, ...]
    keypoints: int

    @property
    def boxes_of(self) -> dict[int, int]:
        """Boxes by class id."""
        ids, counts = np.unique(self.class_ids, return_counts=True)
        return dict(zip(ids.tolist(), counts.tolist(), strict=True))


def _has_keypoints(raw: bytes) -> bool:
    """Whether an Example has a column of keypoints that is not empty."""
    if _KEYPOINT.encode() not in raw:
        return False
    columns = (one for key, one in parse_features(raw).items() if key.startswith(_KEYPOINT))
    return any(len(getattr(one, kind).value) for one in columns if (kind := one.WhichOneof("kind")))


@dataclass
class _Tally:
    segments: set[str] = field(default_factory=set)
    frames: int = 0
    boxes: list[Boxes] = field(default_factory=list)
    ids: list[NDArray[np.int32]] = field(default_factory=list)
    sizes: list[NDArray[np.float32]] = field(default_factory=list)
    frames_with: Counter[int] = field(default_factory=Counter)
    names: dict[int, str] = field(default_factory=dict)
    has_masks: bool = False
    pictures: Pictures = field(default_factory=Pictures)
    boxes_per_frame: list[int] = field(default_factory=list)
    most_of_a_class: list[int] = field(default_factory=list)
    faults: LabelFaults = field(default_factory=LabelFaults)
    turned: int = 0
    untrainable: list[str] = field(default_factory=list)
    keypoints: int = 0

    def add(self, record: Record, frame: Frame) -> None:
        self.faults.add(record.problems, f"{record.uri} record {record.index}")
        self.keypoints += _has_keypoints(record.raw)
        self.turned += exif_orientation(frame.encoded) != 1
        try:
            check_trainable(frame)
        except RecordError as error:
            if error.reason == "untrainable-image":
                self.untrainable.append(f"{record.uri} record {record.index}: {error.detail}")
        self.pictures.add(frame)
        self.segments.add(frame.segment)
        self.frames += 1
        truth = frame.truth
        if truth is None or not len(truth):
            return
        try:
            width, height = frame_size(frame)
        except RecordError:
            return
        self.boxes.append(truth.boxes_xyxy)
        self.ids.append(truth.class_ids)
        self.sizes.append(np.tile(np.array([[width, height]], np.float32), (len(truth), 1)))
        self.boxes_per_frame.append(len(truth))
        ids = truth.class_ids.tolist()
        self.most_of_a_class.append(max(Counter(ids).values()))
        self.frames_with.update(set(ids))
        self.has_masks = self.has_masks or any(truth.masks_png)
        for class_id, text in zip(ids, truth.class_texts, strict=True):
            if text:
                self.names.setdefault(class_id, text)


def read_split(
    uris: Sequence[str], sources: Sequence[Source], storage: Storage, labels: LabelMap | None
) -> DataSplit:
    """Read the labels of all records; unreadable ones are passed over.

    Args:
        uris: where the sources come from, for messages.
        labels: turns class texts into ids; None takes the records' numbers.

    Raises:
        StorageError: a source cannot be read.
    """
    tally = _Tally()
    for source in sources:
        for record in read_source(source, storage, labels=labels):
            if record.frame is not None:
                tally.add(record, record.frame)
    return DataSplit(
        uri=" ".join(uris),
        segments=frozenset(tally.segments),
        frames=tally.frames,
        boxes_xyxy=np.concatenate([np.zeros((0, 4), np.float32), *tally.boxes]),
        class_ids=np.concatenate([np.zeros(0, np.int32), *tally.ids]),
        sizes_wh=np.concatenate([np.zeros((0, 2), np.float32), *tally.sizes]),
        frames_with=dict(tally.frames_with),
        names=tally.names,
        has_masks=tally.has_masks,
        pictures=tally.pictures,
        boxes_per_frame=np.array(tally.boxes_per_frame, np.int32),
        most_of_a_class=np.array(tally.most_of_a_class, np.int32),
        faults=tally.faults,
        turned=tally.turned,
        untrainable=tuple(tally.untrainable),
        keypoints=tally.keypoints,
    )
