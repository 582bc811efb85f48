"""Detections as Parquet: nothing is lost, same rows are same bytes, foreign files are refused."""

import io
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

from urbandet_ray.detections import Detections
from urbandet_ray.errors import InputError
from urbandet_ray.runs.detections_table import DetectionRow, rows_from_parquet, rows_to_parquet

DETECTIONS = Detections.of([(1.5, 2, 30, 40), (5, 6, 7, 8)], [0.9, 0.25], [1, 4], [17, 2**40])
ROWS = [
    DetectionRow("drive-00000", 3, "frame_3", "drive", (640, 640), DETECTIONS),
    DetectionRow("drive-00000", 4, "frame_4", "drive", (1920, 1280), Detections.empty()),
    DetectionRow("straße-00001", 0, "", "", (1, 1), DETECTIONS.keep(np.array([False, True]))),
]


def assert_same(got: list[DetectionRow], wanted: list[DetectionRow]) -> None:
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted, strict=True):
        assert (a.shard, a.index, a.frame_key, a.segment, a.size_wh) == (
            *(b.shard, b.index, b.frame_key, b.segment),
            b.size_wh,
        )
        for name in ("boxes_xyxy", "scores", "class_ids", "track_ids"):
            ours, theirs = getattr(a.detections, name), getattr(b.detections, name)
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)


def altered(column: str, values: pa.Array) -> bytes:
    """The table of ROWS with another column in place of its own."""
    table = pq.read_table(pa.BufferReader(rows_to_parquet(ROWS)))
    at = table.column_names.index(column)
    sink = io.BytesIO()
    pq.write_table(table.set_column(at, pa.field(column, values.type, False), values), sink)
    return sink.getvalue()


def test_rows_come_back_in_order() -> None:
    """Names, sizes and every value; a frame without detections keeps its row."""
    assert_same(list(rows_from_parquet(rows_to_parquet(ROWS), "x.parquet")), ROWS)


@pytest.mark.parametrize("rows", [[], ROWS[1:2]], ids=["no row", "no box"])
def test_nothing_comes_back_as_nothing(rows: list[DetectionRow]) -> None:
    """A table without rows, and one without boxes, are good tables."""
    assert_same(list(rows_from_parquet(rows_to_parquet(rows), "x.parquet")), rows)


def test_same_rows_are_same_bytes() -> None:
    """A shard done again overwrites its file with the same file."""
    again = list(rows_from_parquet(rows_to_parquet(ROWS), "x.parquet"))
    assert rows_to_parquet(again) == rows_to_parquet(ROWS)


def test_columns_are_the_documented_ones() -> None:
    """Other tools find these names and types."""
    schema = pq.read_schema(pa.BufferReader(rows_to_parquet(ROWS)))
    assert {field.name: str(field.type) for field in schema} == {
        "shard": "string",
        "index": "int64",
        "frame_key": "string",
        "segment": "string",
        "width": "int32",
        "height": "int32",
        "boxes_xyxy": "list<element: fixed_size_list<element: float not null>[4] not null>",
        "scores": "list<element: float not null>",
        "class_ids": "list<element: int32 not null>",
        "track_ids": "list<element: int64 not null>",
        "time": "double",
    }


def test_times_come_back() -> None:
    """Seconds, exactly; or nothing where nobody says."""
    rows = [
        replace(row, time_s=time) for row, time in zip(ROWS, (0.0, 1.066667, None), strict=True)
    ]
    again = rows_from_parquet(rows_to_parquet(rows), "x.parquet")
    assert [row.time_s for row in again] == [0.0, 1.066667, None]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_tables_without_times_are_read(count: int) -> None:
    """Runs of version 0.1.0 have no such column."""
    table = pq.read_table(pa.BufferReader(rows_to_parquet(ROWS[:count])))
    sink = pa.BufferOutputStream()
    pq.write_table(table.drop_columns(["time"]), sink)
    assert_same(list(rows_from_parquet(sink.getvalue().to_pybytes(), "x.parquet")), ROWS[:count])


@st.composite
def _rows(draw: st.DrawFn) -> list[DetectionRow]:
    text = st.text(max_size=8)
    number = st.floats(width=32, allow_nan=False, allow_infinity=False)
    rows = []
    for _ in range(draw(st.integers(0, 5))):
        n = draw(st.integers(0, 4))
        columns = (
            [draw(st.tuples(number, number, number, number)) for _ in range(n)],
            [draw(number) for _ in range(n)],
            [draw(st.integers(-(2**31), 2**31 - 1)) for _ in range(n)],
            [draw(st.integers(-(2**63), 2**63 - 1)) for _ in range(n)],
        )
        side = st.integers(0, 2**31 - 1)
        rows.append(
            DetectionRow(
                draw(text),
                draw(st.integers(0, 2**63 - 1)),
                draw(text),
                draw(text),
                (draw(side), draw(side)),
                Detections.of(*columns),
            )
        )
    return rows


@settings(max_examples=40)
@given(_rows())
def test_any_rows_come_back(rows: list[DetectionRow]) -> None:
    """Whatever the names and numbers, the table is the rows."""
    assert_same(list(rows_from_parquet(rows_to_parquet(rows), "x.parquet")), rows)


@settings(max_examples=100)
@given(st.data())
def test_damage_is_refused_or_harmless(data: st.DataObject) -> None:
    """A flipped byte or a cut file is an InputError or changes no value, and never a crash."""
    good = rows_to_parquet(ROWS)
    at = data.draw(st.integers(0, len(good) - 1))
    flipped = bytes([good[at] ^ data.draw(st.integers(1, 255))])
    bad = data.draw(st.sampled_from([good[:at], good[:at] + flipped + good[at + 1 :]]))
    try:
        rows = list(rows_from_parquet(bad, "x.parquet"))
    except InputError as error:
        assert "x.parquet" in str(error)
    else:
        assert len(rows) == len(ROWS)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"not a table at all", rows_to_parquet(ROWS)[:-9]])
def test_file_of_another_kind_is_refused(data: bytes) -> None:
    """The message names the file, its size and what to do, before a row is asked for."""
    with pytest.raises(
        InputError,
        match=rf"run/a\.parquet is damaged or no Parquet file \({len(data)} bytes\).*resume",
    ):
        rows_from_parquet(data, "run/a.parquet")


def test_damaged_page_is_refused() -> None:
    """A byte flipped in a page's data is caught by the page's checksum."""
    good = rows_to_parquet(ROWS)
    at = pq.ParquetFile(pa.BufferReader(good)).metadata.row_group(0).column(7)
    last = at.data_page_offset + at.total_compressed_size - 1
    bad = good[:last] + bytes([good[last] ^ 1]) + good[last + 1 :]
    with pytest.raises(InputError, match=r"a\.parquet is damaged .*CRC"):
        rows_from_parquet(bad, "a.parquet")


def test_other_table_is_refused() -> None:
    """Parquet of something else: what is missing, of another type and unknown is named."""
    sink = io.BytesIO()
    pq.write_table(pa.table({"shard": [1], "colour": ["red"]}), sink)
    with pytest.raises(
        InputError,
        match=r"a\.parquet is Parquet, but no detections table: shard is int64, expected string; "
        r"index is absent, expected int64; .*column colour is unknown. Point at",
    ):
        rows_from_parquet(sink.getvalue(), "a.parquet")


def test_lists_of_different_length_are_refused() -> None:
    """Two boxes and one score in a row do not fit."""
    kind = pa.list_(pa.field("element", pa.float32(), False))
    data = altered("scores", pa.array([[0.5], [], [0.5]], kind))
    with pytest.raises(InputError, match=r"a\.parquet: row 0 has 2 boxes but 1 scores"):
        rows_from_parquet(data, "a.parquet")


def test_values_that_are_not_finite_are_refused() -> None:
    """NaN scores never come from this package."""
    kind = pa.list_(pa.field("element", pa.float32(), False))
    data = altered("scores", pa.array([[0.5, float("nan")], [], [0.5]], kind))
    with pytest.raises(InputError, match=r"a\.parquet holds boxes or scores that are not finite"):
        rows_from_parquet(data, "a.parquet")


def test_table_of_many_row_groups_is_one() -> None:
    """A table that another tool wrote in small row groups reads the same."""
    table = pq.read_table(pa.BufferReader(rows_to_parquet(ROWS)))
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=1)
    assert_same(list(rows_from_parquet(sink.getvalue(), "x.parquet")), ROWS)
