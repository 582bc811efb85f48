"""`urbandet eval`: the detections of a run against labels: the records' own, or a dataset's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from urbandet_ray.config import EvalConfig
from urbandet_ray.datasets.annotated import AnnotatedImage
from urbandet_ray.datasets.annotated_frames import truth_of
from urbandet_ray.datasets.oddities import Tally
from urbandet_ray.datasets.recognition import read_dataset
from urbandet_ray.datasets.truth_lookup import NameLookup
from urbandet_ray.errors import InputError, LabelError
from urbandet_ray.evaluation import Metrics
from urbandet_ray.evaluation import evaluate as measure
from urbandet_ray.frames import Truth
from urbandet_ray.json_files import to_json
from urbandet_ray.labels import LabelMap
from urbandet_ray.phrases import some_of
from urbandet_ray.records.data_folder import sources_and_labels
from urbandet_ray.records.sources import Source, read_source
from urbandet_ray.records.truth_classes import TruthClasses
from urbandet_ray.runs.detections_table import DetectionRow
from urbandet_ray.runs.manifest import InferenceManifest
from urbandet_ray.runs.run_folder import Marker, RunFolder, chains
from urbandet_ray.storage import Storage, join_uri

HONEST_SCORE_MIN = 0.05
"""A run that dropped detections above this cannot show its whole precision-recall curve."""

Chains = dict[str, dict[int, Marker]]


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

    The truth is records, or a dataset such as a COCO or YOLO folder. Records with the run's file
    names are matched by file and record index; everything else by the names of the images. Classes
    are matched by name: those of the truth by its own label map, else by the run's.

    Raises:
        InputError: the truth does not belong to the run, or carries no labels.
        LabelError: the truth shares no class with the run.
    """
    storage = Storage(config.storage)
    folder = RunFolder(config.run, storage)
    manifest = folder.manifest()
    table = chains(folder.finished_markers())
    notes: list[str] = []
    sources, own = _records_at(config.truth, storage)
    classes = TruthClasses(manifest.labels, own)
    if not sources:
        frames = _labelled_by_dataset(folder, table, config.truth, manifest.labels, notes)
    elif set(table) & set(sources):
        all_files = _all_of(config.truth, table, sources)
        frames = _joined(folder, table, all_files, classes, manifest.is_sampled, notes)
    else:
        frames = _labelled_by_name(folder, table, sources, classes, notes)
    kept = manifest.kept_labels
    metrics = measure(frames if kept is manifest.labels else _of_classes(frames, kept), kept)
    notes += classes.lines()
    notes += _notes(manifest, len(set(sources) - set(table)) if set(table) & set(sources) else 0)
    uri = join_uri(config.output or config.run, "metrics.json")
    storage.write_bytes(uri, to_json({**metrics.to_dict(), "notes": notes}))
    return EvalReport(metrics, tuple(notes), uri)


def _records_at(uri: str, storage: Storage) -> tuple[dict[str, Source], LabelMap | None]:
    """The sources of a truth by name, and their label map; none where there are no records."""
    try:
        sources, labels = sources_and_labels(uri, storage)
    except LabelError:
        raise
    except InputError:  # a labels file
        return {}, None
    if not any(source.kind == "tfrecord" for source in sources):
        return {}, None
    return {source.name: source for source in sources}, labels


def _all_of(uri: str, table: Chains, sources: dict[str, Source]) -> dict[str, Source]:
    absent = sorted(set(table) - set(sources))
    if absent:
        raise InputError(
            f"{uri} lacks {len(absent)} of the run's {len(table)} files "
            f"({', '.join(absent[:3])}): give the run's input or a copy with the same file names"
        )
    return sources


def _joined(
    folder: RunFolder,
    table: Chains,
    sources: dict[str, Source],
    classes: TruthClasses,
    is_sampled: bool,
    notes: list[str],
) -> Iterator[DetectionRow]:
    skipped = bad = 0
    for name, shards in table.items():
        rows = {row.index: row for marker in shards.values() for row in folder.rows(marker)}
        known = 0
        for record in read_source(sources[name], folder.storage, labels=classes.reading):
            row = rows.get(record.index)
            if record.frame is None or row is None:
                is_left_out = is_sampled and record.frame is not None
                skipped += is_left_out
                bad += not is_left_out
                continue
            if record.frame.truth is None:
                raise InputError(f"{record.uri}, record {record.index} carries no labels")
            known += 1
            yield replace(row, truth=classes.of(record.frame.truth, record.frame.frame_key))
        if known < len(rows):
            raise InputError(
                f"{sources[name].uri} has {known} of the {len(rows)} frames that the run has: "
                "it is another file, or a damaged copy"
            )
    if bad:
        notes.append(f"{bad} bad records are not in the figures (see dead_letter/)")
    if skipped:
        notes.append(f"{skipped} frames are not in the figures: the run looked at a sample")


def _rows(folder: RunFolder, table: Chains) -> Iterator[tuple[str, DetectionRow]]:
    for name, shards in table.items():
        for marker in shards.values():
            yield from ((name, row) for row in folder.rows(marker))


def _labelled_by_name(
    folder: RunFolder,
    table: Chains,
    sources: dict[str, Source],
    classes: TruthClasses,
    notes: list[str],
) -> Iterator[DetectionRow]:
    """Rows with the labels of records whose files have other names, as an import makes them."""
    known: dict[str, Truth] = {}
    for source in sources.values():
        for record in read_source(source, folder.storage, labels=classes.reading):
            frame = record.frame
            if frame is None or frame.truth is None:
                continue
            if frame.frame_key in known:
                raise InputError(
                    f"{record.uri}: frame {frame.frame_key} is in the truth twice, and its files "
                    f"have other names than the run's ({some_of(sorted(table), 3)}), so that "
                    "frames can only be matched by name: give the run's input, or a copy of it"
                )
            known[frame.frame_key] = frame.truth
    lookup = NameLookup(known)
    for name, row in _rows(folder, table):
        truth = lookup.find(row.frame_key, name)
        if truth is not None:
            yield replace(row, truth=classes.of(truth, row.frame_key))
    _note_matches(lookup, folder.uri, notes)


def _labelled_by_dataset(
    folder: RunFolder, table: Chains, uri: str, labels: LabelMap, notes: list[str]
) -> Iterator[DetectionRow]:
    """Rows with the labels of a dataset's images; classes are matched by name."""
    dataset = read_dataset(uri, folder.storage)
    common = set(dataset.class_ids) & set(labels.names.values())
    if not common:
        raise LabelError(
            f"{uri} ({dataset.kind}) has the classes {some_of(sorted(dataset.class_ids), 5)}, the "
            f"run {some_of([*labels.names.values()], 5)}: none is the same. Infer with --labels "
            "and --mapping of the dataset's classes"
        )
    tally = Tally()
    tally.merge(dataset.tally.counts, dataset.tally.places)
    lookup: NameLookup[AnnotatedImage] = NameLookup({one.name: one for one in dataset.images})
    for name, row in _rows(folder, table):
        image = lookup.find(row.frame_key, name)
        if image is not None:
            yield replace(row, truth=truth_of(image, row.size_wh, labels, tally))
    notes.append(f"the truth was read as {dataset.kind}, by {dataset.evidence}")
    notes += tally.lines()
    _note_matches(lookup, folder.uri, notes)


def _note_matches(
    lookup: NameLookup[Truth] | NameLookup[AnnotatedImage], run: str, notes: list[str]
) -> None:
    """Raises InputError where no frame of the run is among the truth's."""
    names = [*lookup.known]
    if not lookup.found:
        raise InputError(
            f"no frame of {run} is in the truth: frames are named {some_of(lookup.unknown, 3)} in "
            f"the run and {some_of(names, 3)} in the truth; give the truth of the run's input"
        )
    if lookup.unknown:
        notes.append(
            f"{len(lookup.unknown)} frames of the run are not in the truth and not in the figures "
            f"({some_of(lookup.unknown, 3)})"
        )
    left = [name for name in names if name not in lookup.found]
    if left:
        notes.append(f"{len(left)} frames of the truth are not in the run ({some_of(left, 3)})")


def _of_classes(rows: Iterator[DetectionRow], labels: LabelMap) -> Iterator[DetectionRow]:
    """Rows whose truth has these classes only."""
    for row in rows:
        if row.truth is None:
            yield row
        else:
            mask = np.isin(row.truth.class_ids, list(labels.names))
            yield replace(row, truth=row.truth.keep(mask))


def _notes(manifest: InferenceManifest, unused: int) -> list[str]:
    notes = []
    if manifest.kept_labels is not manifest.labels:
        names = ", ".join(manifest.kept_labels.names.values())
        notes.append(f"the run kept these classes only, and only they are in the figures: {names}")
    if unused:
        notes.append(f"{unused} files of the truth are not in the run and were left out")
    score_min = manifest.score_min
    if score_min > HONEST_SCORE_MIN:
        notes.append(
            f"the run dropped detections below {score_min}: mAP is a lower bound "
            "(infer again with model.score_min=0.01)"
        )
    return notes
