"""Fetching ahead: in order, few at a time, and no further than somebody reads."""

import threading

import pytest

from urbandet_ray.storage.prefetch import fetched_ahead


def test_order_is_kept_and_what_is_under_way_is_bounded() -> None:
    """Images fetched by several threads come in order, few at a time, and stop with the reader."""
    started: list[int] = []
    lock = threading.Lock()

    def fetch(index: int) -> int:
        with lock:
            started.append(index)
        return index

    fetched = fetched_ahead(fetch, range(5, 500), threads=8, ahead=16)
    assert [next(fetched) for _ in range(10)] == list(range(5, 15))
    fetched.close()  # type: ignore[attr-defined]
    assert len(started) <= 10 + 16


def test_an_error_comes_where_its_item_would_have() -> None:
    """What was fetched before it is not lost."""

    def fetch(index: int) -> int:
        if index == 3:
            raise OSError("gone")
        return index

    fetched = fetched_ahead(fetch, range(9), threads=2, ahead=4)
    assert [next(fetched) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="gone"):
        next(fetched)
