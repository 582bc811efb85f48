"""The network of a checkpoint for one runtime: calibrated, written, compared with f32."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any, cast

from urbandet_ray.config import ModelConfig
from urbandet_ray.errors import ConfigError
from urbandet_ray.exporting.accuracy import decoded, has_labels, measure_accuracy
from urbandet_ray.exporting.conversion import write_network
from urbandet_ray.exporting.tracing import TracedNetwork, trace_network
from urbandet_ray.frames import Image
from urbandet_ray.label_files import read_labels
from urbandet_ray.models.loader import load_detector
from urbandet_ray.models.network.facts import (
    Accuracy,
    NetworkFacts,
    Precision,
    Resizing,
    Runtime,
    write_facts,
)
from urbandet_ray.models.network.runtimes import computes_in
from urbandet_ray.models.odapi import last_checkpoint
from urbandet_ray.records.sources import list_sources
from urbandet_ray.storage import Storage

CALIBRATION_FRAMES = 128
"""NNCF's own default is 300; ranges of street frames hardly move after a hundred."""


def export_network(
    config: Any,
    checkpoint: Path,
    made: Path,
    *,
    format: str,
    precision: Precision,
    calibrate: str | None,
    check: str | None,
    storage: Storage,
) -> Accuracy | None:
    """Write a network for batches into a folder that holds its label map already.

    Args:
        config: the run's TrainEvalPipelineConfig message.
        checkpoint: folder with the checkpoint.
        made: the export's folder.
        format, precision: a runtime, and what it computes in.
        calibrate: records or images for int8.
        check: labelled records to compare it on with the same weights in f32.
        storage: opens both.

    Returns:
        What the precision costs; None without `check`.

    Raises:
        ConfigError: nothing to calibrate on, or no labels to check with.
        ModelError: the model does not go into that format.
    """
    runtime = cast("Runtime", format)
    if check is not None:
        _refuse_no_comparison(check, runtime, precision, storage)
    frames = _calibration_frames(calibrate, storage) if calibrate else []
    network = trace_network(config, last_checkpoint(checkpoint))
    facts = write_network(
        network,
        made,
        runtime=runtime,
        precision=precision,
        frames=frames,
        calibrated_on=calibrate,
    )
    if check is None:
        return None
    accuracy = _compare(network, made, check, storage)
    write_facts(replace(facts, accuracy=accuracy), made)
    return accuracy


def _refuse_no_comparison(
    check: str, runtime: Runtime, precision: Precision, storage: Storage
) -> None:
    """Say before minutes of work what would keep the export from being compared.

    Raises:
        ConfigError: this processor lacks the precision, or the first good record has no labels.
    """
    asked = NetworkFacts(  # two of them say what it computes in
        runtime=runtime, precision=precision, answers="raw", resizing=Resizing(1, 1), rules=None
    )
    able = computes_in(asked)
    if able != precision:
        raise ConfigError(
            f"this processor computes in {able} instead of {precision}, so --check would measure "
            "nothing: export on a machine that has it, or leave --check out"
        )
    if not has_labels(list_sources(check, storage), storage):
        raise ConfigError(f"{check} carries no labels: name records with labels (--check)")


def _compare(network: TracedNetwork, made: Path, check: str, storage: Storage) -> Accuracy:
    """mAP of the export, and of the network as TensorFlow runs it in f32."""
    labels_file = made / "label_map.pbtxt"
    labels = read_labels(str(labels_file), storage)

    def figures(folder: Path) -> tuple[float, int]:
        model = ModelConfig(uri=str(folder), labels=str(labels_file))
        metrics = measure_accuracy(load_detector(model, storage, labels), check, storage)
        if metrics.map is None:
            raise ConfigError(f"{check} has no labelled box: name records with labels (--check)")
        return metrics.map, metrics.frames

    with tempfile.TemporaryDirectory(prefix="urbandet-reference-") as scratch:
        write_network(network, Path(scratch), runtime="savedmodel", precision="f32")
        reference, frames = figures(Path(scratch))
    return Accuracy(figures(made)[0], reference, frames, check)


def _calibration_frames(uri: str, storage: Storage) -> Sequence[Image]:
    """Frames from all over the data, all of one size."""
    sources = list_sources(uri, storage)
    each = ceil(CALIBRATION_FRAMES / max(len(sources), 1))
    frames: list[Image] = []
    for source in sources[:: ceil(len(sources) / CALIBRATION_FRAMES)]:
        for _, _, image in islice(decoded(source, storage), each):
            if not frames or image.shape == frames[0].shape:
                frames.append(image)
    if not frames:
        raise ConfigError(f"no frame in {uri} to calibrate int8 on: name records or images")
    return frames[:CALIBRATION_FRAMES]
