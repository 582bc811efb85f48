"""Reads a run config: YAML, then overrides of the form `actors.max=4`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from urbandet_ray.config.mistakes import mistakes_text
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
        raise ConfigError(mistakes_text(kind, error, origin)) from None


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
