"""A trained OD API model as a network that takes batches: the TensorFlow side of a fast export.

The stock exporter fixes the batch at one image and keeps the post-processing of every anchor
inside. Here an SSD's heads are the answer and the rest is models/network/postprocess.py's; a
CenterNet's and a Faster R-CNN's own post-processing stays inside, as it takes little.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.errors import ModelError, first_line
from urbandet_ray.exporting.lean_layers import lean_layers
from urbandet_ray.models.network.facts import Resizing
from urbandet_ray.models.network.postprocess import PostProcess
from urbandet_ray.models.odapi import open_odapi, without_autograph

DETECTIONS = ("boxes", "scores", "classes")

Prepare = Callable[[Any, Callable[[Any], Any]], tuple[Any, Any]]
"""From images and a normalisation to the network's input and what of each image is no padding."""


@dataclass(frozen=True)
class TracedNetwork:
    """A network in TensorFlow, ready to be saved or converted.

    Attributes:
        module: holds the variables.
        answer: tf.function of uint8 images [n, height, width, 3] to a dict of float32 tensors:
            deltas and logits, or DETECTIONS: boxes yxyx relative to the image, classes from 0.
        anchors: [a, 4] of an SSD.
        rules: of an SSD.
    """

    module: Any
    answer: Any
    resizing: Resizing
    anchors: NDArray[np.float32] | None
    rules: PostProcess | None


def trace_network(config: Any, checkpoint: str) -> TracedNetwork:
    """Build a pipeline.config's model, restore it and trace it for batches of any size.

    Args:
        config: TrainEvalPipelineConfig message.
        checkpoint: prefix of a tf.train.Checkpoint with `model`, as training and the OD API write.

    Raises:
        ModelError: an architecture or an image resizer that cannot be had in batches, or a
            checkpoint that does not fit.
    """
    odapi = open_odapi()
    tf = odapi.tf
    kind = str(config.model.WhichOneof("model"))
    resizing = _resizing(config.model, kind)
    prepare = _preparing(resizing, kind)
    module = tf.Module()
    answer_of = _answers(kind)

    @without_autograph
    def answer(images: Any) -> dict[str, Any]:
        normalise = model._feature_extractor.preprocess
        inputs, shapes = prepare(tf.cast(images, tf.float32), normalise)
        answered: dict[str, Any] = answer_of(model, inputs, shapes)
        return answered

    signature = [tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")]
    module.answer = tf.function(answer, input_signature=signature)
    with lean_layers():
        module.model = model = odapi.model_builder.build(config.model, is_training=False)
        module.answer.get_concrete_function()  # makes the variables
    _restore(model, checkpoint)
    if kind != "ssd":
        return TracedNetwork(module, module.answer, resizing, None, None)
    anchors = _anchors(model, resizing)
    return TracedNetwork(
        module, module.answer, resizing, anchors, _post_processing(config.model.ssd)
    )


def _restore(model: Any, checkpoint: str) -> None:
    tf = open_odapi().tf
    try:
        tf.train.Checkpoint(model=model).restore(checkpoint).assert_existing_objects_matched()
    except (AssertionError, ValueError, tf.errors.OpError) as error:
        detail = first_line(error)
        raise ModelError(
            f"{checkpoint} does not fit its pipeline.config ({detail}): it is damaged, or of "
            "another run"
        ) from error


def _answers(kind: str) -> Callable[[Any, Any, Any], dict[str, Any]]:
    """From preprocessed images and their shapes [n, 3] to the network's answer."""
    tf = open_odapi().tf

    def raw(model: Any, inputs: Any, shapes: Any) -> dict[str, Any]:
        found = model.predict(inputs, shapes)
        return {
            "deltas": found["box_encodings"],
            "logits": found["class_predictions_with_background"],
        }

    def final(model: Any, inputs: Any, shapes: Any) -> dict[str, Any]:
        found = model.postprocess(model.predict(inputs, shapes), shapes)
        names = ("detection_boxes", "detection_scores", "detection_classes")
        values = [tf.cast(found[name], tf.float32) for name in names]
        return dict(zip(DETECTIONS, values, strict=True))

    return raw if kind == "ssd" else final


def _resizing(model: Any, kind: str) -> Resizing:
    """What the image resizer of a pipeline.config's model comes to.

    Raises:
        ModelError: an architecture or an image resizer that cannot be had in batches.
    """
    if kind not in ("ssd", "faster_rcnn", "center_net"):
        raise ModelError(f"a {kind} model has no network for batches: use the stock export")
    if kind == "faster_rcnn" and model.faster_rcnn.number_of_stages == 1:
        raise ModelError(
            "number_of_stages is 1: a first stage alone finds regions, not classes, and has no "
            "network for batches; train with 2 or use the stock export"
        )
    given = getattr(model, kind).image_resizer
    chosen = given.WhichOneof("image_resizer_oneof")
    one: Any = getattr(given, chosen) if chosen else given
    if chosen == "fixed_shape_resizer":
        resizing = Resizing(int(one.height), int(one.width))
    elif chosen == "keep_aspect_ratio_resizer" and one.pad_to_max_dimension:
        side = int(one.max_dimension)
        resizing = Resizing(side, side, (int(one.min_dimension), side))
    else:
        raise ModelError(
            f"image_resizer is {chosen}: a network for batches needs fixed_shape_resizer, or "
            "keep_aspect_ratio_resizer with pad_to_max_dimension; set it, or use the stock export"
        )
    if one.convert_to_grayscale or one.resize_method != 0 or any(_pad_values(one)):
        raise ModelError(
            f"{chosen} with grey images, another method than BILINEAR or a pad value has no "
            "network for batches: use the stock export"
        )
    return resizing


def _preparing(resizing: Resizing, kind: str) -> Prepare:
    """What does the same as `model.preprocess` for a batch.

    The OD API's own takes one image: images of one size are resized alike, so a batch needs no
    loop. Its bilinear rule is TensorFlow 1's (no half-pixel centres). An SSD normalises before it
    resizes; here that comes after, on as few pixels as there are then: normalising is linear, so
    both come to the same but for rounding. It pads with zeros, the others with black.
    """
    tf = open_odapi().tf

    def prepare(images: Any, normalise: Callable[[Any], Any]) -> tuple[Any, Any]:
        shape = tf.shape(images)
        target: Any = [resizing.height, resizing.width]
        if resizing.keep_aspect is not None:
            shorter, longer = resizing.keep_aspect
            wide = shape[1] < shape[2]
            target = tf.where(wide, [shorter, longer], [longer, shorter])
        seen = tf.compat.v1.image.resize_images(
            images, target, preserve_aspect_ratio=resizing.keep_aspect is not None
        )
        size = tf.shape(seen)
        if kind == "ssd":
            seen = normalise(seen)
        if resizing.keep_aspect is not None:
            below, right = resizing.height - size[1], resizing.width - size[2]
            seen = tf.pad(seen, [[0, 0], [0, below], [0, right], [0, 0]])
        # as reshape, since TFLite has no ensure_shape; padding leaves sides open in the graph
        seen = tf.reshape(seen, [-1, resizing.height, resizing.width, 3])
        if kind != "ssd":
            seen = normalise(seen)
        return seen, tf.tile([[size[1], size[2], 3]], [shape[0], 1])

    return prepare


def _pad_values(resizer: Any) -> list[float]:
    return list(getattr(resizer, "per_channel_pad_value", ()))


def _anchors(model: Any, resizing: Resizing) -> NDArray[np.float32]:
    tf = open_odapi().tf

    def anchors() -> Any:
        size = [resizing.height, resizing.width, 3]
        model.predict(tf.zeros([1, *size]), tf.constant([size]))
        return model.anchors.get()

    return np.asarray(tf.function(without_autograph(anchors))().numpy(), np.float32)


def _post_processing(ssd: Any) -> PostProcess:
    """An SSD's post_processing and box_coder as rules for models/network/postprocess.py."""
    post = ssd.post_processing
    nms, coder = post.batch_non_max_suppression, ssd.box_coder.faster_rcnn_box_coder
    chosen = ssd.box_coder.WhichOneof("box_coder_oneof")
    if chosen != "faster_rcnn_box_coder":
        raise ModelError(
            f"box_coder is {chosen}: a network for batches needs faster_rcnn_box_coder; use the "
            "stock export"
        )
    if nms.use_combined_nms or nms.use_partitioned_nms or post.HasField("calibration_config"):
        raise ModelError(
            "post_processing with use_combined_nms, use_partitioned_nms or calibration_config is "
            "not done outside the network: take it out, or use the stock export"
        )
    converters = {0: "identity", 1: "sigmoid", 2: "softmax"}
    return PostProcess(
        score_converter=converters[post.score_converter],  # type: ignore[arg-type]
        score_min=nms.score_threshold,
        iou_max=nms.iou_threshold,
        max_per_class=nms.max_detections_per_class,
        max_total=nms.max_total_detections,
        background=ssd.add_background_class or ssd.explicit_background_class,
        logit_scale=post.logit_scale,
        box_scales=(coder.y_scale, coder.x_scale, coder.height_scale, coder.width_scale),
        change_coordinate_frame=nms.change_coordinate_frame,
        soft_nms_sigma=nms.soft_nms_sigma,
        class_agnostic=nms.use_class_agnostic_nms,
    )
