"""Are the files there that a run's markers vouch for: found by one listing, nothing is read."""

from __future__ import annotations

import bisect
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from urbandet_ray.errors import NotFoundError
from urbandet_ray.runs.run_folder import Marker, RunFolder

_FRAME = re.compile(r".*/frames/([^/]+)/(\d+)\.jpg")
_LETTER = re.compile(r".*/dead_letter/([^/]+)-(\d{8})\.bin")
_TABLE = re.compile(r".*/(?:detections|dead_letter)/([^/]+)\.(?:parquet|jsonl)")


@dataclass(frozen=True)
class Loss:
    """A committed shard whose files are not those that its marker vouches for."""

    marker: Marker
    files: int
    size_bytes: int

    def to_text(self) -> str:
        """One line."""
        wanted = self.marker
        return (
            f"shard {wanted.shard} is damaged: {self.files} files of {self.size_bytes:,} bytes are "
            f"there, its marker says {wanted.files} of {wanted.size_bytes:,}"
        )


def find_losses(folder: RunFolder, markers: Sequence[Marker]) -> list[Loss]:
    """The shards that lack files, or have files of another size, in drive order.

    Markers of versions that did not count their files are believed.

    Raises:
        StorageError: the run folder cannot be listed.
    """
    counted = [one for one in markers if one.files >= 0]
    if not counted:
        return []
    sizes = _sizes(folder, counted)
    losses = (Loss(one, *sizes.get(one.shard, (0, 0))) for one in counted)
    return [one for one in losses if (one.files, one.size_bytes) != _stated(one.marker)]


def _stated(marker: Marker) -> tuple[int, int]:
    return marker.files, marker.size_bytes


def _sizes(folder: RunFolder, markers: Iterable[Marker]) -> dict[str, tuple[int, int]]:
    """Files and bytes of each shard."""
    starts: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    for one in markers:
        starts[one.source].append((one.first_index, one.next_index, one.shard))
    shards = {name for chain in starts.values() for _, _, name in chain}
    for chain in starts.values():
        chain.sort()

    def shard_at(source: str, index: int) -> str | None:
        chain = starts.get(source, [])
        place = bisect.bisect_right(chain, index, key=lambda one: one[0]) - 1
        return chain[place][2] if place >= 0 and index < chain[place][1] else None

    found: dict[str, tuple[int, int]] = {}
    for part in ("frames", "detections", "dead_letter"):
        try:
            infos = list(folder.storage.list_files(folder.path(part)))
        except NotFoundError:
            continue
        for info in infos:
            shard: str | None = None
            if numbered := _FRAME.fullmatch(info.uri) or _LETTER.fullmatch(info.uri):
                shard = shard_at(numbered[1], int(numbered[2]))
            elif (table := _TABLE.fullmatch(info.uri)) and table[1] in shards:
                shard = table[1]
            if shard is not None:
                files, size_bytes = found.get(shard, (0, 0))
                found[shard] = files + 1, size_bytes + info.size_bytes
    return found
