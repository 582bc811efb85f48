"""Which records a worker trains on, and each of them by number, straight from its local file."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.errors import InputError, RunError, StorageError
from urbandet_ray.labels import LabelMap
from urbandet_ray.records.example import repaired_example
from urbandet_ray.records.source import Source
from urbandet_ray.storage import Storage
from urbandet_ray.training.data.record_scan import BadRecord, Checks, Scan, Slice, scan_slice

__all__ = ["BadRecord", "RecordIndex", "Slice", "build_index", "share_of_worker"]

_OPEN_FILES = 128
_SHOWN_BAD = 5


def share_of_worker(sources: Sequence[Source], rank: int, world: int) -> list[Slice]:
    """The records whose first byte lies in a worker's 1/world of all sources' bytes.

    All workers' shares together are every record once, however many files there are.

    Args:
        sources: the same on every worker, in the same order (list_sources).
        rank: the worker, from 0.
        world: how many workers there are.

    Raises:
        InputError: a source is no TFRecord file, so it carries no labels.
    """
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} of {world} workers: ranks are 0 to world - 1")
    for source in sources:
        if source.kind != "tfrecord":
            raise InputError(
                f"{source.uri} is of kind {source.kind}, which carries no labels: training needs "
                "TFRecords of tf.Examples; leave it out, or convert it with its labels"
            )
    total = sum(source.size_bytes for source in sources)
    begin, end = total * rank // world, total * (rank + 1) // world
    slices, start = [], 0
    for source in sources:
        first = max(begin - start, 0)
        last = min(end - start, source.size_bytes)
        if first < last:
            slices.append(Slice(source, first, last))
        start += source.size_bytes
    return slices


class RecordIndex:
    """The usable records of a worker by number, columns of equal length [n].

    Attributes:
        sources, paths: the files, and where they are on this machine.
        file_ids: [n] int32 positions in `sources`.
        record_numbers: [n] int64 positions in the source, bad records counted.
        offsets: [n] int64 first byte of the payload in the file of `paths`.
        sizes: [n] int32 bytes of the payload.
        boxes: [n] int32 boxes of the record.
        odd: [n] bool, records that are repaired when they are read (repaired_example).
        class_presence: [n, highest id + 1] whether a record has a box of the class.
        bad: the records that are left out.
        foreign: boxes that are left out, of classes that the label map does not have.
    """

    def __init__(
        self, scans: Sequence[Scan], highest_id: int = 0, labels: LabelMap | None = None
    ) -> None:
        """Put the scans together.

        Args:
            scans: a worker's slices, checked with `labels`.
            highest_id: the least number of columns of `class_presence`, less one.
            labels: turns class texts into ids; None takes the records' numbers.
        """
        self._labels = labels
        self.sources = tuple(scan.source for scan in scans)
        self.paths = tuple(scan.path for scan in scans)
        self.bad = tuple(bad for scan in scans for bad in scan.bad)
        counts = [len(scan.numbers) for scan in scans]
        self.file_ids = np.repeat(np.arange(len(scans), dtype=np.int32), counts)
        none = np.zeros(0, np.int64)
        self.record_numbers = np.concatenate([none, *(scan.numbers for scan in scans)])
        self.offsets = np.concatenate([none, *(scan.offsets for scan in scans)])
        self.sizes = np.concatenate([none, *(scan.sizes for scan in scans)]).astype(np.int32)
        empty = np.zeros(0, np.int32)
        self.boxes = np.concatenate([empty, *(scan.boxes for scan in scans)]).astype(np.int32)
        self.odd = np.concatenate([np.zeros(0, bool), *(scan.odd for scan in scans)])
        self.foreign = sum(int(scan.foreign.sum()) for scan in scans)
        self.class_presence = _presence(scans, counts, highest_id)
        self._files = _OpenFiles()

    def __len__(self) -> int:
        return len(self.sizes)

    def read(self, i: int) -> bytes:
        """The serialised Example of record i, without odd columns; any thread may read.

        Raises:
            StorageError: the file is gone or was cut short since it was indexed.
        """
        path, size = self.paths[self.file_ids[i]], int(self.sizes[i])
        try:
            data = self._files.read(path, size, int(self.offsets[i]))
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error}") from error
        if len(data) != size:
            raise StorageError(
                f"{path} ends within record {self.record_numbers[i]}: it changed since the run "
                "began; leave the records as they are while a run reads them"
            )
        return repaired_example(data, self._labels) if self.odd[i] else data


def build_index(
    slices: Sequence[Slice],
    storage: Storage,
    cache_dir: Path,
    *,
    num_classes: int | None = None,
    checks: Checks = Checks(),  # noqa: B008 - frozen
    max_bad_records: int = 100,
    threads: int = 4,
) -> RecordIndex:
    """Bring the files here where they are remote or packed, and read all records once.

    Records without labels, or with none, are kept: they are negatives. Bad ones are left out and
    listed. A later call with the same slices of unchanged files takes what an earlier one found.

    Args:
        slices: a worker's share.
        storage: reads them.
        cache_dir: local folder, made as needed; several processes may share it.
        num_classes: class ids are 1 to this; None takes any.
        checks: what a record has to pass.
        max_bad_records: with more than this there is no index.
        threads: files read at a time.

    Raises:
        InputError: a class id beyond num_classes.
        RunError: too many bad records.
        StorageError: a file changed since it was listed, or cannot be read.
    """
    scan = partial(scan_slice, storage=storage, cache_dir=Path(cache_dir), checks=checks)
    with ThreadPoolExecutor(max(threads, 1), thread_name_prefix="index-records") as pool:
        scans = list(pool.map(scan, slices))
    if num_classes is not None:
        for one in scans:
            _check_ids(one, num_classes)
    index = RecordIndex(scans, num_classes or 0, checks.labels)
    if len(index.bad) > max_bad_records:
        raise RunError(_too_many(index.bad, max_bad_records))
    return index


def _presence(scans: Sequence[Scan], counts: list[int], highest_id: int) -> NDArray[np.bool_]:
    highest = max([highest_id, *(int(scan.class_ids.max(initial=0)) for scan in scans)])
    presence = np.zeros((sum(counts), highest + 1), bool)
    start = 0
    for scan, count in zip(scans, counts, strict=True):
        known = scan.class_ids >= 0
        presence[start + scan.rows[known], scan.class_ids[known]] = True
        start += count
    return presence


def _check_ids(scan: Scan, num_classes: int) -> None:
    wrong = np.flatnonzero((scan.class_ids < 1) | (scan.class_ids > num_classes))
    if not len(wrong):
        return
    class_id = int(scan.class_ids[wrong[0]])
    number = int(scan.numbers[scan.rows[wrong[0]]])
    cure = (
        f"set num_classes to {class_id} or more"
        if class_id > 0
        else "there is no label map, and no class/label from 1"
    )
    raise InputError(
        f"{scan.source.uri} record {number} has a box of class id {class_id}; the model takes ids "
        f"1 to {num_classes}: {cure}, or give the records new ids (`urbandet doctor` finds and "
        "explains this)"
    )


def _too_many(bad: Sequence[BadRecord], most: int) -> str:
    shown = "; ".join(
        f"{one.uri} record {one.index}: {one.reason}: {one.detail}" for one in bad[:_SHOWN_BAD]
    )
    return (
        f"{len(bad)} records cannot be trained on, at most {most} may be left out "
        f"(max_bad_records): {shown}{'; ...' if len(bad) > _SHOWN_BAD else ''}. See them all with "
        "`urbandet data validate`"
    )


class _Descriptor:
    """An open file, closed when the last reader lets go of it."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class _OpenFiles:
    """Keeps the files that were read last open; any number of threads reads from them."""

    def __init__(self) -> None:
        self._held: OrderedDict[Path, _Descriptor] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: Path, size: int, offset: int) -> bytes:
        with self._lock:
            file = self._held.pop(path, None) or _Descriptor(path)
            self._held[path] = file
            if len(self._held) > _OPEN_FILES:
                self._held.popitem(last=False)
        return os.pread(file.number, size, offset)
