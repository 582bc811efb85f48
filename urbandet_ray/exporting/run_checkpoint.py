"""What an export is made of: one checkpoint of a training run, brought to this machine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from urbandet_ray.errors import NotFoundError
from urbandet_ray.label_files import label_text
from urbandet_ray.labels import LabelMap
from urbandet_ray.models.checkpoint_files import newest_checkpoint
from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.models.pipeline_config import PipelineConfig, read_pipeline
from urbandet_ray.runs.manifest import TrainingManifest, refuse_other_kind
from urbandet_ray.runs.strangers import describe_place
from urbandet_ray.storage import Storage, join_uri

Kept = Literal["best", "last"]
"""Which of a run's checkpoints."""

_CONFIG, _LABELS, _STATE = "pipeline.config", "label_map.pbtxt", "state.json"


@dataclass(frozen=True)
class RunCheckpoint:
    """A local copy of one checkpoint, with what describes its model.

    Attributes:
        folder: holds the copy, and the run's label map.
        name: the checkpoint within the run: "best/ckpt-7".
        pipeline: the run's pipeline.config.
        state: the checkpoint's state.json, {} where there is none.
    """

    folder: Path
    name: str
    pipeline: PipelineConfig
    state: dict[str, Any]

    @property
    def label_map(self) -> Path:
        """The run's classes."""
        return self.folder / _LABELS

    @property
    def checkpoint_folder(self) -> Path:
        """Holds this checkpoint alone."""
        return self.folder / "checkpoint"

    @property
    def prefix(self) -> Path:
        """The checkpoint itself."""
        return self.checkpoint_folder / self.name.rpartition("/")[2]


def fetch_run_checkpoint(run_uri: str, kept: Kept, storage: Storage, folder: Path) -> RunCheckpoint:
    """Bring one checkpoint of a run and its label map into a local folder.

    Raises:
        NotFoundError: no such run, or no checkpoint in it yet.
        ConfigError: the run's pipeline.config is none.
        RunError: it is an inference run, or its run.json is damaged.
    """
    refuse_other_kind(run_uri, storage, TrainingManifest)
    try:
        storage.download_file(join_uri(run_uri, _LABELS), folder / _LABELS)
        pipeline = read_pipeline(join_uri(run_uri, _CONFIG), storage)
    except NotFoundError as error:
        raise NotFoundError(
            f"no training run of an OD API model at {run_uri}: there is no {_CONFIG} with a "
            f"{_LABELS} in it ({describe_place(run_uri, storage)}); give the run folder that "
            "`urbandet train` wrote"
        ) from error
    place = join_uri(run_uri, kept)
    names = _names(place, storage)
    stem = _chosen(names, place, storage)
    if stem is None:
        raise NotFoundError(f"no checkpoint in {place} yet: {_advice(run_uri, kept, storage)}")
    local = folder / "checkpoint"
    for name in names:
        if name == _STATE or name.startswith((f"{stem}.index", f"{stem}.data-")):
            storage.download_file(join_uri(place, name), local / name)
    # the run's own state file may name the folder of the machine that trained
    (local / "checkpoint").write_text(f'model_checkpoint_path: "{stem}"\n')
    return RunCheckpoint(folder, f"{kept}/{stem}", pipeline, _read_state(local / _STATE))


def complete_labels(trained: RunCheckpoint) -> str:
    """The run's label map, with a name for the outputs behind its end too.

    With num_classes 4 and ids 1 to 3 the model answers 4 now and then, which is no class of ours.
    Whoever reads the answer has to know it, to tell it from a label map of another model.

    Raises:
        LabelError: the run's file is no label map.
    """
    text = label_text(trained.label_map.read_bytes(), trained.label_map.name)
    named = LabelMap.parse(text, trained.label_map.name).names
    model = trained.pipeline.message.model
    outputs = int(open_odapi().config_util.get_number_of_classes(model))
    unused = "".join(
        f'item {{\n  id: {one}\n  name: "unused_{one}"\n}}\n'
        for one in range(max(named) + 1, outputs + 1)
    )
    return f"{text.rstrip()}\n{unused}" if unused else text


def _advice(run_uri: str, kept: Kept, storage: Storage) -> str:
    other = "last" if kept == "best" else "best"
    place = join_uri(run_uri, other)
    if _chosen(_names(place, storage), place, storage) is None:
        return "train first"
    return f"there is one in {other}/: export with --checkpoint {other}"


def _names(place: str, storage: Storage) -> list[str]:
    """Names of the files in a folder and below; none where there is no folder."""
    try:
        files = list(storage.list_files(f"{place}/"))
    except NotFoundError:
        return []
    return [file.uri.rsplit("/", 1)[1] for file in files]


def _chosen(names: list[str], place: str, storage: Storage) -> str | None:
    """The name of the checkpoint that state.json names, else of the newest one."""
    if _STATE in names:
        named = _state_in(storage.read_bytes(join_uri(place, _STATE))).get("checkpoint")
        if f"{named}.index" in names and any(one.startswith(f"{named}.data-") for one in names):
            return str(named)
    found = newest_checkpoint((join_uri(place, name) for name in names), storage)
    return found and found.rpartition("/")[2]


def _read_state(path: Path) -> dict[str, Any]:
    return _state_in(path.read_bytes()) if path.exists() else {}


def _state_in(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:  # also for bytes that are no text
        return {}
    return found if isinstance(found, dict) else {}
