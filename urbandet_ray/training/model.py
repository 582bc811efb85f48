"""What a model must offer to be trained: the OD API's models do (odapi_model.py), yours may too
(docs/examples/centre_net.py). TensorFlow is that of models/odapi.py, whose Keras is 2.

Tensors carry the OD API's names (object_detection/core/standard_fields.py, InputDataFields), so
that its augmentations, losses and exporters fit without translation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

Tensors = dict[str, Any]
"""TensorFlow tensors by name."""


class TrainableModel(Protocol):
    """A detector that can be trained by `urbandet train`.

    One image, as `example` gets it, is a dict of
        image                           [h, w, 3] float32 RGB in 0 to 255, augmented already
        groundtruth_boxes               [n, 4] float32 ymin, xmin, ymax, xmax in [0, 1]
        groundtruth_classes             [n] int64, ids of the label map, from 1
        groundtruth_weights             [n] float32 loss weights
        groundtruth_is_crowd, groundtruth_difficult, groundtruth_group_of   [n] bool
        groundtruth_instance_masks      [n, h, w] float32 in {0, 1}, only where masks are trained
    """

    num_classes: int
    """Highest class id it can answer."""

    input_size_hw: tuple[int, int]
    """Height and width [px] of the images it computes with."""

    learns_masks: bool
    """Whether instance masks should be read for it."""

    def example(self, image: Tensors) -> tuple[Tensors, Tensors]:
        """Features and labels of one image, of fixed shapes so that they can be batched."""
        ...

    def build(self, batch_size: int) -> None:
        """Make all variables."""
        ...

    def losses(self, features: Tensors, labels: Tensors) -> Tensors:
        """Scalar losses of a batch in training mode, by name; their sum is minimised.

        Each is either a mean over the batch's images (or of the weights alone, as a regularizer
        is), or a sum over the batch divided by a count that `loss_counts` tells. Batch-norm's
        moving averages are updated on the way, unless they are frozen.
        """
        ...

    def loss_counts(self, labels: Tensors) -> Tensors:
        """What `losses` divides by, so that several batches can make one optimizer step.

        Called only where a step has several batches (batch.accumulate, workers.count).

        Returns:
            By the name of a loss the scalar n (boxes, matches) where that loss is its batch's sum
            divided by max(n, 1); 0 where it is the sum itself. Losses that are means over images
            are left out: {} where all are.
        """
        ...

    def detect(self, features: Tensors) -> Tensors:
        """Detections of a batch in inference mode.

        Returns:
            detection_boxes [b, k, 4] float32 ymin, xmin, ymax, xmax as shares of the image;
            detection_scores [b, k] float32, best first, zero where there is none;
            detection_classes [b, k] float32 from 0.
        """
        ...

    @property
    def trainable_variables(self) -> Sequence[Any]:
        """Variables the optimizer changes."""
        ...

    @property
    def batch_norms(self) -> Sequence[Any]:
        """Batch-norm layers, with `moving_mean`, `moving_variance` and `momentum`."""
        ...

    @property
    def trackable(self) -> Any:
        """What a checkpoint holds under the name `model`."""
        ...
