"""From a model's config to a ready detector, the same way on the driver and in every actor."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from urbandet_ray.config import ModelConfig
from urbandet_ray.errors import ModelError
from urbandet_ray.labels import STREET_LABELS, LabelMap
from urbandet_ray.models.answers import AnswerRules
from urbandet_ray.models.backends.saved_model import SavedModelDetector
from urbandet_ray.models.backends.tflite import TfliteDetector, TfliteFile
from urbandet_ray.models.class_files import ClassFiles, find_class_files
from urbandet_ray.models.classes import (
    builtin_mappings,
    check_mapping_keys,
    class_table,
    parse_model_labels,
    read_mapping,
)
from urbandet_ray.models.detector import Detector
from urbandet_ray.models.devices import Device
from urbandet_ray.models.model_files import ModelFiles, find_model_files
from urbandet_ray.models.network.network_detector import NetworkDetector, keeps_its_nms
from urbandet_ray.models.network.runtimes import is_not_compiled
from urbandet_ray.storage import Storage


@dataclass(frozen=True)
class FoundModel:
    """A model found, with all that makes a detector of it; small, it travels to the actors.

    Attributes:
        config: which model, and how its answers are read.
        files: where it is and what it is.
        classes: what its class numbers mean.
    """

    config: ModelConfig
    files: ModelFiles
    classes: ClassFiles

    def load(
        self, storage: Storage, target: LabelMap = STREET_LABELS, *, device: Device = "auto"
    ) -> Detector:
        """Load it on this machine, ready to detect.

        Args:
            storage: opens its files.
            target: the run's label map; detections carry its ids.
            device: where it runs; a .tflite file, an OpenVINO and a TFLite network know the CPU
                alone.

        Raises:
            ModelError: broken, not on this machine, without the suppression to be changed, or for
                another compiler.
            LabelError: label map or mapping do not fit the model.
            MissingExtraError: its runtime is not installed.
        """
        config, path, facts = self.config, self.files.local(storage), self.files.facts
        if facts is not None:
            rules, nms = self._answer_rules(target), _nms(config)
            return NetworkDetector(
                path,
                facts,
                config.uri,
                rules,
                config.threads,
                device,
                nms=nms,
                compiler=config.compiler,
            )
        if _nms(config):
            raise ModelError(keeps_its_nms(config.uri))
        if config.compiler is not None:
            raise ModelError(is_not_compiled(config.uri, config.compiler))
        if self.files.kind == "saved-model":
            rules = self._answer_rules(target)
            return SavedModelDetector(path, config.uri, rules, config.threads, device)
        file = TfliteFile(path, config.uri, config.threads)
        rules = self._answer_rules(target, file.facts.labels_text, file.facts.class_count)
        return TfliteDetector(file, rules, config.mean, config.std)

    def _answer_rules(
        self, target: LabelMap, embedded: str | None = None, class_count: int | None = None
    ) -> AnswerRules:
        """What is kept of its answers.

        Args:
            embedded: labels inside the model's file.
            class_count: how many classes the file says it has, if it does.
        """
        config = self.config
        labels = parse_model_labels(*self.classes.labels_with(embedded, config.uri))
        renames = None
        if config.mapping is not None and self.classes.mapping is not None:
            renames = read_mapping(self.classes.mapping, config.mapping)
            if config.mapping not in builtin_mappings():  # ours know several models' names
                check_mapping_keys(renames, labels, config.mapping)
        table = class_table(labels, target, renames, class_count, config.classes)
        return AnswerRules(table, config.score_min, config.max_detections)

    def fingerprint(self, storage: Storage) -> str:
        """SHA-256 (hex) of all that decides its answers: files, labels, mapping, numbers.

        The place of the files, the number of threads, the device and the compiler do not count.
        """
        path = self.files.local(storage)
        digest = hashlib.sha256()
        for file in self.files.contents(storage):
            name = "" if path.is_file() else file.relative_to(path).as_posix()
            with file.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
            digest.update(f"{name}\n{content}\n".encode())
        config = self.config
        parts: list[Any] = [
            self.classes.labels or "",
            self.classes.mapping or "",
            [config.score_min, config.max_detections, config.mean, config.std],
        ]
        if changes := _nms(config):
            parts.append(changes)
        if config.classes is not None:
            parts.append(sorted(config.classes))
        digest.update(json.dumps(parts).encode())
        return digest.hexdigest()


def find_model(config: ModelConfig, storage: Storage) -> FoundModel:
    """Look for a model and its labels, once.

    Raises:
        ModelError: nothing there, or a model of another kind.
        LabelError: no label map or mapping where the config says.
    """
    files = find_model_files(config.uri, storage)
    return FoundModel(config, files, find_class_files(config, files, storage))


def load_detector(
    config: ModelConfig,
    storage: Storage,
    target: LabelMap = STREET_LABELS,
    *,
    device: Device = "auto",
) -> Detector:
    """Find a model and load it on this machine; see `FoundModel.load`."""
    return find_model(config, storage).load(storage, target, device=device)


def _nms(config: ModelConfig) -> dict[str, Any]:
    """What of a network's rules is changed, by the names of PostProcess."""
    given = {
        "iou_max": config.nms.iou_max,
        "soft_nms_sigma": config.nms.soft_sigma,
        "class_agnostic": config.nms.class_agnostic,
    }
    return {name: value for name, value in given.items() if value is not None}
