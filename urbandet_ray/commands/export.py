"""`urbandet export`: a training run's checkpoint as a model that everything else can run."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from urbandet_ray.errors import ConfigError, ModelError, NotFoundError, StorageError, first_line
from urbandet_ray.exporting.network_export import export_network
from urbandet_ray.labels import LabelMap
from urbandet_ray.models.network.facts import (
    PRECISIONS,
    Accuracy,
    Precision,
    check_precision,
    lost_accuracy,
)
from urbandet_ray.models.odapi import (
    export_saved_model,
    export_tflite,
    open_odapi,
)
from urbandet_ray.models.pipeline_config import read_pipeline
from urbandet_ray.storage import Storage, join_uri
from urbandet_ray.storage.uris import parse_uri
from urbandet_ray.training.optimisation.pruning import round_checkpoint, round_tflite

Format = Literal["stock", "stock-tflite", "savedmodel", "openvino", "onnx", "tflite"]
STOCK: dict[str, tuple[Precision, ...]] = {
    "stock": ("f32", "bf16"),
    "stock-tflite": ("f32", "bf16", "fp16"),
}
"""What the OD API's own exporters write, and how its weights are rounded."""

MARKER = "export.json"
"""Written last: a folder without it holds no whole export."""

_UNFINISHED = "export.unfinished"
"""On S3, where a folder cannot appear at once: here an export was begun, and may be replaced."""

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
        precision: what it computes in, or in a stock export what the weights are rounded to.
        accuracy: what that costs, where it was measured.
    """

    model: str
    folder: str
    checkpoint: str
    state: dict[str, Any]
    precision: Precision = "f32"
    accuracy: Accuracy | None = None

    def to_text(self) -> str:
        """Where it is, what it costs, and the command that uses it."""
        told = [f"step {self.state['step']}"] if "step" in self.state else []
        if self.state.get("mAP") is not None:
            told.append(f"mAP {self.state['mAP']:.3f}")
        if self.precision != "f32":
            told.append(self.precision)
        of = f" ({', '.join(told)})" if told else ""
        lines = [f"exported {self.checkpoint}{of}"]
        if self.accuracy is not None:
            lines.append(lost_accuracy(self.precision, self.accuracy))
        return "\n".join([*lines, f"urbandet infer --model {self.model}"])


def export(
    run_uri: str,
    *,
    out: str | None = None,
    storage: Storage,
    checkpoint: Literal["best", "last"] = "best",
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
    _check_target(target, storage)
    with tempfile.TemporaryDirectory(prefix="urbandet-export-") as scratch:
        source, made = Path(scratch) / "run", Path(scratch) / "export"
        prefix = _fetch(run_uri, checkpoint, storage, source)
        made.mkdir()
        network: dict[str, Any] = {"calibrate": calibrate, "check": check, "storage": storage}
        model, accuracy = _make(source, made, prefix, format, precision, network)
        state = _read_state(source / "checkpoint" / _STATE)
        marker = {"model": model, "run": run_uri, "checkpoint": prefix, "precision": precision}
        (made / MARKER).write_text(json.dumps(marker | {"state": state}, indent=2), "utf-8")
        _publish(made, target, storage)
    place = join_uri(target, model) if model else target
    return ExportReport(place, target, join_uri(run_uri, prefix), state, precision, accuracy)


def _make(
    source: Path,
    made: Path,
    prefix: str,
    format: str,
    precision: Precision,
    network: dict[str, Any],
) -> tuple[str, Accuracy | None]:
    """Fill the export's folder; the model's name in it ("" is the folder), and what was measured.

    Args:
        network: what `export_network` takes beside.
    """
    config, checkpoint = read_pipeline(source / _CONFIG).message, source / "checkpoint"
    (made / _LABELS).write_text(_all_labels(source / _LABELS, config.model), "utf-8")
    if format in STOCK:
        return _export_stock(config, checkpoint, made, format, precision, prefix), None
    return "", export_network(
        config, checkpoint, made, format=format, precision=precision, **network
    )


def _all_labels(file: Path, model: Any) -> str:
    """The run's label map, with a name for the outputs behind its end too.

    With num_classes 4 and ids 1 to 3 the model answers 4 now and then, which is no class of ours.
    Whoever reads the answer has to know it, to tell it from a label map of another model.
    """
    text = file.read_text("utf-8")
    named = LabelMap.parse(text, _LABELS).names
    outputs = int(open_odapi().config_util.get_number_of_classes(model))
    unused = "".join(
        f'item {{\n  id: {one}\n  name: "unused_{one}"\n}}\n'
        for one in range(max(named) + 1, outputs + 1)
    )
    return f"{text.rstrip()}\n{unused}" if unused else text


def _check_format(format: str, precision: str, calibrate: str | None, check: str | None) -> None:
    if format in STOCK:
        if check is not None:
            raise ConfigError(
                f"--check compares a network with the same weights in f32, and {format} is none: "
                "export it, then use urbandet bench"
            )
        if precision not in STOCK[format]:
            raise ConfigError(
                f"a {format} export is not made at {precision}: give {' or '.join(STOCK[format])}, "
                "or another format"
            )
    elif format in PRECISIONS:
        check_precision(format, precision)
    else:
        raise ConfigError(f"format is {format!r}: give one of {', '.join((*STOCK, *PRECISIONS))}")
    if (precision == "int8") != (calibrate is not None):
        raise ConfigError(
            "int8 is calibrated on frames like those it will see, and nothing else is: name "
            "records or images with --calibrate, together with --precision int8"
        )


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
    """Names of the files in a folder and below; none where there is no folder."""
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


def _export_stock(
    config: Any, checkpoint: Path, made: Path, format: str, precision: Precision, prefix: str
) -> str:
    """Run the OD API's exporter; the model's name within the export."""
    kind = config.model.WhichOneof("model")
    if format == "stock-tflite" and kind != "ssd":
        raise ModelError(
            f"this run trained a {kind} model: only ssd goes to TFLite; export it as stock"
        )
    rounds = precision == "bf16"
    try:
        if format == "stock-tflite":
            half = precision == "fp16"
            file = export_tflite(config, checkpoint, made, weights="float16" if half else "float32")
            if rounds:
                file.write_bytes(round_tflite(file.read_bytes()))
            return file.name
        if rounds:
            round_checkpoint(str(checkpoint / prefix.rpartition("/")[2]))
        return export_saved_model(config, checkpoint, made).name
    except (AssertionError, ValueError, open_odapi().tf.errors.OpError) as error:
        detail = first_line(error)
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
    """Refuse a folder of anything else, since publishing replaces all that is in it."""
    names = _names(target, storage)
    ours = any(storage.exists(join_uri(target, name)) for name in (MARKER, _UNFINISHED))
    if names and not ours:
        raise ConfigError(
            f"{target} holds {', '.join(names[:3])}, no earlier export: give another folder"
        )


def _publish(made: Path, target: str, storage: Storage) -> None:
    """Put the export in its place, the marker last."""
    place = parse_uri(target)
    if isinstance(place, Path):
        _publish_local(made, place)
        return
    marker, begun = join_uri(target, MARKER), join_uri(target, _UNFINISHED)
    storage.write_bytes(begun, b"")
    storage.delete(marker)
    files = [file for file in sorted(made.rglob("*")) if file.is_file() and file.name != MARKER]
    kept = {join_uri(target, file.relative_to(made).as_posix()): file for file in files}
    for uri, file in kept.items():
        storage.upload_file(file, uri)
    for stale in list(storage.list_files(f"{target}/")):
        if stale.uri not in kept and stale.uri != begun:
            storage.delete(stale.uri)
    storage.upload_file(made / MARKER, marker)
    storage.delete(begun)


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
