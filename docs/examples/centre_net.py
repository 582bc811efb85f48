"""A detector of your own for `urbandet train --set model=centre_net:build`: a small CenterNet.

After Zhou, Wang, Krähenbühl: Objects as Points, arXiv 1904.07850. Each class has a heatmap with a
peak at the centre of each box, and at a peak the network tells the box. From TTFNet
(arXiv 1909.00700): the spots have the boxes' shape, and the box is learnt on all of its spot.
"""

from __future__ import annotations

from typing import Any

from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.training.model import Tensors, TrainableModel

STRIDE, MOST_BOXES, MOST_FOUND = 4, 100, 100


def build(num_classes: int) -> TrainableModel:
    """What `urbandet train` calls, in each worker."""
    return CentreNet(num_classes)


class CentreNet:
    """Implements TrainableModel; sides of the input are multiples of 32, from 64 on."""

    learns_masks = False

    def __init__(self, num_classes: int, input_size_hw: tuple[int, int] = (256, 384)) -> None:
        self.num_classes, self.input_size_hw = num_classes, input_size_hw
        self._tf = open_odapi().tf  # with Keras 2, which the trainer's optimizers are made for
        self._cells_hw = [side // STRIDE for side in input_size_hw]
        rows, columns = (self._tf.range(float(count)) for count in self._cells_hw)
        self._cells = self._tf.stack(self._tf.meshgrid(rows, columns, indexing="ij"), axis=-1)

    def build(self, batch_size: int) -> None:  # noqa: ARG002 - no variable depends on it
        """Down to 1/32 of the size and up again to 1/4; batch norm that settles in a short run."""
        layers = self._tf.keras.layers

        def conv(x: Any, channels: int, stride: int = 1) -> Any:
            x = layers.Conv2D(channels, 3, stride, "same", use_bias=False)(x)
            return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))

        image = x = layers.Input([*self.input_size_hw, 3])
        levels = []
        for channels in (16, 32, 64, 96, 128):
            x = conv(conv(x, channels, 2), channels)
            levels.append(x)
        for finer in levels[-2:0:-1]:
            x = layers.Add()([finer, layers.UpSampling2D()(conv(x, finer.shape[-1]))])
        x = conv(x, 64)
        rare = self._tf.keras.initializers.Constant(-2.19)  # a peak in one cell of ten at first
        heat = layers.Conv2D(self.num_classes, 1, kernel_initializer="zeros", bias_initializer=rare)
        box = layers.Conv2D(4, 1, kernel_initializer="zeros")
        self.trackable = self._tf.keras.Model(image, [heat(x), box(x)])

    def example(self, image: Tensors) -> tuple[Tensors, Tensors]:
        """The image stretched to the input's size; boxes in [0, 1], filled up with class -1."""
        tf = self._tf
        pixels = tf.image.resize(image["image"], self.input_size_hw) / 127.5 - 1
        kept = (image["groundtruth_weights"] > 0) & ~image["groundtruth_is_crowd"]
        boxes = tf.boolean_mask(image["groundtruth_boxes"], kept)[:MOST_BOXES]
        classes = tf.boolean_mask(image["groundtruth_classes"], kept)[:MOST_BOXES] - 1
        lacking = MOST_BOXES - tf.shape(boxes)[0]
        boxes = tf.ensure_shape(tf.pad(boxes, [[0, lacking], [0, 0]]), [MOST_BOXES, 4])
        classes = tf.pad(classes, [[0, lacking]], constant_values=-1)
        return {"image": pixels}, {"boxes": boxes, "classes": tf.ensure_shape(classes, MOST_BOXES)}

    def losses(self, features: Tensors, labels: Tensors) -> Tensors:
        """Focal loss of the heatmaps, L1 of the centres and of the sizes' logarithms [cells]."""
        tf, classes = self._tf, labels["classes"]
        heat, boxes = self.trackable(features["image"], training=True)
        low, high = tf.split(labels["boxes"] * (self._cells_hw * 2), 2, axis=-1)
        centre, size = (low + high) / 2, tf.maximum(high - low, 0.1)
        peak = tf.minimum(tf.floor(centre), [side - 1.0 for side in self._cells_hw])
        away = (self._cells - peak[:, :, None, None]) / (0.09 * size + 0.2)[:, :, None, None]
        spots = tf.exp(-0.5 * tf.reduce_sum(away**2, -1))  # [batch, box, row, column]
        spots = tf.where((classes >= 0)[:, :, None, None], spots, 0.0)
        of_class = [tf.where(classes == c, 1.0, 0.0) for c in range(self.num_classes)]
        truth = tf.stack([tf.reduce_max(spots * c[..., None, None], 1) for c in of_class], -1)
        hit, miss = tf.math.log_sigmoid(heat), tf.math.log_sigmoid(-heat)
        negative = (1 - truth) ** 4 * tf.exp(2 * hit) * miss
        focal = tf.where(truth > 0.999, tf.exp(2 * miss) * hit, negative)
        shares = spots / (tf.reduce_sum(spots, [2, 3], keepdims=True) + 1e-6)  # all boxes count 1
        owner = tf.argmax(shares, 1)
        offset = tf.gather(centre, owner, batch_dims=1) - self._cells - 0.5
        wanted = tf.concat([offset, tf.gather(tf.math.log(size), owner, batch_dims=1)], -1)
        off = tf.reduce_max(shares, 1)[..., None] * tf.abs(wanted - boxes)
        count = tf.maximum(self.loss_counts(labels)["Loss/box"], 1.0)
        return {
            "Loss/heatmap": -tf.reduce_sum(focal) / count,
            "Loss/box": tf.reduce_sum(off) / count,
        }

    def loss_counts(self, labels: Tensors) -> Tensors:
        """Both losses are divided by the boxes of the batch."""
        tf = self._tf
        boxes = tf.reduce_sum(tf.cast(labels["classes"] >= 0, tf.float32))
        return {"Loss/heatmap": boxes, "Loss/box": boxes}

    def detect(self, features: Tensors) -> Tensors:
        """The highest peaks: cells that none of their eight neighbours tops."""
        tf = self._tf
        heat, boxes = self.trackable(features["image"], training=False)
        heat = tf.sigmoid(heat)
        peaks = tf.where(heat < tf.nn.max_pool2d(heat, 3, 1, "SAME"), 0.0, heat)
        scores, places = tf.math.top_k(tf.reshape(peaks, [tf.shape(peaks)[0], -1]), MOST_FOUND)
        centre, half = self._cells + 0.5 + boxes[..., :2], tf.exp(boxes[..., 2:]) / 2
        corners = tf.concat([centre - half, centre + half], -1) / (self._cells_hw * 2)
        corners = tf.reshape(corners, [tf.shape(corners)[0], -1, 4])
        found = tf.gather(corners, places // self.num_classes, batch_dims=1)
        return {
            "detection_boxes": tf.clip_by_value(found, 0.0, 1.0),
            "detection_scores": scores,
            "detection_classes": tf.cast(places % self.num_classes, tf.float32),
        }

    @property
    def trainable_variables(self) -> Any:
        """All kernels, biases and batch-norm scales."""
        return self.trackable.trainable_variables

    @property
    def batch_norms(self) -> Any:
        """All batch-norm layers."""
        return [layer for layer in self.trackable.layers if hasattr(layer, "moving_mean")]
