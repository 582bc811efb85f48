"""`urbandet export`: a training run's checkpoint as a model that everything else can run."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from urbandet_ray.errors import ConfigError, ModelError, NotFoundError, StorageError
from urbandet_ray.models.odapi import (
    export_saved_model,
    export_tflite,
    open_odapi,
    read_pipeline_config,
)
from urbandet_ray.storage import Storage, join_uri
from urbandet_ray.storage.uris import parse_uri
from urbandet_ray.training.pruning import round_checkpoint, round_tflite

Format = Literal["savedmodel", "tflite"]
Weights = Literal["float32", "bfloat16", "float16"]
MARKER = "export.json"
"""Written last: a folder without it holds no whole export."""

_CONFIG, _LABELS, _STATE = "pipeline.config", "label_map.pbtxt", "state.json"
_NUMBERED = re.compile(r"(ckpt-(\d+))\.index")


@dataclass(frozen=True)
class ExportReport:
    """What was exported, and where it lies.

    Attributes:
        model: what `urbandet infer --model` takes; its label map lies beside it.
        folder: holds everything of the export.
        checkpoint: what it was made from.
        state: that checkpoint's state.json, {} where there is none.
        weights: what they are rounded to.
    """

    model: str
    folder: str
    checkpoint: str
    state: dict[str, Any]
    weights: Weights = "float32"

    def to_text(self) -> str:
        """Where it is, and the command that uses it."""
        told = [f"step {self.state['step']}"] if "step" in self.state else []
        if self.state.get("mAP") is not None:
            told.append(f"mAP {self.state['mAP']:.3f}")
        if self.weights != "float32":
            told.append(f"{self.weights} weights")
        of = f" ({', '.join(told)})" if told else ""
        return f"exported {self.checkpoint}{of}\nurbandet infer --model {self.model}"


def export(
    run_uri: str,
    *,
    out: str | None = None,
    storage: Storage,
    checkpoint: Literal["best", "last"] = "best",
    format: Format = "savedmodel",
    weights: Weights = "float32",
) -> ExportReport:
    """Export a run's checkpoint with the OD API's own exporter.

    The export appears whole or not at all; an earlier one at the same place is replaced.

    Args:
        run_uri: training run folder, local or s3://.
        out: folder of the export; None is exports/CHECKPOINT-FORMAT in the run folder, with
            their name behind it where weights are rounded.
        storage: opens both.
        checkpoint: which of the run's.
        format: a SavedModel, or a TFLite file (SSDs alone).
        weights: float32 as trained; rounded to bfloat16 and still stored as float32, so that
            whatever runs the one runs the other (deflated it takes about half; in a TFLite file
            the kernels are); or float16, in a TFLite file of half the size.

    Raises:
        ConfigError: an unknown format, checkpoint or kind of weights, or a folder that holds
            something else.
        NotFoundError: no such run, or no checkpoint in it yet.
        ModelError: the model does not go into that format.
    """
    if checkpoint not in ("best", "last"):
        raise ConfigError(f"checkpoint is {checkpoint!r}: give best or last")
    if format not in ("savedmodel", "tflite"):
        raise ConfigError(f"format is {format!r}: give savedmodel or tflite")
    if weights not in ("float32", "bfloat16", "float16"):
        raise ConfigError(f"weights is {weights!r}: give float32, bfloat16 or float16")
    if weights == "float16" and format != "tflite":
        raise ConfigError("float16 weights are for tflite: give bfloat16, or --format tflite")
    name = f"{checkpoint}-{format}" + ("" if weights == "float32" else f"-{weights}")
    target = (out or join_uri(run_uri, "exports", name)).rstrip("/")
    _check_target(target, storage)
    with tempfile.TemporaryDirectory(prefix="urbandet-export-") as scratch:
        source, made = Path(scratch) / "run", Path(scratch) / "export"
        prefix = _fetch(run_uri, checkpoint, storage, source)
        model = _export(source, made, format, weights, prefix)
        state = _read_state(source / "checkpoint" / _STATE)
        shutil.copyfile(source / _LABELS, made / _LABELS)
        marker = {"model": model, "run": run_uri, "checkpoint": prefix, "weights": weights}
        (made / MARKER).write_text(json.dumps(marker | {"state": state}, indent=2), "utf-8")
        _publish(made, target, storage)
    return ExportReport(join_uri(target, model), target, join_uri(run_uri, prefix), state, weights)


def _fetch(run_uri: str, checkpoint: str, storage: Storage, folder: Path) -> str:
    """Bring config, labels and one checkpoint here; the checkpoint's place in the run."""
    for name in (_CONFIG, _LABELS):
        try:
            storage.download_file(join_uri(run_uri, name), folder / name)
        except NotFoundError as error:
            raise NotFoundError(
                f"no training run of an OD API model at {run_uri}: there is no {name} in it; give "
                "the run folder that `urbandet train` wrote"
            ) from error
    place = join_uri(run_uri, checkpoint)
    names = _names(place, storage)
    prefix = _chosen(names, place, storage)
    if prefix is None:
        other = "last" if checkpoint == "best" else "best"
        hint = "train first"
        if _chosen(_names(join_uri(run_uri, other), storage), "", None):
            hint = f"there is one in {other}/: export with --checkpoint {other}"
        raise NotFoundError(f"no checkpoint in {place} yet: {hint}")
    for name in names:
        if name == _STATE or name.startswith((f"{prefix}.index", f"{prefix}.data-")):
            storage.download_file(join_uri(place, name), folder / "checkpoint" / name)
    # the run's own state file may name the folder of the machine that trained
    (folder / "checkpoint" / "checkpoint").write_text(f'model_checkpoint_path: "{prefix}"\n')
    return f"{checkpoint}/{prefix}"


def _names(place: str, storage: Storage) -> list[str]:
    """Names of the files right in a folder; none where there is no folder."""
    try:
        files = list(storage.list_files(f"{place}/"))
    except NotFoundError:
        return []
    return [file.uri.rsplit("/", 1)[1] for file in files]


def _chosen(names: list[str], place: str, storage: Storage | None) -> str | None:
    """The checkpoint that the state file names, else the one with the highest number."""
    found = {match[1]: int(match[2]) for name in names if (match := _NUMBERED.fullmatch(name))}
    whole = [one for one in found if any(name.startswith(f"{one}.data-") for name in names)]
    if storage is not None and "checkpoint" in names:
        text = storage.read_bytes(join_uri(place, "checkpoint")).decode("utf-8", "replace")
        named = re.search(r'(?m)^model_checkpoint_path: "(?:[^"]*/)?([^"/]+)"', text)
        if named and named[1] in whole:
            return named[1]
    return max(whole, key=lambda one: found[one], default=None)


def _export(source: Path, made: Path, format: Format, weights: Weights, prefix: str) -> str:
    """Run the exporter; the model's name within the export."""
    config = source / _CONFIG
    kind = read_pipeline_config(config).model.WhichOneof("model")
    if format == "tflite" and kind != "ssd":
        raise ModelError(
            f"this run trained a {kind} model: only ssd goes to TFLite; export it as savedmodel"
        )
    checkpoint, rounds = source / "checkpoint", weights == "bfloat16"
    try:
        if format == "tflite":
            half = weights == "float16"
            file = export_tflite(config, checkpoint, made, weights="float16" if half else "float32")
            if rounds:
                file.write_bytes(round_tflite(file.read_bytes()))
            return file.name
        if rounds:
            round_checkpoint(str(checkpoint / prefix.rpartition("/")[2]))
        return export_saved_model(config, checkpoint, made).name
    except (AssertionError, ValueError, open_odapi().tf.errors.OpError) as error:
        detail = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"the run's {prefix} does not restore into the model of its {_CONFIG} ({detail}): it "
            "is damaged, or one of the two is of another run"
        ) from error


def _read_state(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (FileNotFoundError, ValueError):
        return {}


def _check_target(target: str, storage: Storage) -> None:
    names = _names(target, storage)
    if names and MARKER not in names and _LABELS not in names:
        raise ConfigError(
            f"{target} holds {', '.join(names[:3])}, no earlier export: give another folder"
        )


def _publish(made: Path, target: str, storage: Storage) -> None:
    """Put the export in its place, the marker last."""
    place = parse_uri(target)
    if isinstance(place, Path):
        _publish_local(made, place)
        return
    marker = join_uri(target, MARKER)
    storage.delete(marker)
    files = [file for file in sorted(made.rglob("*")) if file.is_file() and file.name != MARKER]
    kept = {join_uri(target, file.relative_to(made).as_posix()): file for file in files}
    for uri, file in kept.items():
        storage.upload_file(file, uri)
    for stale in list(storage.list_files(f"{target}/")):
        if stale.uri not in kept:
            storage.delete(stale.uri)
    storage.upload_file(made / MARKER, marker)


def _publish_local(made: Path, place: Path) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".exporting-", dir=place.parent) as scratch:
            copy = Path(scratch) / "new"
            shutil.copytree(made, copy, copy_function=shutil.copyfile)
            if place.exists():
                place.rename(Path(scratch) / "old")
            copy.rename(place)
    except OSError as error:
        raise StorageError(
            f"cannot write the export to {place}: {error.strerror or error}: free some space, or "
            "name another folder (--out)"
        ) from error
