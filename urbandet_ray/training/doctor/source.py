"""A pipeline.config as its author wrote it: the message, and the line of every field."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from urbandet_ray.errors import ConfigError
from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.training.doctor.findings import Finding

_TOKEN = re.compile(
    r"""(?P<comment>\#[^\n]*)|(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
    r"""|(?P<open>[{<])|(?P<close>[}>])|(?P<mark>[:,;\[\]])|(?P<word>[^\s{}<>:,;\[\]\#"']+)"""
)
_NO_FIELD = re.compile(r'Message type "([\w.]+)" has no field named "([\w.]+)"')
_TWO_STEPS = re.compile(
    r'Field "(\w+)" is specified along with field "(\w+)".*"preprocessing_step"'
)
_LISTED_FIELDS = 8


@dataclass(frozen=True)
class Pipeline:
    """A parsed pipeline.config.

    Attributes:
        name: the file, for messages.
        config: the TrainEvalPipelineConfig message.
        lines: line number, from 1, by path of the field.
        repairs: findings about text that had to be mended before it could be parsed.
    """

    name: str
    config: Any
    lines: dict[str, int]
    repairs: tuple[Finding, ...] = ()

    def line_of(self, place: str) -> int | None:
        """Line of a field, or of the innermost block around it that is in the file."""
        while place:
            if place in self.lines:
                return self.lines[place]
            place = place.rpartition(".")[0]
        return None


def parse_pipeline(text: str, name: str) -> Pipeline:
    """Read the text of a pipeline.config.

    Two augmentations in one data_augmentation_options are taken apart, and a finding says so.

    Raises:
        ConfigError: it is no pipeline config; names line, mistake and the nearest field.
    """
    repairs: list[Finding] = []
    while True:
        error = _parse_error(text)
        if not isinstance(error, Exception):
            return Pipeline(name, error, field_lines(text), tuple(repairs))
        mended = _take_steps_apart(text, error, repairs)
        if mended is None:
            raise ConfigError(_explain(error, name)) from None
        text = mended


def write_pipeline(config: Any) -> str:
    """The message as text, fields in the order of their numbers."""
    text_format: Any = importlib.import_module("google.protobuf.text_format")
    return str(text_format.MessageToString(config))


def field_lines(text: str) -> dict[str, int]:
    """Line of each field by path; the second `name` of a message is `name[1]`."""
    lines: dict[str, int] = {}
    blocks: list[tuple[str, dict[str, int]]] = [("", {})]
    pending: str | None = None
    for kind, value, line in _tokens(text):
        parent, seen = blocks[-1]
        if kind == "open" and pending is not None:
            blocks.append((pending, {}))
            pending = None
        elif kind == "close" and len(blocks) > 1:
            blocks.pop()
            pending = None
        elif kind == "mark" or pending is not None:
            if kind in ("word", "text"):
                pending = None
        elif kind == "word":
            count = seen.get(value, 0)
            seen[value] = count + 1
            pending = f"{parent}.{value}".lstrip(".") + (f"[{count}]" if count else "")
            lines.setdefault(pending, line)
    return lines


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    """(kind, value, line), without comments and without the values of bracketed lists."""
    line, at, in_list = 1, 0, False
    for match in _TOKEN.finditer(text):
        line += text.count("\n", at, match.start())
        at = match.start()
        kind, value = str(match.lastgroup), match.group()
        if value in ("[", "]") and kind == "mark":
            in_list = value == "["
            if not in_list:
                yield "word", "list", line
        elif kind != "comment" and not in_list:
            yield kind, value, line


def _parse_error(text: str) -> Any:
    """The message, or the parser's error."""
    text_format: Any = importlib.import_module("google.protobuf.text_format")
    message = open_odapi().pipeline_pb2.TrainEvalPipelineConfig()
    try:
        return text_format.Parse(text, message)
    except text_format.ParseError as error:
        return error


def _take_steps_apart(text: str, error: Any, repairs: list[Finding]) -> str | None:
    told = _TWO_STEPS.search(str(error))
    lines = text.split("\n")
    number = error.GetLine()
    if told is None or number is None:
        return None
    second, first = told.groups()
    column = lines[number - 1].find(second)
    if column < 0:
        return None
    row = lines[number - 1]
    lines[number - 1] = f"{row[:column]}}} data_augmentation_options {{ {row[column:]}"
    repairs.append(
        Finding(
            "error",
            "two-augmentations-in-one-block",
            "train_config.data_augmentation_options",
            f"{first} and {second} stand in one data_augmentation_options, which holds one step "
            "only: the OD API refuses the whole file",
            f"give {second} a data_augmentation_options block of its own",
            edit=_already_made,
            line=number,
        )
    )
    return "\n".join(lines)


def _already_made(config: Any) -> None:
    """The message was parsed from the mended text."""
    del config


def _explain(error: Any, name: str) -> str:
    """One line: file, line, what is wrong, and the nearest thing that is right."""
    line = f":{error.GetLine()}" if error.GetLine() is not None else ""
    message = re.sub(r"^\d+:\d+\s*:\s*", "", str(error)).replace("\n", " ")
    told = _NO_FIELD.search(message)
    if told is None:
        found = re.sub(r"^'[^']*': ", "", message)
        found = "".join(one if one.isprintable() else "?" for one in found)
        return f"{name}{line}: not a pipeline config of the OD API: {found}"
    pool = open_odapi().pipeline_pb2.DESCRIPTOR.pool
    fields = [one.name for one in pool.FindMessageTypeByName(told[1]).fields]
    near = get_close_matches(told[2], fields, n=1, cutoff=0.5)
    listed = ", ".join(fields[:_LISTED_FIELDS]) + (", ..." if len(fields) > _LISTED_FIELDS else "")
    hint = f"did you mean {near[0]}?" if near else f"it has {listed or 'none'}"
    return f"{name}{line}: {told[1].rpartition('.')[2]} has no field {told[2]!r}; {hint}"
