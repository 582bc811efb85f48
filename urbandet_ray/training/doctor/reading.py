"""What the OD API reads in the file's text, where a person meant something else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from urbandet_ray.models.pipeline_config import parse_augmentations, unescape
from urbandet_ray.models.pipeline_text import UTF_8, Backslashed, Overwritten
from urbandet_ray.training.doctor.case import Case
from urbandet_ray.training.doctor.findings import Edit, Finding

_OPTION = "train_config.data_augmentation_options"
_SHOWN = 60


def check_reading(case: Case) -> Iterator[Finding]:
    """Encoding, fields that are given twice, backslashes in paths."""
    pipeline = case.pipeline
    if pipeline.encoding != UTF_8:
        yield Finding(
            "note",
            "text-encoding",
            "model",
            f"the file is {pipeline.encoding}: it was read, the OD API's own programs refuse it",
            "save it as UTF-8 without a byte order mark",
            _as_read,
            1,
        )
    put_back = 0
    for one in pipeline.overwritten:
        if one.how == "branch" and one.place.partition("[")[0] == _OPTION:
            yield _two_augmentations(one, _position(one.place) + put_back)
            put_back += 1
        else:
            yield _overwritten(one)
    for path in pipeline.backslashed:
        yield _backslashed(path)


def _as_read(_: Any) -> None:
    """A copy is written in UTF-8, and holds what was read: nothing is left to change."""


def _overwritten(one: Overwritten) -> Finding:
    taken, lost = _shown(one.taken), _shown(one.lost)
    if one.how == "merged":
        return Finding(
            "note",
            "given-twice",
            one.place,
            f"{taken} stands at lines {one.earlier} and {one.line}: the OD API makes one block of "
            "the two, a value of the second wins and lists grow",
            "write one block",
            _as_read,
            one.line,
        )
    why = "only one of the two can be set" if one.how == "branch" else "the last value counts"
    return Finding(
        "warning",
        "overwritten",
        one.place,
        f"line {one.earlier} says {lost}, line {one.line} says {taken}: {why}, the first is lost "
        "without a word",
        f"leave the one out that is not meant; taken is {taken}",
        _as_read,
        one.line,
    )


def _two_augmentations(one: Overwritten, index: int) -> Finding:
    name = one.lost.partition("{")[0].partition(":")[0].strip()
    return Finding(
        "warning",
        "two-augmentations-in-one-block",
        f"{one.place}.{name}",
        f"{name} and {one.taken} stand in one data_augmentation_options, which holds one step "
        f"only: the OD API takes {one.taken}, and {name} is lost without a word",
        f"give {name} a data_augmentation_options block of its own",
        _restoring(one.lost, index),
        one.line,
    )


def _restoring(text: str, index: int) -> Edit:
    """Puts a lost augmentation, as it is in the file, back at its place in the order."""

    def edit(config: Any) -> None:
        (lost,) = parse_augmentations(f"data_augmentation_options {{ {text} }}")
        options = config.train_config.data_augmentation_options
        kept = list(options)
        kept.insert(index, lost)
        del options[:]
        options.extend(kept)

    return edit


def _position(place: str) -> int:
    index = place.partition("[")[2].rstrip("]")
    return int(index) if index else 0


def _backslashed(one: Backslashed) -> Finding:
    read = unescape(one.raw)
    meant = one.raw.replace("\\\\", "/").replace("\\", "/")

    def edit(config: Any) -> None:
        _replace_text(config, read, meant)

    shown = "".join(char if char.isprintable() else f"<{ord(char):#04x}>" for char in read)
    changed = not read.isprintable() or read.replace("\\", "/") != meant
    return Finding(
        "error" if changed else "warning",
        "backslash-path",
        one.place,
        f'"{one.raw}" is a path with backslashes, which start escapes here: it is read as {shown}'
        if changed
        else f"{shown} is a path with backslashes, which are part of a name outside of Windows",
        f'write forward slashes: "{meant}"',
        edit,
        one.line,
    )


def _replace_text(message: Any, old: str, new: str) -> None:
    """Replace a text wherever it is the whole value of a field."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING and not field.is_repeated and value == old:
            setattr(message, field.name, new)
        elif field.type == field.TYPE_STRING and field.is_repeated:
            value[:] = [new if one == old else one for one in value]
        elif field.type == field.TYPE_MESSAGE:
            for one in value if field.is_repeated else [value]:
                _replace_text(one, old, new)


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
