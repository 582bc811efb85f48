"""What the OD API divides a batch's losses by, told from labels alone (TrainableModel.loss_counts).

SSD and EfficientDet: the weights of the matched anchors; nothing without
normalize_loss_by_num_matches. CenterNet: the boxes. Faster R-CNN: the images, whose anchors and
proposals are averaged image by image.

Two are not told. Mask losses are divided by what a batch's own proposals (Mask R-CNN) or pixels
(CenterNet) come to: they are averaged over batches. And where an SSD's random_example_sampler drops
matches by chance, the count is of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.training.model import Tensors

_SSD_LOSSES = ("Loss/localization_loss", "Loss/classification_loss")
_CENTER_LOSSES, _BOX_LOSSES = ("Loss/object_center",), ("Loss/box/scale", "Loss/box/offset")


def count_matches(
    detector: Any, train: Any, grids: Sequence[tuple[int, int]], size_hw: Sequence[int], labels: Any
) -> Tensors:
    """An SSD's counts, by the matching that its loss makes too.

    Args:
        detector: the OD API's model, in training mode.
        train: TrainConfig message.
        grids: rows and columns of its feature maps.
        size_hw: height and width of its input [px].
        labels: of a batch.
    """
    odapi = open_odapi()
    if not detector._normalize_loss_by_num_matches:
        return dict.fromkeys(_SSD_LOSSES, odapi.tf.constant(0.0))
    truth = odapi.model_lib.unstack_batch(
        dict(labels), unpad_groundtruth_tensors=train.unpad_groundtruth_tensors
    )
    odapi.model_lib.provide_groundtruth(detector, truth)
    anchors = detector._anchor_generator.generate(grids, im_height=size_hw[0], im_width=size_hw[1])
    detector._anchors = odapi.box_list_ops.concatenate(anchors)

    def given(name: str) -> Any:
        return detector.groundtruth_lists(name) if detector.groundtruth_has_field(name) else None

    names = odapi.fields.BoxListFields
    _, _, _, weights, _ = detector._assign_targets(
        given(names.boxes),
        given(names.classes),
        given(names.keypoints),
        given(names.weights),
        given(names.confidences),
    )
    return dict.fromkeys(_SSD_LOSSES, odapi.tf.reduce_sum(weights))


def count_boxes(center_net: Any, labels: Tensors) -> Tensors:
    """A CenterNet's counts.

    Args:
        center_net: CenterNet message.
        labels: of a batch.
    """
    odapi = open_odapi()
    weights = labels[odapi.fields.InputDataFields.groundtruth_weights]
    boxes = odapi.tf.cast(odapi.tf.math.count_nonzero(weights), odapi.tf.float32)
    has_boxes = center_net.HasField("object_detection_task")
    return dict.fromkeys(_CENTER_LOSSES + (_BOX_LOSSES if has_boxes else ()), boxes)
