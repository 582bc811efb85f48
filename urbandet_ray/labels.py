"""Classes: the label map (id <-> name) and the mapping from a model's own classes to ours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from urbandet_ray.errors import LabelError
from urbandet_ray.label_map_proto import is_label_map_text, item_places, label_map_class
from urbandet_ray.phrases import some_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class LabelMap:
    """Class names by id, as in the OD API's label_map.pbtxt: ids start at 1 and may have gaps."""

    names: Mapping[int, str]
    other_names: Mapping[str, int] = field(default_factory=dict)
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
        object.__setattr__(self, "other_names", dict(sorted(self.other_names.items())))

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

    def has(self, class_ids: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Whether each id [n] is a class of the map."""
        import numpy as np

        return np.isin(class_ids, list(self.names))

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
            LabelError: no class found; with line and column: text that protobuf refuses, an item
                of a negative id, or of id 0 for another class than `background`.
        """
        if is_label_map_text(text):
            return _of_items(_parse_items(text, source), item_places(text), source)
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if any(re.search(r"[{}<>\x00]", line) for line in lines) or not lines:
            raise LabelError(
                f"{source} is neither a label_map.pbtxt (item {{ id: 1 name: 'vehicle' }}) "
                "nor a list with a class name a line"
            )
        return cls({i: name for i, name in enumerate(lines, start=1) if name != "???"})

    def to_pbtxt(self) -> str:
        """The map as label_map.pbtxt text; parsed, it is this map again."""
        further: dict[int, list[str]] = {}
        for text, class_id in self.other_names.items():
            if (class_id, text) != (0, _BACKGROUND):
                further.setdefault(class_id, []).append(text)
        if _BACKGROUND in self.other_names and not further.get(0):
            further[0] = [_BACKGROUND]
        items = []
        for class_id, name in [(0, _BACKGROUND), *self.names.items()]:
            more = further.get(class_id, [])
            if class_id and not more:
                items.append(_item_text(class_id, name))
            items += [_item_text(class_id, one, name if one != name else "") for one in more]
        return "\n".join(items)

    def to_dict(self) -> dict[str, str | int]:
        """As JSON: names by id, and the ids of further texts."""
        named: dict[str, str | int] = {str(one): name for one, name in self.names.items()}
        return named | {f"{_TEXT}{text}": one for text, one in self.other_names.items()}

    @classmethod
    def from_dict(cls, given: Mapping[str, object]) -> LabelMap:
        """Read what `to_dict` gave.

        Raises:
            LabelError, ValueError: it is something else.
        """
        names: dict[int, str] = {}
        others: dict[str, int] = {}
        for key, value in given.items():
            if key.startswith(_TEXT) and isinstance(value, int):
                others[key.removeprefix(_TEXT)] = value
            elif isinstance(value, str):
                names[int(key)] = value
            else:
                raise ValueError(f"{key!r} is {value!r}")
        return cls(names, others)


_BACKGROUND = "background"
_TEXT = "text:"


def _item_text(class_id: int, name: str, shown: str = "") -> str:
    display = f"  display_name: '{_escaped(shown)}'\n" if shown else ""
    return f"item {{\n  id: {class_id}\n  name: '{_escaped(name)}'\n{display}}}\n"


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


def _of_items(items: Sequence[Any], places: Iterable[tuple[int, int]], source: str) -> LabelMap:
    """The classes of a StringIntLabelMap's items."""
    texts = _ids_by_text(items)
    names: dict[int, str] = {}
    remarks: list[str] = []
    for number, (item, place) in enumerate(zip(items, places, strict=True), start=1):
        remarks += _overwritten(item, number)
        class_id, own = _id_of(item), _texts_of(item)
        name = own[0] if own else f"class {class_id}"
        if class_id < 0 or (class_id == 0 and _BACKGROUND not in own):
            raise LabelError(
                f"{source}:{place[0]}:{place[1]}: item {number} ({name!r}) has "
                f"{f'id {class_id}' if item.id else 'no id, which is 0'}: ids start at 1, "
                "0 is the background's"
            )
        if class_id in names:
            remarks.append(
                f"id {class_id} is {names[class_id]!r} and again {name!r} (item {number}): boxes "
                f"of both are {names[class_id]!r}"
            )
        elif class_id:
            if not own:
                remarks.append(f"item {number} has no name: it is shown as {name!r}")
            elif texts[name] != class_id:
                name, said = _told_apart(name, class_id, own, texts), name
                remarks.append(
                    f"{said!r} is the name of two classes, and means id {texts[said]}: id "
                    f"{class_id} is shown as {name!r}"
                )
            names[class_id] = name
    shown = set(names.values())
    others = {text: one for text, one in texts.items() if text not in shown}
    return LabelMap(names, others, tuple(remarks))


def _ids_by_text(items: Iterable[Any]) -> dict[str, int]:
    """The OD API's two tables: the last item of a text counts in each, the higher id of both.

    Source: TfExampleDecoder's _ClassTensorHandler, label_map_util.get_label_map_dict.
    """
    found: dict[str, int] = {}
    for field_name in ("name", "display_name"):
        table = {
            text: _id_of(item) for item in items for text in getattr(item, field_name)[-1:] if text
        }
        found |= {text: max(one, found.get(text, one)) for text, one in table.items()}
    return found


def _id_of(item: Any) -> int:
    return int(item.id[-1]) if item.id else 0


def _texts_of(item: Any) -> list[str]:
    """What names an item; what is shown comes first."""
    return [text for text in (*item.display_name[-1:], *item.name[-1:]) if text]


def _told_apart(name: str, class_id: int, own: list[str], texts: Mapping[str, int]) -> str:
    """A name of its own for a class whose name is another's."""
    told = f"{name} ({own[-1]})"
    if own[-1] == name or texts[own[-1]] != class_id or told in texts:
        told = f"{name} (id {class_id})"
    return told


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
