"""Detections of a run as Parquet: a row a frame, its boxes as list columns.

The bytes depend on the rows alone (no time, no host), so a shard that is written twice is the same
file. Rows are written and read as whole columns; no Python object is made per box.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.detections import Detections
from urbandet_ray.errors import InputError
from urbandet_ray.frames import Truth

if TYPE_CHECKING:
    import pyarrow as pa

_LIST_COLUMNS = ("boxes_xyxy", "scores", "class_ids", "track_ids")
_TIME = "time"
"""The last column; tables of version 0.1.0 lack it."""


@dataclass(frozen=True, eq=False)
class DetectionRow:
    """What a detector says about one frame, and the truth beside it where that is known.

    Attributes:
        shard: name of the shard the frame belongs to, or of its source.
        index: place of the frame in its shard's file, from 0.
        frame_key, segment: as the frame's record has them.
        size_wh: width, height of the frame in pixels.
        detections: boxes in pixels of the frame.
        time_s: when the frame was taken, in seconds: from the start of its video, or since 1970
            where its record says it so; None where nobody says.
        truth: what is in the frame, for evaluation; None where nobody says. It stays with its
            records: the table does not hold it.
    """

    shard: str
    index: int
    frame_key: str
    segment: str
    size_wh: tuple[int, int]
    detections: Detections
    truth: Truth | None = None
    time_s: float | None = None


def rows_to_parquet(rows: Sequence[DetectionRow]) -> bytes:
    """Encode rows, in the order given, as one Parquet file; same rows, same bytes.

    Columns: shard, frame_key, segment (string), index (int64), width, height (int32),
    boxes_xyxy (list of 4 float32, pixels), scores (list of float32), class_ids (list of int32),
    track_ids (list of int64, -1 where untracked), time (float64, seconds; null where unknown).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema()
    offsets = pa.array(np.cumsum([0, *(len(row.detections) for row in rows)]), pa.int32())
    columns = {
        "shard": [row.shard for row in rows],
        "index": [row.index for row in rows],
        "frame_key": [row.frame_key for row in rows],
        "segment": [row.segment for row in rows],
        "width": [row.size_wh[0] for row in rows],
        "height": [row.size_wh[1] for row in rows],
    }
    arrays = [pa.array(values, schema.field(name).type) for name, values in columns.items()]
    for name in _LIST_COLUMNS:
        kind = schema.field(name).type
        values = [getattr(row.detections, name) for row in rows]
        flat = _flat_array(values, kind.value_type)
        arrays.append(pa.ListArray.from_arrays(offsets, flat, type=kind))
    arrays.append(pa.array([row.time_s for row in rows], schema.field(_TIME).type))
    table = pa.Table.from_arrays(arrays, schema=schema)
    sink = io.BytesIO()
    pq.write_table(
        table,
        sink,
        version="2.6",
        compression="zstd",
        compression_level=3,
        use_dictionary=["shard", "segment"],
        write_statistics=["shard", "index"],
        write_page_checksum=True,
    )
    return sink.getvalue()


def rows_from_parquet(data: bytes, source: str) -> Iterator[DetectionRow]:
    """Decode what rows_to_parquet wrote; the file is checked before the first row is handed out.

    A row's arrays are read-only views of the file's columns: copy them to outlive the others.

    Args:
        data: the file's bytes.
        source: path or address of the file, for messages.

    Raises:
        InputError: not Parquet, damaged, another schema, or columns that do not fit together.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        _check_schema(file.schema_arrow, source)
        table = file.read(use_threads=False).combine_chunks()
        table.validate(full=True)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{source} is damaged or no Parquet file ({len(data)} bytes): {error}. "
            "Delete its marker in commit/ and resume the run: its shard is then done again"
        ) from error
    return _rows(table, source)


@cache
def _schema() -> pa.Schema:
    import pyarrow as pa

    def field(name: str, kind: pa.DataType) -> pa.Field:
        return pa.field(name, kind, nullable=False)

    def list_of(kind: pa.DataType) -> pa.DataType:
        return pa.list_(field("element", kind))

    corners = pa.list_(field("element", pa.float32()), 4)
    return pa.schema(
        [
            field("shard", pa.string()),
            field("index", pa.int64()),
            field("frame_key", pa.string()),
            field("segment", pa.string()),
            field("width", pa.int32()),
            field("height", pa.int32()),
            field("boxes_xyxy", list_of(corners)),
            field("scores", list_of(pa.float32())),
            field("class_ids", list_of(pa.int32())),
            field("track_ids", list_of(pa.int64())),
            pa.field(_TIME, pa.float64()),
        ]
    )


def _flat_array(values: list[NDArray[Any]], kind: pa.DataType) -> pa.Array:
    """All rows' values of one column behind each other, as an Arrow array of `kind`."""
    import pyarrow as pa

    is_box = pa.types.is_fixed_size_list(kind)
    plain = kind.value_type if is_box else kind
    joined = np.concatenate(values).reshape(-1) if values else np.zeros(0, plain.to_pandas_dtype())
    flat = pa.array(joined, plain)
    return pa.FixedSizeListArray.from_arrays(flat, type=kind) if is_box else flat


def _check_schema(found: pa.Schema, source: str) -> None:
    wanted = _schema()
    timeless = wanted.remove(len(wanted) - 1)
    if any(found.equals(known, check_metadata=False) for known in (wanted, timeless)):
        return
    wrong = [
        f"{field.name} is {found.field(field.name).type if field.name in found.names else 'absent'}"
        f", expected {field.type}"
        for field in wanted
        if field.name not in found.names or not found.field(field.name).equals(field)
    ]
    extra = [name for name in found.names if name not in wanted.names]
    wrong += [f"column {name} is unknown" for name in extra]
    raise InputError(
        f"{source} is Parquet, but no detections table: "
        f"{'; '.join(wrong) or 'the columns stand in another order'}. "
        "Point at a file in the detections folder of a run"
    )


def _rows(table: pa.Table, source: str) -> Iterator[DetectionRow]:
    n = table.num_rows
    if n == 0:
        return iter(())
    offsets, flat = _list_columns(table, source)
    texts = [table.column(name).to_pylist() for name in ("shard", "frame_key", "segment")]
    numbers = [table.column(name).to_numpy().tolist() for name in ("index", "width", "height")]
    times = table.column(_TIME).to_pylist() if _TIME in table.column_names else [None] * n
    boxes, scores, class_ids, track_ids = flat

    def row(i: int) -> DetectionRow:
        part = slice(offsets[i], offsets[i + 1])
        return DetectionRow(
            shard=texts[0][i],
            index=numbers[0][i],
            frame_key=texts[1][i],
            segment=texts[2][i],
            size_wh=(numbers[1][i], numbers[2][i]),
            detections=Detections(boxes[part], scores[part], class_ids[part], track_ids[part]),
            time_s=times[i],
        )

    return map(row, range(n))


def _list_columns(table: pa.Table, source: str) -> tuple[list[int], list[NDArray[Any]]]:
    """Row limits shared by the four list columns, and their values [n, 4], [n], [n], [n]."""
    lists = [table.column(name).chunk(0) for name in _LIST_COLUMNS]
    limits = [column.offsets.to_numpy() - column.offsets[0].as_py() for column in lists]
    for name, other in zip(_LIST_COLUMNS, limits, strict=True):
        if not np.array_equal(limits[0], other):
            bad = int(np.argmax(np.diff(limits[0]) != np.diff(other)))
            raise InputError(
                f"{source}: row {bad} has {np.diff(limits[0])[bad]} boxes but "
                f"{np.diff(other)[bad]} {name}. "
                "Delete its marker in commit/ and resume the run"
            )
    flat = [column.flatten() for column in lists]
    boxes = flat[0].flatten().to_numpy().reshape(-1, 4)
    values = [boxes, *(column.to_numpy() for column in flat[1:])]
    if not (np.isfinite(boxes).all() and np.isfinite(values[1]).all()):
        raise InputError(
            f"{source} holds boxes or scores that are not finite numbers. "
            "Delete its marker in commit/ and resume the run"
        )
    return limits[0].tolist(), values
