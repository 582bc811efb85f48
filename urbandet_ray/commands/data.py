"""`urbandet data show`: a contact sheet of frames spread over an input."""

from __future__ import annotations

from dataclasses import replace

from urbandet_ray.errors import InputError, RecordError
from urbandet_ray.frames import Image, Truth
from urbandet_ray.labels import LabelMap
from urbandet_ray.records.class_column import labels_of_texts, renumbered
from urbandet_ray.records.data_folder import DataFolder
from urbandet_ray.records.even_choice import sample
from urbandet_ray.records.images import decode_frame, encode_png
from urbandet_ray.records.source import Record, Source
from urbandet_ray.reports.contact_sheet import contact_sheet
from urbandet_ray.storage import Storage

Cell = tuple[Image, Truth | None, str]
"""A frame's pixels, its labels, its name."""


def write_contact_sheet(
    data: DataFolder, out: str, count: int, labels: LabelMap | None, storage: Storage
) -> int:
    """Write a PNG with up to `count` frames and their labels; returns how many it shows.

    Without a label map, the classes have the names that the records give them.

    Raises:
        InputError: no frame of the input can be decoded.
    """
    cells = sample(data.sources, count, _cell, storage, labels)
    if not cells:
        raise InputError(
            f"{data.uri} has no frame that can be shown: see `urbandet data validate {data.uri}`"
        )
    if labels is None:
        labels, cells = _named_by_records(cells)
    sheet = contact_sheet(cells, labels, columns=min(4, len(cells)), cell_width=400)
    storage.write_bytes(out, encode_png(sheet))
    return len(cells)


def _named_by_records(cells: list[Cell]) -> tuple[LabelMap, list[Cell]]:
    truths = [truth for _, truth, _ in cells if truth is not None]
    pairs = [
        pair for one in truths for pair in zip(one.class_ids.tolist(), one.class_texts, strict=True)
    ]
    named = labels_of_texts(pairs)
    if named is None:
        numbers = {max(number, 1) for number, _ in pairs} or {1}
        return LabelMap({number: f"class {number}" for number in numbers}), cells
    return named, [(image, _renumbered(truth, named), name) for image, truth, name in cells]


def _renumbered(truth: Truth | None, labels: LabelMap) -> Truth | None:
    if truth is None:
        return None
    return replace(truth, class_ids=renumbered(truth.class_ids, truth.class_texts, labels))


def _cell(_: Source, record: Record) -> Cell | None:
    if record.frame is None:
        return None
    try:
        return decode_frame(record.frame), record.frame.truth, record.frame.frame_key
    except RecordError:
        return None
