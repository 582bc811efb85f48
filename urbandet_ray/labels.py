"""Classes: the label map (id <-> name) and the mapping from a model's own classes to ours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from urbandet_ray.errors import LabelError
from urbandet_ray.phrases import some_of

_ITEM = re.compile(r"item\s*\{([^{}]*)\}", re.S)
_FIELD = re.compile(r"""(\w+)\s*:\s*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|(-?\d+))""", re.S)


@dataclass(frozen=True)
class LabelMap:
    """Class names by id, as in the OD API's label_map.pbtxt: ids start at 1 and may have gaps."""

    names: Mapping[int, str]

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

    def id_of(self, name: str) -> int:
        """The id of a class.

        Raises:
            LabelError: the map has no such class.
        """
        for class_id, known in self.names.items():
            if known == name:
                return class_id
        known_names = ", ".join(self.names.values())
        raise LabelError(f"no class {name!r} in the label map; it has: {known_names}")

    def name_of(self, class_id: int) -> str:
        """The name of a class, "class 7" where the map does not know it."""
        return self.names.get(class_id, f"class {class_id}")

    @classmethod
    def parse(cls, text: str, source: str = "label map") -> LabelMap:
        """Read label_map.pbtxt text (item { id name }), or a plain list with a class a line.

        A plain list counts from 1 in line order; "???" holds a place without a class.

        Raises:
            LabelError: no class found, an item without id or name, or a doubled id.
        """
        if "item" in text and "{" in text:
            return cls(dict(_parse_items(text, source)))
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
            f"item {{\n  id: {class_id}\n  name: '{name}'\n}}\n"
            for class_id, name in self.names.items()
        )


def _parse_items(text: str, source: str) -> Iterable[tuple[int, str]]:
    bare = re.sub(r"(?m)#.*$", "", text)
    seen: set[int] = set()
    for number, body in enumerate(_ITEM.findall(bare), start=1):
        fields = {key: a or b or c for key, a, b, c in _FIELD.findall(body)}
        name = fields.get("display_name") or fields.get("name")
        if "id" not in fields or not name:
            raise LabelError(f"{source}: item {number} needs an id and a name")
        class_id = int(fields["id"])
        if class_id in seen:
            raise LabelError(f"{source}: id {class_id} appears more than once")
        seen.add(class_id)
        yield class_id, name


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
