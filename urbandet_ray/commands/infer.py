"""`urbandet infer`: everything from an input and a config to a complete run folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace

from urbandet_ray.commands.coco_names import CocoIds, frame_paths
from urbandet_ray.config import InferConfig
from urbandet_ray.evaluation.results_file import counted, write_coco
from urbandet_ray.inference.backend_choice import choose_backend, keep_choice
from urbandet_ray.inference.job import InferJob, ShardSummary
from urbandet_ray.inference.pipeline import RunResult, run_inference
from urbandet_ray.inference.preparation import (
    look_at_model,
    make_job,
    make_manifest,
    with_absolute_places,
)
from urbandet_ray.inference.progress import Progress
from urbandet_ray.inference.session import ray_session
from urbandet_ray.inference.shards import CutRule, fitting_rule
from urbandet_ray.inference.track_files import TrackReport, write_tracks
from urbandet_ray.inference.tracks import tracker_version
from urbandet_ray.json_files import to_json
from urbandet_ray.label_files import read_labels
from urbandet_ray.models.loader import find_model
from urbandet_ray.records.input_contents import list_input
from urbandet_ray.records.sampling import check_sample
from urbandet_ray.records.sources import Source
from urbandet_ray.runs.completeness import find_losses
from urbandet_ray.runs.lock import LOCK_NAME, WriterLock
from urbandet_ray.runs.manifest import begin_run
from urbandet_ray.runs.run_folder import (
    TRACKS_NAME,
    RunFolder,
    unfinished_sources,
)
from urbandet_ray.storage import Storage

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
        tracks: how many the detections belong to; None where they were not tracked.
        doubts: frames that the strict decoder refused and the tolerant one took; attempts/ in the
            run folder names them.
    """

    run: str
    frames: int
    detections: int
    dead_letters: int
    resumed: bool
    frames_per_s: float
    exit_code: int
    tracks: int | None = None
    doubts: int = 0

    def to_text(self) -> str:
        """One line for a person."""
        text = f"{self.run}: {self.frames} frames, {self.detections} detections"
        text += "" if self.tracks is None else f", {self.tracks} tracks"
        text += f", {self.dead_letters} dead letters"
        text += " (see dead_letter/ in it)" if self.dead_letters else ""
        if self.doubts:
            text += f", {self.doubts} by the tolerant decoder (named in attempts/)"
        if self.frames_per_s:
            text += f", {self.frames_per_s:.1f} frames/s"
        return text + (" (an earlier try was resumed)" if self.resumed else "")


def infer(
    config: InferConfig,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> InferReport:
    """Detect on every frame of the input and commit results to the run folder.

    Resumes where an earlier try of the same settings stopped.

    Args:
        config: what to do.
        on_progress: told of each shard.
        say: told what is read and left out, what backend=auto measures and chooses, and of GPUs
            that stay idle.

    Raises:
        UrbandetError: what is wrong, and what to do.
    """
    config = with_absolute_places(config)
    if config.track.enabled:
        tracker_version()  # refuses where there is none
    storage = Storage(config.storage)
    labels = read_labels(config.labels, storage)
    sources, contents = list_input(config.input, storage)
    if say is not None:
        say("\n".join([f"{config.input}: {contents.read}", *contents.to_lines()]))
    check_sample(config.sample, sources)
    choice = None
    if config.backend == "auto":
        choice, found = choose_backend(config, storage, labels, sources, say or (lambda _: None))
        config = choice.applied(config)
    else:
        found = find_model(config.model, storage)
    if config.actors.gpus and not found.files.knows_gpus and say is not None:
        say(f"{config.model.uri} runs on the CPU alone: the GPUs that its actors hold stay idle")
    manifest = make_manifest(config, found, storage, labels, sources, contents)
    detector = look_at_model(config, found, storage, labels)
    job = make_job(config, found, storage, labels)
    folder = job.folder()
    ids = CocoIds(config.coco_images, labels, storage) if config.coco_images else None
    with WriterLock(storage, folder.path(LOCK_NAME), "urbandet infer") as lock:
        job = replace(job, claim=lock.claim)
        if choice is not None:
            keep_choice(choice, folder)
        batch = config.batch_size or detector.batch_size
        rule = fitting_rule(sources, config.shard, config.draw.truth, batch, config.sample)
        if begin_run(replace(manifest, cut=rule.to_dict()), folder.uri, storage):
            rule = rule.as_begun(folder.manifest().cut, folder.uri)
        storage.sweep(folder.uri)
        for loss in find_losses(folder, folder.markers()):
            lock.check()
            storage.delete(folder.marker_uri(loss.marker.shard))
            if say is not None:
                say(f"{loss.to_text()}; it is done again")

        def watch(progress: Progress) -> None:
            lock.check()
            if on_progress is not None:
                on_progress(progress)

        result = _run(config, job, sources, rule, watch)
        if result.resumed:  # actors of the killed try may have outlived the first sweep
            storage.sweep(folder.uri)
        tracks = _finish(config, job, lock.check)
        lock.check()
        if ids is not None or config.coco:
            _write_coco(config, job, sources, ids, say)
        _record_attempt(folder, result)
    return _report(config, result, tracks)


def _finish(config: InferConfig, job: InferJob, check: Callable[[], None]) -> TrackReport | None:
    """What is made of all frames together: tracks."""
    folder, tracks = job.folder(), None
    if config.track.enabled:
        tracks = write_tracks(folder, config.track.rules, check)
    return tracks


def _write_coco(
    config: InferConfig,
    job: InferJob,
    sources: Sequence[Source],
    ids: CocoIds | None,
    say: Callable[[str], None] | None,
) -> None:
    """COCO's files; what the COCO file of the ids does not have is said."""
    path_of = frame_paths(config.input, sources)
    write_coco(
        job.folder(), job.labels, ids.names(path_of) if ids else counted(path_of, job.labels)
    )
    for line in ids.to_lines() if ids else ():
        if say is not None:
            say(line)


def _report(config: InferConfig, result: RunResult, tracks: TrackReport | None) -> InferReport:
    return InferReport(
        run=config.output,
        frames=result.frames,
        detections=result.detections,
        dead_letters=result.dead_letters,
        resumed=result.resumed,
        frames_per_s=pace(result.summaries),
        exit_code=DEAD_LETTERS if result.dead_letters else OK,
        tracks=None if tracks is None else tracks.tracks,
        doubts=result.doubts,
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
    rule: CutRule,
    on_progress: Callable[[Progress], None],
) -> RunResult:
    folder = job.folder()
    left = unfinished_sources(folder.markers(), len(sources))
    stale = folder.path(TRACKS_NAME)
    if left and folder.storage.exists(stale):  # shards that are done anew have no ids
        folder.storage.delete(stale)
    session = ray_session(config.ray)
    with session if left else nullcontext():  # a finished run needs no cluster
        return run_inference(job, sources, rule, on_progress=on_progress)


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
