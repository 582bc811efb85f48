"""Reads a run config: YAML, then overrides of the form `actors.max=4`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from urbandet_ray.errors import ConfigError

Config = TypeVar("Config", bound=BaseModel)


def load_config(
    kind: type[Config], path: Path | None = None, overrides: Sequence[str] | Mapping[str, Any] = ()
) -> Config:
    """Make a config from a YAML file and overrides; the overrides win.

    Args:
        kind: the config's class.
        path: YAML file, or None for the defaults alone.
        overrides: `dotted.key=value` strings (values are YAML), or {dotted key: value}.

    Raises:
        ConfigError: no such file, no YAML, an unknown key (the nearest known one is named) or a
            value that does not fit.
    """
    tree = _read_tree(path) if path else {}
    pairs = overrides.items() if isinstance(overrides, Mapping) else map(split_override, overrides)
    for key, value in pairs:
        _set(tree, key, value)
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        origin = str(path) if path else "the settings"
        lines = [f"  {_explain(kind, detail)}" for detail in error.errors()]
        raise ConfigError(f"{origin} cannot be used:\n" + "\n".join(lines)) from None


def _read_tree(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the config {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds a {type(tree).__name__}, expected keys and values")
    return tree


def split_override(override: str) -> tuple[str, Any]:
    """Take `key=value` apart; the value is read as YAML.

    Raises:
        ConfigError: there is no key or no equals sign.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"override {override!r} is not of the form key=value (actors.max=4)")
    try:
        return key, yaml.safe_load(text) if text else None
    except yaml.YAMLError:
        return key, text


def _set(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for name in parents:
        below = tree.setdefault(name, {})
        if not isinstance(below, dict):
            raise ConfigError(f"{dotted}: {name} is a value, not a section")
        tree = below
    if isinstance(value, dict) and isinstance(tree.get(last), dict):
        tree[last].update(value)
    else:
        tree[last] = value


def _explain(kind: type[BaseModel], detail: Any) -> str:
    where = [str(part) for part in detail["loc"]]
    dotted = ".".join(where)
    if detail["type"] == "extra_forbidden":
        known = _fields_at(kind, where[:-1])
        near = difflib.get_close_matches(where[-1], known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
        return f"{dotted}: unknown key; {hint}"
    if detail["type"] == "missing":
        return f"{dotted}: is needed"
    return f"{dotted}: {detail['msg']}, got {detail['input']!r}"


def _fields_at(kind: type[BaseModel], path: Sequence[str]) -> list[str]:
    for name in path:
        annotation = kind.model_fields[name].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        kind = annotation
    return list(kind.model_fields)
