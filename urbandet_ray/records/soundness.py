"""What a person checks first: is every record whole, every image decodable, every label sound."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from urbandet_ray.errors import RecordError
from urbandet_ray.frames import Frame
from urbandet_ray.labels import LabelMap
from urbandet_ray.records.data_folder import DataFolder
from urbandet_ray.records.example import frame_and_problems_from_example
from urbandet_ray.records.images import decode_frame
from urbandet_ray.records.source import Record, Source
from urbandet_ray.records.sources import read_source
from urbandet_ray.storage import Storage

Progress = Callable[[int, int], None]
"""Called with (sources done, sources in all) after each source."""

_SHOWN_PROBLEMS = 40


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
    """Everything that was found wrong, source by source in drive order."""

    uri: str
    files: tuple[FileCount, ...]
    problems: tuple[Problem, ...]

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
            return "\n".join([*lines, "no problems found"])
        reasons = Counter(problem.reason for problem in self.problems)
        lines += [f"  {count:6d} {reason}" for reason, count in sorted(reasons.items())]
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
    duplicate-frame-key, and the label problems of frame_and_problems_from_example.

    Raises:
        StorageError: it cannot be read.
    """
    files, problems = [], []
    for done, source in enumerate(data.sources, start=1):
        count, found = _check_source(source, storage, labels)
        files.append(count)
        problems += found
        if progress is not None:
            progress(done, len(data.sources))
    return ValidationReport(data.uri, tuple(files), tuple(problems))


def _check_source(
    source: Source, storage: Storage, labels: LabelMap | None
) -> tuple[FileCount, list[Problem]]:
    good = bad = 0
    problems: list[Problem] = []
    first_with_key: dict[str, int] = {}
    for record in read_source(source, storage):
        found = _check_record(record, source, labels)
        if record.frame is not None:
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


def _check_record(record: Record, source: Source, labels: LabelMap | None) -> list[Problem]:
    if record.error is not None or record.frame is None:
        return [_fatal(record, record.error)] if record.error else []
    try:
        decode_frame(record.frame)
    except RecordError as error:
        return [_fatal(record, error)]
    problems = []
    if source.kind == "tfrecord":
        _, complaints = frame_and_problems_from_example(
            record.raw, default_key="", segment=source.segment
        )
        for complaint in complaints:
            reason, _, detail = complaint.partition(": ")
            problems.append(_problem(record, reason, detail))
    if labels is not None:
        problems += _unknown_classes(record, record.frame, labels)
    return problems


def _unknown_classes(record: Record, frame: Frame, labels: LabelMap) -> list[Problem]:
    if frame.truth is None:
        return []
    counts = Counter(frame.truth.class_ids.tolist())
    known = ", ".join(f"{class_id} {name}" for class_id, name in labels.names.items())
    return [
        _problem(record, "unknown-class", f"{count} boxes of class {class_id}; the map has {known}")
        for class_id, count in sorted(counts.items())
        if class_id not in labels.names
    ]


def _problem(record: Record, reason: str, detail: str) -> Problem:
    return Problem(record.uri, record.index, record.offset, reason, detail, False)


def _fatal(record: Record, error: RecordError) -> Problem:
    return Problem(record.uri, record.index, record.offset, error.reason, error.detail, True)
