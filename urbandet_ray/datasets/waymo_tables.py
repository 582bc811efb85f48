"""Waymo Open Dataset, version 2: Parquet, camera_image/ and camera_box/ with a file a drive.

Columns: waymo_open_dataset/v2/perception (camera_image.py, box.py, base.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from urbandet_ray.datasets.annotated import AnnotatedImage, Dataset, LabelledBox
from urbandet_ray.datasets.file_index import FileIndex, folder_of, split_in
from urbandet_ray.datasets.oddities import Tally
from urbandet_ray.datasets.waymo_names import (
    WAYMO_CLASSES,
    camera_name,
    image_name,
    waymo_box,
)
from urbandet_ray.errors import InputError, RecordError
from urbandet_ray.storage import Storage, is_remote

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_KEYS = ("key.segment_context_name", "key.frame_timestamp_micros", "key.camera_name")
_IMAGE = "[CameraImageComponent].image"
_BOX = "[CameraBoxComponent]"
_SIDES = tuple(f"{_BOX}.box.{name}" for name in ("center.x", "center.y", "size.x", "size.y"))
_TYPE, _DIFFICULTY = f"{_BOX}.type", f"{_BOX}.difficulty_level.detection"
_IMAGES, _BOXES = "camera_image", "camera_box"


@dataclass(frozen=True)
class WaymoCell:
    """One image in a Parquet file: the row of a row group."""

    uri: str
    version: str
    group: int
    row: int

    def read(self, storage: Storage) -> bytes:
        """The JPEG.

        Raises:
            RecordError: the file is damaged.
        """
        cells = _image_column(self.uri, self.version, self.group, storage)
        return bytes(cells[self.row].as_py() or b"")


def waymo_tables_evidence(index: FileIndex) -> str | None:
    """The first camera_image file."""
    return next((path for path in index.ending(".parquet") if _component(path) == _IMAGES), None)


def read_waymo_tables(index: FileIndex, storage: Storage, evidence: str) -> Dataset:
    """Read keys and boxes of all files; the images are read when they are written.

    A drive without a file in camera_box/ is not labelled; an image without a row there holds
    nothing.

    Raises:
        InputError: a file is damaged, or has other columns.
    """
    tally = Tally()
    boxes = {
        _drive_file(path): path
        for path in index.files
        if path.endswith(".parquet") and _component(path) == _BOXES
    }
    images = [
        image
        for path in index.ending(".parquet")
        if _component(path) == _IMAGES
        for image in _drive(index, path, boxes.get(_drive_file(path)), storage, tally)
    ]
    return Dataset("Waymo Open Dataset v2", index.uri, evidence, images, WAYMO_CLASSES, tally)


def _component(path: str) -> str:
    return folder_of(path).rpartition("/")[2]


def _drive_file(path: str) -> tuple[str, str]:
    """The part's folder and the file's name, which a drive's components share."""
    return folder_of(folder_of(path)), path.rpartition("/")[2]


def _drive(
    index: FileIndex, path: str, boxes_path: str | None, storage: Storage, tally: Tally
) -> Iterator[AnnotatedImage]:
    uri = index.uri_of(path)
    version = index.files[path].version
    boxes = None if boxes_path is None else _boxes(index, boxes_path, storage)
    file = _opened(uri, version, storage)
    for group in range(file.num_row_groups):
        for row, (context, time_us, camera) in enumerate(_rows(file, uri, _KEYS, group)):
            name = image_name(context, time_us, camera)
            if boxes is None:
                tally.add("image-unlabelled", name)
                continue
            yield AnnotatedImage(
                name,
                uri,
                tuple(boxes.get((context, time_us, camera), ())),
                drive=context,
                split=split_in(folder_of(path)),
                camera=camera_name(camera),
                timestamp_us=time_us,
                within=WaymoCell(uri, version, group, row),
            )


def _boxes(
    index: FileIndex, path: str, storage: Storage
) -> dict[tuple[str, int, int], list[LabelledBox]]:
    """The boxes of a drive by context, time and camera."""
    uri = index.uri_of(path)
    file = _opened(uri, index.files[path].version, storage)
    graded = _DIFFICULTY in file.schema_arrow.names
    columns = (*_KEYS, *_SIDES, _TYPE, *((_DIFFICULTY,) if graded else ()))
    found: dict[tuple[str, int, int], list[LabelledBox]] = defaultdict(list)
    for group in range(file.num_row_groups):
        for context, time_us, camera, x, y, width, height, kind, *level in _rows(
            file, uri, columns, group
        ):
            box = waymo_box((x, y), (width, height), kind, (level or [0])[0] or 0)
            found[(context, time_us, camera)].append(box)
    return found


def _rows(
    file: pq.ParquetFile, uri: str, columns: tuple[str, ...], group: int
) -> Iterator[tuple[Any, ...]]:
    missing = [name for name in columns if name not in file.schema_arrow.names]
    if missing:
        raise InputError(
            f"{uri} has no column {', '.join(missing)}: expected camera_image and camera_box of "
            "the Waymo Open Dataset v2"
        )
    table = file.read_row_group(group, columns=list(columns))
    yield from zip(*(table.column(name).to_pylist() for name in columns), strict=True)


@lru_cache(maxsize=2)
def _opened(uri: str, version: str, storage: Storage) -> pq.ParquetFile:
    """An open file; whoever lists a changed one anew has another version."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        storage.open_read(uri, 0, version).close()
        if is_remote(uri):
            return pq.ParquetFile(pa.BufferReader(storage.read_bytes(uri)))
        return pq.ParquetFile(uri)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{uri} is damaged or no Parquet file: {error}") from None


@lru_cache(maxsize=2)
def _image_column(uri: str, version: str, group: int, storage: Storage) -> Any:
    import pyarrow as pa

    try:
        return _opened(uri, version, storage).read_row_group(group, [_IMAGE]).column(_IMAGE)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise RecordError("unreadable-file", f"{uri} is damaged: {error}") from None
