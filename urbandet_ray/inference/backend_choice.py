"""`backend: auto`: the exports of a run compete on the target machine, once.

candidates: the model itself, or all exports of the run folder that it names
left out:   what costs mAP, was never checked for it, or does not run here
the fastest setting stands in the run folder's backend.json; a resumed run takes it from there
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

from urbandet_ray.config import InferConfig
from urbandet_ray.errors import (
    ConfigError,
    InputError,
    MissingExtraError,
    ModelError,
    NotFoundError,
    RecordError,
)
from urbandet_ray.exporting.export_folder import list_exports
from urbandet_ray.frames import Frame
from urbandet_ray.inference.job import InferJob
from urbandet_ray.inference.preparation import detector_loader, device_of, make_job
from urbandet_ray.inference.session import ray_session
from urbandet_ray.inference.tuning import GPU_BATCHES, TRIAL_FRAMES, Trial, Tuning, tune
from urbandet_ray.json_files import read_value, to_json
from urbandet_ray.labels import LabelMap
from urbandet_ray.models.model_files import local_model
from urbandet_ray.models.network.facts import NetworkFacts, is_network, read_facts
from urbandet_ray.models.network.runtimes import computes_in
from urbandet_ray.models.shipped import SHIPPED_URI
from urbandet_ray.records.images import decode_frame
from urbandet_ray.records.sources import Record, Source, read_source
from urbandet_ray.runs.manifest import BACKEND_NAME, InferenceManifest, has_run
from urbandet_ray.runs.run_folder import RunFolder
from urbandet_ray.storage import Storage
from urbandet_ray.tables import text_table

Say = Callable[[str], None]


@dataclass(frozen=True)
class Candidates:
    """Models to choose from.

    Attributes:
        uris: by name.
        left_out: why, by name.
    """

    uris: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """What was asked, tried and chosen; backend.json.

    Attributes:
        asked: the model and settings that the choice was made for.
        uri, threads, batch_size, gpus: the choice; gpus an actor, None as asked.
        trials, left_out, node: how it was made.
    """

    asked: dict[str, Any]
    uri: str
    threads: int
    batch_size: int
    trials: list[dict[str, Any]]
    left_out: dict[str, str]
    node: dict[str, float]
    gpus: float | None = None

    def applied(self, config: InferConfig) -> InferConfig:
        """The config with the choice in it."""
        model = config.model.model_copy(update={"uri": self.uri, "threads": self.threads})
        actors = config.actors
        if self.gpus is not None:
            actors = actors.model_copy(update={"gpus": self.gpus})
        return config.model_copy(
            update={"model": model, "batch_size": self.batch_size, "actors": actors}
        )


def choose_backend(
    config: InferConfig,
    storage: Storage,
    labels: LabelMap,
    sources: Sequence[Source],
    say: Say,
) -> Choice:
    """The choice in the run folder, else a new one, measured.

    Raises:
        ConfigError: the run folder's run was started without a choice, or with another one.
        ModelError: no model there.
        RunError: none of the candidates runs here.
    """
    parts = {"model", "batch_size", "actors", "tiles", "reduced_decode"}
    asked = config.model_dump(include=parts, mode="json")
    asked |= {"draw": config.draw.enabled, "num_cpus": config.ray.num_cpus}
    kept = _kept(RunFolder(config.output, storage), asked)
    if kept is not None:
        say(f"{kept.uri}, {kept.threads} threads, batches of {kept.batch_size}: chosen before")
        return kept
    found = candidates(config.model.uri, storage)
    say(f"measuring {', '.join(found.uris) or 'nothing'}: once, some minutes")
    jobs = {name: partial(_job, config, uri, storage, labels) for name, uri in found.uris.items()}
    with ray_session(config.ray):
        tuning = tune(
            jobs,
            _sample(sources, storage, config),
            gpus=config.actors.gpus,
            actors=(config.actors.min, config.actors.max),
            threads=config.model.threads if "threads" in config.model.model_fields_set else None,
            batch_size=config.batch_size,
            on_trial=lambda trial: say(
                ", ".join(_row(trial)[:3]) + f": {trial.frames_per_s:.1f}/s"
            ),
        )
    left_out = found.left_out | dict(tuning.failed)
    say(to_table(tuning, left_out))
    best = tuning.fastest()
    return Choice(
        asked=asked,
        uri=found.uris[best.model],
        threads=best.threads,
        batch_size=best.batch_size,
        trials=[asdict(trial) for trial in tuning.trials],
        left_out=left_out,
        node=dict(tuning.node),
        gpus=best.gpus,
    )


def keep_choice(choice: Choice, folder: RunFolder) -> None:
    """Write backend.json, unless a run is in the folder already."""
    if not has_run(folder.uri, folder.storage, InferenceManifest):
        folder.storage.write_bytes(folder.path(BACKEND_NAME), to_json(asdict(choice)))


def candidates(uri: str, storage: Storage) -> Candidates:
    """What a model's URI offers to choose from.

    Raises:
        ModelError: neither a model nor a run folder with exports.
    """
    try:
        if uri == SHIPPED_URI or local_model(uri, storage):
            return Candidates({uri.rstrip("/").rpartition("/")[2]: uri})
    except ModelError:
        exports = list_exports(uri, storage)
        if not exports:
            raise
    best = any(export.is_best for export in exports)
    found = Candidates()
    for export in exports:
        why = None
        if best and not export.is_best:
            why = "of the last checkpoint, not the best"
        elif facts := _facts(export.model, storage):
            why = facts if isinstance(facts, str) else _objection(facts)
        elif export.precision != "f32":
            why = "rounded weights are not faster"
        if why is None:
            found.uris[export.name] = export.model
        else:
            found.left_out[export.name] = why
    if not found.uris:
        reasons = "; ".join(f"{name}: {why}" for name, why in found.left_out.items())
        raise ModelError(f"no export in {uri} can be chosen ({reasons}): urbandet export {uri}")
    return found


def _facts(model: str, storage: Storage) -> NetworkFacts | str | None:
    """What a network says of itself, why it cannot be used, or None for any other model."""
    try:
        path = local_model(model, storage)
        return read_facts(path, model) if is_network(path) else None
    except ModelError as error:
        return str(error)


def _objection(facts: NetworkFacts) -> str | None:
    try:
        if computes_in(facts) != facts.precision:
            return f"this processor does not compute in {facts.precision}"
    except MissingExtraError as error:
        return str(error)
    return facts.objection()


def _kept(folder: RunFolder, asked: dict[str, Any]) -> Choice | None:
    """The run folder's choice; None where there is none and no run."""
    place, remedy = folder.path(BACKEND_NAME), "Delete it to measure again"
    begun = has_run(folder.uri, folder.storage, InferenceManifest)
    try:
        kept = read_value(place, folder.storage, Choice, remedy)
    except NotFoundError:
        if begun:
            raise ConfigError(
                f"the run in {folder.uri} was started without backend=auto: leave it out to "
                "resume, or choose another output folder"
            ) from None
        return None
    if kept.asked == asked:
        return kept
    if begun:
        others = {key for key in asked if kept.asked.get(key) != asked[key]}
        told = "; ".join(f"{key} {kept.asked.get(key)}, not {asked[key]}" for key in sorted(others))
        raise ConfigError(
            f"the run in {folder.uri} chose its backend for {told}: repeat its settings to "
            "resume, or choose another output folder"
        )
    return None


def _job(
    config: InferConfig, uri: str, storage: Storage, labels: LabelMap, threads: int
) -> InferJob:
    model = config.model.model_copy(update={"uri": uri, "threads": threads})
    config = config.model_copy(update={"model": model})
    load = detector_loader(config, device_of(config, storage), storage, labels)
    return make_job(config, storage, labels, load)


def _sample(sources: Sequence[Source], storage: Storage, config: InferConfig) -> list[Record]:
    """Good records of the first sources, as many as a trial wants."""

    def good() -> Iterator[Record]:
        for source in sources:
            for record in read_source(source, storage):
                frame = record.frame
                if frame is not None and _decodes(frame, config.max_pixels):
                    kept = frame if config.draw.truth else replace(frame, truth=None)
                    yield replace(record, raw=b"", frame=kept)

    sample = list(islice(good(), max(TRIAL_FRAMES, *GPU_BATCHES)))
    if not sample:
        raise InputError("backend=auto has no frame to measure on: the input holds no good record")
    return sample


def _decodes(frame: Frame, max_pixels: int) -> bool:
    try:
        decode_frame(frame, max_pixels=max_pixels)
    except RecordError:
        return False
    return True


def to_table(tuning: Tuning, left_out: dict[str, str]) -> str:
    """The trials, the fastest first, then what was left out."""
    ranked = sorted(tuning.trials, key=lambda trial: -trial.frames_per_s)
    heads = ("model", "threads x actors", "batch", "frames/s", "ms in the model")
    text = text_table([heads, *(_row(trial) for trial in ranked)])
    notes = [f"left out: {name}: {why}" for name, why in left_out.items()]
    return "\n".join([text, *notes])


def _row(trial: Trial) -> tuple[str, ...]:
    share = f", {trial.gpus:g} GPU each" if trial.gpus else ""
    return (
        trial.model,
        f"{trial.threads} x {trial.actors}{share}",
        str(trial.batch_size),
        f"{trial.frames_per_s:.1f}",
        f"{trial.model_ms:.1f}",
    )
