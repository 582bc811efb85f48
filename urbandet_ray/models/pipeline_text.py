"""The text of a pipeline.config: its encoding, the line of each field, and what a merge loses."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

_TOKEN = re.compile(
    r"""(?P<comment>\#[^\n]*)|(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
    r"""|(?P<open>[{<])|(?P<close>[}>])|(?P<mark>[:,;\[\]])|(?P<word>[^\s{}<>:,;\[\]\#"']+)"""
)
_PATH = re.compile(r"(path|checkpoint|file|dir)$")
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8 with a byte order mark"),
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
UTF_8 = "UTF-8"
_LOOKED_AT = 4096

How = Literal["value", "branch", "merged"]


@dataclass(frozen=True)
class Overwritten:
    """What a merge, and so the OD API, takes otherwise than the file says it at first.

    Attributes:
        how: value: a field is given twice, the last value counts; branch: only one of the two
            fields can be set, the last one is; merged: a block is given twice and becomes one.
        place: path of the field or block.
        line, earlier: lines of the second and of the first.
        taken, lost: their text; of a merged block its name alone.
    """

    how: How
    place: str
    line: int
    earlier: int
    taken: str
    lost: str


@dataclass(frozen=True)
class Backslashed:
    """A path with a backslash, as it stands between its quotes."""

    place: str
    line: int
    raw: str


@dataclass(frozen=True)
class FieldMap:
    """Where the fields of a text are.

    Attributes:
        lines: line of each field, from 1, by path; the second `name` of a message is `name[1]`.
        overwritten: in the order of the text.
        backslashed: paths that the OD API reads with escapes.
    """

    lines: dict[str, int]
    overwritten: tuple[Overwritten, ...]
    backslashed: tuple[Backslashed, ...]


class _Token(NamedTuple):
    kind: str
    value: str
    line: int
    start: int
    end: int


@dataclass
class _Given:
    """A field that was met; its text ends where the next token begins, until it is complete."""

    path: str
    line: int
    start: int
    value: str = ""
    block: _Block | None = None


@dataclass
class _Block:
    path: str
    descriptor: Any
    opened_by: _Given | None = None
    merging: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    given: dict[str, _Given] = field(default_factory=dict)


def decode_text(content: bytes) -> tuple[str, str]:
    """The text of a file that somebody's editor wrote, lines ending in a line feed.

    Returns:
        The text, and the name of its encoding: UTF-8, UTF-8 with a byte order mark, UTF-16,
        UTF-32 or Windows-1252 (of which Latin-1 is a part).

    Raises:
        UnicodeDecodeError: it is no text in any of them.
    """
    text, name = _decoded(content)
    if "\0" in text:
        raise UnicodeDecodeError("utf-8", content, 0, 1, "a zero byte is no text")
    return text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\x1a"), name


def _decoded(content: bytes) -> tuple[str, str]:
    for mark, codec, name in _BOMS:
        if content.startswith(mark):
            return content.decode(codec), name
    start = content[:_LOOKED_AT]
    for zeros, other, codec in (
        (start[1::2], start[::2], "utf-16-le"),
        (start[::2], start[1::2], "utf-16-be"),
    ):
        if zeros and zeros.count(0) > len(zeros) / 2 and 0 not in other:
            return content.decode(codec), "UTF-16"
    try:
        return content.decode("utf-8"), UTF_8
    except UnicodeDecodeError:
        text = content.decode("cp1252")
        if any(ord(one) < ord(" ") and one not in "\t\r\n\f\x1a" for one in text):
            raise
        return text, "Windows-1252"


def map_fields(text: str, descriptor: Any = None) -> FieldMap:
    """Find every field.

    Args:
        text: of a message in protobuf's text format.
        descriptor: of the message; without one nothing is known to be overwritten.
    """
    return _Walk(text).run(_Block("", descriptor))


class _Walk:
    """Goes through the tokens once, with the blocks that are open."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.lines: dict[str, int] = {}
        self.overwritten: list[Overwritten] = []
        self.backslashed: list[Backslashed] = []

    def run(self, root: _Block) -> FieldMap:
        blocks, pending = [root], None
        for token in _tokens(self.text):
            if token.kind == "open" and pending is not None:
                blocks.append(self._open(blocks[-1], pending))
                pending = None
            elif token.kind == "close" and len(blocks) > 1:
                closed, pending = blocks.pop(), None
                if closed.opened_by is not None:
                    closed.opened_by.value = self.text[closed.opened_by.start : token.end]
            elif token.kind in ("word", "text", "list") and pending is not None:
                self._set(blocks[-1], pending, token)
                pending = None
            elif token.kind == "word":
                pending = self._meet(blocks[-1], token)
        return FieldMap(self.lines, tuple(self.overwritten), tuple(self.backslashed))

    def _meet(self, block: _Block, token: _Token) -> _Given:
        name = token.value
        count = block.counts.get(name, 0)
        block.counts[name] = count + 1
        field_ = _field(block, name)
        index = f"[{count}]" if count and (field_ is None or field_.is_repeated) else ""
        path = f"{block.path}.{name}".lstrip(".") + index
        self.lines.setdefault(path, token.line)
        made = _Given(path, token.line, token.start)
        if field_ is not None and field_.containing_oneof is not None:
            for other in field_.containing_oneof.fields:
                lost = block.given.pop(other.name, None) if other.name != name else None
                if lost is not None:
                    self._lose("branch", made, lost, name, lost.value)
        return made

    def _open(self, block: _Block, made: _Given) -> _Block:
        name = _name(made)
        field_ = _field(block, name)
        earlier = block.given.get(name) if field_ is not None and not field_.is_repeated else None
        if earlier is not None and earlier.block is not None:
            if not block.merging:
                self._lose("merged", made, earlier, name, name)
            earlier.block.merging = True
            return earlier.block
        below = getattr(field_, "message_type", None)
        made.block = _Block(made.path, below, made, block.merging)
        block.given[name] = made
        return made.block

    def _set(self, block: _Block, made: _Given, token: _Token) -> None:
        name = _name(made)
        made.value = self.text[made.start : token.end]
        field_ = _field(block, name)
        if field_ is not None and not field_.is_repeated:
            earlier = block.given.get(name)
            if earlier is not None and _value(earlier) != _value(made):
                self._lose("value", made, earlier, made.value, earlier.value)
            self.lines[made.path] = made.line
        block.given[name] = made
        if _PATH.search(name):
            self.backslashed += [
                Backslashed(made.path, token.line, one.group()[1:-1])
                for one in _TOKEN.finditer(token.value)
                if one.lastgroup == "text" and "\\" in one.group()
            ]

    def _lose(self, how: How, made: _Given, earlier: _Given, taken: str, lost: str) -> None:
        place = made.path if how != "branch" else made.path.rpartition(".")[0]
        self.overwritten.append(
            Overwritten(how, place, made.line, earlier.line, taken, " ".join(lost.split()))
        )


def _field(block: _Block, name: str) -> Any:
    return None if block.descriptor is None else block.descriptor.fields_by_name.get(name)


def _name(given: _Given) -> str:
    return given.path.rpartition(".")[2].partition("[")[0]


def _value(given: _Given) -> str:
    return given.value.removeprefix(_name(given)).lstrip(" :\t\n")


def _tokens(text: str) -> Iterator[_Token]:
    """Without comments; a bracketed list is one token."""
    line, at, list_start = 1, 0, -1
    for match in _TOKEN.finditer(text):
        line += text.count("\n", at, match.start())
        at = match.start()
        kind, value = str(match.lastgroup), match.group()
        if kind == "mark" and value == "[" and list_start < 0:
            list_start = at
        elif kind == "mark" and value == "]" and list_start >= 0:
            yield _Token("list", text[list_start : match.end()], line, list_start, match.end())
            list_start = -1
        elif list_start < 0 and kind not in ("comment", "mark"):
            yield _Token(kind, value, line, at, match.end())
