"""The one parser and printer of a pipeline.config: the message, and the line of every field."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from urbandet_ray.errors import ConfigError, NotFoundError
from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.storage import Storage

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
class Repair:
    """Text that had to be mended before it could be parsed: one block with two augmentations.

    Attributes:
        line: of the second one, from 1.
        place: path of the block.
        first, second: names of the augmentations.
    """

    line: int
    place: str
    first: str
    second: str


@dataclass(frozen=True)
class PipelineConfig:
    """A parsed pipeline.config; it travels to other processes as the message's bytes.

    Attributes:
        name: the file it was read from, for messages.
        encoded: the TrainEvalPipelineConfig message, serialised.
        lines: line number in the file, from 1, by path of the field.
        repairs: what had to be mended in the text.
    """

    name: str
    encoded: bytes = field(repr=False)
    lines: dict[str, int] = field(repr=False, hash=False)
    repairs: tuple[Repair, ...] = ()

    @property
    def message(self) -> Any:
        """A TrainEvalPipelineConfig message of the caller's own: to change it changes no other."""
        message = open_odapi().pipeline_pb2.TrainEvalPipelineConfig()
        message.MergeFromString(self.encoded)
        return message

    def with_message(self, message: Any) -> PipelineConfig:
        """The same file with other values; what was mended in its text is not told again."""
        return PipelineConfig(self.name, _encoded(message), self.lines)

    def to_text(self) -> str:
        """As a pipeline.config, fields in the order of their numbers."""
        text_format: Any = importlib.import_module("google.protobuf.text_format")
        return str(text_format.MessageToString(self.message))

    def line_of(self, place: str) -> int | None:
        """Line of a field, or of the innermost block around it that is in the file."""
        while place:
            if place in self.lines:
                return self.lines[place]
            place = place.rpartition(".")[0]
        return None


def read_pipeline(uri: str | Path, storage: Storage | None = None) -> PipelineConfig:
    """Read a pipeline.config, local or s3://.

    Raises:
        NotFoundError: there is no such file.
        ConfigError: it is no pipeline config; names line, mistake and the nearest field.
    """
    name = str(uri)
    try:
        return parse_pipeline((storage or Storage()).read_bytes(name).decode(), name)
    except NotFoundError:
        raise NotFoundError(f"no pipeline.config {name}: give the path of a file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{name} is not text, expected a pipeline.config") from None


def parse_pipeline(text: str, name: str) -> PipelineConfig:
    """Read the text of a pipeline.config.

    Two augmentations in one data_augmentation_options are taken apart, and a repair says so.

    Args:
        text: the file's content.
        name: the file, for messages.

    Raises:
        ConfigError: it is no pipeline config; names line, mistake and the nearest field.
    """
    repairs: list[Repair] = []
    while True:
        message = open_odapi().pipeline_pb2.TrainEvalPipelineConfig()
        error = _parse_into(message, text)
        if error is None:
            return PipelineConfig(name, _encoded(message), field_lines(text), tuple(repairs))
        mended = _take_steps_apart(text, error, repairs)
        if mended is None:
            raise ConfigError(_explain(error, name)) from None
        text = mended


def parse_augmentations(text: str) -> Any:
    """The messages of data_augmentation_options { .. } blocks, as in a pipeline.config.

    Raises:
        ConfigError: the text is something else.
    """
    train = open_odapi().pipeline_pb2.TrainEvalPipelineConfig().train_config
    error = _parse_into(train, text)
    if error is not None:
        raise ConfigError(
            f"augmentation options do not parse: {error}; expected data_augmentation_options "
            "{ .. } blocks with one augmentation each, as in a pipeline.config"
        )
    return train.data_augmentation_options


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


def _encoded(message: Any) -> bytes:
    return bytes(message.SerializePartialToString(deterministic=True))


def _parse_into(message: Any, text: str) -> Any:
    """Fill a message from text; the parser's error, None where there is none."""
    text_format: Any = importlib.import_module("google.protobuf.text_format")
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        return error
    return None


def _take_steps_apart(text: str, error: Any, repairs: list[Repair]) -> str | None:
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
    place = "train_config.data_augmentation_options"
    repairs.append(Repair(number, place, first, second))
    return "\n".join(lines)


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
