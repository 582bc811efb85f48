"""From a model's name to a ready detector, the same way on the driver and in every actor."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from urbandet_ray.config import ModelConfig
from urbandet_ray.errors import LabelError, ModelError, NotFoundError
from urbandet_ray.labels import STREET_LABELS, LabelMap
from urbandet_ray.models.answers import AnswerRules
from urbandet_ray.models.backends.saved_model import SavedModelDetector
from urbandet_ray.models.backends.tflite import TfliteDetector, TfliteFile
from urbandet_ray.models.classes import (
    ClassTable,
    builtin_mapping_text,
    builtin_mappings,
    check_mapping_keys,
    class_table,
    parse_model_labels,
    read_mapping,
)
from urbandet_ray.models.detector import Detector
from urbandet_ray.models.devices import Device
from urbandet_ray.models.model_files import local_model, model_files, resolve_uri
from urbandet_ray.models.network.facts import is_network, read_facts
from urbandet_ray.models.network.network_detector import NetworkDetector, keeps_its_nms
from urbandet_ray.models.network.runtimes import is_not_compiled
from urbandet_ray.storage import Storage, join_uri


def load_detector(
    model: ModelConfig,
    storage: Storage,
    target: LabelMap = STREET_LABELS,
    *,
    device: Device = "auto",
) -> Detector:
    """Load a model, ready to detect.

    Args:
        model: which one, and how its answers are read.
        storage: opens its files.
        target: the run's label map; detections carry its ids.
        device: where it runs; a .tflite file, an OpenVINO and a TFLite network know the CPU alone.

    Raises:
        ModelError: missing, broken, of another kind, without the suppression to be changed, or for
            another compiler.
        LabelError: label map or mapping do not fit the model.
        MissingExtraError: a SavedModel without TensorFlow.
    """
    path = local_model(model.uri, storage)
    changes = _nms(model)
    if path.is_dir() and is_network(path):
        rules = _rules(model, _table(model, storage, target, embedded=None, class_count=None))
        return NetworkDetector(
            path,
            model.uri,
            rules,
            model.threads,
            device,
            nms=changes,
            compiler=model.compiler,
        )
    if changes:
        raise ModelError(keeps_its_nms(model.uri))
    if model.compiler is not None:
        raise ModelError(is_not_compiled(model.uri, model.compiler))
    if path.is_dir():
        rules = _rules(model, _table(model, storage, target, embedded=None, class_count=None))
        return SavedModelDetector(path, model.uri, rules, model.threads, device)
    file = TfliteFile(path, model.uri, model.threads)
    facts = file.facts
    table = _table(model, storage, target, facts.labels_text, facts.class_count)
    return TfliteDetector(file, _rules(model, table), model.mean, model.std)


def knows_gpus(uri: str, storage: Storage) -> bool:
    """Whether what runs a model can use a GPU.

    Raises:
        ModelError: missing or of another kind.
    """
    path = local_model(uri, storage)
    if not path.is_dir():
        return False
    return not is_network(path) or read_facts(path, uri).runtime in ("savedmodel", "onnx")


def input_wh(model: ModelConfig, storage: Storage) -> tuple[int, int]:
    """Width and height that a network sees of any image.

    Raises:
        ModelError: the model is no network of `urbandet export`.
    """
    path = local_model(model.uri, storage)
    if not (path.is_dir() and is_network(path)):
        raise ModelError(
            f"{model.uri} does not tell its input's size: reduced_decode needs a network "
            "(urbandet export --format savedmodel, openvino, onnx or tflite)"
        )
    resizing = read_facts(path, model.uri).resizing
    return resizing.width, resizing.height


def model_fingerprint(model: ModelConfig, storage: Storage) -> str:
    """SHA-256 (hex) of all that decides a model's answers: files, labels, mapping, numbers.

    The place of the files, the number of threads, the device and the compiler do
    not count.

    Raises:
        ModelError: missing or of another kind.
        LabelError: no label map or mapping where the config says.
    """
    path = local_model(model.uri, storage)
    digest = hashlib.sha256()
    for file in model_files(path):
        name = "" if path.is_file() else file.relative_to(path).as_posix()
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{name}\n{content}\n".encode())
    found = _outside_labels(model, storage)
    parts: list[Any] = [
        found[0] if found else "",
        _mapping_text(model.mapping, storage) if model.mapping else "",
        [model.score_min, model.max_detections, model.mean, model.std],
    ]
    if changes := _nms(model):
        parts.append(changes)
    digest.update(json.dumps(parts).encode())
    return digest.hexdigest()


def _nms(model: ModelConfig) -> dict[str, Any]:
    """What of a network's rules is changed, by the names of PostProcess."""
    given = {
        "iou_max": model.nms.iou_max,
        "soft_nms_sigma": model.nms.soft_sigma,
        "class_agnostic": model.nms.class_agnostic,
    }
    return {name: value for name, value in given.items() if value is not None}


def _rules(model: ModelConfig, table: ClassTable) -> AnswerRules:
    return AnswerRules(table, model.score_min, model.max_detections)


def _table(
    model: ModelConfig,
    storage: Storage,
    target: LabelMap,
    embedded: str | None,
    class_count: int | None,
) -> ClassTable:
    found = _outside_labels(model, storage, embedded)
    if found is None:
        looked = ", ".join(_label_places(resolve_uri(model.uri)))
        raise LabelError(
            f"no label map for the model {model.uri}; looked for {looked} and inside the model: "
            "name its label_map.pbtxt or list of classes (model.labels)"
        )
    labels = parse_model_labels(*found)
    renames = None
    if model.mapping is not None:
        renames = read_mapping(_mapping_text(model.mapping, storage), model.mapping)
        if model.mapping not in builtin_mappings():  # ours know several models' names
            check_mapping_keys(renames, labels, model.mapping)
    return class_table(labels, target, renames, class_count)


def _outside_labels(
    model: ModelConfig, storage: Storage, embedded: str | None = None
) -> tuple[str, str] | None:
    """Text and source of the model's label map; None where there is none.

    A file named for this very model beats the labels inside it, and those beat a label_map.pbtxt
    that merely lies in the same folder.
    """
    if model.labels is not None:
        try:
            return _text(model.labels, storage), model.labels
        except NotFoundError as error:
            raise LabelError(
                f"no label map at {model.labels}: expected a label_map.pbtxt or a list with a "
                "class a line"
            ) from error
    places = _label_places(resolve_uri(model.uri))
    own = 2  # the first two are named for the model
    for place in places[:own]:
        if storage.exists(place):
            return _text(place, storage), place
    if embedded is not None:
        return embedded, f"inside {model.uri}"
    for place in places[own:]:
        if storage.exists(place):
            return _text(place, storage), place
    return None


def _label_places(uri: str) -> list[str]:
    """Where a label map may lie: beside a .tflite file, or in and beside a SavedModel folder."""
    folder, _, name = uri.rpartition("/")
    stem = name.removesuffix(".tflite")
    folder = folder or ("/" if uri.startswith("/") else ".")
    general = ("label_map.pbtxt", "labels.txt", "labelmap.txt")
    folders = [folder] if name.endswith(".tflite") else [uri, folder]
    own = [join_uri(folder, f"{stem}_labels.txt"), join_uri(folder, f"{stem}_label_map.pbtxt")]
    return own + [join_uri(each, file) for each in folders for file in general]


def _mapping_text(mapping: str, storage: Storage) -> str:
    text = builtin_mapping_text(mapping)
    if text is not None:
        return text
    try:
        return _text(mapping, storage)
    except NotFoundError as error:
        raise LabelError(
            f"no class mapping {mapping!r}: expected the path of a YAML, or one of "
            f"{', '.join(builtin_mappings())}"
        ) from error


def _text(uri: str, storage: Storage) -> str:
    try:
        return storage.read_bytes(uri).decode("utf-8")
    except UnicodeDecodeError as error:
        raise LabelError(f"{uri} is not UTF-8 text: is it a label map or mapping?") from error
