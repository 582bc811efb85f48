"""A model's class ids -> the run's: label lists of every kind, YAML mappings, one lookup table."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from urbandet_ray.errors import LabelError
from urbandet_ray.label_files import MAPPING_FORM
from urbandet_ray.label_map_proto import is_label_map_text
from urbandet_ray.labels import ClassMapping, LabelMap

_MAPPINGS = Path(__file__).parent / "mappings"
_BACKGROUND = {"???", "background"}


@dataclass(frozen=True)
class ModelLabels:
    """Classes of a model by OD API id: class index + 1, background being 0.

    Attributes:
        names: the classes that have a name.
        length: the highest id the map speaks for, "???" places included.
        source: where it came from, for messages.
    """

    names: LabelMap
    length: int
    source: str


@dataclass(frozen=True)
class ClassTable:
    """Looks up the run's class id by the model's.

    Attributes:
        target: the run's label map.
        ids: [length + 1] int32 by model id; 0 where the class is dropped.
        source: the model's label map, for messages.
    """

    target: LabelMap
    ids: NDArray[np.int32]
    source: str

    def look_up(self, model_ids: NDArray[np.int32]) -> NDArray[np.int32]:
        """The run's ids [n], 0 where dropped.

        Raises:
            LabelError: an id outside the model's label map.
        """
        if model_ids.size and (model_ids.max() >= len(self.ids) or model_ids.min() < 0):
            outside = model_ids[(model_ids >= len(self.ids)) | (model_ids < 0)]
            raise LabelError(
                f"the model answered class id {outside[0]} (index {outside[0] - 1}), but its label "
                f"map {self.source} ends at id {len(self.ids) - 1}: give the label map this "
                "model was trained with"
            )
        return self.ids[model_ids]


def parse_model_labels(text: str, source: str) -> ModelLabels:
    """Read a label_map.pbtxt or a list with a class a line.

    Lists come in two habits: the classic COCO one opens with "???" for the background, so its line
    index is the id; others start with the first class, so the line number is the id.

    Raises:
        LabelError: the text is neither.
    """
    parsed = LabelMap.parse(text, source)
    if is_label_map_text(text):
        return ModelLabels(parsed, max(parsed.names), source)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines[0].lower() not in _BACKGROUND:
        return ModelLabels(parsed, len(lines), source)
    shifted = {class_id - 1: name for class_id, name in parsed.names.items() if class_id > 1}
    return ModelLabels(LabelMap(shifted), len(lines) - 1, source)


def read_mapping(text: str, source: str) -> dict[str, str]:
    """Read a YAML of `model class: our class`.

    Raises:
        LabelError: not YAML, or not names to names.
    """
    expected = f"expected {MAPPING_FORM}"
    try:
        loaded = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise LabelError(f"class mapping {source} is no YAML ({error}); {expected}") from error
    if not isinstance(loaded, dict) or not loaded:
        raise LabelError(f"class mapping {source} holds no mapping; {expected}")
    for old, new in loaded.items():
        if not isinstance(old, str) or not isinstance(new, str):
            raise LabelError(f"class mapping {source}: got `{old}: {new}`; {expected}")
    return dict(loaded)


def builtin_mapping_text(name: str) -> str | None:
    """The YAML of a mapping that comes with the package; None if there is none of that name."""
    path = _MAPPINGS / f"{name}.yaml"
    return path.read_text(encoding="utf-8") if name in builtin_mappings() else None


def builtin_mappings() -> list[str]:
    """Names of the mappings that come with the package."""
    return sorted(path.stem for path in _MAPPINGS.glob("*.yaml"))


def coco_labels() -> ModelLabels:
    """COCO's classes as detection models know them: ids 1 to 90, ten of which have no class."""
    path = _MAPPINGS / "coco-labels.txt"
    return parse_model_labels(path.read_text(encoding="utf-8"), "COCO's labels")


def check_mapping_keys(renames: dict[str, str], labels: ModelLabels, source: str) -> None:
    """Refuse a class the model does not have: a typing error would silently drop detections.

    Raises:
        LabelError: naming the class and the nearest known one.
    """
    known = list(labels.names.names.values())
    for old in renames:
        if old not in known:
            near = difflib.get_close_matches(old, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f": take names from {labels.source}"
            raise LabelError(f"class mapping {source}: the model has no class {old!r}{hint}")


def class_table(
    labels: ModelLabels,
    target: LabelMap,
    renames: dict[str, str] | None,
    class_count: int | None,
    kept: Sequence[str] | None = None,
) -> ClassTable:
    """The lookup table of a model.

    Args:
        labels: the model's classes.
        target: the run's label map.
        renames: model class -> our class; None where names must match.
        class_count: how many classes the model's file says it has, if it does.
        kept: our classes that are kept, by name; None keeps all.

    Raises:
        LabelError: no class matches, one to keep is not in the target or not the model's, or the
            label map is shorter than the model's classes.
    """
    if class_count is not None and class_count > labels.length:
        raise LabelError(
            f"the model has {class_count} classes (index 0 to {class_count - 1}), but its label "
            f"map {labels.source} ends at id {labels.length} (index {labels.length - 1}): give the "
            "label map this model was trained with; '???' lines hold places without a class"
        )
    mapping = ClassMapping.by_name(labels.names, target, renames)
    ids = np.zeros(labels.length + 1, np.int32)
    ids[list(mapping.ids)] = list(mapping.ids.values())
    if kept is not None:
        ids[~np.isin(ids, [target.id_of(name) for name in kept])] = 0
        if not ids.any():
            found = sorted({target.name_of(one) for one in mapping.ids.values()})
            raise LabelError(
                f"the model finds none of the classes to keep ({', '.join(kept)}): it finds "
                f"{', '.join(found)}"
            )
    return ClassTable(target, ids, labels.source)
