"""`urbandet doctor`: the mistakes in a pipeline.config, and a corrected copy of it."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path
from typing import Any

from urbandet_ray.errors import ConfigError, ConflictError
from urbandet_ray.models.pipeline_config import read_pipeline
from urbandet_ray.records.data_folder import read_data_folder
from urbandet_ray.storage import Storage
from urbandet_ray.training.doctor.correction import correct, unmade, why_unbuildable
from urbandet_ray.training.doctor.examine import Examination, examine
from urbandet_ray.training.doctor.findings import Finding

EXIT_ERRORS = 3
"""Exit code where errors were found, as that of `urbandet data validate`."""

_WIDTH = 100


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with a pipeline.config, the worst first."""

    config: str
    findings: tuple[Finding, ...]
    examination: Examination

    @property
    def has_errors(self) -> bool:
        """Whether a run with this config fails or learns something wrong."""
        return any(finding.severity == "error" for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """0 without errors, else 3."""
        return EXIT_ERRORS if self.has_errors else 0

    def count(self, severity: str) -> int:
        """Findings of one severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {
            "config": self.config,
            "has_errors": self.has_errors,
            "findings": [finding.to_dict() for finding in self.findings],
        }

    def to_text(self) -> str:
        """For a terminal: a block a finding, errors first, then the count."""
        lines = [_block(self.config, finding) for finding in self.findings]
        fixable = sum(finding.edit is not None for finding in self.findings)
        counts = ", ".join(
            f"{self.count(name)} {name}{'s' if self.count(name) != 1 else ''}"
            for name in ("error", "warning", "note")
        )
        more = f"; --fix OUT sees to {fixable} of them" if fixable else ""
        data = self.examination.data
        read = [data.to_text()] if data else []
        return "\n".join([*lines, *read, f"{self.config}: {counts}{more}"])


def diagnose(
    config: str | Path,
    storage: Storage | None = None,
    *,
    data: str | None = None,
    steps: int | None = None,
    workers: int = 1,
) -> Diagnosis:
    """Find the mistakes in a pipeline.config.

    Args:
        config: the file, local or s3://.
        storage: reads it, the records and the label maps.
        data: folder with train/, val/ and label_map.pbtxt in place of the file's own paths.
        steps: optimizer steps of the run; None takes the file's num_steps.
        workers: each takes the file's batch_size, so the global batch is their product.

    Raises:
        ConfigError: the file is no pipeline config; names line and nearest field.
        NotFoundError: the file is not there, or `data` has no train/ or val/ with records.
        InputError: `data` cannot be understood (records/data_folder.py).
        MissingExtraError: the OD API is not installed.
    """
    storage, name = storage or Storage(), str(config)
    pipeline = read_pipeline(name, storage)
    folder = read_data_folder(data, storage) if data else None
    examination = examine(pipeline, storage, data=folder, steps=steps, workers=workers)
    return Diagnosis(name, examination.findings, examination)


def write_fixed(diagnosis: Diagnosis, out: str, storage: Storage | None = None) -> str:
    """Write a corrected copy of the config; returns the difference as a unified diff.

    Both sides of the diff are in the OD API's own layout, so that it shows changed values only;
    comments of the original are not kept, the changes are listed at the copy's top. Lines below
    the diff say which fixes were not made, since they would have made something worse.

    Raises:
        ConfigError: `out` exists; it is never overwritten.
    """
    pipeline = diagnosis.examination.case.pipeline
    made = correct(diagnosis.examination, why_unbuildable)
    before, after = pipeline.to_text(), made.pipeline.to_text()
    listed = [f"# {diagnosis.config} with {len(made.done)} fixes by `urbandet doctor`:"]
    listed += [f"#   {finding.code}: {finding.fix}" for finding in made.done]
    listed += [f"# {line}" for line in unmade(made)]
    content = "\n".join([*listed, "", after])
    try:
        (storage or Storage()).write_bytes(out, content.encode(), if_absent=True)
    except ConflictError:
        raise _exists(out) from None
    diff = unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), diagnosis.config, out
    )
    return "".join([*diff, *(f"{line}\n" for line in unmade(made))])


def refuse_existing(out: str, storage: Storage) -> None:
    """Say at once that a corrected copy will not be written over a file.

    Raises:
        ConfigError: `out` exists.
    """
    if storage.exists(out):
        raise _exists(out)


def _exists(out: str) -> ConfigError:
    return ConfigError(
        f"{out} exists and is not overwritten: give --fix a new name, or remove it first"
    )


def _block(config: str, finding: Finding) -> str:
    where = f"{config}:{finding.line}" if finding.line else config
    auto = " [--fix]" if finding.edit is not None else ""
    return "\n".join(
        [
            f"{finding.severity}: {finding.code}  {where}",
            f"  at   {finding.place}",
            _wrapped("what", finding.what),
            _wrapped("fix", finding.fix + auto),
            "",
        ]
    )


def _wrapped(label: str, text: str) -> str:
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=f"  {label:<4} ",
        subsequent_indent=" " * 7,
        break_long_words=False,
        break_on_hyphens=False,
    )
