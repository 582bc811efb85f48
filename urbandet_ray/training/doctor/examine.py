"""The examination: what is there is read once, then every check has its say."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from urbandet_ray.errors import InputError, LabelError, NotFoundError, StorageError, UrbandetError
from urbandet_ray.labels import LabelMap
from urbandet_ray.models.pipeline_config import PipelineConfig, Repair
from urbandet_ray.storage import Storage, join_uri
from urbandet_ray.training.doctor.architecture import check_architecture
from urbandet_ray.training.doctor.case import Case
from urbandet_ray.training.doctor.checkpoint import check_checkpoint
from urbandet_ray.training.doctor.class_agreement import check_classes
from urbandet_ray.training.doctor.dataset import DataSplit, read_split
from urbandet_ray.training.doctor.eval_settings import check_evaluation, check_paths
from urbandet_ray.training.doctor.findings import Finding, by_severity
from urbandet_ray.training.doctor.memory import check_memory
from urbandet_ray.training.doctor.schedule import check_schedule
from urbandet_ray.training.doctor.suitability import check_data

_PASSES = 4
_UNBUILDABLE = {"unknown-feature-extractor", "wrong-pyramid-block", "anchor-levels", "no-model"}


@dataclass(frozen=True)
class Examination:
    """A case, where its data lie, and what was found."""

    case: Case
    folder: Path
    storage: Storage
    stand_ins: dict[str, str]
    steps_given: int | None
    findings: tuple[Finding, ...] = ()


def examine(
    pipeline: PipelineConfig,
    storage: Storage,
    *,
    data: str | None = None,
    steps: int | None = None,
    workers: int = 1,
) -> Examination:
    """Check a pipeline.config against the run and the data.

    Args:
        pipeline: its name tells where checkpoints may lie beside it.
        storage: reads the records and label maps.
        data: folder with train/ and val/ (or records alone, then all for training) and
            label_map.pbtxt, in place of the paths in the file.
        steps: optimizer steps of the run; None takes the file's num_steps.
        workers: each takes the file's batch_size.

    Raises:
        NotFoundError: `data` is not there.
        InputError: `data` holds no records.
    """
    config = pipeline.message
    stand_ins = find_data(data, storage) if data is not None else {}
    case = Case(
        pipeline,
        steps=steps or int(config.train_config.num_steps),
        workers=workers,
        labels=_read_labels(config, stand_ins, storage),
        train=_read(_records(config, "train", stand_ins), storage, bool(data)),
        val=_read(_records(config, "val", stand_ins), storage, bool(data)),
    )
    made = Examination(case, Path(pipeline.name).parent, storage, stand_ins, steps)
    return replace(made, findings=_findings(made))


def corrected(examination: Examination) -> tuple[PipelineConfig, tuple[Finding, ...]]:
    """The pipeline.config with every automatic fix made, those that follow from fixes too.

    Returns:
        It, and the findings whose fixes are in it.
    """
    pipeline = examination.case.pipeline
    config, findings = pipeline.message, examination.findings
    done: dict[tuple[str, str], Finding] = {}
    for _ in range(_PASSES):
        open_ = [(one, one.edit) for one in findings if one.edit is not None]
        if not open_:
            break
        for one, edit in open_:
            edit(config)
            done[one.code, one.place] = one
        case = examination.case
        pipeline = pipeline.with_message(config)
        steps = examination.steps_given or int(config.train_config.num_steps)
        again = replace(examination, case=replace(case, pipeline=pipeline, steps=steps))
        findings = _findings(again)
    return pipeline, tuple(done.values())


def _findings(one: Examination) -> tuple[Finding, ...]:
    case = one.case
    model = list(check_architecture(case))
    buildable = not any(finding.code in _UNBUILDABLE for finding in model)
    return by_severity(
        [
            *(_of_repair(one) for one in case.pipeline.repairs),
            *check_schedule(case),
            *check_classes(case),
            *model,
            *check_checkpoint(case, one.folder, buildable=buildable),
            *check_data(case),
            *check_evaluation(case),
            *check_paths(case, one.storage, one.stand_ins),
            *check_memory(case),
        ]
    )


def _of_repair(one: Repair) -> Finding:
    """What was mended while the text was read; the message is right already."""
    return Finding(
        "error",
        "two-augmentations-in-one-block",
        one.place,
        f"{one.first} and {one.second} stand in one data_augmentation_options, which holds one "
        "step only: the OD API refuses the whole file",
        f"give {one.second} a data_augmentation_options block of its own",
        edit=lambda _: None,
        line=one.line,
    )


def find_data(data: str, storage: Storage) -> dict[str, str]:
    """Where the records and the label map below a data folder lie.

    Returns:
        URIs by "train records", "val records", "train labels", "val labels"; what is not there is
        left out, but for the training records.

    Raises:
        NotFoundError: the folder is not there.
        InputError: it is empty.
    """
    if next(storage.list_files(data), None) is None:
        raise InputError(f"{data} is an empty folder: expected train/ and val/ with records")
    found: dict[str, str] = {}
    for split, names in (("train", ("train",)), ("val", ("val", "validation", "eval"))):
        for folder in (join_uri(data, name) for name in names):
            pattern = join_uri(folder, "*.tfrecord")
            if _is_there(pattern, storage) or _is_there(folder, storage):
                found[f"{split} records"] = pattern if _is_there(pattern, storage) else folder
                break
    found.setdefault("train records", data)
    for name in ("label_map.pbtxt", "train/label_map.pbtxt"):
        if storage.exists(join_uri(data, name)):
            found["train labels"] = found["val labels"] = join_uri(data, name)
            break
    return found


def _is_there(uri: str, storage: Storage) -> bool:
    try:
        return next(storage.list_files(uri), None) is not None
    except NotFoundError:
        return False


def _records(config: Any, split: str, stand_ins: dict[str, str]) -> list[str]:
    if stand_ins:
        given = stand_ins.get(f"{split} records")
        return [given] if given else []
    readers = [config.train_input_reader] if split == "train" else list(config.eval_input_reader)
    return [path for one in readers for path in one.tf_record_input_reader.input_path]


def _read(uris: list[str], storage: Storage, insist: bool) -> DataSplit | None:
    """The split, or None where the config's own paths can't be read: check_paths says so."""
    try:
        return read_split(uris, storage) if uris else None
    except UrbandetError:
        if insist:
            raise
        return None


def _read_labels(config: Any, stand_ins: dict[str, str], storage: Storage) -> LabelMap | None:
    path = stand_ins.get("train labels") or config.train_input_reader.label_map_path
    try:
        return LabelMap.parse(storage.read_bytes(path).decode(), path) if path else None
    except StorageError:
        return None
    except UnicodeDecodeError:
        raise LabelError(f"{path} is not text, expected a label_map.pbtxt") from None
