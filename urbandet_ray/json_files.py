"""JSON files as typed values: one reader, one way to refuse what is damaged."""

from __future__ import annotations

import hashlib
import json
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from urbandet_ray.errors import RunError
from urbandet_ray.storage.files import Storage

Value = TypeVar("Value")

_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}


def to_json(value: object) -> bytes:
    """JSON bytes that are the same for the same value."""
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def digest(value: object) -> str:
    """SHA-256 (hex) of a JSON value: equal values have equal digests."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def read_value(uri: str, storage: Storage, kind: type[Value], remedy: str) -> Value:
    """The file at `uri` as a value; keys that the value does not have are passed over.

    Args:
        uri: the file; local or s3://.
        storage: opens it.
        kind: a dataclass, or a builtin container with its types.
        remedy: what a person does about a damaged file; ends the message.

    Raises:
        NotFoundError: there is no such file.
        RunError: it is no JSON, lacks a key, or holds another type there.
    """
    return parse_value(storage.read_bytes(uri), uri, kind, remedy)


def parse_value(text: bytes, uri: str, kind: type[Value], remedy: str) -> Value:
    """The value in a file's bytes; raises as `read_value` does."""
    try:
        value: Value = _adapter(kind).validate_json(text, strict=True)
        return value
    except ValidationError as error:
        raise RunError(f"{uri} is damaged: {_explain(error)}. {remedy}") from None


def _explain(error: ValidationError) -> str:
    """The first mistake, with its place: what was got and what was expected."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or "it"
    if first["type"] == "missing":
        return f"it lacks {place!r}"
    if first["type"] == "json_invalid":
        return f"it is no whole JSON ({first['ctx']['error']})"
    got = _short(first["input"])
    return f"{place} is {got}, expected {_expected(first['msg'])}"


def _expected(message: str) -> str:
    """`Input should be a valid integer` -> `an integer`."""
    told = message.removeprefix("Input should be ").removeprefix("Value error, ")
    told = told.removeprefix("a valid ").removeprefix("an instance of ")
    if told.startswith(("dictionary", "object", "mapping")) or "dataclass" in message.lower():
        return "an object"
    if " " in told or not told[:1].isalpha():
        return told
    return f"{'an' if told[0] in 'aeiou' else 'a'} {told}"


def _short(value: Any) -> str:
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Made once a kind: making one takes milliseconds."""
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]
