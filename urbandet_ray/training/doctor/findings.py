"""What the doctor says: findings, each with a place, a consequence and a remedy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
"""error: the run fails or learns something wrong; warning: it wastes money; note: good to know."""

Edit = Callable[[Any], None]
"""Changes a TrainEvalPipelineConfig message in place."""

_RANK: dict[Severity, int] = {"error": 0, "warning": 1, "note": 2}


@dataclass(frozen=True)
class Finding:
    """One thing worth saying about a pipeline.config.

    Attributes:
        severity: error, warning or note.
        code: stable short name in kebab-case.
        place: path of the field, e.g. train_config.batch_size; an index in brackets from the
            second member of a repeated field on.
        what: what will happen, with the numbers.
        fix: what to set.
        edit: makes the fix in the parsed message; None where a person has to decide.
        line: line in the file, from 1; that of the enclosing block where the field is not set,
            None where the file has neither.
    """

    severity: Severity
    code: str
    place: str
    what: str
    fix: str
    edit: Edit | None = field(default=None, compare=False)
    line: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON; `fixable` tells whether --fix sees to it."""
        return {
            "severity": self.severity,
            "code": self.code,
            "place": self.place,
            "line": self.line,
            "what": self.what,
            "fix": self.fix,
            "fixable": self.edit is not None,
        }


def by_severity(findings: list[Finding]) -> tuple[Finding, ...]:
    """Errors first, then warnings, then notes; each in the order of the file."""
    return tuple(
        sorted(findings, key=lambda one: (_RANK[one.severity], one.line or 10**9, one.code))
    )
