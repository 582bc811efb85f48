"""One worker's part of one TFRecord file: brought to this machine, read through once, checked.

What was found is kept in the cache by the file's version, so that a restart costs no second read.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.errors import RecordError
from urbandet_ray.frames import Frame
from urbandet_ray.labels import LabelMap
from urbandet_ray.records.bytestream import CHUNK_BYTES, read_exactly
from urbandet_ray.records.class_column import RESOLVED
from urbandet_ray.records.example import frame_and_problems_from_example
from urbandet_ray.records.image_headers import image_size
from urbandet_ray.records.images import decode_frame, decode_image
from urbandet_ray.records.label_columns import ODD_COLUMN
from urbandet_ray.records.source import Record, Source
from urbandet_ray.records.tfrecord import (
    FOOTER_BYTES,
    HEADER_BYTES,
    decompress,
    is_gzip,
    is_record_header,
    read_records,
)
from urbandet_ray.storage import Storage, is_remote
from urbandet_ray.training.data.tensorflow_images import check_trainable

_LENGTH = struct.Struct("<Q")
_FORMAT = 3
"""Of the kept scans; a change of what they hold counts it up."""


@dataclass(frozen=True)
class Slice:
    """The records of a source whose first byte lies in [begin_byte, end_byte).

    Bytes are those of the file as it is stored. A gzip file cannot be entered midway: the slice
    with its first byte is the whole of it, the others are empty.
    """

    source: Source
    begin_byte: int
    end_byte: int


@dataclass(frozen=True)
class BadRecord:
    """A record that is left out: where it stands, a stable reason, and the message."""

    uri: str
    index: int
    offset: int
    reason: str
    detail: str


@dataclass(frozen=True)
class Checks:
    """What a record has to pass.

    Attributes:
        images: every image is decoded once, not only its header read.
        masks: instance masks are used, so they have to be pictures of the image's size.
        labels: turns class texts into ids; None takes the numbers.
    """

    images: bool = True
    masks: bool = False
    labels: LabelMap | None = None


@dataclass(frozen=True, eq=False)
class Scan:
    """The usable records of a slice, columns of equal length [n].

    Attributes:
        path: local file with the plain records.
        numbers: [n] int64 positions in the source, bad records counted.
        offsets: [n] int64 first byte of the payload in `path`.
        sizes: [n] int32 bytes of the payload.
        boxes: [n] int32 boxes of the record.
        odd: [n] bool, whether an object column has to be repaired before TensorFlow parses it.
        foreign: [n] int32 boxes of classes that the label map does not have; they are left out.
        rows, class_ids: [m] int32, a pair for every class that a record holds.
        bad: the records that were left out.
    """

    source: Source
    path: Path
    numbers: NDArray[np.int64]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int32]
    boxes: NDArray[np.int32]
    odd: NDArray[np.bool_]
    foreign: NDArray[np.int32]
    rows: NDArray[np.int32]
    class_ids: NDArray[np.int32]
    bad: tuple[BadRecord, ...]


class Checked(NamedTuple):
    """What a record holds: its class ids, each once; its boxes; whether a column is odd; boxes of
    classes that the label map does not have."""

    ids: NDArray[np.int32]
    boxes: int
    odd: bool
    foreign: int = 0


def scan_slice(part: Slice, storage: Storage, cache_dir: Path, checks: Checks) -> Scan:
    """Bring the file here if it is elsewhere or packed, and read the slice's records.

    Several processes may do so at once: files appear in the cache whole or not at all.

    Raises:
        StorageError: the file changed since it was listed, or cannot be read.
    """
    source = part.source
    with storage.open_read(source.uri, 0, source.version) as stream:
        packed = is_gzip(read_exactly(stream, HEADER_BYTES))
    begin, end = part.begin_byte, part.end_byte
    if packed:
        begin, end = (0, 2**62) if begin == 0 else (0, 0)
    if end <= begin:
        return _scan_of(source, Path(source.uri), [], [])
    path, damage = Path(source.uri), None
    if packed or is_remote(source.uri):
        path, damage = _local_copy(source, storage, cache_dir)
    kept = cache_dir / f"{_digest(source, begin, end, asdict(checks))}.scan.npz"
    if (scan := _read_scan(kept, source, path)) is not None:
        return scan
    scan = _read_through(source, path, (begin, end), checks, damage)
    _write_scan(kept, scan)
    return scan


def check_record(data: bytes, source: Source, index: int, checks: Checks) -> Checked:
    """What is in a record that can be trained on.

    Raises:
        RecordError: it can't be: no Example, no image, undecodable by anybody or by TensorFlow,
            columns that do not fit.
    """
    frame, problems = frame_and_problems_from_example(
        data,
        default_key=f"{source.segment}-{index:06d}",
        segment=source.segment,
        labels=checks.labels,
    )
    reasons = {reason: detail for reason, _, detail in (one.partition(": ") for one in problems)}
    if "bad-labels" in reasons:
        raise RecordError("bad-labels", reasons["bad-labels"])
    if checks.images:
        decode_frame(frame)
    else:
        image_size(frame.encoded)
    check_trainable(frame)
    if frame.truth is None:
        return Checked(np.zeros(0, np.int32), 0, False)
    if checks.masks:
        _check_masks(frame)
    ids = frame.truth.class_ids
    known = ids if checks.labels is None else ids[checks.labels.has(ids)]
    foreign = len(ids) - len(known)
    odd = bool(foreign) or not reasons.keys().isdisjoint({ODD_COLUMN, *RESOLVED})
    return Checked(np.unique(known), len(known), odd, foreign)


def _check_masks(frame: Frame) -> None:
    for mask in frame.truth.masks_png if frame.truth is not None else ():
        if mask and (height_width := decode_image(mask).shape[:2][::-1]) != frame.size_wh:
            raise RecordError(
                "bad-mask", f"a mask has {height_width} pixels, the image {frame.size_wh}"
            )


def _read_through(
    source: Source, path: Path, span: tuple[int, int], checks: Checks, damage: str | None
) -> Scan:
    good: list[tuple[int, int, int, Checked]] = []
    bad: list[BadRecord] = []
    for raw in _records_between(path, *span):
        try:
            if raw.error is not None:
                raise raw.error
            held = check_record(raw.raw, source, raw.index, checks)
        except RecordError as error:
            bad.append(BadRecord(source.uri, raw.index, raw.offset, error.reason, error.detail))
        else:
            good.append((raw.index, raw.offset + HEADER_BYTES, len(raw.raw), held))
    if damage is not None:
        bad.append(BadRecord(source.uri, len(good) + len(bad), -1, "bad-gzip", damage))
    return _scan_of(source, path, good, bad)


def _scan_of(
    source: Source,
    path: Path,
    good: list[tuple[int, int, int, Checked]],
    bad: list[BadRecord],
) -> Scan:
    held = [record[3] for record in good]
    ids = [one.ids for one in held]
    return Scan(
        source,
        path,
        numbers=np.array([record[0] for record in good], np.int64),
        offsets=np.array([record[1] for record in good], np.int64),
        sizes=np.array([record[2] for record in good], np.int32),
        boxes=np.array([one.boxes for one in held], np.int32),
        odd=np.array([one.odd for one in held], bool),
        foreign=np.array([one.foreign for one in held], np.int32),
        rows=np.repeat(np.arange(len(good), dtype=np.int32), [len(one) for one in ids]),
        class_ids=np.concatenate([np.zeros(0, np.int32), *ids]),
        bad=tuple(bad),
    )


def _records_between(path: Path, begin: int, end: int) -> Iterator[Record]:
    """The records that start in [begin, end), as reading from the file's start would find them."""
    with path.open("rb") as stream:
        index, offset = _place_before(stream, begin)
        stream.seek(offset)
        for raw in read_records(stream, first_index=index, offset=offset):
            if begin <= raw.offset < end:
                yield raw
            if raw.next_offset >= end:
                return


def _place_before(stream: BinaryIO, begin: int) -> tuple[int, int]:
    """Index and offset of the first record from `begin` on, by the headers alone.

    Where a header does not check, the record before it is given: the reader has to see both to
    tell where the damage begins.
    """
    descriptor, size = stream.fileno(), os.fstat(stream.fileno()).st_size
    index = offset = 0
    before = (0, 0)
    while offset < size:
        head = os.pread(descriptor, HEADER_BYTES, offset)
        if not is_record_header(head):
            return before
        if offset >= begin:
            break
        before = (index, offset)
        offset += HEADER_BYTES + _LENGTH.unpack(head[:8])[0] + FOOTER_BYTES
        index += 1
    return (index, offset) if offset <= size else before


def _local_copy(source: Source, storage: Storage, cache_dir: Path) -> tuple[Path, str | None]:
    """The plain records in a file of the cache, and how the packed stream broke if it did."""
    path = cache_dir / f"{_digest(source)}-{source.name[:80]}.tfrecord"
    broken = path.with_suffix(".broken")
    if not path.is_file():
        damage = None
        with _appearing(path) as unfinished, unfinished.open("wb") as out:
            with storage.open_read(source.uri, 0, source.version) as stream:
                plain = decompress(stream)
                try:
                    while chunk := plain.read(CHUNK_BYTES):
                        out.write(chunk)
                except RecordError as error:
                    damage = error.detail
            if damage is not None:
                broken.write_text(damage, "utf-8")
    return path, broken.read_text("utf-8") if broken.is_file() else None


class _appearing:  # noqa: N801 - used like a function, as contextlib's own
    """A file to be written, which takes its name only when it is whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unfinished = path.parent / f".{path.name}.{uuid.uuid4().hex[:12]}.tmp"

    def __enter__(self) -> Path:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return self._unfinished

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._unfinished.replace(self._path)
        self._unfinished.unlink(missing_ok=True)


def _digest(source: Source, *more: object) -> str:
    told = repr((_FORMAT, source.uri, source.version, *more))
    return hashlib.sha256(told.encode()).hexdigest()[:32]


_COLUMNS = ("numbers", "offsets", "sizes", "boxes", "odd", "foreign", "rows", "class_ids")


def _write_scan(kept: Path, scan: Scan) -> None:
    bad = json.dumps([asdict(one) for one in scan.bad])
    with _appearing(kept) as unfinished, unfinished.open("wb") as out:
        np.savez(out, bad=np.array(bad), **{name: getattr(scan, name) for name in _COLUMNS})


def _read_scan(kept: Path, source: Source, path: Path) -> Scan | None:
    """An earlier scan of the same version; None where there is none that can be read."""
    try:
        with np.load(kept, allow_pickle=False) as found:
            bad = tuple(BadRecord(**one) for one in json.loads(str(found["bad"])))
            columns = {name: found[name] for name in _COLUMNS}
            return Scan(source, path, **columns, bad=bad)
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
