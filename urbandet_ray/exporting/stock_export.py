"""The OD API's own exporters: its SavedModel, and its TFLite file with post-processing inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from urbandet_ray.errors import ModelError, first_line
from urbandet_ray.exporting.rounding import round_checkpoint, round_tflite
from urbandet_ray.exporting.run_checkpoint import RunCheckpoint
from urbandet_ray.exporting.saving import saved_without_layers
from urbandet_ray.models.network.facts import Precision
from urbandet_ray.models.odapi import last_checkpoint, open_odapi

STOCK_PRECISIONS: dict[str, tuple[Precision, ...]] = {
    "stock": ("f32", "bf16"),
    "stock-tflite": ("f32", "bf16", "fp16"),
}
"""The formats, and what their weights are rounded to."""

_MOST_BOXES = 100
"""Boxes a call of the TFLite file; the SavedModel's number stands in its pipeline.config."""


def export_stock(trained: RunCheckpoint, made: Path, *, format: str, precision: Precision) -> str:
    """Run the OD API's exporter.

    Args:
        made: gets saved_model/, checkpoint/ and pipeline.config, or model.tflite and the
            saved_model/ it was converted from.
        format, precision: one of STOCK_PRECISIONS.

    Returns:
        The model's name in `made`.

    Raises:
        NotFoundError: the run has no checkpoint.
        ModelError: the checkpoint is of another model, or the model does not go into the format.
    """
    config = trained.pipeline.message
    kind = config.model.WhichOneof("model")
    if format == "stock-tflite" and kind != "ssd":
        raise ModelError(
            f"this run trained a {kind} model: only ssd goes to TFLite; export it as stock"
        )
    last_checkpoint(trained.checkpoint_folder)
    try:
        if format == "stock-tflite":
            return _export_tflite(config, trained.checkpoint_folder, made, precision)
        if precision == "bf16":
            round_checkpoint(str(trained.prefix))
        return _export_saved_model(config, trained.checkpoint_folder, made)
    except (AssertionError, ValueError, open_odapi().tf.errors.OpError) as error:
        raise ModelError(
            f"the run's {trained.name} does not restore into the model of its pipeline.config "
            f"({first_line(error)}): it is damaged, or one of the two is of another run"
        ) from error


def _export_saved_model(config: Any, checkpoint_folder: Path, made: Path) -> str:
    """uint8 [1, None, None, 3] in, boxes out."""
    with saved_without_layers():
        open_odapi().exporter_lib_v2.export_inference_graph(
            input_type="image_tensor",
            pipeline_config=config,
            trained_checkpoint_dir=str(checkpoint_folder),
            output_directory=str(made),
        )
    return "saved_model"


def _export_tflite(config: Any, checkpoint_folder: Path, made: Path, precision: Precision) -> str:
    """float32 [1, height, width, 3] in [-1, 1] in; boxes (ymin, xmin, ymax, xmax in [0, 1]),
    classes from 0, scores and the count out. Its NMS works across classes."""
    with saved_without_layers():
        open_odapi().export_tflite_lib.export_tflite_model(
            config, str(checkpoint_folder), str(made), _MOST_BOXES, False
        )
    content = _convert_to_tflite(made / "saved_model", halves=precision == "fp16")
    file = made / "model.tflite"
    file.write_bytes(round_tflite(content) if precision == "bf16" else content)
    return file.name


def _convert_to_tflite(saved_model: Path, *, halves: bool) -> bytes:
    tf = open_odapi().tf
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    converter.allow_custom_ops = True
    if halves:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    try:
        return bytes(converter.convert())
    except Exception as error:  # the converter raises its own bare types
        raise ModelError(f"{saved_model} does not convert to TFLite: {error}") from error
