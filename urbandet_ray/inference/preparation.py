"""From the config of an inference to what its actors get, and to what run.json says of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from urbandet_ray.config import InferConfig
from urbandet_ray.inference.job import InferJob
from urbandet_ray.json_files import digest
from urbandet_ray.labels import LabelMap
from urbandet_ray.models.classes import builtin_mappings
from urbandet_ray.models.detector import Detector
from urbandet_ray.models.devices import Device
from urbandet_ray.models.loader import FoundModel
from urbandet_ray.models.model_files import ModelFiles
from urbandet_ray.models.shipped import SHIPPED_URI
from urbandet_ray.models.tiles import load_tiled
from urbandet_ray.records.input_contents import InputContents
from urbandet_ray.records.sources import Source
from urbandet_ray.runs.manifest import InferenceManifest
from urbandet_ray.storage import Storage, absolute_uri
from urbandet_ray.version import __version__


def with_absolute_places(config: InferConfig) -> InferConfig:
    """Workers may have another working directory."""
    model = config.model
    places: dict[str, Any] = {}
    if model.uri != SHIPPED_URI:
        places["uri"] = absolute_uri(model.uri)
    if model.labels is not None:
        places["labels"] = absolute_uri(model.labels)
    if model.mapping is not None and model.mapping not in builtin_mappings():
        places["mapping"] = absolute_uri(model.mapping)
    coco = None if config.coco_images is None else absolute_uri(config.coco_images)
    return config.model_copy(
        update={
            "coco_images": coco,
            "input": absolute_uri(config.input),
            "output": absolute_uri(config.output),
            "model": model.model_copy(update=places),
        }
    )


def detector_loader(
    config: InferConfig, found: FoundModel, device: Device, storage: Storage, labels: LabelMap
) -> Callable[[], Detector]:
    """What makes the detector, tiled where the config says so; it travels to every actor."""
    model = config.model
    load = partial(found.load, storage, labels, device=device)
    if not config.tiles.is_on:
        return load
    return partial(
        load_tiled,
        load,
        config.tiles,
        max_detections=model.max_detections,
        score_min=model.score_min,
    )


def look_at_model(
    config: InferConfig, found: FoundModel, storage: Storage, labels: LabelMap
) -> Detector:
    """Load the model in this process: one that does not fit says so before a cluster is started.

    On the CPU, as GPUs may be on the cluster alone; so what TensorRT would compile is not compiled.

    Raises:
        ModelError, LabelError, MissingExtraError: why it cannot be used.
    """
    if found.config.compiler == "tensorrt":
        found = replace(found, config=found.config.model_copy(update={"compiler": None}))
    return detector_loader(config, found, "cpu", storage, labels)()


def make_job(
    config: InferConfig, found: FoundModel, storage: Storage, labels: LabelMap
) -> InferJob:
    """What readers and actors need to know about the run.

    Raises:
        ModelError: reduced_decode with a model that is no network.
    """
    device: Device = "gpu" if config.actors.gpus and found.files.knows_gpus else "cpu"
    load = detector_loader(config, found, device, storage, labels)
    return InferJob(config, storage, load, labels, _least_wh(config, found.files))


def _least_wh(config: InferConfig, files: ModelFiles) -> tuple[int, int] | None:
    if not config.reduced_decode:
        return None
    return files.input_wh


def make_manifest(
    config: InferConfig,
    found: FoundModel,
    storage: Storage,
    labels: LabelMap,
    sources: Sequence[Source],
    contents: InputContents | None = None,
) -> InferenceManifest:
    """run.json: the same settings over the same input give the same bytes.

    Tiles, reduced_decode and sample stand in it where they are on; else nothing says that they
    could be.
    """
    parts = {"batch_size", "max_pixels", "draw", "shard"}
    if config.tiles.is_on:
        parts.add("tiles")
    if config.reduced_decode:
        parts.add("reduced_decode")
    if config.sample.is_on:
        parts.add("sample")
    results = config.model_dump(include=parts, mode="json")
    listing = [[s.name, s.kind, s.size_bytes, s.version] for s in sources]
    return InferenceManifest(
        version=__version__,
        input=config.input,
        model=config.model.model_dump(mode="json"),
        labels=labels,
        settings=results,
        sources=len(sources),
        size_bytes=sum(source.size_bytes for source in sources),
        fingerprint={
            "model": found.fingerprint(storage),
            "settings": digest([results, labels.to_dict()]),
            "input": digest(listing),
        },
        files={} if contents is None else contents.to_dict(),
    )
