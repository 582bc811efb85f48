"""`urbandet export`: a training run's checkpoint as a model that everything else can run."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from urbandet_ray.errors import ConfigError
from urbandet_ray.exporting.export_folder import Export, check_target, publish
from urbandet_ray.exporting.network_export import export_network
from urbandet_ray.exporting.run_checkpoint import Kept, complete_labels, fetch_run_checkpoint
from urbandet_ray.exporting.stock_export import STOCK_PRECISIONS, export_stock
from urbandet_ray.models.network.facts import (
    PRECISIONS,
    Accuracy,
    Precision,
    check_precision,
    lost_accuracy,
)
from urbandet_ray.storage import Storage, join_uri

Format = Literal["stock", "stock-tflite", "savedmodel", "openvino", "onnx", "tflite"]


@dataclass(frozen=True)
class ExportReport:
    """What was exported, and what its precision costs where that was measured."""

    export: Export
    accuracy: Accuracy | None

    @property
    def model(self) -> str:
        """What `urbandet infer --model` takes."""
        return self.export.model

    def to_text(self) -> str:
        """Where it is, what it costs, and the command that uses it."""
        made, state = self.export, self.export.state
        told = [f"step {state['step']}"] if "step" in state else []
        if state.get("mAP") is not None:
            told.append(f"mAP {state['mAP']:.3f}")
        if made.precision != "f32":
            told.append(made.precision)
        of = f" ({', '.join(told)})" if told else ""
        lines = [f"exported {join_uri(made.run, made.checkpoint)}{of}"]
        if self.accuracy is not None:
            lines.append(lost_accuracy(made.precision, self.accuracy))
        return "\n".join([*lines, f"urbandet infer --model {made.model}"])


def export(
    run_uri: str,
    *,
    out: str | None = None,
    storage: Storage,
    checkpoint: Kept = "best",
    format: Format = "stock",
    precision: Precision = "f32",
    calibrate: str | None = None,
    check: str | None = None,
) -> ExportReport:
    """Export a run's checkpoint: with the OD API's own exporter, or as a network for batches.

    The export appears whole or not at all; an earlier one at the same place is replaced.

    Args:
        run_uri: training run folder, local or s3://.
        out: folder of the export; None is exports/CHECKPOINT-FORMAT in the run folder, with the
            precision behind it where it is not f32.
        storage: opens both.
        checkpoint: which of the run's.
        format: stock is the OD API's SavedModel (any of its tools takes it, an image a call),
            stock-tflite its TFLite file (SSDs alone); the others are networks for batches, whose
            post-processing is ours (models/network/facts.py).
        precision: f32 as trained. Of a network, what it computes in (PRECISIONS there). Of a stock
            export, bf16 rounds the weights and stores them as float32, so that whatever runs the
            one runs the other (deflated it takes about half); fp16 stores halves.
        calibrate: records or images that int8's ranges are measured on.
        check: labelled records; the network's mAP on them is compared with the same weights' in
            f32, and kept in the export.

    Raises:
        ConfigError: an unknown format, checkpoint or kind of weights, or a folder that holds
            something else.
        NotFoundError: no such run, or no checkpoint in it yet.
        ModelError: the model does not go into that format.
    """
    if checkpoint not in ("best", "last"):
        raise ConfigError(f"checkpoint is {checkpoint!r}: give best or last")
    _check_format(format, precision, calibrate, check)
    name = f"{checkpoint}-{format}" + ("" if precision == "f32" else f"-{precision}")
    target = (out or join_uri(run_uri, "exports", name)).rstrip("/")
    check_target(target, storage)
    with tempfile.TemporaryDirectory(prefix="urbandet-export-") as scratch:
        made = Path(scratch) / "export"
        made.mkdir()
        trained = fetch_run_checkpoint(run_uri, checkpoint, storage, Path(scratch) / "run")
        (made / trained.label_map.name).write_text(complete_labels(trained), "utf-8")
        model, accuracy = "", None
        if format in STOCK_PRECISIONS:
            model = export_stock(trained, made, format=format, precision=precision)
        else:
            accuracy = export_network(
                trained.pipeline.message,
                trained.checkpoint_folder,
                made,
                format=format,
                precision=precision,
                calibrate=calibrate,
                check=check,
                storage=storage,
            )
        finished = Export(target, model, run_uri, trained.name, precision, trained.state)
        publish(finished, made, storage)
    return ExportReport(finished, accuracy)


def _check_format(format: str, precision: str, calibrate: str | None, check: str | None) -> None:
    if format in STOCK_PRECISIONS:
        if check is not None:
            raise ConfigError(
                f"--check compares a network with the same weights in f32, and {format} is none: "
                "export it, then use urbandet bench"
            )
        if precision not in STOCK_PRECISIONS[format]:
            raise ConfigError(
                f"a {format} export is not made at {precision}: give "
                f"{' or '.join(STOCK_PRECISIONS[format])}, or another format"
            )
    elif format in PRECISIONS:
        check_precision(format, precision)
    else:
        known = ", ".join((*STOCK_PRECISIONS, *PRECISIONS))
        raise ConfigError(f"format is {format!r}: give one of {known}")
    if (precision == "int8") != (calibrate is not None):
        raise ConfigError(
            "int8 is calibrated on frames like those it will see, and nothing else is: name "
            "records or images with --calibrate, together with --precision int8"
        )
