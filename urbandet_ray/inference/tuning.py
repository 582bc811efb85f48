"""Which model, threads, actors and batch a machine is fastest with: measured on the run's frames.

every candidate with an actor a core, or a GPU, at its own batch
the fastest of them with more threads an actor, or more actors a GPU, and with other batches

A trial is the run's own work, `ShardProcessor.process`, with results thrown away: by as many
actors as the run would have, side by side on one node.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from urbandet_ray.config import InferConfig
from urbandet_ray.config.sizing import draw_threads, fitting
from urbandet_ray.errors import RunError, UrbandetError, last_line
from urbandet_ray.inference.job import InferJob
from urbandet_ray.inference.shards import Shard
from urbandet_ray.records.sources import Record
from urbandet_ray.storage import Storage, is_remote

TRIAL_S = 1.5
"""Each trial's length; it ends with the shard it is in."""

TRIAL_FRAMES = 16
CLOSE = 0.8
"""Candidates slower than this share of the fastest are not tried any further."""

CPU_BATCHES, GPU_BATCHES = (1, 2, 4, 8), (8, 16, 32, 64)
ACTORS_A_GPU = (1, 2, 4, 8)
_START_S = 300.0


class ActorLayout(NamedTuple):
    """How actors fill a node.

    Attributes:
        threads: CPU threads of the model in each actor.
        actors: side by side on the node.
        gpus: each holds; 0 is CPU actors.
    """

    threads: int
    actors: int
    gpus: float = 0.0


@dataclass(frozen=True)
class Trial:
    """One setting, and what it came to.

    Attributes:
        model: name of the candidate.
        threads, actors, gpus: the layout.
        batch_size: frames a call of the model.
        frames_per_s: of all actors together.
        model_ms: of one actor's time a frame, in the model.
    """

    model: str
    threads: int
    actors: int
    gpus: float
    batch_size: int
    frames_per_s: float
    model_ms: float


@dataclass(frozen=True)
class Tuning:
    """All trials, and what could not be tried.

    Attributes:
        trials: in the order they were made.
        failed: why, by name of the candidate.
        node: {"cpus": cores, "gpus": GPUs} of the node that measured.
    """

    trials: tuple[Trial, ...]
    failed: Mapping[str, str]
    node: Mapping[str, float]

    def fastest(self) -> Trial:
        """The best trial.

        Raises:
            RunError: none was made.
        """
        if not self.trials:
            reasons = "; ".join(f"{name}: {why}" for name, why in self.failed.items())
            raise RunError(f"no candidate runs on this machine ({reasons})")
        return max(self.trials, key=lambda trial: trial.frames_per_s)


def tune(
    candidates: Mapping[str, Callable[[int], InferJob]],
    records: Sequence[Record],
    *,
    gpus: float = 0.0,
    actors: tuple[int | None, int | None] = (None, None),
    threads: int | None = None,
    batch_size: int | None = None,
    on_trial: Callable[[Trial], None] | None = None,
) -> Tuning:
    """Try candidates on the largest node of the Ray that this process is connected to.

    Args:
        candidates: by name, from a number of threads to the job.
        records: frames to try them on, all good.
        gpus: GPUs an actor holds; 0 is CPU actors; with 1, smaller shares are tried too.
        actors: how many the run will have at least and at most; None is as many as there is room.
        threads, batch_size: the only ones to try; None tries several.
        on_trial: told of each trial.

    Raises:
        RunError: no node has such a GPU, or a CPU for an actor.
    """
    node = _node(gpus)
    layouts = _layouts(node, gpus, actors, threads)
    trials: list[Trial] = []
    failed: dict[str, str] = {}

    def attempt(name: str, layout: ActorLayout, batches: Sequence[int] | None) -> None:
        try:
            with _Pool(candidates[name](layout.threads), layout, node["id"]) as pool:
                own = batch_size or pool.batch_size
                wanted = [own] if batches is None or pool.batch_size == 1 else batches
                for size in wanted:
                    done = (name, layout, size) in {_key(trial) for trial in trials}
                    if not done and (size <= len(records) or size == own):
                        trials.append(pool.trial(name, size, records))
                        if on_trial is not None:
                            on_trial(trials[-1])
        except UrbandetError as error:
            failed[name] = str(error)

    for name in candidates:
        attempt(name, layouts[0], None)
    best = max((trial.frames_per_s for trial in trials), default=0.0)
    close = [trial.model for trial in trials if trial.frames_per_s >= CLOSE * best]
    batches = [batch_size] if batch_size else (GPU_BATCHES if gpus else CPU_BATCHES)
    for name in close:
        for layout in layouts:
            attempt(name, layout, batches)
    tried = {trial.model for trial in trials}
    told = {"cpus": node["cpus"], "gpus": node["gpus"]}
    return Tuning(tuple(trials), {k: v for k, v in failed.items() if k not in tried}, told)


def _key(trial: Trial) -> tuple[str, ActorLayout, int]:
    return trial.model, ActorLayout(trial.threads, trial.actors, trial.gpus), trial.batch_size


def _node(gpus: float) -> dict[str, Any]:
    """The largest node alive: id, cpus, gpus."""
    import ray

    nodes = [
        {
            "id": node["NodeID"],
            "cpus": node["Resources"].get("CPU", 0.0),
            "gpus": node["Resources"].get("GPU", 0.0),
        }
        for node in ray.nodes()
        if node["Alive"]
    ]
    largest = max(nodes, key=lambda node: (node["gpus" if gpus else "cpus"], node["cpus"]))
    if gpus and largest["gpus"] < gpus:
        raise RunError(
            f"each actor wants {gpus} GPU and no node has them: set actors.gpus=0, or start the "
            "nodes first"
        )
    if not gpus and largest["cpus"] < 1:
        raise RunError("no node has a CPU to measure on: start the nodes first, or name a backend")
    return largest


def _layouts(
    node: Mapping[str, Any],
    gpus: float,
    actors: tuple[int | None, int | None] = (None, None),
    threads: int | None = None,
) -> list[ActorLayout]:
    """What fills the node as a run of so many actors would; one thread, or a whole GPU, first."""
    least, most = actors[0] or 1, actors[1] or actors[0]
    cores = int(node["cpus"])
    if gpus:
        shares = [1 / count for count in ACTORS_A_GPU] if gpus == 1 else [gpus]
        there = {"GPU": node["gpus"]}
        rooms = [(max(1, fitting({"GPU": share}, there)), share) for share in shares]
        # each actor wants a core for what is not on the GPU, and a share that stays free is wasted
        whole = [(room, share) for room, share in rooms if room <= min(cores, most or room)]
        return [
            ActorLayout(threads or 1, min(room, most or room), share)
            for room, share in whole or rooms[:1]
        ]
    tried, each = [], 1
    while each <= cores:
        tried.append(each)
        each *= 2
    layouts = [
        ActorLayout(each, cores // each) for each in ([min(threads, cores)] if threads else tried)
    ]
    layouts = [one for one in layouts if one.actors >= least] or layouts[:1]
    return [one._replace(actors=min(one.actors, most or one.actors)) for one in layouts]


class _Pool:
    """Actors that all have the same job, as long as the block runs."""

    def __init__(self, job: InferJob, layout: ActorLayout, node: str) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        made = ray.remote(TrialActor).options(
            num_cpus=0 if layout.gpus else layout.threads,
            num_gpus=layout.gpus or None,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        )
        self._layout = layout
        self._actors = [made.remote(job) for _ in range(layout.actors)]
        self.batch_size = 1

    def __enter__(self) -> _Pool:
        answers = self._ask("batch_size", timeout=_START_S)
        failures = [answer for answer in answers if isinstance(answer, str)]
        if failures:
            self.__exit__()
            raise RunError(failures[0])
        self.batch_size = answers[0]
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        for actor in self._actors:
            ray.kill(actor)

    def trial(self, name: str, batch_size: int, records: Sequence[Record]) -> Trial:
        """Have all actors work at the same time."""
        answers = self._ask("work", list(records), batch_size, timeout=_START_S)
        failures = [answer for answer in answers if isinstance(answer, str)]
        if failures:
            raise RunError(failures[0])
        pace = sum(frames / seconds for frames, seconds, _ in answers)
        model_ms = 1000 * sum(busy for *_, busy in answers) / sum(frames for frames, *_ in answers)
        return Trial(name, *self._layout, batch_size, round(pace, 3), round(model_ms, 3))

    def _ask(self, method: str, *arguments: Any, timeout: float) -> list[Any]:
        import ray

        asked = [getattr(actor, method).remote(*arguments) for actor in self._actors]
        try:
            return list(ray.get(asked, timeout=timeout))
        except ray.exceptions.GetTimeoutError:
            self.__exit__()
            raise RunError(f"no answer within {timeout:.0f} s") from None
        except ray.exceptions.RayError as error:
            raise RunError(f"its actor failed: {last_line(error)}") from None


class TrialActor:
    """Holds a loaded detector and works on the same frames again and again."""

    def __init__(self, job: InferJob) -> None:
        self._job = job
        try:
            self._detector = job.make_detector()
        except UrbandetError as error:
            self._failure: str | None = str(error)
        else:
            self._failure = None

    def batch_size(self) -> int | str:
        """Images a call that the detector works best with, or why it is not there."""
        return self._failure or self._detector.batch_size

    def work(self, records: Sequence[Record], batch_size: int) -> tuple[int, float, float] | str:
        """Frames done, seconds, and seconds of them in the model; or what went wrong."""
        from urbandet_ray.inference.processor import ShardProcessor

        detector = self._detector
        with tempfile.TemporaryDirectory(prefix="urbandet-trial-") as scratch:
            config = _trial_config(self._job.config, scratch, batch_size)
            job = replace(
                self._job, config=config, storage=Storage(), make_detector=lambda: detector
            )
            processor, folder = ShardProcessor(job), job.folder()
            processor.warm_up()
            frames, busy = 0, 0.0
            try:
                if not processor.process(_shard(records[:batch_size])).frames:
                    return "it got no frame that can be decoded"
                shard = _shard(records[: max(batch_size, TRIAL_FRAMES // batch_size * batch_size)])
                begin = time.perf_counter()
                while not frames or time.perf_counter() - begin < TRIAL_S:
                    job.storage.delete(folder.marker_uri(shard.name))  # or it would be left as done
                    summary = processor.process(shard)
                    frames += summary.frames
                    busy += summary.busy_s["model"]
            except UrbandetError as error:
                return str(error)
            return frames, time.perf_counter() - begin, busy


def _trial_config(config: InferConfig, scratch: str, batch_size: int) -> InferConfig:
    """The run's config, with as many threads as it will have, for a folder that is thrown away."""
    threads = draw_threads(config.actors, remote=is_remote(config.output))
    actors = config.actors.model_copy(update={"draw_threads": threads})
    return config.model_copy(update={"output": scratch, "batch_size": batch_size, "actors": actors})


def _shard(records: Sequence[Record]) -> Shard:
    first, last = records[0], records[-1]
    return Shard(
        source="trial",
        source_order=0,
        first_index=first.index,
        next_index=last.index + 1,
        first_offset=first.offset,
        next_offset=last.next_offset,
        last=True,
        records=tuple(records),
        extent=1.0,
        read_s=0.0,
    )
