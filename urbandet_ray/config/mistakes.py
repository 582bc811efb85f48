"""What is wrong with a config's values, in words: a line a mistake, the same from every origin."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError


def mistakes_text(kind: type[BaseModel], error: ValidationError, origin: str) -> str:
    """All mistakes of a config, each with its dotted key and what was expected.

    Args:
        kind: the class that refused the values.
        error: its refusal.
        origin: where the values come from, such as a file.
    """
    lines = [f"  {_explain(kind, detail)}" for detail in error.errors()]
    return f"{origin} cannot be used:\n" + "\n".join(lines)


def _explain(kind: type[BaseModel], detail: Any) -> str:
    where = [str(part) for part in detail["loc"]]
    key = f"{'.'.join(where)}: " if where else ""
    if detail["type"] == "extra_forbidden":
        known = _fields_at(kind, where[:-1])
        near = difflib.get_close_matches(where[-1], known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
        return f"{key}unknown key; {hint}"
    if detail["type"] == "missing":
        return f"{key}is needed"
    if detail["type"] == "value_error":  # a rule between fields: its message says what was got
        return f"{key}{detail['ctx']['error']}"
    return f"{key}{detail['msg']}, got {detail['input']!r}"


def _fields_at(kind: type[BaseModel], path: Sequence[str]) -> list[str]:
    for name in path:
        annotation = kind.model_fields[name].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        kind = annotation
    return list(kind.model_fields)
