"""Streams that are read forward in bounded pieces: short reads put together, gzip unpacked."""

from __future__ import annotations

import zlib
from contextlib import suppress
from typing import Protocol

from urbandet_ray.errors import RecordError

CHUNK_BYTES = 1 << 20
_PACKED_BYTES = 1 << 14


class ByteStream(Protocol):
    """What is read from: a local file, an S3 body, io.BytesIO."""

    def read(self, n: int, /) -> bytes:
        """At most n bytes; b"" at the end."""
        ...


def skip_bytes(stream: ByteStream, n: int) -> None:
    """Read and drop n bytes, or up to the end."""
    while n > 0 and (chunk := stream.read(min(n, CHUNK_BYTES))):
        n -= len(chunk)


def read_exactly(stream: ByteStream, n: int) -> bytes:
    """n bytes, fewer only where the stream ends."""
    data = b""
    while len(data) < n and (chunk := stream.read(n - len(data))):
        data += chunk
    return data


class PrefixedStream:
    """A stream whose first bytes were read already."""

    def __init__(self, prefix: bytes, stream: ByteStream) -> None:
        self._prefix = prefix
        self._stream = stream

    def read(self, n: int, /) -> bytes:
        """At most n bytes; b"" at the end."""
        if self._prefix:
            head, self._prefix = self._prefix[:n], self._prefix[n:]
            return head
        return self._stream.read(n)


class GunzipStream:
    """Unpacks gzip, members one after another included, in bounded pieces."""

    def __init__(self, head: bytes, stream: ByteStream) -> None:
        self._packed = head
        self._stream = stream
        self._member = zlib.decompressobj(wbits=31)
        self._broken: RecordError | None = None

    def read(self, n: int, /) -> bytes:
        """At most n bytes; b"" at the end.

        Raises:
            RecordError: bad-gzip, after all bytes before the damage were given.
        """
        while True:
            if self._broken is not None:
                raise self._broken
            if self._member.eof and not self._next_member():
                return b""
            packed = self._packed or self._stream.read(_PACKED_BYTES)
            if not packed:
                raise RecordError("bad-gzip", "the gzip stream ends before its trailer: cut short")
            if plain := self._unpack(packed, n):
                return plain

    def _next_member(self) -> bool:
        """Begin the gzip member after this one; zeros between them are padding (gzip manual)."""
        self._packed = self._member.unused_data.lstrip(b"\0")
        while not self._packed:
            packed = self._stream.read(_PACKED_BYTES)
            if not packed:
                return False
            self._packed = packed.lstrip(b"\0")
        self._member = zlib.decompressobj(wbits=31)
        return True

    def _unpack(self, packed: bytes, n: int) -> bytes:
        """At most n bytes; where the piece is damaged, what comes before the damage."""
        before = self._member.copy()
        try:
            plain = self._member.decompress(packed, n)
        except zlib.error as error:
            self._broken = RecordError("bad-gzip", f"the gzip stream is damaged: {error}")
            return _unpack_until_damage(before, packed)
        self._packed = self._member.unconsumed_tail
        return plain


def _unpack_until_damage(member: zlib._Decompress, packed: bytes) -> bytes:
    """Byte by byte, because zlib drops all output of the call that fails."""
    plain = bytearray()
    with suppress(zlib.error):
        for byte in packed:
            plain += member.decompress(bytes([byte]))
    return bytes(plain)
