"""Where the OD API's models keep what belongs to classes: variables and their row layout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from urbandet_ray.training.finetune.rows import PRIOR_LOGIT, RowLayout

_CLASSES = "class_predictions_with_background"
_MASKS = "mask_predictions"
_SILENT = {"kernel": 0.0, "pointwise_kernel": 0.0, "bias": PRIOR_LOGIT}


@dataclass(frozen=True)
class ClassRows:
    """A variable that has rows of classes.

    Attributes:
        part: the head's name in reports.
        layout: of its last dimension.
        silent: what a row of a class without a source holds; None outside of class heads.
    """

    part: str
    layout: RowLayout
    silent: float | None


def class_rows(model: Any, kind: str) -> dict[int, ClassRows]:
    """The variables with rows of classes, by id().

    Args:
        model: the OD API's model, built.
        kind: its meta-architecture's field: ssd, faster_rcnn or center_net.
    """
    find = {"ssd": _of_ssd, "faster_rcnn": _of_faster_rcnn, "center_net": _of_center_net}
    found: dict[int, ClassRows] = {}
    for part, layers, layout in find[kind](model) if kind in find else ():
        for name, variable in _ending(layers):
            if int(variable.shape[-1]) == layout.length:
                silent = _SILENT.get(name) if part == "class head" else None
                found[id(variable)] = ClassRows(part, layout, silent)
    return found


Head = tuple[str, Any, RowLayout]


def _of_ssd(model: Any) -> Iterator[Head]:
    heads = model._box_predictor._prediction_heads[_CLASSES]
    background = int(model._add_background_class or model._explicit_background_class)
    for head in _each(heads):
        layers = head._class_predictor_layers
        channels = int(layers[-1].bias.shape[-1])
        slots = int(head._num_class_slots)
        layout = RowLayout(slots - background, channels // slots, background)
        yield "class head", layers, layout


_ANCHORED = {"ssd": "_box_predictor", "faster_rcnn": "_first_stage_box_predictor"}


def box_codes(model: Any, kind: str) -> dict[int, str]:
    """Variables whose last dimension is codes of boxes by anchors, by id(): kernels and bias."""
    predictor: Any = getattr(model, _ANCHORED.get(kind, ""), None)
    if predictor is None:
        return {}
    shared: Any = getattr(predictor, "_box_prediction_head", None)
    heads = predictor._prediction_heads.get("box_encodings", shared)
    return {
        id(variable): name
        for head in _each(heads)
        for name, variable in _ending(head._box_encoder_layers)
    }


def objectness(model: Any, kind: str) -> set[int]:
    """The id() of the variables that score a Faster R-CNN's anchors as objects."""
    if kind != "faster_rcnn":
        return set()
    heads = model._first_stage_box_predictor._prediction_heads[_CLASSES]
    return {
        id(variable)
        for head in _each(heads)
        for _, variable in _ending(head._class_predictor_layers)
    }


def _each(heads: Any) -> Any:
    """Convolutional predictors have a head a level, weight-shared ones one for all."""
    return heads if hasattr(heads, "__iter__") else [heads]


def _of_faster_rcnn(model: Any) -> Iterator[Head]:
    predictor = getattr(model, "_mask_rcnn_box_predictor", None)
    if predictor is None or not hasattr(predictor, "_class_prediction_head"):
        return
    classes = int(model.num_classes)
    yield (
        "class head",
        predictor._class_prediction_head._class_predictor_layers,
        RowLayout(classes, background=1),
    )
    box = predictor._box_prediction_head
    if not box._share_box_across_classes:
        yield "box head", box._box_encoder_layers, RowLayout(classes, width=4)
    mask = predictor._third_stage_heads.get(_MASKS)
    if mask is not None and not mask._masks_are_class_agnostic:
        yield "mask head", mask._mask_predictor_layers, RowLayout(classes)


def _of_center_net(model: Any) -> Iterator[Head]:
    classes = int(model.num_classes)
    for name, part in (("object_center", "class head"), ("segmentation/heatmap", "mask head")):
        for net in model._prediction_head_dict.get(name, ()):
            yield part, net.layers, RowLayout(classes)


def _ending(layers: Any) -> Iterator[tuple[str, Any]]:
    """Variables of a head's last weights and what follows them, by name."""
    for layer in reversed(list(layers)):
        for name in ("kernel", "pointwise_kernel", "bias", *_NORMS):
            variable = getattr(layer, name, None)
            if variable is not None:
                yield name, variable
        if getattr(layer, "bias", None) is not None:
            return


_NORMS = ("gamma", "beta", "moving_mean", "moving_variance")


def parts(model: Any, kind: str) -> Iterator[tuple[str, list[Any]]]:
    """The model's parts and their variables, for reports; heads of classes are not told apart."""
    names = {
        "_feature_extractor": "feature extractor",
        "_feature_extractor_for_proposal_features": "feature extractor",
        "_feature_extractor_for_box_classifier_features": "second-stage features",
        "_first_stage_box_predictor_first_conv": "region proposals",
        "_first_stage_box_predictor": "region proposals",
        "_box_predictor": "predictor towers",
        "_mask_rcnn_box_predictor": "predictor towers",
    }
    for head, name in _other_heads(model, kind):
        yield name, list(head.variables)
    for attribute, name in names.items():
        part: Any = getattr(model, attribute, None)
        if hasattr(part, "variables"):
            yield name, list(part.variables)


def _other_heads(model: Any, kind: str) -> Iterator[tuple[Any, str]]:
    if kind == "ssd":
        predictor = model._box_predictor
        heads = predictor._prediction_heads
        boxes = heads.get("box_encodings", getattr(predictor, "_box_prediction_head", None))
        for name, head in (("box head", boxes), ("class head", heads[_CLASSES])):
            for each in _each(head):
                yield each, name
    elif kind == "faster_rcnn" and hasattr(model, "_mask_rcnn_box_predictor"):
        predictor = model._mask_rcnn_box_predictor
        yield predictor._box_prediction_head, "box head"
        yield predictor._class_prediction_head, "class head"
        if _MASKS in predictor._third_stage_heads:
            yield predictor._third_stage_heads[_MASKS], "mask head"
    elif kind == "center_net":
        for name, nets in model._prediction_head_dict.items():
            part = {"object_center": "class head", "segmentation/heatmap": "mask head"}
            for net in nets:
                yield net, part.get(name, "box head")
