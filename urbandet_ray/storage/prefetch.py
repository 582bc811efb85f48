"""Fetching ahead of whoever uses what was fetched, which hides a remote storage's latency."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Fetched = TypeVar("Fetched")


def fetched_ahead(
    fetch: Callable[[Item], Fetched], items: Iterable[Item], *, threads: int, ahead: int
) -> Iterator[Fetched]:
    """What `fetch` gives for each item, in order, with up to `ahead` of them under way.

    The first error ends it; what was not begun by then, or when the user stops, is left out.
    """
    waiting: deque[Future[Fetched]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="fetch-ahead")
    try:
        for item in items:
            waiting.append(pool.submit(fetch, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
