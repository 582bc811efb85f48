"""What a person checks first: is every record whole, every image decodable, every label sound."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

from urbandet_ray.errors import RecordError
from urbandet_ray.frames import Frame
from urbandet_ray.labels import LabelMap
from urbandet_ray.phrases import some_of
from urbandet_ray.records.class_column import HARMLESS, NO_CLASS, UNKNOWN_TEXT
from urbandet_ray.records.data_folder import DataFolder
from urbandet_ray.records.images import decode_frame
from urbandet_ray.records.label_faults import LabelFaults, settled_reason
from urbandet_ray.records.leaks import Leaks, Pictures, find_leaks
from urbandet_ray.records.orientation import exif_orientation
from urbandet_ray.records.source import Record, Source
from urbandet_ray.records.sources import read_source
from urbandet_ray.storage import Storage

Progress = Callable[[int, int], None]
"""Called with (sources done, sources in all) after each source."""

_SHOWN_PROBLEMS = 40
_PARTS = {"train": "training", "val": "validation", "test": "test"}
_SHOWN_DOUBTS = 3
_AS_STORED = "its pixels are used as they are encoded, and boxes have to be those of that picture"


@dataclass(frozen=True)
class Problem:
    """One thing wrong with one record: where, a short stable reason, and the message.

    `index` and `offset` are -1 where the whole file is meant. `fatal` tells records that cannot be
    inferred from those with faulty labels only.
    """

    uri: str
    index: int
    offset: int
    reason: str
    detail: str
    fatal: bool


@dataclass(frozen=True)
class FileCount:
    """Records of one source: good ones can be inferred, bad ones become dead letters."""

    uri: str
    good: int
    bad: int


@dataclass(frozen=True)
class ValidationReport:
    """Everything that was found wrong, source by source in drive order.

    `notes` say in words what many problems have in common, and what was sampled.
    """

    uri: str
    files: tuple[FileCount, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()

    @property
    def is_clean(self) -> bool:
        """Nothing at all was found wrong."""
        return not self.problems

    @property
    def good(self) -> int:
        """Records that can be inferred."""
        return sum(file.good for file in self.files)

    @property
    def bad(self) -> int:
        """Records that cannot."""
        return sum(file.bad for file in self.files)

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return asdict(self) | {"good": self.good, "bad": self.bad}

    def to_text(self) -> str:
        """As lines for a terminal: totals, counts by reason, then the first problems."""
        lines = [
            f"{self.uri}: {len(self.files)} files, {self.good} good records, {self.bad} bad",
        ]
        if self.is_clean:
            found = "no problems found" + ("; worth a look:" if self.notes else "")
            return "\n".join([*lines, found, *self.notes])
        reasons = Counter(problem.reason for problem in self.problems)
        lines += [f"  {count:6d} {reason}" for reason, count in sorted(reasons.items())]
        lines += self.notes
        for problem in self.problems[:_SHOWN_PROBLEMS]:
            where = problem.uri
            if problem.index >= 0:
                where += f" record {problem.index} at {problem.offset}"
            lines.append(f"{where}: {problem.reason}: {problem.detail}")
        if len(self.problems) > _SHOWN_PROBLEMS:
            lines.append(f"... and {len(self.problems) - _SHOWN_PROBLEMS} more problems")
        return "\n".join(lines)


def validate(
    data: DataFolder,
    storage: Storage,
    labels: LabelMap | None = None,
    *,
    progress: Progress | None = None,
) -> ValidationReport:
    """Read every record of all parts, decode every image, check every label.

    Reasons beyond those of reading and decoding: empty-file, unknown-class (with `labels`),
    duplicate-frame-key, exif-turn, shared-frames and shared-drives (of any two parts), and the
    label problems of frame_and_problems_from_example.

    Raises:
        StorageError: it cannot be read.
    """
    files: list[FileCount] = []
    problems: list[Problem] = []
    parts = {one.uri: name for name, part in data.parts.items() for one in part.sources}
    looks, faults = {name: Pictures() for name in data.parts}, LabelFaults()
    doubts: list[str] = []
    for done, source in enumerate(data.sources, start=1):
        count, found = _check_source(
            source, storage, labels, faults, looks.get(parts.get(source.uri, "")), doubts
        )
        files.append(count)
        problems += found
        if progress is not None:
            progress(done, len(data.sources))
    problems = [replace(one, reason=settled_reason(one.reason, faults.counts)) for one in problems]
    notes = faults.to_lines() + faults.class_lines() + _doubt_lines(doubts)
    for earlier, later in combinations((one for one in _PARTS if one in looks), 2):
        leaks = find_leaks(looks[earlier], looks[later], _PARTS[earlier], _PARTS[later])
        problems += _leak_problems(leaks, data.parts[later].uri)
        notes += [leaks.compared] if leaks.compared else []
    return ValidationReport(data.uri, tuple(files), tuple(problems), tuple(notes))


def _doubt_lines(doubts: list[str]) -> list[str]:
    if not doubts:
        return []
    images = "image is" if len(doubts) == 1 else "images are"
    return [
        f"{len(doubts)} {images} not quite as the format wants, and decoded as TensorFlow, OpenCV "
        f"and Pillow do: {some_of(doubts, _SHOWN_DOUBTS)}"
    ]


def _leak_problems(leaks: Leaks, uri: str) -> Iterator[Problem]:
    for line in leaks.to_lines():
        reason = "shared-drives" if "drives" in line.partition(" (")[0] else "shared-frames"
        yield Problem(uri, -1, -1, reason, line, False)


def _check_source(
    source: Source,
    storage: Storage,
    labels: LabelMap | None,
    faults: LabelFaults,
    pictures: Pictures | None,
    doubts: list[str],
) -> tuple[FileCount, list[Problem]]:
    good = bad = 0
    problems: list[Problem] = []
    first_with_key: dict[str, int] = {}
    for record in read_source(source, storage, labels=labels):
        found = _check_record(record, source, labels, doubts)
        faults.add(record.problems, f"{record.uri} record {record.index}")
        if record.frame is not None:
            if pictures is not None and not any(problem.fatal for problem in found):
                pictures.add(record.frame)
            first = first_with_key.setdefault(record.frame.frame_key, record.index)
            if first != record.index:
                detail = f"{record.frame.frame_key!r} names record {first} too"
                found.append(_problem(record, "duplicate-frame-key", detail))
        problems += found
        is_bad = any(problem.fatal for problem in found)
        bad += is_bad
        good += not is_bad
    if good + bad == 0:
        problems.append(Problem(source.uri, -1, -1, "empty-file", "it holds no records", False))
    return FileCount(source.uri, good, bad), problems


def _check_record(
    record: Record, source: Source, labels: LabelMap | None, doubts: list[str]
) -> list[Problem]:
    if record.error is not None or record.frame is None:
        return [_fatal(record, record.error)] if record.error else []
    try:
        said: list[str] = []
        decode_frame(record.frame, doubts=said)
    except RecordError as error:
        return [_fatal(record, error)]
    doubts += [f"{record.uri} record {record.index}: {one}" for one in said[:1]]
    problems = []
    if source.kind == "tfrecord":
        turn = exif_orientation(record.frame.encoded)
        if turn != 1:
            problems.append(_problem(record, "exif-turn", f"EXIF orientation {turn}; {_AS_STORED}"))
        for complaint in record.problems:
            reason, _, detail = complaint.partition(": ")
            if reason not in HARMLESS:
                problems.append(_problem(record, reason, detail))
    if labels is not None:
        problems += _unknown_classes(record, record.frame, labels)
    return problems


def _unknown_classes(record: Record, frame: Frame, labels: LabelMap) -> list[Problem]:
    if frame.truth is None:
        return []
    counts = Counter(frame.truth.class_ids.tolist())
    told = {NO_CLASS} if any(one.startswith(UNKNOWN_TEXT) for one in record.problems) else set()
    known = ", ".join(f"{class_id} {name}" for class_id, name in labels.names.items())
    return [
        _problem(record, "unknown-class", f"{count} boxes of class {class_id}; the map has {known}")
        for class_id, count in sorted(counts.items())
        if class_id not in labels.names and class_id not in told
    ]


def _problem(record: Record, reason: str, detail: str) -> Problem:
    return Problem(record.uri, record.index, record.offset, reason, detail, False)


def _fatal(record: Record, error: RecordError) -> Problem:
    return Problem(record.uri, record.index, record.offset, error.reason, error.detail, True)
