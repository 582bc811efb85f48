"""A few frames from all over an input: as many as asked for, where it has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from math import ceil
from typing import TypeVar

from urbandet_ray.labels import LabelMap
from urbandet_ray.records.source import Record, Source
from urbandet_ray.records.sources import read_source
from urbandet_ray.storage import Storage

Item = TypeVar("Item")
Used = TypeVar("Used")
Use = Callable[[Source, Record], Used | None]
_MORE = 4


def sample(
    sources: Sequence[Source],
    count: int,
    use: Use[Used],
    storage: Storage,
    labels: LabelMap | None = None,
) -> list[Used]:
    """What `use` makes of `count` records spread over the input, in drive order.

    Evenly over the sources and over each source; where one has too few, others give more. Fewer
    come back only where the input has no more that can be used. Each source that is looked into is
    read to its end, as a TFRecord file does not say how many records it has; of a folder of images
    only the chosen ones are read.

    Args:
        use: of a source and its record, None where it cannot be used; asked of chosen ones only.

    Raises:
        StorageError: a source cannot be read.
    """
    places = evenly(range(len(sources)), count)
    least = 2 * ceil(count / max(len(places), 1))
    while True:
        pools = [_thinned(sources[place], least, storage, labels) for place in places]
        found = _picked(
            [
                [(sources[place], one) for one in records]
                for place, (records, _) in zip(places, pools, strict=True)
            ],
            count,
            use,
        )
        is_all = len(places) == len(sources) and not any(cut for _, cut in pools)
        if len(found) == count or is_all:
            return found
        places, least = range(len(sources)), _MORE * max(least, count)


def evenly(items: Sequence[Item], count: int) -> Sequence[Item]:
    """`count` items at equal distances, the first among them; all where there are fewer."""
    if len(items) <= count:
        return items
    return [items[number * len(items) // count] for number in range(count)]


def _thinned(
    source: Source, least: int, storage: Storage, labels: LabelMap | None
) -> tuple[list[Record], bool]:
    """From `least` to twice as many records at equal distances, and whether there are more."""
    if source.kind == "images":
        chosen = evenly(range(len(source.files)), least)
        records = [next(iter(read_source(source, storage, first_index=one))) for one in chosen]
        return records, len(chosen) < len(source.files)
    kept: list[Record] = []
    step = 1
    for number, record in enumerate(read_source(source, storage, labels=labels)):
        if number % step == 0:
            kept.append(record)
            if len(kept) > 2 * least:
                kept, step = kept[::2], 2 * step
    return kept, step > 1


def _picked(
    pools: Sequence[Sequence[tuple[Source, Record]]], count: int, use: Use[Used]
) -> list[Used]:
    """Alike many of each pool as far as they go; what cannot be used is replaced by another."""
    used: list[dict[int, Used]] = [{} for _ in pools]
    waiting = [_order(len(pool), ceil(count / len(pools))) for pool in pools]
    left = count
    while left and any(waiting):
        for pool, order, taken in zip(pools, waiting, used, strict=True):
            found = None
            while left and order and found is None:
                at = order.pop(0)
                found = use(*pool[at])
            if found is not None:
                taken[at] = found
                left -= 1
    return list(chain.from_iterable(_in_order(taken) for taken in used))


def _order(length: int, share: int) -> list[int]:
    """Positions of a pool in the order of asking: those at equal distances first."""
    order: dict[int, None] = {}
    while len(order) < length:
        order.update(dict.fromkeys(evenly(range(length), share)))
        share *= 2
    return list(order)


def _in_order(taken: dict[int, Used]) -> Iterable[Used]:
    return (taken[at] for at in sorted(taken))
