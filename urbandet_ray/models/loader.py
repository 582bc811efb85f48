"""From a model's name to a ready detector, the same way on the driver and in every actor."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from urbandet_ray.errors import ConfigError, LabelError, ModelError, NotFoundError
from urbandet_ray.labels import STREET_LABELS, LabelMap
from urbandet_ray.models.backends.answers import AnswerRules, Device
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
from urbandet_ray.models.model_files import local_model, model_files, resolve_uri
from urbandet_ray.models.network.facts import is_network, read_facts
from urbandet_ray.models.network.network_detector import NetworkDetector, keeps_its_nms
from urbandet_ray.models.network.runtimes import Compiler, is_not_compiled
from urbandet_ray.storage import Storage, join_uri


@dataclass(frozen=True)
class ModelSpec:
    """Which model to run, and how; small and picklable, it travels to the actors."""

    uri: str
    """"shipped" (the package's own detector), a folder that `urbandet export` wrote, a .tflite file
    or a SavedModel folder; local or s3://."""
    labels_uri: str | None = None
    """The MODEL's classes: a label_map.pbtxt or a list with a class a line. None looks for
    <stem>_labels.txt or <stem>_label_map.pbtxt, then inside the .tflite, then for label_map.pbtxt,
    labels.txt or labelmap.txt beside the model."""
    mapping: str | None = None
    """Model class -> our class: "coco-to-street" or the path of a YAML. None: names must match."""
    score_min: float = 0.3
    """Detections with a lower score are dropped, in [0, 1]."""
    max_detections: int = 100
    """The best this many of a frame are kept; a TFLite model may itself stop at fewer."""
    threads: int = 1
    """CPU threads of the model's runtime."""
    mean: float | None = None
    """Taken from the pixels of a float-input TFLite model; None: its metadata's, else 127.5."""
    std: float | None = None
    """What they are then divided by; None: the metadata's, else 127.5."""
    nms_iou_max: float | None = None
    """Of an SSD's network: another iou_max than its own, in (0, 1]."""
    nms_soft_sigma: float | None = None
    """Likewise, sigma of Soft-NMS; 0 is none."""
    nms_class_agnostic: bool | None = None
    """Likewise, whether a box of any class suppresses another."""
    device: Device = "auto"
    """Where it runs; a .tflite file, an OpenVINO and a TFLite network know the CPU alone."""
    compiler: Compiler | None = None
    """Compiles a network for its GPU: xla a `savedmodel` one, tensorrt an `onnx` one."""

    def __post_init__(self) -> None:
        if not 0 <= self.score_min <= 1:
            raise ConfigError(f"score_min is {self.score_min}: give a number from 0 to 1")
        if self.max_detections < 1 or self.threads < 1:
            raise ConfigError(
                f"max_detections is {self.max_detections} and threads {self.threads}: both start "
                "at 1"
            )
        if self.std == 0:
            raise ConfigError("std is 0: the pixels are divided by it; the usual value is 127.5")


def load_detector(spec: ModelSpec, storage: Storage, target: LabelMap = STREET_LABELS) -> Detector:
    """Load a model, ready to detect.

    Args:
        spec: which model, and how.
        storage: opens its files.
        target: the run's label map; detections carry its ids.

    Raises:
        ModelError: missing, broken, of another kind, without the suppression to be changed, or for
            another compiler.
        LabelError: label map or mapping do not fit the model.
        MissingExtraError: a SavedModel without TensorFlow.
    """
    path = local_model(spec.uri, storage)
    changes = _nms(spec)
    if path.is_dir() and is_network(path):
        rules = _rules(spec, _table(spec, storage, target, embedded=None, class_count=None))
        return NetworkDetector(
            path,
            spec.uri,
            rules,
            spec.threads,
            spec.device,
            nms=changes,
            compiler=spec.compiler,
        )
    if changes:
        raise ModelError(keeps_its_nms(spec.uri))
    if spec.compiler is not None:
        raise ModelError(is_not_compiled(spec.uri, spec.compiler))
    if path.is_dir():
        rules = _rules(spec, _table(spec, storage, target, embedded=None, class_count=None))
        return SavedModelDetector(path, spec.uri, rules, spec.threads, spec.device)
    file = TfliteFile(path, spec.uri, spec.threads)
    facts = file.facts
    table = _table(spec, storage, target, facts.labels_text, facts.class_count)
    return TfliteDetector(file, _rules(spec, table), spec.mean, spec.std)


def knows_gpus(uri: str, storage: Storage) -> bool:
    """Whether what runs a model can use a GPU.

    Raises:
        ModelError: missing or of another kind.
    """
    path = local_model(uri, storage)
    if not path.is_dir():
        return False
    return not is_network(path) or read_facts(path, uri).runtime in ("savedmodel", "onnx")


def input_wh(spec: ModelSpec, storage: Storage) -> tuple[int, int]:
    """Width and height that a network sees of any image.

    Raises:
        ModelError: the model is no network of `urbandet export`.
    """
    path = local_model(spec.uri, storage)
    if not (path.is_dir() and is_network(path)):
        raise ModelError(
            f"{spec.uri} does not tell its input's size: reduced_decode needs a network "
            "(urbandet export --format savedmodel, openvino, onnx or tflite)"
        )
    resizing = read_facts(path, spec.uri).resizing
    return resizing.width, resizing.height


def model_fingerprint(spec: ModelSpec, storage: Storage) -> str:
    """SHA-256 (hex) of all that decides a model's answers: files, labels, mapping, numbers.

    The place of the files, the number of threads, the device and the compiler do
    not count.

    Raises:
        ModelError: missing or of another kind.
        LabelError: no label map or mapping where the spec says.
    """
    path = local_model(spec.uri, storage)
    digest = hashlib.sha256()
    for file in model_files(path):
        name = "" if path.is_file() else file.relative_to(path).as_posix()
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{name}\n{content}\n".encode())
    found = _outside_labels(spec, storage)
    parts: list[Any] = [
        found[0] if found else "",
        _mapping_text(spec.mapping, storage) if spec.mapping else "",
        [spec.score_min, spec.max_detections, spec.mean, spec.std],
    ]
    if changes := _nms(spec):
        parts.append(changes)
    digest.update(json.dumps(parts).encode())
    return digest.hexdigest()


def _nms(spec: ModelSpec) -> dict[str, Any]:
    """What of a network's rules is changed, by the names of PostProcess."""
    given = {
        "iou_max": spec.nms_iou_max,
        "soft_nms_sigma": spec.nms_soft_sigma,
        "class_agnostic": spec.nms_class_agnostic,
    }
    return {name: value for name, value in given.items() if value is not None}


def _rules(spec: ModelSpec, table: ClassTable) -> AnswerRules:
    return AnswerRules(table, spec.score_min, spec.max_detections)


def _table(
    spec: ModelSpec,
    storage: Storage,
    target: LabelMap,
    embedded: str | None,
    class_count: int | None,
) -> ClassTable:
    found = _outside_labels(spec, storage, embedded)
    if found is None:
        looked = ", ".join(_label_places(resolve_uri(spec.uri)))
        raise LabelError(
            f"no label map for the model {spec.uri}; looked for {looked} and inside the model: "
            "name its label_map.pbtxt or list of classes (labels_uri)"
        )
    labels = parse_model_labels(*found)
    renames = None
    if spec.mapping is not None:
        renames = read_mapping(_mapping_text(spec.mapping, storage), spec.mapping)
        if spec.mapping not in builtin_mappings():  # ours know several models' names
            check_mapping_keys(renames, labels, spec.mapping)
    return class_table(labels, target, renames, class_count)


def _outside_labels(
    spec: ModelSpec, storage: Storage, embedded: str | None = None
) -> tuple[str, str] | None:
    """Text and source of the model's label map; None where there is none.

    A file named for this very model beats the labels inside it, and those beat a label_map.pbtxt
    that merely lies in the same folder.
    """
    if spec.labels_uri is not None:
        try:
            return _text(spec.labels_uri, storage), spec.labels_uri
        except NotFoundError as error:
            raise LabelError(
                f"no label map at {spec.labels_uri}: expected a label_map.pbtxt or a list with a "
                "class a line"
            ) from error
    places = _label_places(resolve_uri(spec.uri))
    own = 2  # the first two are named for the model
    for place in places[:own]:
        if storage.exists(place):
            return _text(place, storage), place
    if embedded is not None:
        return embedded, f"inside {spec.uri}"
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
