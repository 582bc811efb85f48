"""TFRecord framing: both checksums, plain or gzip, streamed, and able to go on after damage.

A record is `length u64 · masked CRC32C of length u32 · data · masked CRC32C of data u32`, little
endian (tensorflow/core/lib/io/record_writer.h). Nothing here knows what the data means.
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterator
from functools import cache
from types import TracebackType
from typing import BinaryIO

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from urbandet_ray.errors import RecordError
from urbandet_ray.records.bytestream import (
    CHUNK_BYTES,
    ByteStream,
    GunzipStream,
    PrefixedStream,
    read_exactly,
)
from urbandet_ray.records.source import Record

HEADER_BYTES = 12
FOOTER_BYTES = 4
KEPT_DAMAGE_BYTES = 64 << 20
"""So much of a damaged span is handed on; the rest of it is counted only."""

_CRC = struct.Struct("<I")
_LENGTH = struct.Struct("<Q")
_MASK_DELTA = 0xA282EAD8
_GZIP_MAGIC = b"\x1f\x8b"


def masked_crc(data: bytes | bytearray | memoryview) -> int:
    """CRC32C as TFRecord stores it: rotated and shifted, so that CRCs of CRCs stay sound."""
    crc: int = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def is_record_header(head: bytes) -> bool:
    """Whether the 12 bytes are a length and its right CRC."""
    return len(head) == HEADER_BYTES and masked_crc(head[:8]) == _CRC.unpack(head[8:])[0]


def is_gzip(head: bytes) -> bool:
    """Whether a file with these first HEADER_BYTES is packed.

    A plain record of 0x8b1f + k * 65536 bytes also begins with gzip's magic number.
    """
    return head.startswith(_GZIP_MAGIC) and not is_record_header(head)


def decompress(stream: ByteStream) -> ByteStream:
    """The stream's bytes from its start, unpacked where they are gzip (by content, not name).

    Reading raises RecordError "bad-gzip" where the packed stream is damaged or cut short.
    """
    head = read_exactly(stream, HEADER_BYTES)
    return GunzipStream(head, stream) if is_gzip(head) else PrefixedStream(head, stream)


def read_records(
    stream: ByteStream,
    *,
    first_index: int = 0,
    offset: int = 0,
    max_record_bytes: int = 1 << 30,
) -> Iterator[Record]:
    """Read records one by one; damage becomes a record with an error, and reading goes on.

    Error reasons: bad-data-crc (the next record's header is intact), bad-length-crc and
    truncated-record (the span up to the next header that checks is one error), record-too-large,
    bad-gzip (the rest is lost), not-tfrecord (the file is something else altogether).

    Args:
        stream: positioned at `offset` of the decompressed bytes; gzip is recognised at offset 0.
        first_index: index of the record at `offset`.
        offset: where the stream stands.
        max_record_bytes: a longer record is an error and is skipped.
    """
    window = _Window(stream if offset else decompress(stream), offset)
    index, any_good, start = first_index, offset > 0, offset
    while True:
        try:
            record = _next_record(window, index, max_record_bytes, any_good)
        except RecordError as error:  # the gzip stream broke
            rest = window.take_rest()
            yield Record(index, start, window.offset, rest, error)
            return
        if record is None:
            return
        yield record
        if record.error is not None and record.error.reason == "not-tfrecord":
            return
        any_good = any_good or record.error is None
        index, start = index + 1, record.next_offset


def _next_record(
    window: _Window, index: int, max_record_bytes: int, any_good: bool
) -> Record | None:
    start = window.offset
    available = window.fill(HEADER_BYTES)
    if available == 0:
        return None
    head = window.peek(0, HEADER_BYTES)
    if not is_record_header(head):
        return _resynchronise(window, index, max_record_bytes, _header_error(head, start), any_good)
    length = _LENGTH.unpack(head[:8])[0]
    size = HEADER_BYTES + length + FOOTER_BYTES
    if length > max_record_bytes:
        return _skip_large(window, index, length, max_record_bytes)
    if window.fill(size) < size:
        error = RecordError(
            "truncated-record",
            f"the record at byte {start} says {length} bytes and the file ends after "
            f"{max(window.fill(size) - HEADER_BYTES, 0)}",
        )
        return _resynchronise(window, index, max_record_bytes, error, any_good)
    data = window.peek(HEADER_BYTES, HEADER_BYTES + length)
    stored = _CRC.unpack(window.peek(size - FOOTER_BYTES, size))[0]
    if masked_crc(data) == stored:
        window.drop(size)
        return Record(index, start, window.offset, data, None)
    return _bad_data(window, index, data, size, max_record_bytes)


def _bad_data(window: _Window, index: int, data: bytes, size: int, max_record_bytes: int) -> Record:
    """Tell a flipped byte (the next header stands where it should) from missing bytes."""
    start = window.offset
    available = window.fill(size + HEADER_BYTES)
    if available == size or is_record_header(window.peek(size, size + HEADER_BYTES)):
        window.drop(size)
        detail = f"the {len(data)} bytes of the record at byte {start} do not match their CRC32C"
        return Record(
            index, start, window.offset, data, RecordError("bad-data-crc", f"{detail}: damaged")
        )
    error = RecordError(
        "truncated-record",
        f"the record at byte {start} says {len(data)} bytes, but its CRC32C is wrong and no "
        "record follows it: bytes are missing or were overwritten",
    )
    return _resynchronise(window, index, max_record_bytes, error, True)


def _header_error(head: bytes, start: int) -> RecordError:
    if len(head) < HEADER_BYTES:
        return RecordError(
            "truncated-record", f"the file ends {len(head)} bytes into the header at byte {start}"
        )
    return RecordError("bad-length-crc", f"the length at byte {start} does not match its CRC32C")


def _resynchronise(
    window: _Window, index: int, max_record_bytes: int, error: RecordError, any_good: bool
) -> Record:
    """Make everything up to the next header that checks one bad record.

    A file that never held a record, and does not begin like one, is given up after
    KEPT_DAMAGE_BYTES: it is something else.
    """
    start = window.offset
    foreign = not any_good and window.fill(8) == 8 and window.peek(4, 8) != b"\0\0\0\0"
    kept = bytearray(window.take(1))
    found = False
    while not found and not (foreign and window.offset - start > KEPT_DAMAGE_BYTES):
        available = window.fill(CHUNK_BYTES)
        block = window.peek(0, available)
        places = _header_places(block, max_record_bytes)
        found = len(places) > 0
        at_end = available < CHUNK_BYTES
        step = int(places[0]) if found else available - (0 if at_end else HEADER_BYTES - 1)
        kept += block[: min(step, KEPT_DAMAGE_BYTES - len(kept))]
        window.drop(step)
        if at_end and not found:
            break
    if foreign and not found:
        error = RecordError(
            "not-tfrecord",
            f"the file begins with {bytes(kept[:8])!r} and holds no TFRecord header: "
            "expected a TFRecord file, plain or gzip",
        )
    return Record(index, start, window.offset, bytes(kept), error)


def _skip_large(window: _Window, index: int, length: int, max_record_bytes: int) -> Record:
    start = window.offset
    error = RecordError(
        "record-too-large",
        f"the record at byte {start} says {length} bytes; at most {max_record_bytes} are read",
    )
    kept = bytearray()
    left = HEADER_BYTES + length + FOOTER_BYTES
    while left and (chunk := window.take(min(left, CHUNK_BYTES))):
        kept += chunk[: max(KEPT_DAMAGE_BYTES - len(kept), 0)]
        left -= len(chunk)
    return Record(index, start, window.offset, bytes(kept), error)


@cache
def _length_crc_tables() -> NDArray[np.uint32]:
    """[4, 256] tables whose XOR is the CRC32C of a length below 2**32 (CRC is affine in bits)."""
    zero = crc32c(bytes(8))
    tables = np.zeros((4, 256), np.uint32)
    for place in range(4):
        for value in range(256):
            length = bytes(place) + bytes([value]) + bytes(7 - place)
            tables[place, value] = crc32c(length) ^ (zero if place else 0)
    return tables


def _header_places(block: bytes, max_record_bytes: int) -> NDArray[np.intp]:
    """Where in the block 12 bytes are a length up to `max_record_bytes` with its right CRC."""
    n = len(block) - HEADER_BYTES + 1
    if n <= 0:
        return np.zeros(0, np.intp)
    octets = np.frombuffer(block, np.uint8)
    zero = octets == 0
    zero = zero[:-1] & zero[1:]
    zero = zero[:-2] & zero[2:]  # four zero bytes from here on
    # twelve zero bytes are no header; left out because padding has millions of them
    places = np.flatnonzero(zero[4 : n + 4] & ~(zero[:n] & zero[8 : n + 8]))
    low = octets[places[:, None] + np.arange(4)]
    crc = np.bitwise_xor.reduce(_length_crc_tables()[np.arange(4), low], axis=1)
    masked = ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(_MASK_DELTA)
    stored = octets[places[:, None] + np.arange(8, 12)].copy().view("<u4")[:, 0]
    lengths = low.copy().view("<u4")[:, 0]
    right: NDArray[np.intp] = places[(masked == stored) & (lengths <= max_record_bytes)]
    return right


class _Window:
    """The bytes of a stream from `offset` on; as many are held as were asked for."""

    def __init__(self, stream: ByteStream, offset: int) -> None:
        self._stream = stream
        self._held = bytearray()
        self._position = 0
        self._broken: RecordError | None = None
        self.offset = offset

    def fill(self, n: int) -> int:
        """Hold n bytes if the stream has them; how many are held, at most n.

        Raises:
            RecordError: the stream broke before that; what is held can still be taken.
        """
        while (missing := n - (len(self._held) - self._position)) > 0:
            if self._position:
                del self._held[: self._position]
                self._position = 0
            if self._broken is not None:
                raise self._broken
            try:
                chunk = self._stream.read(min(max(missing, CHUNK_BYTES), 16 * CHUNK_BYTES))
            except RecordError as error:
                self._broken = error
                continue
            if not chunk:
                break
            self._held += chunk
        return min(n, len(self._held) - self._position)

    def peek(self, start: int, stop: int) -> bytes:
        """Held bytes [start, stop) from the window's offset."""
        with memoryview(self._held) as view:
            return bytes(view[self._position + start : self._position + stop])

    def drop(self, n: int) -> None:
        """Move on by n held bytes."""
        self._position += n
        self.offset += n

    def take(self, n: int) -> bytes:
        """Up to n bytes, moving on behind them."""
        taken = self.peek(0, self.fill(n))
        self.drop(len(taken))
        return taken

    def take_rest(self) -> bytes:
        """What is held already, without reading."""
        rest = self.peek(0, len(self._held) - self._position)
        self.drop(len(rest))
        return rest


class RecordWriter:
    """Writes records to a binary file that the caller opened; close it to end a gzip stream."""

    def __init__(self, file: BinaryIO, *, compress: bool = False) -> None:
        self._gzip = gzip.GzipFile(fileobj=file, mode="wb", mtime=0) if compress else None
        self._file: BinaryIO | gzip.GzipFile = self._gzip or file
        self.count = 0

    def write(self, data: bytes) -> None:
        """Append one record."""
        length = _LENGTH.pack(len(data))
        self._file.write(length + _CRC.pack(masked_crc(length)))
        self._file.write(data)
        self._file.write(_CRC.pack(masked_crc(data)))
        self.count += 1

    def close(self) -> None:
        """End the gzip stream; the file itself stays open, it is the caller's."""
        if self._gzip is not None:
            self._gzip.close()

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
