"""Is the fine-tuning checkpoint there, of the model's architecture, and asked for rightly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from urbandet_ray.errors import first_line
from urbandet_ray.models.checkpoint_files import find_checkpoint_prefix
from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.storage import Storage, is_remote
from urbandet_ray.training.doctor.case import Case, setting
from urbandet_ray.training.doctor.findings import Finding

_PATH = "train_config.fine_tune_checkpoint"
_TYPE = "train_config.fine_tune_checkpoint_type"
_VERSION = "train_config.fine_tune_checkpoint_version"
_TYPES = ("detection", "classification", "full")
_PARTS = {
    "ssd": ("_feature_extractor",),
    "center_net": ("_feature_extractor",),
    "faster_rcnn": (
        "_feature_extractor_for_box_classifier_features",
        "_feature_extractor_for_proposal_features",
    ),
}
_PLACEHOLDER = "PATH_TO_BE_CONFIGURED/"
_FROZEN = "model.faster_rcnn.feature_extractor.batch_norm_trainable"
_SHOWN = 3
_SIDE = 256
"""Image side [px] that gives every pyramid level a cell; EfficientDet refuses 128."""

Shape = tuple[int, ...]


def check_checkpoint(case: Case, folder: Path, *, buildable: bool = True) -> Iterator[Finding]:
    """The checkpoint, its type and, where both can be read, its shapes against the model's.

    Args:
        folder: where the config lies; paths beside it are found and offered.
        buildable: whether the model can be built at all.
    """
    train = case.config.train_config
    if not train.fine_tune_checkpoint:
        yield case.finding(
            "warning",
            "from-scratch",
            _PATH,
            "no fine_tune_checkpoint: training starts from random weights, which takes hundreds "
            "of thousands of steps",
            "name a pretrained checkpoint of the same model (.../checkpoint/ckpt-0)",
        )
        yield from _check_frozen(case)
        return
    if train.fine_tune_checkpoint_version != 2:
        yield case.finding(
            "error",
            "checkpoint-version",
            _VERSION,
            "fine_tune_checkpoint_version is V1 (the default), the OD API refuses it in TF2",
            "fine_tune_checkpoint_version: V2",
            setting(_VERSION, 2),
        )
    kind = train.fine_tune_checkpoint_type
    if not kind and train.from_detection_checkpoint:  # as update_fine_tune_checkpoint_type does
        kind = "detection"
    if kind and kind not in _TYPES:
        offered = "classification" if kind.startswith("class") else "detection"
        yield _wrong_type(case, f"{kind!r} is not one of {', '.join(_TYPES)}", offered)
        kind = offered
    if is_remote(train.fine_tune_checkpoint):
        yield case.finding(
            "warning",
            "checkpoint-not-checked",
            _PATH,
            f"{train.fine_tune_checkpoint} was not looked at, and TensorFlow alone does not read "
            "such a URI",
            "copy the checkpoint to a local folder and name that",
        )
        return
    prefix, findings = _locate(case, train.fine_tune_checkpoint, folder)
    yield from findings
    if prefix is not None:
        yield from _check_content(case, prefix, kind or "classification", buildable)


def _check_frozen(case: Case) -> Iterator[Finding]:
    """Random weights under batch norm that is not trained: nothing keeps activations in bounds."""
    model = case.config.model
    if model.WhichOneof("model") != "faster_rcnn":
        return
    if not model.faster_rcnn.feature_extractor.batch_norm_trainable:
        yield case.finding(
            "warning",
            "frozen-batch-norm",
            _FROZEN,
            "batch norm is frozen at mean 0 and variance 1 over random weights: activations grow "
            "from layer to layer, losses of hundreds are usual and little is learnt",
            "batch_norm_trainable: true, or a pretrained checkpoint",
            setting(_FROZEN, True),
        )


def _wrong_type(case: Case, what: str, offered: str) -> Finding:
    return case.finding(
        "error",
        "checkpoint-type",
        _TYPE,
        f"{what}: the OD API refuses to start, or starts from random weights",
        f'fine_tune_checkpoint_type: "{offered}"',
        setting(_TYPE, offered),
    )


def _locate(case: Case, told: str, folder: Path) -> tuple[str | None, list[Finding]]:
    """The prefix that can be read, and what is to be said about the path."""
    if _is_prefix(Path(told)):
        return told, []
    meant = _meant(told, folder)
    if meant is None:
        return None, [
            case.finding(
                "error",
                "checkpoint-missing",
                _PATH,
                f"there is no {told}.index: training ends before the first step",
                "the prefix of an existing checkpoint, e.g. /models/<name>/checkpoint/ckpt-0",
            )
        ]
    finding = case.finding(
        "error",
        "checkpoint-path",
        _PATH,
        f"{told} is not a checkpoint's prefix seen from here ({Path.cwd()}); {meant} is one",
        f'fine_tune_checkpoint: "{meant}"',
        setting(_PATH, meant),
    )
    return meant, [finding]


def _is_prefix(path: Path) -> bool:
    return Path(f"{path}.index").is_file()


def _meant(told: str, folder: Path) -> str | None:
    """The checkpoint a path probably means: beside the config, a folder, or one of its files."""
    for base in (Path(), folder.absolute()):
        path = base / told.removeprefix(_PLACEHOLDER)
        found = find_checkpoint_prefix(str(path), Storage())
        if found is not None:
            return found
    return None


def _check_content(case: Case, prefix: str, kind: str, buildable: bool) -> Iterator[Finding]:
    tf = open_odapi().tf
    try:
        shapes = tf.train.load_checkpoint(prefix).get_variable_to_shape_map()
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        yield case.finding(
            "error",
            "checkpoint-unreadable",
            _PATH,
            f"{prefix} can't be read: {first_line(error)}",
            "fetch it again",
        )
        return
    if "_CHECKPOINTABLE_OBJECT_GRAPH" not in shapes:
        yield case.finding(
            "error",
            "checkpoint-of-tf1",
            _PATH,
            f"{prefix} is a TF1 checkpoint (no object graph): the OD API refuses it in TF2",
            "a checkpoint from the TF2 zoo",
        )
        return
    holds = {
        "detection": any(key.startswith("model/_feature_extractor") for key in shapes),
        "classification": any(key.startswith("feature_extractor/") for key in shapes),
    }
    holds["full"] = any(key.startswith("model/_box_predictor") for key in shapes) or (
        case.kind != "ssd" and holds["detection"]
    )
    if not holds[kind]:
        offered = next((one for one in _TYPES if holds[one]), None)
        if offered is None:
            yield _other_architecture(case, prefix, "it holds no feature extractor")
            return
        yield _wrong_type(case, f"{prefix} is a {offered} checkpoint, asked for as {kind}", offered)
        kind = offered
    if buildable and case.kind in _PARTS:
        yield from _compare(case, prefix, kind, shapes)


def _compare(case: Case, prefix: str, kind: str, shapes: dict[str, Any]) -> Iterator[Finding]:
    start = "feature_extractor/" if kind == "classification" else "model/_feature_extractor"
    held = Counter(_variable_shapes(shapes, start))
    try:
        made = _made_shapes(case.config.model.SerializeToString(deterministic=True), case.kind)
    except Exception as error:  # the OD API raises whatever its layers raise
        yield case.finding(
            "error",
            "model-does-not-build",
            f"model.{case.kind}",
            f"building the model ends with {type(error).__name__}: {first_line(error)}",
            "compare the model block with that of a working config",
        )
        return
    wanted = Counter(made["backbone" if kind == "classification" else "extractor"])
    missing = wanted - held
    if missing.total():
        shown = ", ".join("x".join(map(str, shape)) or "scalar" for shape in list(missing)[:_SHOWN])
        yield _other_architecture(
            case,
            prefix,
            f"{missing.total()} of {wanted.total()} variables of {case.extractor} have no "
            f"counterpart in it (shapes {shown})",
        )
    elif kind == "full":
        yield from _compare_heads(case, Counter(made["heads"]), shapes)


def _compare_heads(
    case: Case, everything: Counter[Shape], shapes: dict[str, Any]
) -> Iterator[Finding]:
    held = Counter(_variable_shapes(shapes, "model/_box_predictor"))
    lacking = everything - held
    if lacking.total():
        yield _wrong_type(
            case,
            f"type full wants the checkpoint's heads too, but {lacking.total()} of "
            f"{everything.total()} head variables differ in shape (other num_classes or anchors)",
            "detection",
        )


def _variable_shapes(shapes: dict[str, Any], start: str) -> Iterable[Shape]:
    return (
        tuple(shape)
        for key, shape in shapes.items()
        if key.startswith(start) and key.endswith("VARIABLE_VALUE") and ".OPTIMIZER_SLOT" not in key
    )


@lru_cache(maxsize=8)
def _made_shapes(model: bytes, kind: str) -> dict[str, list[Shape]]:
    """Shapes of a model's variables by part; kept, since building takes seconds."""
    odapi = open_odapi()
    config = odapi.pipeline_pb2.TrainEvalPipelineConfig()
    config.model.ParseFromString(model)
    built = build_model(config.model, kind)
    backbone = getattr(built._feature_extractor, "classification_backbone", None)
    parts = {
        "extractor": [getattr(built, part) for part in _PARTS[kind]],
        "backbone": [] if backbone is None else [backbone],
        "heads": [built._box_predictor] if kind == "ssd" else [],
    }
    return {
        name: [tuple(one.shape) for part in members for one in part.variables]
        for name, members in parts.items()
    }


def build_model(model_config: Any, kind: str) -> Any:
    """The OD API's model with its variables made, by one look at a small empty image.

    Raises:
        Exception: whatever the OD API's builders and layers raise.
    """
    odapi = open_odapi()
    model = odapi.model_builder.build(model_config=model_config, is_training=True)
    image = odapi.tf.zeros([1, _SIDE, _SIDE, 3])
    if kind == "faster_rcnn":  # its second stage needs labels to train: the extractors do
        features, _ = model._extract_proposal_features(image)
        model._extract_box_classifier_features(odapi.tf.zeros([1, 17, 17, _depth_of(features)]))
    else:
        model.predict(image, odapi.tf.constant([[_SIDE, _SIDE, 3]], odapi.tf.int32))
    return model


def _depth_of(features: Any) -> int:
    first = features[0] if isinstance(features, list | tuple) else features
    return int(first.shape[-1])


def _other_architecture(case: Case, prefix: str, why: str) -> Finding:
    return case.finding(
        "error",
        "checkpoint-of-another-model",
        _PATH,
        f"{prefix} is of another architecture: {why}; restoring it ends with an assertion",
        f"a checkpoint of {case.extractor}, or the model this checkpoint is of",
    )
