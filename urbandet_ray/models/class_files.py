"""The files beside a model that say what its class numbers mean: looked for and read once."""

from __future__ import annotations

from dataclasses import dataclass

from urbandet_ray.config import ModelConfig
from urbandet_ray.errors import LabelError, NotFoundError
from urbandet_ray.label_files import MAPPING_FORM, read_label_text
from urbandet_ray.models.classes import builtin_mapping_text, builtin_mappings
from urbandet_ray.models.model_files import ModelFiles
from urbandet_ray.storage import Storage, join_uri


@dataclass(frozen=True)
class ClassFiles:
    """What was found; small, it travels to the nodes of a cluster.

    Attributes:
        labels: text of the model's label map; None where no file holds one.
        source: where it lies, for messages.
        named: it is named by the config or for this very model, and beats labels inside the model;
            a label_map.pbtxt that merely lies in the same folder does not.
        mapping: text of the class mapping; None where names must match.
        looked_for: the places of a label map, for messages.
    """

    labels: str | None
    source: str
    named: bool
    mapping: str | None
    looked_for: tuple[str, ...]

    def labels_with(self, embedded: str | None, model: str) -> tuple[str, str]:
        """Text and source of the label map of a model that may hold labels itself.

        Raises:
            LabelError: there is none.
        """
        if embedded is not None and not self.named:
            return embedded, f"inside {model}"
        if self.labels is not None:
            return self.labels, self.source
        raise LabelError(
            f"no label map for the model {model}; looked for {', '.join(self.looked_for)} and "
            "inside the model: name its label_map.pbtxt or list of classes (model.labels)"
        )


def find_class_files(config: ModelConfig, files: ModelFiles, storage: Storage) -> ClassFiles:
    """Look for a model's label map and read it and the mapping.

    The label map is the config's; else <stem>_labels.txt or <stem>_label_map.pbtxt beside the
    model; else label_map.pbtxt, labels.txt or labelmap.txt in or beside it.

    Raises:
        LabelError: no label map or mapping where the config says, or one that is not text.
    """
    mapping = None if config.mapping is None else _mapping_text(config.mapping, storage)
    if config.labels is not None:
        try:
            text = read_label_text(config.labels, storage)
        except NotFoundError as error:
            raise LabelError(
                f"no label map at {config.labels}: expected a label_map.pbtxt or a list with a "
                "class a line"
            ) from error
        return ClassFiles(text, config.labels, True, mapping, (config.labels,))
    own, general = _places(files.place)
    for place in (*own, *general):
        if _exists(place, files, storage):
            return ClassFiles(
                read_label_text(place, storage), place, place in own, mapping, (place,)
            )
    return ClassFiles(None, "", False, mapping, (*own, *general))


def _places(uri: str) -> tuple[list[str], list[str]]:
    """Where a label map may lie: beside a .tflite file, or in and beside a folder.

    Returns:
        The places named for the model, and the others.
    """
    folder, _, name = uri.rpartition("/")
    stem = name.removesuffix(".tflite")
    folder = folder or ("/" if uri.startswith("/") else ".")
    folders = [folder] if name.endswith(".tflite") else [uri, folder]
    own = [join_uri(folder, f"{stem}_labels.txt"), join_uri(folder, f"{stem}_label_map.pbtxt")]
    general = ("label_map.pbtxt", "labels.txt", "labelmap.txt")
    return own, [join_uri(each, file) for each in folders for file in general]


def _exists(place: str, files: ModelFiles, storage: Storage) -> bool:
    if files.remote and place.startswith(f"{files.place}/"):
        return any(file.uri == place for file in files.remote)
    return storage.exists(place)


def _mapping_text(mapping: str, storage: Storage) -> str:
    text = builtin_mapping_text(mapping)
    if text is not None:
        return text
    try:
        return read_label_text(mapping, storage, MAPPING_FORM)
    except NotFoundError as error:
        raise LabelError(
            f"no class mapping {mapping!r}: expected the path of a YAML, or one of "
            f"{', '.join(builtin_mappings())}"
        ) from error
