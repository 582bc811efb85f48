"""Classes: the label map (id <-> name) and the mapping from a model's own classes to ours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from urbandet_ray.errors import LabelError
from urbandet_ray.label_map_proto import label_map_class
from urbandet_ray.phrases import some_of

_ITEM = re.compile(r"(?m)^\s*item\s*:?\s*[{<\[]|[}>]\s*,?\s*item\s*:?\s*[{<]")
"""How a label_map.pbtxt differs from a list of names."""


@dataclass(frozen=True)
class LabelMap:
    """Class names by id, as in the OD API's label_map.pbtxt: ids start at 1 and may have gaps."""

    names: Mapping[int, str]
    other_names: Mapping[str, int] = field(default_factory=dict, compare=False)
    """Further texts that name a class: `name` where `display_name` is shown, and `background`."""
    remarks: tuple[str, ...] = field(default=(), compare=False)
    """What the file says that is lost, in words."""

    def __post_init__(self) -> None:
        if not self.names:
            raise LabelError("the label map has no classes: add an item { id: 1 name: '...' }")
        for class_id, name in self.names.items():
            if class_id < 1:
                raise LabelError(f"class {name!r} has id {class_id}: ids start at 1")
        doubled = {
            name for name in self.names.values() if list(self.names.values()).count(name) > 1
        }
        if doubled:
            raise LabelError(f"label map names {sorted(doubled)} more than once")
        object.__setattr__(self, "names", dict(sorted(self.names.items())))

    @cached_property
    def ids_by_text(self) -> Mapping[str, int]:
        """The id for each text that names a class: names, display names, and `background`."""
        return {name: class_id for class_id, name in self.names.items()} | dict(self.other_names)

    def id_of(self, name: str) -> int:
        """The id of a class.

        Raises:
            LabelError: the map has no such class.
        """
        for class_id, known in self.names.items():
            if known == name:
                return class_id
        if self.other_names.get(name):
            return self.other_names[name]
        known_names = ", ".join(self.names.values())
        raise LabelError(f"no class {name!r} in the label map; it has: {known_names}")

    def name_of(self, class_id: int) -> str:
        """The name of a class, "class 7" where the map does not know it."""
        return self.names.get(class_id, f"class {class_id}")

    @classmethod
    def parse(cls, text: str, source: str = "label map") -> LabelMap:
        """Read label_map.pbtxt text, or a plain list with a class a line.

        The text is read as the OD API reads it: by protobuf's text format, the last of two values
        of one field counts, and so does the first of two items with one id. What that loses is in
        `remarks`. A plain list counts from 1 in line order; "???" holds a place without a class.

        Raises:
            LabelError: no class found, text that protobuf refuses (with its line and column), an
                item without id or name, or id 0 for another class than `background`.
        """
        if _ITEM.search(text):
            return _of_items(_parse_items(text, source), source)
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if any(re.search(r"[{}<>\x00]", line) for line in lines) or not lines:
            raise LabelError(
                f"{source} is neither a label_map.pbtxt (item {{ id: 1 name: 'vehicle' }}) "
                "nor a list with a class name a line"
            )
        return cls({i: name for i, name in enumerate(lines, start=1) if name != "???"})

    def to_pbtxt(self) -> str:
        """The map as label_map.pbtxt text."""
        return "\n".join(
            f"item {{\n  id: {class_id}\n  name: '{_escaped(name)}'\n}}\n"
            for class_id, name in self.names.items()
        )


def _escaped(name: str) -> str:
    """As protobuf's text format quotes it."""
    for sign, written in (("\\", "\\\\"), ("'", "\\'"), ("\n", "\\n"), ("\r", "\\r")):
        name = name.replace(sign, written)
    return name


def _parse_items(text: str, source: str) -> Any:
    from google.protobuf import text_format

    message = label_map_class()()
    try:
        text_format.Merge(text, message)
    except text_format.ParseError as error:
        place = f":{error.GetLine()}:{error.GetColumn()}" if error.GetLine() else ""
        said = re.sub(r"^\d+:\d+ : ", "", " ".join(str(error).split())).rstrip(".")
        raise LabelError(
            f"{source}{place}: {said}. Expected items such as item {{ id: 1 name: 'vehicle' }}"
        ) from None
    return message.item


def _of_items(items: Iterable[Any], source: str) -> LabelMap:
    """The classes of a StringIntLabelMap's items."""
    names: dict[int, str] = {}
    texts: dict[str, int] = {}
    remarks: list[str] = []
    for number, item in enumerate(items, start=1):
        remarks += _overwritten(item, number)
        own = [text for text in (*item.display_name[-1:], *item.name[-1:]) if text]
        if not item.id or not own:
            raise LabelError(f"{source}: item {number} needs an id and a name")
        class_id, name = item.id[-1], own[0]
        texts |= dict.fromkeys(own, class_id)
        if class_id == 0 and "background" not in own:
            raise LabelError(
                f"{source}: item {number} ({name!r}) has id 0, the background's: ids start at 1"
            )
        if class_id in names:
            remarks.append(
                f"id {class_id} is {names[class_id]!r} and again {name!r} (item {number}): boxes "
                f"of both are {names[class_id]!r}"
            )
        elif class_id:
            if name in names.values():
                other = own[-1] if own[-1] not in (name, *names.values()) else f"id {class_id}"
                remarks.append(
                    f"{name!r} is the name of two classes: id {class_id} is shown as "
                    f"{f'{name} ({other})'!r}"
                )
                name = f"{name} ({other})"
            names[class_id] = name
    shown = {name: class_id for class_id, name in names.items()}
    others = {text: one for text, one in texts.items() if shown.get(text) != one}
    return LabelMap(names, others, tuple(remarks))


def _overwritten(item: Any, number: int) -> Iterator[str]:
    """What a merge loses of an item: all but the last value of a field."""
    for key in ("id", "name", "display_name"):
        given = list(getattr(item, key))
        if len(given) > 1:
            yield (
                f"item {number} has {len(given)} values of {key} ({', '.join(map(str, given))}): "
                "the last one counts, as in the OD API. Give each class an item of its own"
            )


STREET_LABELS = LabelMap({1: "vehicle", 2: "pedestrian", 4: "cyclist"})
"""The course's classes; its label map leaves id 3 out."""


@dataclass(frozen=True)
class ClassMapping:
    """Turns a model's class ids into those of the run's label map; unmapped classes are dropped."""

    target: LabelMap
    ids: Mapping[int, int]

    @classmethod
    def by_name(
        cls, model_labels: LabelMap, target: LabelMap, renames: Mapping[str, str] | None = None
    ) -> ClassMapping:
        """Match the model's class names with the target's, through `renames` (car -> vehicle).

        Raises:
            LabelError: a rename's target is not in the target map, or nothing matches at all.
        """
        table = renames or {}
        for new in table.values():
            target.id_of(new)
        ids = {
            class_id: target.id_of(table.get(name, name))
            for class_id, name in model_labels.names.items()
            if table.get(name, name) in target.names.values()
        }
        if not ids:
            raise LabelError(
                f"none of the model's classes ({some_of([*model_labels.names.values()], 5)}) is "
                f"one of {some_of([*target.names.values()], 5)}: "
                "give a class mapping (a YAML of model class: our class) or another label map"
            )
        return cls(target, ids)
