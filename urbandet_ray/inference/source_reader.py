"""The Ray Data source: read tasks take the sources in turn, one row a shard.

A shard travels as one binary cell. Ray Data may merge or split blocks as it likes, a row it never
splits. JPEG bytes travel and actors decode: decoded images through the object store cost more than
twice as much a frame.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from urbandet_ray.errors import UrbandetError
from urbandet_ray.inference.job import ShardSummary
from urbandet_ray.inference.shards import CutRule, Shard, read_shards
from urbandet_ray.records.sources import Source
from urbandet_ray.runs.run_folder import Marker
from urbandet_ray.storage import Storage

SCHEMA = pa.schema([("shard", pa.large_binary())])

_ASIDE_BYTES = 4096
_ENDS = struct.Struct("<qq")
_SIZE = struct.Struct("<q")


class ShardSource(Datasource):  # type: ignore[misc]  # ray ships no types
    """Reads what is left of each source.

    Args:
        sources: (place in the drive, source, its committed shards by first index).
    """

    def __init__(
        self,
        sources: Sequence[tuple[int, Source, Mapping[int, Marker]]],
        storage: Storage,
        rule: CutRule,
    ) -> None:
        super().__init__()
        self._sources = sources
        self._storage = storage
        self._rule = rule

    def get_name(self) -> str:
        """Name in Ray's dashboard."""
        return "ReadShards"

    def estimate_inmemory_data_size(self) -> int:
        """Bytes to expect."""
        return sum(source.size_bytes for _, source, _ in self._sources)

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """As many tasks as asked for, dealt the sources like cards; each streams its shards."""
        del per_task_row_limit, data_context
        return [self._task(self._sources[first::parallelism]) for first in range(parallelism)]

    def _task(self, sources: Sequence[tuple[int, Source, Mapping[int, Marker]]]) -> ReadTask:
        storage, rule = self._storage, self._rule

        def read() -> Iterator[pa.Table]:
            try:
                for order, source, done in sources:
                    for shard in read_shards(source, order, storage, rule, done):
                        yield pack(shard)
            except UrbandetError as error:
                yield pack(str(error))

        metadata = BlockMetadata(
            num_rows=None,
            size_bytes=sum(source.size_bytes for _, source, _ in sources),
            exec_stats=None,
            input_files=tuple(source.uri for _, source, _ in sources),
        )
        return ReadTask(read, metadata, SCHEMA)


def pack(content: Shard | ShardSummary | str) -> pa.Table:
    """A one-row block of a shard, of its summary, or of the message that ends the run."""
    cell = pa.py_buffer(_dumps(content))
    ends = pa.py_buffer(_ENDS.pack(0, cell.size))
    column = pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, cell])  # without a copy
    return pa.table({"shard": column}, schema=SCHEMA)


def unpack(block: pa.Table) -> Iterator[Shard | ShardSummary | str]:
    """What `pack` packed, row by row; encoded images are views of the block's memory.

    Copied all at once they would need fresh memory for each shard; one by one they reuse it.
    """
    for chunk in block.column("shard").chunks:
        _, ends, cells = chunk.buffers()
        bounds = np.frombuffer(ends, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
        for begin, end in pairwise(bounds.tolist()):
            yield _loads(memoryview(cells)[begin:end])  # arrow's own scalars would copy it


class _Pickler(pickle.Pickler):
    """Puts encoded images aside: a pickle that holds them is copied again and again as it grows."""

    def __init__(self, out: io.BytesIO) -> None:
        super().__init__(out, protocol=5)
        self.aside: list[bytes] = []
        self._end = 0

    def persistent_id(self, obj: Any) -> tuple[int, int] | None:
        if type(obj) is not bytes or len(obj) < _ASIDE_BYTES:
            return None
        begin, self._end = self._end, self._end + len(obj)
        self.aside.append(obj)
        return begin, self._end


class _Unpickler(pickle.Unpickler):
    def __init__(self, pickled: memoryview, aside: memoryview) -> None:
        super().__init__(io.BytesIO(pickled))
        self._aside = aside

    def persistent_load(self, pid: tuple[int, int]) -> memoryview:
        return self._aside[pid[0] : pid[1]]


def _dumps(content: object) -> bytes:
    """Size of what was put aside, that, and the pickle of the rest."""
    out = io.BytesIO()
    pickler = _Pickler(out)
    pickler.dump(content)
    size = sum(len(piece) for piece in pickler.aside)
    return b"".join([_SIZE.pack(size), *pickler.aside, out.getvalue()])


def _loads(cell: memoryview) -> Any:
    aside, rest = cell[_SIZE.size :], _SIZE.unpack(cell[: _SIZE.size])[0]
    return _Unpickler(aside[rest:], aside[:rest]).load()
