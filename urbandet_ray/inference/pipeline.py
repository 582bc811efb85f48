"""The driver: plan what is left, stream it through Ray Data, check that nothing is missing.

for summary in shards -> actors:      each actor commits what it did
    count it; stop where too much is bad
every source must now be covered by markers from its first record to its last
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from urbandet_ray.chatter import lower_log_level
from urbandet_ray.config.sizing import (
    READER_CPUS,
    fit_actors,
    shards_at_an_actor,
    shards_in_flight,
)
from urbandet_ray.errors import RunError, first_line, last_line
from urbandet_ray.inference.job import InferJob, ShardSummary
from urbandet_ray.inference.progress import Progress, ProgressMeter
from urbandet_ray.inference.release import release_idle_nodes
from urbandet_ray.inference.shards import CutRule, resume_point, share_of
from urbandet_ray.inference.silence import SilenceWatch, heard
from urbandet_ray.records.sources import Source
from urbandet_ray.runs.run_folder import Marker, chains, unfinished_sources

TASKS_PER_READER = 4
"""What one reader does in turn. One task a file would cost the driver more than a small file."""

SHARD_RETRIES = 5
"""A lost actor's shard is tried again this often; for ever would hide a crash that repeats."""


@dataclass(frozen=True)
class RunResult:
    """What a finished run holds, earlier tries included, and what this try measured."""

    frames: int
    detections: int
    dead_letters: int
    doubts: int
    resumed: bool
    summaries: tuple[ShardSummary, ...]


def run_inference(
    job: InferJob,
    sources: Sequence[Source],
    rule: CutRule,
    *,
    on_progress: Callable[[Progress], None] | None = None,
) -> RunResult:
    """Detect on every record of the sources that is not committed yet.

    Needs an initialised Ray and a begun run folder. Call it again to resume: committed shards are
    left alone, everything else is done (again).

    Raises:
        RunError: more bad records than allowed, an actor's error, a cluster that is gone, no shard
            for too long, or sources left uncovered.
    """
    max_bad_records = job.config.max_bad_records
    earlier = job.folder().markers()
    meter = _meter(sources, earlier)
    summaries: list[ShardSummary] = []
    bad = sum(marker.dead_letters for marker in earlier)
    _refuse_too_many(bad, max_bad_records)
    minutes = job.config.max_silence_minutes
    watch = SilenceWatch(minutes and minutes * 60, lambda: meter.snapshot().bottleneck)
    for summary in heard(_stream(job, sources, earlier, rule), watch):
        if summary.failure is not None:
            raise RunError(summary.failure)
        summaries.append(summary)
        meter.add(summary)
        bad += len(summary.dead_letters)
        _refuse_too_many(bad, max_bad_records)
        if on_progress is not None:
            on_progress(meter.snapshot())
    return _check_whole(job, sources, bool(earlier), summaries)


def _meter(sources: Sequence[Source], earlier: Sequence[Marker]) -> ProgressMeter:
    table = chains(list(earlier))
    done = {
        source.name: sum(
            share_of(source, marker.first_offset, marker.next_offset, marker.last)
            for marker in table.get(source.name, {}).values()
        )
        for source in sources
    }
    return ProgressMeter(
        {source.name: source.size_bytes for source in sources},
        done,
        frames=sum(marker.frames for marker in earlier),
        detections=sum(marker.detections for marker in earlier),
        dead_letters=sum(marker.dead_letters for marker in earlier),
    )


def _refuse_too_many(bad: int, allowed: int) -> None:
    if bad > allowed:
        raise RunError(
            f"{bad} bad records, allowed are {allowed} (max_bad_records): see dead_letter/ in the "
            "run folder; with a higher limit the run resumes where it stopped"
        )


def _check_whole(
    job: InferJob, sources: Sequence[Source], resumed: bool, summaries: list[ShardSummary]
) -> RunResult:
    markers = job.folder().markers()
    open_sources = unfinished_sources(markers, len(sources))
    if open_sources:
        raise RunError(
            f"{open_sources} of {len(sources)} files are not fully committed in "
            f"{job.config.output}: run it again to resume"
        )
    return RunResult(
        frames=sum(marker.frames for marker in markers),
        detections=sum(marker.detections for marker in markers),
        dead_letters=sum(marker.dead_letters for marker in markers),
        doubts=sum(marker.doubts for marker in markers),
        resumed=resumed,
        summaries=tuple(summaries),
    )


def _stream(
    job: InferJob,
    sources: Sequence[Source],
    earlier: Sequence[Marker],
    rule: CutRule,
) -> Iterator[ShardSummary]:
    """Summaries as shards are committed, in whatever order."""
    table = chains(list(earlier))
    left = [
        (order, source, table.get(source.name, {}))
        for order, source in enumerate(sources)
        if resume_point(table.get(source.name, {})) is not None
    ]
    if not left:
        return
    import ray

    from urbandet_ray.inference.source_reader import ShardSource, unpack

    _configure_ray_data()
    dataset = _dataset(ShardSource(left, job.storage, rule), len(left), job)
    blocks = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    try:
        for block in blocks:
            for content in unpack(block):
                if isinstance(content, ShardSummary):
                    yield content
    except (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError) as error:
        if getattr(error, "actor_init_failed", False):
            raise RunError(
                f"an actor could not start: {last_line(error)} Does a worker "
                "have the packages and modules that the driver has (--working-dir, a runtime_env)?"
            ) from None
        raise RunError(
            f"an actor died {SHARD_RETRIES + 1} times over the same shard (out of memory, or a "
            f"crash in the model?): {first_line(error)} Ray's logs say more; with fewer "
            "actors or a smaller shard.megabytes the run resumes where it stopped"
        ) from None


def _dataset(source: Any, sources: int, job: InferJob) -> Any:
    """The pipeline as Ray Data sees it: read tasks, then a pool of actors."""
    import warnings

    import ray

    actors, threads = job.config.actors, job.config.model.threads
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    size, in_flight = fit_actors(actors, threads, nodes), shards_in_flight(actors)
    readers = min(sources, size.readers)
    shards = ray.data.read_datasource(
        source,
        override_num_blocks=min(sources, TASKS_PER_READER * readers),
        num_cpus=READER_CPUS,
        concurrency=readers,
        # by default Ray spreads them over all nodes, and a GPU node that reads is never idle
        ray_remote_args={"scheduling_strategy": "DEFAULT"} if size.gpus else None,
    )
    with warnings.catch_warnings():
        # max_task_retries has no other way in yet, and Ray is pinned
        warnings.filterwarnings("ignore", message=".*ray_remote_args.* is deprecated")
        return shards.map_batches(
            _actor_class(),
            fn_constructor_args=(job,),
            batch_size=1,
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=ray.data.ActorPoolStrategy(
                min_size=size.smallest,
                max_size=size.largest,
                max_concurrent_calls_per_actor=in_flight,
                max_tasks_in_flight_per_actor=shards_at_an_actor(actors),
                enable_true_multi_threading=in_flight > 1,
            ),
            num_cpus=size.cpus,
            num_gpus=size.gpus or None,
            max_task_retries=SHARD_RETRIES,
        )


def _configure_ray_data() -> None:
    import logging
    import warnings

    from ray.data import DataContext

    release_idle_nodes()
    context = DataContext.get_current()
    context.enable_progress_bars = False
    # a shard is a block: of small ones many would go to one actor as one task, and Ray Data, which
    # counts blocks, would see no backlog to grow the pool for
    context.target_max_block_size = 1 << 12
    context.print_on_execution_start = False
    context.memory_usage_poll_interval_s = None  # its smaps reads hold an actor up at every task
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    # fewer shards than actors is no mistake; Ray warns of it from a thread of its own
    warnings.filterwarnings("ignore", message="The minimum number of concurrent actors")


def _actor_class() -> Any:
    """The class Ray instantiates in each actor."""
    from urbandet_ray.inference.actor import PredictorActor

    lower_log_level("opencv")
    return PredictorActor
