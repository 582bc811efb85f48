"""The one parser and printer of a pipeline.config: the message, and the line of every field."""

from __future__ import annotations

import importlib
import re
import warnings
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from urbandet_ray.errors import ConfigError, NotFoundError
from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.models.pipeline_text import (
    UTF_8,
    Backslashed,
    Overwritten,
    decode_text,
    map_fields,
)
from urbandet_ray.storage import Storage

_NO_FIELD = re.compile(r'Message type "([\w.]+)" has no field named "([\w.]+)"')
_QUOTED_BACKSLASH = re.compile(r'"[^"\n]*\\[^"\n]*"|\'[^\'\n]*\\[^\'\n]*\'')
_ESCAPE_TROUBLE = re.compile(r"escape|codec|UTF-8|ending quote")
_TYPED_QUOTES = re.compile("[\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb]")
_NO_ESCAPE: Any = {"message": ".*invalid escape", "category": DeprecationWarning}
"""Python's warning of a backslash that starts no escape; the doctor speaks of the path."""

_LISTED_FIELDS = 8


@dataclass(frozen=True)
class PipelineConfig:
    """A parsed pipeline.config; it travels to other processes as the message's bytes.

    Attributes:
        name: the file it was read from, for messages.
        encoded: the TrainEvalPipelineConfig message, serialised.
        lines: line number in the file, from 1, by path of the field.
        encoding: of the file, by name.
        overwritten: what the OD API takes otherwise than the file says it at first.
        backslashed: paths in which the OD API reads escapes.
    """

    name: str
    encoded: bytes = field(repr=False)
    lines: dict[str, int] = field(repr=False, hash=False)
    encoding: str = UTF_8
    overwritten: tuple[Overwritten, ...] = ()
    backslashed: tuple[Backslashed, ...] = ()

    @property
    def message(self) -> Any:
        """A TrainEvalPipelineConfig message of the caller's own: to change it changes no other."""
        message = open_odapi().pipeline_pb2.TrainEvalPipelineConfig()
        message.MergeFromString(self.encoded)
        return message

    def with_message(self, message: Any) -> PipelineConfig:
        """The same file with other values."""
        return replace(self, encoded=_encoded(message))

    def rewritten(self, message: Any) -> PipelineConfig:
        """The values as a file that is written anew: nothing is left to say about its text."""
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
        text, encoding = decode_text((storage or Storage()).read_bytes(name))
    except NotFoundError:
        raise NotFoundError(f"no pipeline.config {name}: give the path of a file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{name} is not text, expected a pipeline.config") from None
    return replace(parse_pipeline(text, name), encoding=encoding)


def parse_pipeline(text: str, name: str) -> PipelineConfig:
    """Read the text of a pipeline.config as the OD API does, by text_format.Merge.

    The last of two values counts, and a block that is given twice becomes one.

    Args:
        text: the file's content.
        name: the file, for messages.

    Raises:
        ConfigError: it is no pipeline config; names line, mistake and the nearest field.
    """
    message = open_odapi().pipeline_pb2.TrainEvalPipelineConfig()
    error = _merge_into(message, text)
    if error is not None:
        raise ConfigError(_explain(error, name, text)) from None
    found = map_fields(text, message.DESCRIPTOR)
    return PipelineConfig(
        name,
        _encoded(message),
        found.lines,
        overwritten=found.overwritten,
        backslashed=found.backslashed,
    )


def parse_augmentations(text: str) -> Any:
    """The messages of data_augmentation_options { .. } blocks, as in a pipeline.config.

    Raises:
        ConfigError: the text is something else.
    """
    train = open_odapi().pipeline_pb2.TrainEvalPipelineConfig().train_config
    error = _merge_into(train, text)
    if error is not None:
        raise ConfigError(
            f"augmentation options do not parse: {error}; expected data_augmentation_options "
            "{ .. } blocks with one augmentation each, as in a pipeline.config"
        )
    return train.data_augmentation_options


def unescape(raw: str) -> str:
    """What the text format reads where this stands between quotes."""
    text_encoding: Any = importlib.import_module("google.protobuf.text_encoding")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", **_NO_ESCAPE)
        return bytes(text_encoding.CUnescape(raw)).decode()


def _encoded(message: Any) -> bytes:
    return bytes(message.SerializePartialToString(deterministic=True))


def _merge_into(message: Any, text: str) -> Any:
    """Fill a message from text; the parser's error, None where there is none."""
    text_format: Any = importlib.import_module("google.protobuf.text_format")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", **_NO_ESCAPE)
        try:
            text_format.Merge(text, message)
        except text_format.ParseError as error:
            return error
    return None


def _explain(error: Any, name: str, text: str) -> str:
    """One line: file, line, what is wrong, and the nearest thing that is right."""
    line = f":{error.GetLine()}" if error.GetLine() is not None else ""
    message = re.sub(r"^\d+:\d+\s*:\s*", "", str(error)).replace("\n", " ")
    told = _NO_FIELD.search(message)
    if told is None:
        said = re.sub(r"^'.*?': ", "", message)
        found = _typed_wrongly(text, error.GetLine(), said) or said
        found = "".join(one if one.isprintable() else "?" for one in found)
        return f"{name}{line}: not a pipeline config of the OD API: {found}"
    pool = open_odapi().pipeline_pb2.DESCRIPTOR.pool
    fields = [one.name for one in pool.FindMessageTypeByName(told[1]).fields]
    near = get_close_matches(told[2], fields, n=1, cutoff=0.5)
    listed = ", ".join(fields[:_LISTED_FIELDS]) + (", ..." if len(fields) > _LISTED_FIELDS else "")
    hint = f"did you mean {near[0]}?" if near else f"it has {listed or 'none'}"
    return f"{name}{line}: {told[1].rpartition('.')[2]} has no field {told[2]!r}; {hint}"


def _typed_wrongly(text: str, line: int | None, said: str) -> str:
    """What an editor or a Windows path made of a line; "" where it is something else."""
    row = text.split("\n")[line - 1] if line else ""
    path = _QUOTED_BACKSLASH.search(row)
    if path is not None and _ESCAPE_TROUBLE.search(said):
        mended = path.group().replace("\\\\", "/").replace("\\", "/")
        return f"{path.group()} has backslashes, which start escapes here; write {mended}"
    quote = _TYPED_QUOTES.search(row)
    if quote is not None:
        return f'{quote.group()} is a typographic quotation mark; write " before and after a text'
    return ""
