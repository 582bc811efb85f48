"""The examination: what is there is read once, then every check has its say."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from urbandet_ray.errors import StorageError, UrbandetError
from urbandet_ray.label_files import read_labels
from urbandet_ray.labels import LabelMap
from urbandet_ray.models.pipeline_config import PipelineConfig
from urbandet_ray.records.data_folder import DataFolder, SplitFolder, records_at
from urbandet_ray.storage import Storage
from urbandet_ray.training.doctor.architecture import check_architecture
from urbandet_ray.training.doctor.case import Case
from urbandet_ray.training.doctor.checkpoint import check_checkpoint
from urbandet_ray.training.doctor.class_agreement import check_classes
from urbandet_ray.training.doctor.dataset import DataSplit, read_split
from urbandet_ray.training.doctor.eval_settings import check_evaluation, check_paths
from urbandet_ray.training.doctor.findings import Finding, by_severity
from urbandet_ray.training.doctor.labelling import check_labelling
from urbandet_ray.training.doctor.memory import check_memory
from urbandet_ray.training.doctor.reading import check_reading
from urbandet_ray.training.doctor.schedule import check_schedule
from urbandet_ray.training.doctor.suitability import check_data
from urbandet_ray.training.doctor.unread import check_unread

UNBUILDABLE = frozenset(
    (
        "unknown-meta-architecture",
        "unknown-feature-extractor",
        "wrong-pyramid-block",
        "anchor-levels",
        "no-model",
    )
)
"""Codes of a model that can't be built; they hide what only a built one shows."""


@dataclass(frozen=True)
class Examination:
    """A case, where its data lie, and what was found."""

    case: Case
    folder: Path
    storage: Storage
    data: DataFolder | None
    steps_given: int | None
    findings: tuple[Finding, ...] = ()


def examine(
    pipeline: PipelineConfig,
    storage: Storage,
    *,
    data: DataFolder | None = None,
    steps: int | None = None,
    workers: int = 1,
    min_box_side: float = 0,
) -> Examination:
    """Check a pipeline.config against the run and the data.

    Args:
        pipeline: its name tells where checkpoints may lie beside it.
        storage: reads the records and label maps.
        data: what is trained on in place of the paths in the file.
        steps: optimizer steps of the run; None takes the file's num_steps.
        workers: each takes the file's batch_size.
        min_box_side: smaller boxes are left out of training [px of the network's input].

    Raises:
        NotFoundError: `data` has no part to train on, or none to validate with.
        LabelError: the label map is none.
    """
    config = pipeline.message
    given = dict(zip(("train", "val"), data.for_training(), strict=True)) if data else {}
    labels = data.labels if data and data.labels else _read_labels(config, storage)
    case = Case(
        pipeline,
        steps=steps or int(config.train_config.num_steps),
        workers=workers,
        min_box_side=min_box_side,
        labels=labels,
        train=_read("train", config, given, storage, labels),
        val=_read("val", config, given, storage, labels),
    )
    made = Examination(case, Path(pipeline.name).parent, storage, data, steps)
    return replace(made, findings=_findings(made))


def again(one: Examination, pipeline: PipelineConfig) -> Examination:
    """The same examination of another state of the file; records and labels are not read again."""
    steps = one.steps_given or int(pipeline.message.train_config.num_steps)
    made = replace(one, case=replace(one.case, pipeline=pipeline, steps=steps))
    return replace(made, findings=_findings(made))


def _findings(one: Examination) -> tuple[Finding, ...]:
    case = one.case
    model = list(check_architecture(case))
    buildable = not any(finding.code in UNBUILDABLE for finding in model)
    return by_severity(
        [
            *check_reading(case),
            *check_schedule(case),
            *check_classes(case),
            *model,
            *check_checkpoint(case, one.folder, buildable=buildable),
            *check_labelling(case),
            *check_data(case),
            *check_evaluation(case),
            *check_paths(case, one.storage, one.data),
            *check_memory(case),
            *check_unread(case),
        ]
    )


def _read(
    split: str,
    config: Any,
    given: dict[str, SplitFolder],
    storage: Storage,
    labels: LabelMap | None,
) -> DataSplit | None:
    """The split, or None where the config's own paths can't be read: check_paths says so."""
    if split in given:
        return read_split(given[split].patterns, given[split].records, storage, labels)
    readers = [config.train_input_reader] if split == "train" else list(config.eval_input_reader)
    uris = [path for one in readers for path in one.tf_record_input_reader.input_path]
    try:
        sources = [source for uri in uris for source in records_at(uri, storage)]
        return read_split(uris, sources, storage, labels) if uris else None
    except UrbandetError:
        return None


def _read_labels(config: Any, storage: Storage) -> LabelMap | None:
    """By the config's own path; None where there is nothing: check_paths says so."""
    path = config.train_input_reader.label_map_path
    try:
        return read_labels(path, storage) if path else None
    except StorageError:
        return None
