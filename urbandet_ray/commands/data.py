"""`urbandet data show`: a contact sheet of frames spread over an input."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import islice

from urbandet_ray.errors import InputError, RecordError
from urbandet_ray.frames import Image, Truth
from urbandet_ray.labels import LabelMap
from urbandet_ray.records.data_folder import DataFolder
from urbandet_ray.records.images import decode_frame, encode_png
from urbandet_ray.records.sources import Source, read_source, spread
from urbandet_ray.reports.contact_sheet import contact_sheet
from urbandet_ray.storage import Storage


def write_contact_sheet(
    data: DataFolder, out: str, count: int, labels: LabelMap, storage: Storage
) -> int:
    """Write a PNG with up to `count` frames and their labels; returns how many it shows.

    Raises:
        InputError: no frame of the input can be decoded.
    """
    cells = list(spread(data.sources, count, partial(_frames, storage=storage)))
    if not cells:
        raise InputError(
            f"{data.uri} has no frame that can be shown: see `urbandet data validate {data.uri}`"
        )
    sheet = contact_sheet(cells, labels, columns=min(4, len(cells)), cell_width=400)
    storage.write_bytes(out, encode_png(sheet))
    return len(cells)


def _frames(source: Source, storage: Storage) -> Iterator[tuple[Image, Truth | None, str]]:
    """Every fifth frame that can be shown: neighbours look alike."""
    for record in islice(read_source(source, storage), 0, None, 5):
        if record.frame is None:
            continue
        try:
            yield decode_frame(record.frame), record.frame.truth, record.frame.frame_key
        except RecordError:
            continue
