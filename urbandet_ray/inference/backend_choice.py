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

from urbandet_ray.config import InferConfig, ModelConfig
from urbandet_ray.errors import (
    ConfigError,
    InputError,
    LabelError,
    MissingExtraError,
    ModelError,
    NotFoundError,
    RecordError,
)
from urbandet_ray.exporting.export_folder import Export, list_exports
from urbandet_ray.frames import Frame
from urbandet_ray.inference.job import InferJob
from urbandet_ray.inference.preparation import make_job
from urbandet_ray.inference.session import ray_session
from urbandet_ray.inference.tuning import GPU_BATCHES, TRIAL_FRAMES, Trial, Tuning, tune
from urbandet_ray.json_files import read_value, to_json
from urbandet_ray.labels import LabelMap
from urbandet_ray.models.loader import FoundModel, find_model
from urbandet_ray.models.network.facts import NetworkFacts
from urbandet_ray.models.network.runtimes import computes_in
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
        models: by name.
        left_out: why, by name.
    """

    models: dict[str, FoundModel] = field(default_factory=dict)
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
) -> tuple[Choice, FoundModel]:
    """The choice in the run folder, else a new one, measured; and the model that it chose.

    Raises:
        ConfigError: the run folder's run was started without a choice, or with another one.
        ModelError: no model there.
        RunError: none of the candidates runs here.
    """
    kept = _kept(RunFolder(config.output, storage), _asked(config))
    if kept is not None:
        say(f"{kept.uri}, {kept.threads} threads, batches of {kept.batch_size}: chosen before")
        return kept, find_model(kept.applied(config).model, storage)
    found = candidates(config.model, storage)
    return measure_candidates(config, found, storage, labels, sources, say)


def _asked(config: InferConfig) -> dict[str, Any]:
    """What a choice was made for."""
    parts = {"model", "batch_size", "actors", "tiles", "reduced_decode"}
    asked = config.model_dump(include=parts, mode="json")
    return asked | {"draw": config.draw.enabled, "num_cpus": config.ray.num_cpus}


def measure_candidates(
    config: InferConfig,
    found: Candidates,
    storage: Storage,
    labels: LabelMap,
    sources: Sequence[Source],
    say: Say,
) -> tuple[Choice, FoundModel]:
    """The fastest of the candidates with its settings, and the model itself.

    Raises:
        InputError: no frame to measure on.
        RunError: none of the candidates runs here.
    """
    say(f"measuring {', '.join(found.models) or 'nothing'}: once, some minutes")
    jobs = {
        name: partial(_job, config, model, storage, labels) for name, model in found.models.items()
    }
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
    chosen = found.models[best.model]
    choice = Choice(
        asked=_asked(config),
        uri=chosen.config.uri,
        threads=best.threads,
        batch_size=best.batch_size,
        trials=[asdict(trial) for trial in tuning.trials],
        left_out=left_out,
        node=dict(tuning.node),
        gpus=best.gpus,
    )
    return choice, replace(chosen, config=choice.applied(config).model)


def keep_choice(choice: Choice, folder: RunFolder) -> None:
    """Write backend.json, unless a run is in the folder already."""
    if not has_run(folder.uri, folder.storage, InferenceManifest):
        folder.storage.write_bytes(folder.path(BACKEND_NAME), to_json(asdict(choice)))


def candidates(config: ModelConfig, storage: Storage) -> Candidates:
    """What a model's URI offers to choose from.

    Raises:
        ModelError: neither a model nor a run folder with exports.
        LabelError: no label map or mapping where the config says.
    """
    try:
        model = find_model(config, storage)
        return Candidates({config.uri.rstrip("/").rpartition("/")[2]: model})
    except ModelError:
        exports = list_exports(config.uri, storage)
        if not exports:
            raise
    best = any(export.is_best for export in exports)
    found = Candidates()
    for export in exports:
        if best and not export.is_best:
            found.left_out[export.name] = "of the last checkpoint, not the best"
            continue
        try:
            model = find_model(config.model_copy(update={"uri": export.model}), storage)
        except (ModelError, LabelError) as error:
            found.left_out[export.name] = str(error)
            continue
        if why := _objection(export, model.files.facts):
            found.left_out[export.name] = why
        else:
            found.models[export.name] = model
    if not found.models:
        reasons = "; ".join(f"{name}: {why}" for name, why in found.left_out.items())
        raise ModelError(
            f"no export in {config.uri} can be chosen ({reasons}): urbandet export {config.uri}"
        )
    return found


def _objection(export: Export, facts: NetworkFacts | None) -> str | None:
    """Why nobody should be given an export unasked; None where nothing is against it."""
    if facts is None:
        return None if export.precision == "f32" else "rounded weights are not faster"
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
    config: InferConfig, found: FoundModel, storage: Storage, labels: LabelMap, threads: int
) -> InferJob:
    model = found.config.model_copy(update={"threads": threads})
    config, found = config.model_copy(update={"model": model}), replace(found, config=model)
    return make_job(config, found, storage, labels)


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
