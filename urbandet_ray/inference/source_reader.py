"""The Ray Data source: one read task a source file, one row a shard.

A shard travels as one binary cell. Ray Data may merge or split blocks as it likes, a row it never
splits. JPEG bytes travel and actors decode: decoded images through the object store cost more than
twice as much a frame.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from urbandet_ray.errors import UrbandetError
from urbandet_ray.inference.job import ShardSummary
from urbandet_ray.inference.shards import CutRule, Shard, read_shards
from urbandet_ray.records.sources import Source
from urbandet_ray.storage import Storage
from urbandet_ray.storage.run_folder import Marker

SCHEMA = pa.schema([("shard", pa.large_binary())])


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
        """One task a source, whatever is asked for: its shards stream out one by one."""
        del parallelism, per_task_row_limit, data_context
        return [self._task(*entry) for entry in self._sources]

    def _task(self, order: int, source: Source, done: Mapping[int, Marker]) -> ReadTask:
        storage, rule = self._storage, self._rule

        def read() -> Iterator[pa.Table]:
            try:
                for shard in read_shards(source, order, storage, rule, done):
                    yield pack(shard)
            except UrbandetError as error:
                yield pack(str(error))

        metadata = BlockMetadata(
            num_rows=None, size_bytes=source.size_bytes, exec_stats=None, input_files=(source.uri,)
        )
        return ReadTask(read, metadata, SCHEMA)


def pack(content: Shard | ShardSummary | str) -> pa.Table:
    """A one-row block of a shard, of its summary, or of the message that ends the run."""
    cell = pickle.dumps(content, protocol=5)
    return pa.table({"shard": pa.array([cell], pa.large_binary())}, schema=SCHEMA)


def unpack(block: pa.Table) -> Iterator[Shard | ShardSummary | str]:
    """What `pack` packed, row by row."""
    for cell in block.column("shard"):
        yield pickle.loads(cell.as_buffer())
