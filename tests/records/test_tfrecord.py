"""TFRecord framing: checksums, gzip, damage anywhere."""

import gzip
import io
import struct
import tracemalloc

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from urbandet_ray.records import tfrecord
from urbandet_ray.records.source import Record
from urbandet_ray.records.tfrecord import RecordWriter, is_record_header, read_records


def packed(*records: bytes, compress: bool = False) -> bytes:
    file = io.BytesIO()
    with RecordWriter(file, compress=compress) as writer:
        for record in records:
            writer.write(record)
    return file.getvalue()


def read(data: bytes, **options: int) -> list[Record]:
    return list(read_records(io.BytesIO(data), **options))


def outcome(records: list[Record]) -> list[bytes | str]:
    return [record.error.reason if record.error else record.raw for record in records]


def slow_masked_crc(data: bytes) -> int:
    """CRC32C a bit at a time (RFC 3720, B.4), then TFRecord's mask."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


class Trickle(io.BytesIO):
    """A stream that answers with few bytes a time, as sockets do."""

    def read(self, n: int = -1, /) -> bytes:
        return super().read(min(n, 7))


RECORDS = [bytes([65 + i]) * (40 + i) for i in range(6)]


def starts(records: list[bytes]) -> list[int]:
    return [sum(len(packed(one)) for one in records[:i]) for i in range(len(records) + 1)]


def test_layout_is_the_documented_one() -> None:
    """Length, masked CRC, data, masked CRC, little endian; CRCs from an independent one."""
    length = struct.pack("<Q", 5)
    golden = length + struct.pack("<I", slow_masked_crc(length))
    golden += b"hello" + struct.pack("<I", slow_masked_crc(b"hello"))
    assert packed(b"hello") == golden
    assert outcome(read(golden)) == [b"hello"]


def test_every_length_crc_that_is_found_by_table_is_the_real_one() -> None:
    """The vectorised header search agrees with the checksum itself, for small and large lengths."""
    for length in (0, 1, 255, 256, 65_535, 1 << 20, (1 << 30) - 1, 1 << 30):
        head = struct.pack("<Q", length)
        block = b"\x07" * 33 + head + struct.pack("<I", slow_masked_crc(head)) + b"\x07" * 5
        assert tfrecord._header_places(block, 1 << 30).tolist() == [33]
        assert tfrecord._header_places(block, max(length - 1, 0)).tolist() == ([33] * (length == 0))


@given(st.lists(st.binary(max_size=300), max_size=8), st.booleans())
def test_round_trip(records: list[bytes], compress: bool) -> None:
    """What was written is read, plain and gzip, with offsets that tile the file."""
    result = read(packed(*records, compress=compress))
    assert outcome(result) == records
    assert [record.index for record in result] == list(range(len(records)))
    assert [record.offset for record in result] == starts(records)[:-1]
    assert [record.next_offset for record in result] == starts(records)[1:]


@given(st.binary(max_size=400))
def test_any_bytes_end_without_an_exception(data: bytes) -> None:
    """Arbitrary bytes give records or errors, whose spans tile what was read."""
    at = 0
    for record in read(data):
        assert record.offset == at
        assert record.next_offset > at or record.error is not None
        at = record.next_offset
    assert at <= max(len(data), 1) or data[:2] == b"\x1f\x8b"


@settings(max_examples=200)
@given(st.data())
def test_any_one_damage_spares_the_records_it_does_not_touch(data: st.DataObject) -> None:
    """A flipped byte, a cut or an insertion inside record k leaves all others readable."""
    victim = data.draw(st.integers(0, len(RECORDS) - 1))
    low, high = starts(RECORDS)[victim], starts(RECORDS)[victim + 1]
    at = data.draw(st.integers(low, high - 1))
    whole = packed(*RECORDS)
    kind = data.draw(st.sampled_from(["flip", "cut", "insert"]))
    if kind == "flip":
        damaged = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    elif kind == "cut":
        damaged = whole[:at] + whole[data.draw(st.integers(at + 1, high)) :]
    else:
        damaged = whole[:at] + data.draw(st.binary(min_size=1, max_size=30)) + whole[at:]
    assume(not damaged.startswith(b"\x1f\x8b"))  # that is a damaged gzip file, see below
    good = [item for item in outcome(read(damaged)) if isinstance(item, bytes)]
    expected = [record for i, record in enumerate(RECORDS) if i != victim]
    # an insertion before the first byte, or a cut of a whole record, damages nothing
    assert good in (expected, RECORDS)


def test_a_flipped_data_byte_costs_one_record() -> None:
    """bad-data-crc names the offset and keeps the payload; the next record is read."""
    data = bytearray(packed(*RECORDS))
    data[starts(RECORDS)[2] + 20] ^= 1
    result = read(bytes(data))
    assert outcome(result) == [*RECORDS[:2], "bad-data-crc", *RECORDS[3:]]
    bad = result[2]
    assert (bad.index, bad.offset, bad.next_offset) == (2, *starts(RECORDS)[2:4])
    assert len(bad.raw) == len(RECORDS[2])
    assert str(bad.error) == (
        f"bad-data-crc: the 42 bytes of the record at byte {bad.offset} do not match their "
        "CRC32C: damaged"
    )


def test_a_flipped_byte_in_the_last_record_is_no_truncation() -> None:
    """At the end of the file no next header can tell; the length does."""
    data = bytearray(packed(*RECORDS))
    data[-10] ^= 1
    assert outcome(read(bytes(data)))[-1] == "bad-data-crc"


def test_a_damaged_length_is_one_bad_span() -> None:
    """bad-length-crc spans exactly up to the next record, raw bytes included."""
    data = bytearray(packed(*RECORDS))
    low, high = starts(RECORDS)[1:3]
    data[low] ^= 4
    result = read(bytes(data))
    assert outcome(result) == [RECORDS[0], "bad-length-crc", *RECORDS[2:]]
    assert (result[1].offset, result[1].next_offset) == (low, high)
    assert result[1].raw == bytes(data[low:high])
    assert f"the length at byte {low} does not match" in str(result[1].error)


@pytest.mark.parametrize("victim", [0, 2, 4])
def test_bytes_missing_in_the_middle_cost_one_record(victim: int) -> None:
    """A record cut short in the middle of the file does not swallow those after it."""
    low, high = starts(RECORDS)[victim : victim + 2]
    data = packed(*RECORDS)
    result = read(data[: low + 20] + data[high - 5 :])
    expected = [*RECORDS[:victim], "truncated-record", *RECORDS[victim + 1 :]]
    assert outcome(result) == expected
    assert result[victim].offset == low
    assert result[victim + 1].index == victim + 1


def test_a_file_that_ends_inside_a_record() -> None:
    """truncated-record has what is there, and says what was expected."""
    data = packed(*RECORDS)[:-30]
    last = read(data)[-1]
    assert outcome(read(data)) == [*RECORDS[:-1], "truncated-record"]
    assert last.raw == data[last.offset :]
    assert f"says 45 bytes and the file ends after {len(last.raw) - 12}" in str(last.error)


def test_a_file_that_ends_inside_a_header() -> None:
    """Too few bytes for a header are a truncated record too."""
    last = read(packed(b"x") + b"\x05\0\0")[-1]
    assert str(last.error) == "truncated-record: the file ends 3 bytes into the header at byte 17"
    assert last.raw == b"\x05\0\0"


@pytest.mark.parametrize(
    "data",
    [b"PK\x03\x04" + b"zip " * 500, b"just some text, line after line\n" * 90, b"\xff\xd8" * 700],
)
def test_another_kind_of_file_is_one_error(data: bytes) -> None:
    """not-tfrecord once, rather than an error for every few bytes."""
    (only,) = read(data)
    assert only.error is not None
    assert str(only.error).startswith("not-tfrecord: the file begins with b'")
    assert only.next_offset == len(data)


def test_a_large_foreign_file_is_given_up_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first part of a file without any header is searched."""
    monkeypatch.setattr(tfrecord, "KEPT_DAMAGE_BYTES", 1 << 20)
    (only,) = read(b"text" * (2 << 20))
    assert only.error is not None
    assert only.error.reason == "not-tfrecord"
    assert only.next_offset < 4 << 20
    assert len(only.raw) == 1 << 20


def test_a_record_over_the_limit_is_skipped() -> None:
    """record-too-large names both numbers; the next one is read."""
    result = read(packed(b"a", b"b" * 500, b"c"), max_record_bytes=100)
    assert outcome(result) == [b"a", "record-too-large", b"c"]
    assert "says 500 bytes; at most 100 are read" in str(result[1].error)


def test_zeros_are_searched_quickly_and_are_no_records() -> None:
    """Padding with zeros after a record is one truncated or damaged span."""
    result = read(packed(b"a") + bytes(3 << 20) + packed(b"b"))
    assert outcome(result) == [b"a", "bad-length-crc", b"b"]


def test_damaged_gzip_is_one_error_for_the_rest() -> None:
    """Records before the damage are read, then bad-gzip ends the file."""
    import random

    records = [random.Random(i).randbytes(60_000) for i in range(5)]
    data = bytearray(packed(*records, compress=True))
    assert outcome(read(bytes(data[:150_000])))[-1] == "bad-gzip"
    assert outcome(read(bytes(data[:150_000])))[:2] == records[:2]
    assert "cut short" in str(read(bytes(data[:150_000]))[-1].error)
    data[-3] ^= 1  # the trailer
    assert outcome(read(bytes(data))) == [*records, "bad-gzip"]


def test_gzip_members_one_after_another() -> None:
    """Concatenated gzip files, zero padding included, are one stream."""
    data = packed(b"a", compress=True) + packed(b"b", compress=True) + bytes(512)
    assert outcome(read(data)) == [b"a", b"b"]


def test_a_plain_file_that_looks_like_gzip() -> None:
    """A first record of 0x8b1f bytes begins with gzip's magic number and is no gzip."""
    record = b"z" * 0x8B1F
    data = packed(record, b"next")
    assert data[:2] == gzip.compress(b"")[:2]
    assert outcome(read(data)) == [record, b"next"]


def test_gzip_output_is_the_same_every_time() -> None:
    """No time stamp goes into the file."""
    assert packed(b"a", compress=True) == packed(b"a", compress=True)
    assert gzip.decompress(packed(b"a", compress=True)) == packed(b"a")


def test_reading_from_a_later_record() -> None:
    """Index and offset go on from where the caller says the stream stands."""
    low = starts(RECORDS)[3]
    stream = io.BytesIO(packed(*RECORDS)[low:])
    result = list(read_records(stream, first_index=3, offset=low))
    assert outcome(result) == RECORDS[3:]
    assert [record.index for record in result] == [3, 4, 5]
    assert result[0].offset == low


def test_short_reads_are_put_together() -> None:
    """A stream that gives 7 bytes a time gives the same records, plain and gzip."""
    assert outcome(list(read_records(Trickle(packed(*RECORDS))))) == RECORDS
    assert outcome(list(read_records(Trickle(packed(*RECORDS, compress=True))))) == RECORDS


def test_memory_stays_at_a_few_records() -> None:
    """32 MiB of records and 16 MiB of damage pass through a few MiB."""
    record = b"r" * (256 << 10)
    file = io.BytesIO(packed(*[record] * 128))
    tracemalloc.start()
    count = sum(1 for _ in read_records(file))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 128
    assert peak < 6 << 20


def test_an_empty_file_has_no_records() -> None:
    """Nothing in, nothing out; no error."""
    assert read(b"") == []


def test_header_check_wants_twelve_bytes() -> None:
    """A shorter piece is no header."""
    assert is_record_header(packed(b"a")[:12])
    assert not is_record_header(packed(b"a")[:11])


@pytest.mark.train
def test_files_are_those_of_tensorflow(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """TensorFlow's writer makes the same bytes, and its reader reads ours, plain and gzip."""
    import tensorflow as tf

    path = tmp_path / "tf.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in RECORDS:
            writer.write(record)
    assert path.read_bytes() == packed(*RECORDS)
    ours = tmp_path / "ours.tfrecord.gz"
    ours.write_bytes(packed(*RECORDS, compress=True))
    back = tf.data.TFRecordDataset(str(ours), compression_type="GZIP")
    assert [item.numpy() for item in back] == RECORDS
