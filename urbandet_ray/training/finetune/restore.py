"""Fills a built model's variables from a checkpoint, without building the checkpoint's model."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from urbandet_ray.errors import ConfigError, ModelError, first_line
from urbandet_ray.labels import LabelMap
from urbandet_ray.models.classes import ModelLabels
from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.training.finetune.anchors import CodeChange, code_change
from urbandet_ray.training.finetune.heads import (
    ClassRows,
    box_codes,
    class_rows,
    objectness,
    parts,
)
from urbandet_ray.training.finetune.pyramid_levels import Places, places_by_level, pyramid_levels
from urbandet_ray.training.finetune.report import FineTuneReport, PartCount, class_lines
from urbandet_ray.training.finetune.rows import Table, class_shares, map_rows, silence_rows
from urbandet_ray.training.odapi_model import OdApiModel

KINDS = ("heads", "detection", "full", "classification")
_ANCHORED = {"ssd": "an SSD", "faster_rcnn": "a Faster R-CNN"}
_VALUE = "VARIABLE_VALUE"
_LEAST_SHARE = 0.5
"""Of the model's variables; fewer in a checkpoint mean another architecture."""


def restore_for_finetuning(
    model: OdApiModel,
    checkpoint: str,
    kind: str = "heads",
    *,
    old_labels: LabelMap | ModelLabels | None = None,
    new_labels: LabelMap | None = None,
    renames: Mapping[str, str] | None = None,
    old_model: Any = None,
) -> FineTuneReport:
    """Start a model from a checkpoint; outside of replicas where a strategy made the variables.

    Kind `heads` copies whatever lies under the same path with the same shape, and starts the rows
    of each class from the old classes of its name. Heads that speak of anchors, an SSD's or those
    of region proposals, are kept only where the anchors are the checkpoint's; where they are
    scaled, the box head is too, so that boxes stay. Where an SSD's pyramid has other levels, layers
    of a level are matched by level. The other kinds are the OD API's own.

    Args:
        model: built.
        checkpoint: prefix (.../ckpt-0) of an object-based checkpoint.
        kind: heads, detection, full or classification.
        old_labels: the checkpoint's classes; for heads.
        new_labels: the run's classes; for heads.
        renames: old name -> new name (models/mappings); None where names must match.
        old_model: the checkpoint's DetectionModel message; None where nobody knows it.

    Raises:
        ConfigError: an unknown kind, or heads without labels.
        LabelError: no old class is a new one, or an id has no row.
        ModelError: no such checkpoint, or one of another architecture or kind.
    """
    if kind not in KINDS:
        raise ConfigError(f"fine-tuning kind is {kind!r}: give one of {', '.join(KINDS)}")
    reader = _open(checkpoint)
    if kind != "heads":
        return _restore_as_odapi(model, checkpoint, kind)
    if old_labels is None or new_labels is None:
        which = "the checkpoint's" if old_labels is None else "the run's"
        raise ConfigError(
            f"heads by name needs {which} classes: name the checkpoint's label map or list in "
            "fine_tune.labels and the run's in labels, or set fine_tune.kind: detection"
        )
    if isinstance(old_labels, LabelMap):
        old_labels = ModelLabels(old_labels, max(old_labels.names), "the checkpoint's label map")
    table = class_shares(old_labels, new_labels, renames)
    change, told = _anchor_change(model, old_model)
    places, told_levels = _level_places(model, old_model)
    done = _fill(model, reader, list(_matches(model.trackable, checkpoint, places)), table, change)
    lines = class_lines(table, old_labels, new_labels, model.num_classes)
    if "mapped" not in done.values():
        lines = ("its class heads do not fit (other anchors a cell?): every class starts random",)
    lines = (*told_levels, *told, *lines)
    report = FineTuneReport(checkpoint, kind, _counted(model, done), lines)
    if report.copied < _LEAST_SHARE * len(model.variables):
        raise ModelError(
            f"{checkpoint} fits {report.copied} of the model's {len(model.variables)} variables: "
            "it is of another architecture; take a checkpoint of the same model"
        )
    return report


def _open(checkpoint: str) -> Any:
    tf = open_odapi().tf
    try:
        reader = tf.train.load_checkpoint(checkpoint)
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"no readable checkpoint at {checkpoint} ({first_line(error)}): expected a "
            "prefix such as .../checkpoint/ckpt-0, with .index and .data files"
        ) from error
    if not reader.has_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"):
        raise ModelError(
            f"{checkpoint} is a TF1 checkpoint, without an object graph: take one of the TF2 zoo"
        )
    return reader


def _anchor_change(model: OdApiModel, old_model: Any) -> tuple[CodeChange | None, tuple[str, ...]]:
    """What the box head needs, and what is to be said; None where anchors are others."""
    if model.kind not in _ANCHORED:
        return CodeChange(), ()
    if old_model is None or old_model.WhichOneof("model") != model.kind:
        return CodeChange(), (
            f"no pipeline.config of {_ANCHORED[model.kind]} lies beside the checkpoint: its "
            "anchors are taken to be the model's",
        )
    change = code_change(model.kind, getattr(old_model, model.kind), model.message)
    head = "box head" if model.kind == "ssd" else "head of region proposals"
    if change is None:
        return None, (
            f"the checkpoint's anchors are others than the model's, so its {head} says nothing "
            "here: it starts random. Take the anchor generator of its pipeline.config to keep it",
        )
    if change.is_none:
        return change, ()
    return change, (f"the checkpoint's anchors are scaled in the model: so is its {head}",)


def _level_places(model: OdApiModel, old_model: Any) -> tuple[Places, tuple[str, ...]]:
    """Where the checkpoint has the layers of the model's pyramid levels, and what is to be said."""
    if model.kind != "ssd" or old_model is None or old_model.WhichOneof("model") != "ssd":
        return {}, ()
    was, now = pyramid_levels(old_model.ssd), pyramid_levels(model.message)
    if was is None or now is None or was == now:
        return {}, ()
    return places_by_level(model.trackable, old_model.ssd, model.message), (
        "the checkpoint's pyramid has levels {} to {}, the model's {} to {}: layers are matched by "
        "level, and those of a level that the checkpoint lacks start random".format(*was, *now),
    )


def _fill(
    model: OdApiModel,
    reader: Any,
    matches: Sequence[tuple[Any, str]],
    table: Table,
    change: CodeChange | None,
) -> dict[int, str]:
    """Assign what fits; "copied" or "mapped" by the variable's id()."""
    heads = class_rows(model.trackable, model.kind)
    codes = box_codes(model.trackable, model.kind)
    scores = objectness(model.trackable, model.kind)
    shapes = reader.get_variable_to_shape_map()
    done: dict[int, str] = {}
    for variable, key in matches:
        if change is None and (id(variable) in codes or id(variable) in scores):
            continue
        if id(variable) not in heads and tuple(variable.shape) == tuple(shapes[key]):
            values = reader.get_tensor(key)
            if id(variable) in codes and change is not None:
                is_bias = codes[id(variable)] == "bias"
                values = change.bias(values) if is_bias else change.kernel(values)
            variable.assign(values)
            done[id(variable)] = "copied"
    for variable, key in matches if _same_anchors(model, done) else []:
        if id(variable) in heads:
            filled = _mapped(variable, reader.get_tensor(key), heads[id(variable)], table)
            if filled is not None:
                variable.assign(filled)
                done[id(variable)] = "mapped"
    return done


def _same_anchors(model: OdApiModel, done: Mapping[int, str]) -> bool:
    """Whether an SSD's box heads fitted: if not, its class heads have other anchors too."""
    boxes = dict(parts(model.trackable, model.kind)).get("box head", [])
    return model.kind != "ssd" or all(id(variable) in done for variable in boxes)


def _mapped(variable: Any, old: Any, head: ClassRows, table: Table) -> Any:
    """The variable's new value; None where the old one is of another kind of head."""
    old_layout = head.layout.of_old(old.shape[-1])
    if old_layout is None or tuple(old.shape[:-1]) != tuple(variable.shape[:-1]):
        return None
    filled = map_rows(old, variable.numpy(), table, old_layout, head.layout)
    if head.silent is None:
        return filled
    return silence_rows(filled, head.layout, table, head.silent)


def _matches(model: Any, checkpoint: str, places: Places) -> Iterable[tuple[Any, str]]:
    """The model's variables that the checkpoint has under the same path, and their keys there.

    Walks as tf.train.CheckpointView.match does; elements of the lists of `places` have others.
    """
    tf = open_odapi().tf
    view, children = tf.train.CheckpointView(checkpoint), tf.train.TrackableView.children
    nodes = view._object_graph_proto.nodes
    top = view.children(0)
    waiting: deque[tuple[int, Any, tuple[str, ...]]] = deque()
    if "model" in top:
        waiting.append((top["model"], model, ()))
    seen: set[int] = set()
    while waiting:
        node, thing, path = waiting.popleft()
        if node in seen:
            continue
        seen.add(node)
        for attribute in nodes[node].attributes:
            if attribute.name == _VALUE and hasattr(thing, "assign"):
                yield thing, attribute.checkpoint_key
        theirs, renamed = view.children(node), places.get(path, {})
        for name, child in children(thing).items():
            old_name = renamed.get(name, name)
            if old_name is not None and old_name in theirs:
                waiting.append((theirs[old_name], child, (*path, name)))


def _restore_as_odapi(model: OdApiModel, checkpoint: str, kind: str) -> FineTuneReport:
    """As model_lib_v2.load_fine_tune_checkpoint, with a message for what does not fit."""
    tf = open_odapi().tf
    before = {id(one): one.numpy() for one in model.variables}
    try:
        wanted = model.trackable.restore_from_objects(fine_tune_checkpoint_type=kind)
        status = tf.train.Checkpoint(**wanted).restore(checkpoint)
        status.expect_partial().assert_existing_objects_matched()
    except (AssertionError, ValueError) as error:
        for variable in model.variables:  # what was restored before the misfit
            variable.assign(before[id(variable)])
        raise ModelError(
            f"{checkpoint} does not fit the model as a {kind} checkpoint "
            f"({first_line(error)[:200]}): take a checkpoint of the same model, or "
            "another fine-tuning kind; `urbandet doctor` compares the two"
        ) from error
    restored = {id(one) for root in wanted.values() for one in _variables_of(root)}
    return FineTuneReport(checkpoint, kind, _counted(model, dict.fromkeys(restored, "copied")))


def _variables_of(root: Any) -> Iterable[Any]:
    tf = open_odapi().tf
    for thing in tf.train.TrackableView(root).descendants():
        if hasattr(thing, "assign"):
            yield thing


def _counted(model: OdApiModel, done: Mapping[int, str]) -> tuple[PartCount, ...]:
    heads = class_rows(model.trackable, model.kind)
    names: dict[int, str] = {key: head.part for key, head in heads.items()}
    for part, variables in parts(model.trackable, model.kind):
        for variable in variables:
            names.setdefault(id(variable), part)
    counts: dict[str, Counter[str]] = {}
    for variable in model.variables:
        part = names.get(id(variable), "other")
        counts.setdefault(part, Counter())[done.get(id(variable), "random")] += 1
    return tuple(PartCount(part, **count) for part, count in counts.items())
