"""The reference pages, made from the code: every command's options, every key of the run configs.

`python -m urbandet_ray.cli.reference docs/reference` writes them (`make docs`). A test compares the
written pages with the code, so that no page describes an option that is gone.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from textwrap import fill
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.main import get_command

NOTE = "<!-- made by `make docs` from the code: change the code, not this page -->\n"

TYPES = {str: "text", int: "integer", float: "number", bool: "true/false", type(None): "null"}

LINE_WIDTH = 120
"""Characters of a line of prose in docs/."""

BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def commands_page(app: typer.Typer) -> str:
    """Every command with its arguments and options, in the order of the code."""
    root = get_command(app)
    lines = [
        NOTE,
        "# Commands",
        "",
        "`urbandet COMMAND --help` prints the same.",
        "A square bracket in a usage line marks what may be left out.",
        "Exit codes are in [errors.md](errors.md). Keys for `--set` are in [config.md](config.md).",
    ]
    found = list(_walk("urbandet", root))
    lines += ["", "| command | what it does |", "|---|---|"]
    lines += [_row(f"[{name}](#{name.replace(' ', '-')})", _short(one)) for name, one in found]
    for name, command in found:
        lines += ["", f"## {name}", "", *_command(name, command)]
    return "\n".join(lines) + "\n"


def config_page() -> str:
    """Every key of the four run configs: type, default and meaning."""
    from urbandet_ray.config import EvalConfig, InferConfig, TrainConfig, VideoConfig

    lines = [
        NOTE,
        "# Keys of the run configs",
        "",
        "A run config is a YAML file.",
        "The dotted key `model.score_min` is the key `score_min` in the section `model`.",
        "Give a command `--set model.score_min=0.1`, and give a job `model.score_min=0.1`.",
        "`null` means that no value is given. The meaning says what is taken then.",
        "[configs/runs](../../configs/runs) has examples.",
    ]
    for config in (InferConfig, EvalConfig, VideoConfig, TrainConfig):
        name = config.__name__.removesuffix("Config")
        lines += ["", f"## {name}: {_text(config.__doc__)}"]
        for prefix, section in _sections("", config):
            if prefix:
                lines += [
                    "",
                    f"### {name}: `{prefix}`",
                    "",
                    fill(_text(section.__doc__), LINE_WIDTH),
                ]
            lines += ["", *_keys(prefix, section)]
    return "\n".join(lines) + "\n"


def write_pages(folder: Path, app: typer.Typer) -> list[Path]:
    """Write both pages; the paths of those that changed."""
    changed = stale_pages(folder, app)
    for path, text in _pages(folder, app).items():
        path.write_text(text, encoding="utf-8")
    return changed


def stale_pages(folder: Path, app: typer.Typer) -> list[Path]:
    """The pages in the folder that are missing, or not what the code says."""
    return [
        path
        for path, text in _pages(folder, app).items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]


def _pages(folder: Path, app: typer.Typer) -> dict[Path, str]:
    return {folder / "commands.md": commands_page(app), folder / "config.md": config_page()}


def _walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """The commands below, each with its full name; groups themselves are left out."""
    for child_name, child in command.commands.items():
        full = f"{name} {child_name}"
        if hasattr(child, "commands"):
            yield from _walk(full, child)
        else:
            yield full, child


def _short(command: Any) -> str:
    """The first line of its help."""
    return _text((command.help or "").partition("\n\n")[0])


def _command(name: str, command: Any) -> Iterator[str]:
    """What it does, its usage, and a table of its parameters."""
    context = command.make_context(name, [], resilient_parsing=True)
    usage = " ".join(command.get_usage(context).removeprefix("Usage: ").split())
    yield from (inspect.cleandoc(command.help or ""), "", f"    {usage}")
    rows = [_parameter(one.get_help_record(context)) for one in command.params]
    if rows:
        yield from ("", "| argument or option | meaning | default and limits |", "|---|---|---|")
        yield from rows


def _parameter(record: tuple[str, str]) -> str:
    """A row of the table: `--help` has defaults and limits in brackets behind the meaning."""
    names, meaning = record
    text, _, limits = _text(meaning).removesuffix("]").rpartition(" [")
    if not meaning.endswith("]"):
        text, limits = _text(meaning), ""
    return _row(f"`{names.replace(' range>', '>')}`", text, limits)


def _sections(prefix: str, section: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """The section itself, then those inside it, each with its dotted prefix."""
    yield prefix, section
    for key, field in section.model_fields.items():
        if _is_section(field):
            yield from _sections(_join(prefix, key), field.annotation)  # type: ignore[arg-type]


def _keys(prefix: str, section: type[BaseModel]) -> Iterator[str]:
    """A table of the section's own keys."""
    yield from ("| key | type | default | meaning |", "|---|---|---|---|")
    for key, field in section.model_fields.items():
        if not _is_section(field):
            default = "required" if field.is_required() else f"`{_value(field.default)}`"
            kind = _type_text(field.annotation, field.metadata)
            meaning = re.sub(r"\bNone\b", "`null`", _text(field.description))
            yield _row(f"`{_join(prefix, key)}`", kind, default, meaning)


def _is_section(field: FieldInfo) -> bool:
    return inspect.isclass(field.annotation) and issubclass(field.annotation, BaseModel)


def _type_text(kind: Any, metadata: Any = ()) -> str:
    """A type as a person writes it: `integer >= 1 or null`."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _type_text(inside[0], getattr(inside[1], "metadata", ()))
    if origin in (Union, types.UnionType):
        return " or ".join(_type_text(one) for one in inside)
    if origin is Literal:
        return ", ".join(f"`{one}`" for one in inside)
    if origin in (tuple, list):
        return f"list of {_type_text(inside[0])}"
    name = TYPES.get(kind, getattr(kind, "__name__", str(kind)))
    return f"{name} {' and '.join(_bounds(metadata))}".strip()


def _bounds(metadata: Any) -> list[str]:
    """Limits such as `>= 1`."""
    return [
        f"{sign} {getattr(one, name):g}"
        for one in metadata
        for name, sign in BOUNDS.items()
        if getattr(one, name, None) is not None
    ]


def _value(value: Any) -> str:
    """A default as YAML has it."""
    return json.dumps(value, default=list)


def _join(prefix: str, key: str) -> str:
    return f"{prefix}.{key}" if prefix else key


def _text(text: str | None) -> str:
    """A docstring on one line."""
    return " ".join((text or "").split())


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    from urbandet_ray.cli import app as urbandet

    for page in write_pages(Path(sys.argv[1]), urbandet):
        typer.echo(f"wrote {page}")
