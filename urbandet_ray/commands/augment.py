"""`urbandet augment preview`: what an augmentation makes of frames, as a contact sheet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.boxes import boxes_from_yxyx_norm
from urbandet_ray.errors import ConfigError, InputError, RecordError
from urbandet_ray.frames import Image, Truth
from urbandet_ray.labels import LabelMap
from urbandet_ray.models.pipeline_config import read_pipeline
from urbandet_ray.records.data_folder import DataFolder
from urbandet_ray.records.even_choice import sample
from urbandet_ray.records.example import repaired_example
from urbandet_ray.records.images import encode_png
from urbandet_ray.records.source import Record, Source
from urbandet_ray.reports.contact_sheet import contact_sheet
from urbandet_ray.storage import Storage
from urbandet_ray.training.augmentation.presets import Augmentation, augmentation
from urbandet_ray.training.data.batches import augmented_images
from urbandet_ray.training.data.record_index import share_of_worker
from urbandet_ray.training.data.record_scan import Checks, check_record
from urbandet_ray.training.data.sampler import Sampler

DEFAULT_SIZE = 640
_COLUMNS = 4
_CELL_WIDTH = 320

Picture = tuple[Image, Truth, str]


def preview(
    data: DataFolder,
    out_png: str,
    choice: str,
    labels: LabelMap,
    storage: Storage | None = None,
    *,
    pipeline: str | None = None,
    count: int = 12,
    versions: int = 2,
    size: int | None = None,
    seed: int = 0,
) -> int:
    """Write a PNG with rows of frames as they are, and augmented versions of each below it.

    Args:
        data: TFRecords with labels; frames are taken from files spread over train/, or over all
            where there are no parts.
        out_png: local or s3://.
        choice: a preset or options (training/augmentation/presets.py).
        labels: names of the records' class ids.
        storage: reads and writes.
        pipeline: pipeline.config whose own list `config` means, and whose resizer gives the size.
        count: frames.
        versions: augmented versions of each.
        size: side of the model's input in pixels, in place of the pipeline's; 640 without one.
        seed: of the order of companions, and of what augmentations draw.

    Returns:
        How many frames are shown.

    Raises:
        ConfigError: no such augmentation, or `config` without a pipeline.
        InputError: no record that could be trained on.
    """
    storage = storage or Storage()
    if count < 1 or versions < 1:
        raise ConfigError(f"{count} frames in {versions} versions: show at least one of each")
    augment = _augmentation(choice, pipeline, size, storage)
    sources = data.train.sources if data.train else data.sources
    share_of_worker(sources, 0, 1)  # refuses what carries no labels
    records = sample(sources, count, partial(_usable, labels=labels), storage)
    if not records:
        raise InputError(
            f"{data.uri} has no record to augment: see `urbandet data validate {data.uri}`"
        )
    columns = min(_COLUMNS, len(records))
    cells = _in_rows(records, augment, columns, versions, seed)
    sheet = contact_sheet(cells, labels, columns=columns, cell_width=_CELL_WIDTH)
    storage.write_bytes(out_png, encode_png(sheet))
    return len(records)


def _augmentation(
    choice: str, pipeline: str | None, size: int | None, storage: Storage
) -> Augmentation:
    if pipeline is None:
        if choice == "config":
            raise ConfigError(
                "augmentation `config` is the pipeline.config's own list: name the pipeline.config"
            )
        side = size or DEFAULT_SIZE
        return augmentation(choice, (side, side))
    config = read_pipeline(pipeline, storage).message
    side = size or _longer_side(config)
    options = config.train_config.data_augmentation_options
    return augmentation(choice, (side, side), options)


def _longer_side(config: Any) -> int:
    """Of the input of a pipeline.config's model."""
    kind = config.model.WhichOneof("model")
    resizer = getattr(getattr(config.model, kind), "image_resizer", None) if kind else None
    if resizer is None:
        return DEFAULT_SIZE
    if resizer.HasField("fixed_shape_resizer"):
        fixed = resizer.fixed_shape_resizer
        return max(int(fixed.height), int(fixed.width))
    if resizer.HasField("keep_aspect_ratio_resizer"):
        return int(resizer.keep_aspect_ratio_resizer.max_dimension)
    return DEFAULT_SIZE


def _usable(source: Source, record: Record, *, labels: LabelMap) -> bytes | None:
    if record.error is not None:
        return None
    try:
        held = check_record(record.raw, source, record.index, Checks(labels=labels))
        return repaired_example(record.raw, labels) if held.odd else record.raw
    except RecordError:
        return None


def _in_rows(
    records: Sequence[bytes], augment: Augmentation, columns: int, versions: int, seed: int
) -> Iterator[Picture]:
    """A row of frames, the rows of their versions, the next row of frames."""
    company = Sampler(len(records), len(records), seed, 0)
    everything = [
        list(_pictures(records, Augmentation(()), company.companions(0), seed, "record")),
        *(
            list(_pictures(records, augment, _others(company, n), seed + n, f"augmented {n}"))
            for n in range(1, versions + 1)
        ),
    ]
    for start in range(0, len(records), columns):
        row = range(start, start + columns)
        for pictures in everything:
            yield from (pictures[i] if i < len(records) else _BLANK for i in row)


def _others(company: Sampler, step: int) -> NDArray[np.int64]:
    """Companions in the order of the records, [n, 3]; the sampler's own order is another."""
    return company.companions(step)[np.argsort(company.ids(step), kind="stable")]


_BLANK: Picture = (np.zeros((_CELL_WIDTH, _CELL_WIDTH, 3), np.uint8), Truth.empty(), "")


def _pictures(
    records: Sequence[bytes],
    augment: Augmentation,
    companions: NDArray[np.int64],
    seed: int,
    caption: str,
) -> Iterator[Picture]:
    shown = companions if augment.companions else companions[:, :0]
    for i, (image, boxes, ids) in enumerate(augmented_images(records, augment, shown, seed)):
        size_wh = (image.shape[1], image.shape[0])
        truth = Truth.of(boxes_from_yxyx_norm(boxes, size_wh), ids)
        yield np.ascontiguousarray(image), truth, f"{caption}: {i}"
