"""`urbandet bench`: models side by side through the whole pipeline, as `urbandet infer` runs it.

a first run of each over the data: what it starts with, and mAP where there are labels
then in turn, round by round, the same data as often as `seconds` need, warm actors only
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any

from urbandet_ray.commands.evaluate import evaluate
from urbandet_ray.config import EvalConfig, InferConfig
from urbandet_ray.errors import ConfigError, InputError
from urbandet_ray.exporting.accuracy import has_labels
from urbandet_ray.exporting.export_folder import export_around
from urbandet_ray.inference.backend_choice import candidates, measure_candidates
from urbandet_ray.inference.job import STAGES, InferJob, ShardSummary
from urbandet_ray.inference.pipeline import RunResult, run_inference
from urbandet_ray.inference.preparation import (
    look_at_model,
    make_job,
    make_manifest,
    with_absolute_places,
)
from urbandet_ray.inference.session import ray_session
from urbandet_ray.inference.shards import fitting_rule
from urbandet_ray.json_files import to_json
from urbandet_ray.label_files import read_labels
from urbandet_ray.models.loader import find_model
from urbandet_ray.models.model_files import ModelFiles
from urbandet_ray.models.network.runtimes import computes_in
from urbandet_ray.records.images import encode_png
from urbandet_ray.records.sources import Source, list_sources
from urbandet_ray.reports.stage_bars import stage_bars
from urbandet_ray.runs.manifest import begin_run
from urbandet_ray.storage import Storage
from urbandet_ray.tables import text_table

Say = Callable[[str], None]


@dataclass(frozen=True)
class Measured:
    """One model's row.

    Attributes:
        model: as given; chosen: the export that backend=auto chose, else the same.
        format, size_mb: of its files.
        precision: what this machine computes a network in; of a stock model, what its weights are
            rounded to.
        threads, actors, batch_size: what it ran with; None is the model's own batch.
        rounds: frames/s of each.
        cold: some actor had one shard alone, so that its first counts in a round.
        stage_ms: an actor's time a frame, by stage.
        memory_mb: the most that an actor had of its own.
        start_s: from the command to the first shard, Ray itself left out.
        map: COCO mAP; None without labels.
        cost: of 1,000 frames, in the currency of the price; None without a price.
    """

    model: str
    chosen: str
    format: str
    precision: str
    size_mb: float
    threads: int
    actors: int
    batch_size: int | None
    rounds: tuple[float, ...]
    cold: bool
    stage_ms: dict[str, float]
    memory_mb: float
    start_s: float
    map: float | None
    cost: float | None

    @property
    def frames_per_s(self) -> float:
        """Median of the rounds."""
        return median(self.rounds)


@dataclass(frozen=True)
class BenchReport:
    """All rows.

    Attributes:
        data, frames: what it ran on.
        dead_letters: bad records in it, which are not measured.
        price: of the machine, an hour.
    """

    data: str
    frames: int
    dead_letters: int
    price: float | None
    rows: tuple[Measured, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def to_text(self) -> str:
        """A table, a line a model, and what a reader should know beside it."""
        heads = ["model", "format", "precision", "MB", "actors", "batch", "frames/s", "(spread)"]
        heads += [*(f"{stage} ms" for stage in STAGES[1:]), "actor MB", "start s", "mAP"]
        if self.price is not None:
            heads.append("cost of 1,000")
        table = text_table([heads, *(self._row(row) for row in self.rows)])
        return "\n".join([table, *(f"note: {note}" for note in self._notes())])

    def _notes(self) -> Iterator[str]:
        if self.dead_letters:
            yield (
                f"{self.dead_letters} bad records of {self.data} are left out "
                f"(urbandet data validate {self.data})"
            )
        if any(row.cold for row in self.rows):
            yield "* with its actors' first shards, which are slower: give more data or --seconds"

    def _row(self, row: Measured) -> list[str]:
        cells = [
            row.chosen,
            row.format,
            row.precision,
            f"{row.size_mb:.1f}",
            f"{row.actors} x {row.threads}",
            "own" if row.batch_size is None else str(row.batch_size),
            f"{row.frames_per_s:.1f}" + ("*" if row.cold else ""),
            f"({min(row.rounds):.1f} to {max(row.rounds):.1f})",
            *(f"{row.stage_ms.get(stage, 0.0):.2f}" for stage in STAGES[1:]),
            f"{row.memory_mb:.0f}",
            f"{row.start_s:.1f}",
            "-" if row.map is None else f"{row.map:.3f}",
        ]
        return cells if row.cost is None else [*cells, f"{row.cost:.4f}"]


def bench(
    config: InferConfig,
    models: Sequence[str],
    *,
    rounds: int = 3,
    seconds: float = 15.0,
    price: float | None = None,
    say: Say = lambda _: None,
    scratch: Path | None = None,
) -> BenchReport:
    """Measure models.

    Args:
        config: of an inference; its model.uri and its output are not looked at.
        models: URIs, as `urbandet infer --model` takes them.
        rounds: timed runs of each.
        seconds: about how long each takes.
        price: of the machine, an hour, in any currency.
        say: told what goes on.
        scratch: an empty folder for the runs, which stay there; None is one that is removed.

    Raises:
        UrbandetError: what is wrong with a model or the data.
    """
    if rounds < 1 or seconds <= 0 or (price is not None and price < 0):
        raise ConfigError("rounds start at 1; seconds and price are above 0")
    if not models:
        raise ConfigError("no model to measure: name one or more")
    removed = tempfile.TemporaryDirectory(prefix="urbandet-bench-")
    with removed if scratch is None else nullcontext(scratch) as folder:
        runs = [_ModelRun(config, uri, Path(folder) / str(i)) for i, uri in enumerate(models)]
        with ray_session(config.ray):
            for run in runs:
                run.begin(say)
            for number in range(rounds):
                for run in runs:
                    pace = run.timed(number, seconds)
                    say(f"round {number + 1} of {rounds}: {run.name}: {pace:.1f} frames/s")
            rows = tuple(run.measured(price) for run in runs)
    return BenchReport(config.input, runs[0].frames, runs[0].dead_letters, price, rows)


class _ModelRun:
    """One model, looked at when this is made, then run again and again."""

    def __init__(self, config: InferConfig, uri: str, scratch: Path) -> None:
        self.name = uri
        self._scratch = scratch
        model = config.model.model_copy(update={"uri": uri})
        update = {"model": model, "output": str(scratch / "choice")}
        self._config = config = with_absolute_places(config.model_copy(update=update))
        self._storage = Storage(config.storage)
        self._labels = read_labels(config.labels, self._storage)
        self._sources = list_sources(config.input, self._storage)
        self._batch_size = config.batch_size or 1
        if config.backend == "auto":
            self._candidates = candidates(config.model, self._storage)
        else:
            self._found = find_model(config.model, self._storage)
            looked_at = look_at_model(config, self._found, self._storage, self._labels)
            self._batch_size = config.batch_size or looked_at.batch_size
        self._paces: list[float] = []
        self._warm: list[ShardSummary] = []
        self._memory_mb = self._start_s = 0.0
        self._map: float | None = None
        self._actors = 1
        self._cold = False
        self.frames = self.dead_letters = 0

    def begin(self, say: Say) -> None:
        """The first run: mAP, and how long it takes to start; what backend=auto asks before it."""
        config = self._config
        if config.backend == "auto":
            chosen, self._found = measure_candidates(
                config, self._candidates, self._storage, self._labels, self._sources, say
            )
            self._config = config = chosen.applied(config)
            self._batch_size = chosen.batch_size
        asked = time.time()
        result = self._run("first", self._sources, config.max_bad_records)
        self.frames, self.dead_letters = result.frames, result.dead_letters
        if not result.frames:
            raise InputError(f"{config.input} holds no good record to measure on")
        self._start_s = min(one.started for one in result.summaries) - asked
        self._pace = warm_pace(result.summaries)[0]
        if has_labels(self._sources, self._storage):
            run = str(self._scratch / "first")
            wanted = EvalConfig(run=run, truth=config.input, storage=config.storage)
            self._map = evaluate(wanted).metrics.map

    def timed(self, number: int, seconds: float) -> float:
        """A run of about so many seconds; frames/s once every actor is warm."""
        times = max(1, ceil(seconds * self._pace / self.frames))
        sources = [
            replace(source, name=f"{source.name}.{turn}")
            for turn in range(times)
            for source in self._sources
        ]
        # every copy of a bad record is one more
        result = self._run(f"round-{number}", sources, self._config.max_bad_records * times)
        pace, warm = warm_pace(result.summaries)
        self._paces.append(pace)
        self._pace = pace
        self._warm += warm
        self._cold |= len(warm) == len(result.summaries)
        self._memory_mb = max(self._memory_mb, *(one.memory_mb for one in result.summaries))
        self._actors = len({one.actor for one in result.summaries})
        return pace

    def _job(self, name: str, max_bad_records: int) -> InferJob:
        update = {"output": str(self._scratch / name), "max_bad_records": max_bad_records}
        config = self._config.model_copy(update=update)
        return make_job(config, self._found, self._storage, self._labels)

    def _run(self, name: str, sources: Sequence[Source], max_bad_records: int) -> RunResult:
        config, job = self._config, self._job(name, max_bad_records)
        manifest = make_manifest(config, self._found, self._storage, self._labels, sources)
        begin_run(manifest, job.config.output, self._storage)
        rule = fitting_rule(
            sources, config.shard, config.draw.truth, self._batch_size, config.sample
        )
        try:
            return run_inference(job, sources, rule)
        finally:
            _empty_frames(self._scratch / name)

    def measured(self, price: float | None) -> Measured:
        """The row."""
        model = self._config.model
        files = self._found.files
        contents = files.contents(self._storage)
        frames = sum(one.frames for one in self._warm)
        busy = {
            stage: 1000 * sum(one.busy_s.get(stage, 0.0) for one in self._warm) / max(frames, 1)
            for stage in STAGES
        }
        pace = median(self._paces)
        return Measured(
            model=self.name,
            chosen=model.uri,
            format=_format(files),
            precision=_precision(files, self._storage),
            size_mb=sum(file.stat().st_size for file in contents) / 1e6,
            threads=model.threads,
            actors=self._actors,
            batch_size=self._config.batch_size,
            rounds=tuple(round(pace, 3) for pace in self._paces),
            cold=self._cold,
            stage_ms={stage: round(value, 4) for stage, value in busy.items()},
            memory_mb=self._memory_mb,
            start_s=self._start_s,
            map=self._map,
            cost=None if price is None else price / 3600 / pace * 1000,
        )


def _format(files: ModelFiles) -> str:
    if files.facts is not None:
        return files.facts.runtime
    return "stock-tflite" if files.kind == "tflite" else "stock"


def _precision(files: ModelFiles, storage: Storage) -> str:
    """What a network computes in here, a stock model's weights are rounded to by its export."""
    if files.facts is not None:
        return computes_in(files.facts)
    export = export_around(files.place, storage)
    return "as stored" if export is None else export.precision


def warm_pace(summaries: Sequence[ShardSummary]) -> tuple[float, list[ShardSummary]]:
    """Frames/s from when every actor has its first shard done to the last commit.

    An actor's first shard pays for what a model does once: compiling, allocating.

    Returns:
        Frames/s, and the shards that it stands on; all of them where each actor had one alone.
    """
    firsts: dict[int, ShardSummary] = {}
    for one in summaries:
        if one.actor not in firsts or one.ended < firsts[one.actor].ended:
            firsts[one.actor] = one
    begin = max(one.ended for one in firsts.values())
    end = max(one.ended for one in summaries)
    later = [one for one in summaries if one.ended > begin]
    if not later:
        return sum(one.frames for one in summaries) / _span(summaries), list(summaries)
    frames = sum(one.frames * _share_after(one, begin) for one in later)
    return frames / (end - begin), later


def _share_after(one: ShardSummary, moment: float) -> float:
    return min(1.0, (one.ended - moment) / max(one.ended - one.started, 1e-9))


def _span(summaries: Sequence[ShardSummary]) -> float:
    begin = min(one.started for one in summaries)
    return max(max(one.ended for one in summaries) - begin, 1e-9)


def _empty_frames(run: Path) -> None:
    """Annotated frames would fill the disk. Deleted, they would slow the next run's writing: for
    half a minute ext4 passes over the inodes of files that went before it makes a new one."""
    for frame in (run / "frames").rglob("*.*"):
        if frame.is_file():
            os.truncate(frame, 0)


def write_report(report: BenchReport, json_file: Path, picture: Path | None) -> None:
    """Keep all figures as JSON, and where a frame's time goes as a picture.

    Raises:
        StorageError: a file cannot be written.
    """
    storage = Storage()
    storage.write_bytes(str(json_file), to_json(report.to_dict()))
    if picture is not None:
        rows = [(_short(row), dict(row.stage_ms)) for row in report.rows]
        sheet = stage_bars(rows, "an actor's time a frame, by stage")
        storage.write_bytes(str(picture), encode_png(sheet))


def _short(row: Measured) -> str:
    return f"{row.chosen.rstrip('/').rpartition('/')[2]} {row.precision}"
