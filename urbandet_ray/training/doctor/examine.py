"""The examination: what is there is read once, then every check has its say."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from urbandet_ray.errors import InputError, LabelError, NotFoundError, StorageError, UrbandetError
from urbandet_ray.labels import LabelMap
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
from urbandet_ray.training.doctor.source import Pipeline, parse_pipeline
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
    text: str,
    name: str,
    storage: Storage,
    *,
    data: str | None = None,
    steps: int | None = None,
    workers: int = 1,
) -> Examination:
    """Check the text of a pipeline.config against the run and the data.

    Args:
        text: the file's content.
        name: its path, for messages and to find checkpoints beside it.
        storage: reads the records and label maps.
        data: folder with train/ and val/ (or records alone, then all for training) and
            label_map.pbtxt, in place of the paths in the file.
        steps: optimizer steps of the run; None takes the file's num_steps.
        workers: each takes the file's batch_size.

    Raises:
        ConfigError: the text is no pipeline config.
        NotFoundError: `data` is not there.
        InputError: `data` holds no records.
    """
    pipeline = parse_pipeline(text, name)
    stand_ins = find_data(data, storage) if data is not None else {}
    case = Case(
        pipeline,
        steps=steps or int(pipeline.config.train_config.num_steps),
        workers=workers,
        labels=_read_labels(pipeline.config, stand_ins, storage),
        train=_read(_records(pipeline.config, "train", stand_ins), storage, bool(data)),
        val=_read(_records(pipeline.config, "val", stand_ins), storage, bool(data)),
    )
    made = Examination(case, Path(name).parent, storage, stand_ins, steps)
    return replace(made, findings=_findings(made))


def corrected(examination: Examination) -> tuple[Any, tuple[Finding, ...]]:
    """A copy of the message with every automatic fix made, those that follow from fixes too.

    Returns:
        The copy, and the findings whose fixes are in it.
    """
    config = type(examination.case.config)()
    config.CopyFrom(examination.case.config)
    findings, done = examination.findings, dict[tuple[str, str], Finding]()
    for _ in range(_PASSES):
        open_ = [(one, one.edit) for one in findings if one.edit is not None]
        if not open_:
            break
        for one, edit in open_:
            edit(config)
            done[one.code, one.place] = one
        case = examination.case
        pipeline = Pipeline(case.pipeline.name, config, case.pipeline.lines)
        steps = examination.steps_given or int(config.train_config.num_steps)
        again = replace(examination, case=replace(case, pipeline=pipeline, steps=steps))
        findings = _findings(again)
    return config, tuple(done.values())


def _findings(one: Examination) -> tuple[Finding, ...]:
    case = one.case
    model = list(check_architecture(case))
    buildable = not any(finding.code in _UNBUILDABLE for finding in model)
    return by_severity(
        [
            *case.pipeline.repairs,
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
