"""What Ray Data runs in each actor: a shard in, its summary out."""

from __future__ import annotations

import ctypes
import gc
from typing import TYPE_CHECKING

import pyarrow as pa

from urbandet_ray.errors import UrbandetError
from urbandet_ray.inference.job import InferJob, ShardSummary
from urbandet_ray.inference.source_reader import pack, unpack

if TYPE_CHECKING:
    from urbandet_ray.inference.processor import ShardProcessor
    from urbandet_ray.inference.shards import Shard


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def _keep_memory() -> None:
    """Have glibc reuse the memory of one image for the next.

    It would hand it back to the system, which clears each page again when it is asked for: 7% of
    the frames/s of a run with a cheap model (bench/pipeline.py).
    """
    change = getattr(ctypes.CDLL(None), "mallopt", None)
    if change is not None:
        change(_M_MMAP_THRESHOLD, 32 << 20)  # the most that it takes
        change(_M_TRIM_THRESHOLD, 256 << 20)


class PredictorActor:
    """Holds a loaded detector. A user's mistake travels back as a message, not as a traceback."""

    def __init__(self, job: InferJob) -> None:
        from urbandet_ray.inference.processor import ShardProcessor

        _keep_memory()
        self._processor: ShardProcessor | None = None
        self._failure: str | None = None
        try:
            self._processor = ShardProcessor(job)
            self._processor.warm_up()
        except UrbandetError as error:
            self._failure = str(error)
        gc.collect()
        gc.freeze()  # what is loaded by now stays: the collector need not look at it again

    def __call__(self, block: pa.Table) -> pa.Table:
        (content,) = unpack(block)
        return pack(self._answer(content))

    def _answer(self, content: Shard | ShardSummary | str) -> ShardSummary:
        if isinstance(content, ShardSummary):
            return content
        if isinstance(content, str):
            return ShardSummary(failure=content)
        if self._processor is None:
            return ShardSummary(failure=self._failure)
        try:
            return self._processor.process(content)
        except UrbandetError as error:
            return ShardSummary(failure=str(error))
