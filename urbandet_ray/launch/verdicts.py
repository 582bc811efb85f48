"""What a check before a job says, and how all of them read together."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        verdict: fail keeps a job from starting.
        name: what was looked at, such as "clock" or "s3://bucket/test".
        text: what was found, and what to do about it, in one line.
    """

    verdict: Verdict
    name: str
    text: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", " ".join(self.text.split()))

    def __str__(self) -> str:
        return f"{self.verdict:<4}  {self.name}: {self.text}"


def ok(name: str, text: str) -> Check:
    """Nothing stands in the way."""
    return Check("ok", name, text)


def warn(name: str, text: str) -> Check:
    """The job can start; somebody should know this."""
    return Check("warn", name, text)


def fail(name: str, text: str) -> Check:
    """The job would not end well."""
    return Check("fail", name, text)


@dataclass(frozen=True)
class Preflight:
    """All checks of a run.

    Attributes:
        checks: in the order in which they were made.
        policy: the IAM policy that would be enough, as JSON text; None where no right is missing.
    """

    checks: tuple[Check, ...]
    policy: str | None = None

    @property
    def failed(self) -> int:
        """Checks that keep the job from starting."""
        return sum(check.verdict == "fail" for check in self.checks)

    def to_text(self) -> str:
        """A line a check, the policy where one is needed, and the count."""
        lines = [str(check) for check in self.checks]
        if self.policy is not None:
            lines += ["", "the smallest IAM policy that this run needs:", self.policy, ""]
        warnings = sum(check.verdict == "warn" for check in self.checks)
        lines.append(f"{_count(self.failed, 'failure')}, {_count(warnings, 'warning')}")
        return "\n".join(lines)

    def to_json(self) -> str:
        """One line, for who asked from another machine."""
        return json.dumps({"checks": [asdict(one) for one in self.checks], "policy": self.policy})

    @classmethod
    def of(cls, answer: dict[str, Any]) -> Preflight:
        """From what `to_json` wrote."""
        checks = tuple(Check(**one) for one in answer["checks"])
        return cls(checks, answer["policy"])


def joined(parts: Iterable[Preflight]) -> Preflight:
    """Several sets of checks as one; the first policy counts."""
    checks: list[Check] = []
    policy: str | None = None
    for part in parts:
        checks += part.checks
        policy = policy or part.policy
    return Preflight(tuple(checks), policy)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
