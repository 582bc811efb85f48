"""`urbandet infer`: everything from an input and a config to a complete run folder."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from urbandet_ray import __version__
from urbandet_ray.commands.access import make_storage, place, read_labels
from urbandet_ray.config import InferConfig
from urbandet_ray.errors import ConfigError
from urbandet_ray.inference.job import InferJob, ShardSummary
from urbandet_ray.inference.pipeline import ActorPool, RunResult, run_inference
from urbandet_ray.inference.progress import Progress
from urbandet_ray.inference.session import ray_session
from urbandet_ray.inference.shards import fitting_rule
from urbandet_ray.labels import LabelMap
from urbandet_ray.models.classes import builtin_mappings
from urbandet_ray.models.detector import Detector
from urbandet_ray.models.loading import ModelSpec, load_detector, model_fingerprint
from urbandet_ray.models.shipped import SHIPPED_URI
from urbandet_ray.records.sources import Source, list_sources
from urbandet_ray.storage import Storage, WriterLock, is_remote
from urbandet_ray.storage.run_folder import LOCK_NAME, RunFolder, to_json, unfinished_sources

OK, FAILED, DEAD_LETTERS = 0, 1, 3
"""Exit codes: all done; failed; all done but for dead letters."""


@dataclass(frozen=True)
class InferReport:
    """What a run came to.

    Attributes:
        run: the run folder.
        frames, detections, dead_letters: of the whole run, earlier tries included.
        resumed: an earlier try was continued.
        frames_per_s: of this try, from its first shard to its last; 0 where nothing was left.
        exit_code: 0 all done, 3 done with dead letters.
    """

    run: str
    frames: int
    detections: int
    dead_letters: int
    resumed: bool
    frames_per_s: float
    exit_code: int

    def to_text(self) -> str:
        """One line for a person."""
        text = f"{self.run}: {self.frames} frames, {self.detections} detections"
        text += f", {self.dead_letters} dead letters"
        text += " (see dead_letter/ in it)" if self.dead_letters else ""
        if self.frames_per_s:
            text += f", {self.frames_per_s:.1f} frames/s"
        return text + (" (an earlier try was resumed)" if self.resumed else "")


def infer(
    config: InferConfig, *, on_progress: Callable[[Progress], None] | None = None
) -> InferReport:
    """Detect on every frame of the input and commit results to the run folder.

    Resumes where an earlier try of the same settings stopped.

    Raises:
        UrbandetError: what is wrong, and what to do.
    """
    config = _with_absolute_places(config)
    if config.output.startswith(config.input.rstrip("/") + "/"):
        raise ConfigError(
            f"the output {config.output} lies inside the input {config.input} and would become "
            "part of it: choose a run folder beside it"
        )
    storage = make_storage(config.storage)
    labels = read_labels(config.labels, storage)
    spec = _model_spec(config)
    sources = list_sources(config.input, storage)
    manifest = _manifest(config, spec, storage, labels, sources)
    load = partial(load_detector, spec, storage, labels)
    load()  # a model that does not fit should say so before a cluster is started
    folder = RunFolder(config.output, storage)
    job = _job(config, storage, labels, load)
    with WriterLock(storage, folder.path(LOCK_NAME), "urbandet infer") as lock:
        folder.begin(manifest)
        storage.sweep(folder.uri)

        def watch(progress: Progress) -> None:
            lock.check()
            if on_progress is not None:
                on_progress(progress)

        result = _run(config, job, sources, watch)
        if config.coco:
            from urbandet_ray.commands.coco import write_coco

            write_coco(folder, labels)
        _record_attempt(folder, result)
    return InferReport(
        run=config.output,
        frames=result.frames,
        detections=result.detections,
        dead_letters=result.dead_letters,
        resumed=result.resumed,
        frames_per_s=pace(result.summaries),
        exit_code=DEAD_LETTERS if result.dead_letters else OK,
    )


def _with_absolute_places(config: InferConfig) -> InferConfig:
    """Workers may have another working directory."""
    model = config.model
    places: dict[str, Any] = {}
    if model.uri != SHIPPED_URI:
        places["uri"] = place(model.uri)
    if model.labels is not None:
        places["labels"] = place(model.labels)
    if model.mapping is not None and model.mapping not in builtin_mappings():
        places["mapping"] = place(model.mapping)
    return config.model_copy(
        update={
            "input": place(config.input),
            "output": place(config.output),
            "model": model.model_copy(update=places),
        }
    )


def pace(summaries: Sequence[ShardSummary]) -> float:
    """Frames a second from the first shard's start to the last one's commit; 0 without shards."""
    if not summaries:
        return 0.0
    begin, end = min(s.started for s in summaries), max(s.ended for s in summaries)
    return sum(s.frames for s in summaries) / max(end - begin, 1e-9)


def _run(
    config: InferConfig,
    job: InferJob,
    sources: Sequence[Source],
    on_progress: Callable[[Progress], None],
) -> RunResult:
    pool = ActorPool(
        min=config.actors.min,
        max=config.actors.max,
        gpus=config.actors.gpus,
        shards_in_flight=config.actors.shards_in_flight or (2 if config.actors.gpus else 1),
    )
    rule = fitting_rule(sources, config.shard.megabytes << 20, config.draw.truth)
    if config.shard.frames:
        rule = replace(rule, frames=config.shard.frames, fine_from=None)
    left = unfinished_sources(job.folder().markers(), len(sources))
    session = ray_session(
        config.ray.address,
        num_cpus=config.ray.num_cpus,
        object_store_mb=config.ray.object_store_mb,
    )
    with session if left else nullcontext():  # a finished run needs no cluster
        return run_inference(
            job,
            sources,
            rule,
            pool,
            max_bad_records=config.max_bad_records,
            on_progress=on_progress,
        )


def _model_spec(config: InferConfig) -> ModelSpec:
    model = config.model
    return ModelSpec(
        uri=model.uri,
        labels_uri=model.labels,
        mapping=model.mapping,
        score_min=model.score_min,
        max_detections=model.max_detections,
        threads=model.threads,
        mean=model.mean,
        std=model.std,
    )


def _job(
    config: InferConfig, storage: Storage, labels: LabelMap, load: Callable[[], Detector]
) -> InferJob:
    actors = config.actors
    draw_threads = 4 if actors.gpus or is_remote(config.output) else 0
    return InferJob(
        run_uri=config.output,
        storage=storage,
        make_detector=load,
        labels=labels,
        batch_size=config.batch_size,
        draw=config.draw.enabled,
        draw_score_min=config.draw.score_min,
        draw_truth=config.draw.truth,
        jpeg_quality=config.draw.jpeg_quality,
        max_pixels=config.max_pixels,
        decode_threads=_either(actors.decode_threads, 4 if actors.gpus else 0),
        draw_threads=_either(actors.draw_threads, draw_threads),
    )


def _either(given: int | None, otherwise: int) -> int:
    return otherwise if given is None else given


def _manifest(
    config: InferConfig,
    spec: ModelSpec,
    storage: Storage,
    labels: LabelMap,
    sources: Sequence[Source],
) -> dict[str, Any]:
    """run.json: the same settings over the same input give the same bytes."""
    results = config.model_dump(include={"batch_size", "max_pixels", "draw", "shard"}, mode="json")
    listing = [[s.name, s.kind, s.size_bytes, s.version] for s in sources]
    return {
        "urbandet_ray": __version__,
        "input": config.input,
        "model": config.model.model_dump(mode="json"),
        "labels": {str(class_id): name for class_id, name in labels.names.items()},
        "settings": results,
        "sources": len(sources),
        "size_bytes": sum(source.size_bytes for source in sources),
        "fingerprint": {
            "model": model_fingerprint(spec, storage),
            "settings": _hash([results, dict(labels.names)]),
            "input": _hash(listing),
        },
    }


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _record_attempt(folder: RunFolder, result: RunResult) -> None:
    """Timings of this try; results never depend on them."""
    if not result.summaries:
        return
    shards = [
        {key: value for key, value in asdict(s).items() if key not in ("dead_letters", "failure")}
        for s in result.summaries
    ]
    name = time.strftime("%Y%m%dT%H%M%SZ.json", time.gmtime())
    folder.storage.write_bytes(
        folder.path("attempts", name),
        to_json({"frames_per_s": pace(result.summaries), "shards": shards}),
    )
