"""`urbandet eval`: the detections of a run against the records' own labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from urbandet_ray.config import EvalConfig
from urbandet_ray.errors import InputError
from urbandet_ray.evaluation import Metrics
from urbandet_ray.evaluation import evaluate as measure
from urbandet_ray.json_files import to_json
from urbandet_ray.records.sources import Source, list_sources, read_source
from urbandet_ray.runs.detections_table import DetectionRow
from urbandet_ray.runs.manifest import InferenceManifest
from urbandet_ray.runs.run_folder import Marker, RunFolder, chains
from urbandet_ray.storage import Storage, join_uri

HONEST_SCORE_MIN = 0.05
"""A run that dropped detections above this cannot show its whole precision-recall curve."""


@dataclass(frozen=True)
class EvalReport:
    """Metrics of a run and what a reader should know beside them."""

    metrics: Metrics
    notes: tuple[str, ...]
    uri: str

    def to_text(self) -> str:
        """The table, then the notes."""
        return "\n".join([self.metrics.to_text(), *(f"note: {note}" for note in self.notes)])


def evaluate(config: EvalConfig) -> EvalReport:
    """Compare a run with the truth and write metrics.json.

    Frames are matched by source name and record index, so the truth may be a copy elsewhere.

    Raises:
        InputError: the truth does not belong to the run, or carries no labels.
    """
    storage = Storage(config.storage)
    folder = RunFolder(config.run, storage)
    manifest = folder.manifest()
    table = chains(folder.finished_markers())
    sources = {source.name: source for source in list_sources(config.truth, storage)}
    absent = sorted(set(table) - set(sources))
    if absent:
        raise InputError(
            f"{config.truth} lacks {len(absent)} of the run's {len(table)} files "
            f"({', '.join(absent[:3])}): give the run's input or a copy with the same file names"
        )
    skipped: list[str] = []
    frames = _joined(folder, table, sources, storage, skipped)
    metrics = measure(frames, manifest.labels)
    notes = _notes(manifest, skipped, len(sources) - len(table))
    uri = join_uri(config.output or config.run, "metrics.json")
    storage.write_bytes(uri, to_json({**metrics.to_dict(), "notes": notes}))
    return EvalReport(metrics, tuple(notes), uri)


def _joined(
    folder: RunFolder,
    table: dict[str, dict[int, Marker]],
    sources: dict[str, Source],
    storage: Storage,
    skipped: list[str],
) -> Iterator[DetectionRow]:
    for name, shards in table.items():
        rows = {row.index: row for marker in shards.values() for row in folder.rows(marker)}
        known = 0
        for record in read_source(sources[name], storage):
            row = rows.get(record.index)
            if record.frame is None or row is None:
                skipped.append(f"{name}-{record.index:08d}")
                continue
            if record.frame.truth is None:
                raise InputError(f"{record.uri}, record {record.index} carries no labels")
            known += 1
            yield replace(row, truth=record.frame.truth)
        if known < len(rows):
            raise InputError(
                f"{sources[name].uri} has {known} of the {len(rows)} frames that the run has: "
                "it is another file, or a damaged copy"
            )


def _notes(manifest: InferenceManifest, skipped: list[str], unused: int) -> list[str]:
    notes = []
    if skipped:
        notes.append(f"{len(skipped)} bad records are not in the figures (see dead_letter/)")
    if unused:
        notes.append(f"{unused} files of the truth are not in the run and were left out")
    score_min = manifest.score_min
    if score_min > HONEST_SCORE_MIN:
        notes.append(
            f"the run dropped detections below {score_min}: mAP is a lower bound "
            "(infer again with model.score_min=0.01)"
        )
    return notes
