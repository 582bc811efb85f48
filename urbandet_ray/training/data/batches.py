"""From records to batches of a model's examples: read, decoded, augmented, ahead of the loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.models.odapi import open_odapi, without_autograph
from urbandet_ray.records.label_faults import SHARES_MAX
from urbandet_ray.training.augmentation.box_columns import (
    BOXES,
    IMAGE,
    MASKS,
    clip_rows,
    keep_rows,
)
from urbandet_ray.training.augmentation.presets import Augmentation
from urbandet_ray.training.data.record_index import RecordIndex
from urbandet_ray.training.data.sampler import Sampler
from urbandet_ray.training.model import Tensors, TrainableModel

BATCHES_AHEAD = 4

_OBJECT = "image/object/"
_SIDES = ("ymin", "xmin", "ymax", "xmax")


def train_dataset(
    index: RecordIndex,
    sampler: Sampler,
    model: TrainableModel,
    augment: Augmentation,
    start_step: int,
    *,
    threads: int,
    masks: bool = False,
) -> Any:
    """An endless tf.data.Dataset of (features, labels), one batch a step, made ahead of the loop.

    Which records come when depends on the sampler alone. What augmentations draw is seeded by the
    run's seed, the worker and the start step, and differs from epoch to epoch; with several
    threads it depends on which of them is first as well.

    Args:
        index: the worker's records; read from the threads of the dataset.
        sampler: of as many records; its batch size is the dataset's.
        model: its `example` gives fixed shapes.
        augment: applied to each image before that.
        start_step: the first batch's step.
        threads: images prepared at a time.
        masks: decode instance masks; images without get empty ones of weight zero.
    """
    tf, seed = open_odapi().tf, sampler.draw_seed(start_step)

    def steps() -> Iterator[tuple[list[bytes], list[list[bytes]]]]:
        step = start_step
        while True:
            own = [index.read(i) for i in sampler.ids(step).tolist()]
            others: list[list[bytes]] = [[] for _ in own]
            if augment.companions:
                rows = sampler.companions(step).tolist()
                others = [[index.read(i) for i in row] for row in rows]
            yield own, others
            step += 1

    def prepare(own: Any, others: Any) -> tuple[Tensors, Tensors]:
        tf.random.set_seed(seed)  # while a graph is made, it is that graph's alone
        image = augment(
            decode_example(own, masks=masks),
            lambda number: decode_example(others[number], masks=masks),
        )
        return model.example(image)

    records = tf.data.Dataset.from_generator(
        steps,
        output_signature=(
            tf.TensorSpec([sampler.batch_size], tf.string),
            tf.TensorSpec([sampler.batch_size, augment.companions], tf.string),
        ),
    )
    images = records.unbatch().map(prepare, num_parallel_calls=threads, deterministic=True)
    batches = images.batch(sampler.batch_size, drop_remainder=True).prefetch(BATCHES_AHEAD)
    return batches.with_options(_options(threads))


def validation_dataset(
    index: RecordIndex,
    ids: NDArray[np.int64],
    model: TrainableModel,
    batch_size: int,
    *,
    threads: int = 2,
    masks: bool = False,
) -> Any:
    """A tf.data.Dataset of (features, ids [batch_size] int64) of records as they are, in order.

    The last batch is filled up with its last image; the ids of those copies are -1.
    """
    tf = open_odapi().tf
    wanted = np.asarray(ids, np.int64).tolist()

    def records() -> Iterator[tuple[bytes, int]]:
        data = b""
        for i in wanted:
            data = index.read(i)
            yield data, i
        for _ in range(-len(wanted) % batch_size):
            yield data, -1

    def prepare(data: Any, number: Any) -> tuple[Tensors, Any]:
        return model.example(decode_example(data, masks=masks))[0], number

    read = tf.data.Dataset.from_generator(
        records,
        output_signature=(tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int64)),
    )
    images = read.map(prepare, num_parallel_calls=threads, deterministic=True)
    batches = images.batch(batch_size, drop_remainder=True).prefetch(BATCHES_AHEAD)
    return batches.with_options(_options(threads))


def augmented_images(
    records: Sequence[bytes], augment: Augmentation, companions: NDArray[np.int64], seed: int
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]]:
    """Records decoded and augmented once each, for people to look at.

    Args:
        records: serialised Examples that build_index would take.
        augment: what is applied.
        companions: [n, 3] numbers of other records.
        seed: of what augmentations draw.

    Yields:
        Image [h, w, 3] RGB, boxes [n, 4] ymin, xmin, ymax, xmax in [0, 1], class ids [n].
    """
    tf = open_odapi().tf
    others = [[records[i] for i in row] for row in companions.tolist()]

    @without_autograph
    def prepare(own: Any, others: Any) -> Any:
        tf.random.set_seed(seed)
        image = augment(decode_example(own), lambda number: decode_example(others[number]))
        pixels = tf.cast(tf.clip_by_value(tf.round(image[IMAGE]), 0, 255), tf.uint8)
        return pixels, image[BOXES], image["groundtruth_classes"]

    given = tf.constant(list(records)), tf.constant(others, tf.string, companions.shape)
    dataset = tf.data.Dataset.from_tensor_slices(given).map(prepare)
    for pixels, boxes, classes in dataset:
        yield pixels.numpy(), boxes.numpy(), classes.numpy()


@without_autograph
def decode_example(serialized: Any, *, masks: bool = False) -> Tensors:
    """A serialised Example as one image's tensors (training/model.py), in the order of its boxes.

    The keys are those of the OD API's TfExampleDecoder; only the ones that are needed are
    looked at, so that an odd value elsewhere does no harm. Boxes are clipped to the image; those
    without area, those that are not finite and those in pixels or percent are left out.
    """
    tf = open_odapi().tf
    kinds = {
        **dict.fromkeys((f"bbox/{side}" for side in _SIDES), tf.float32),
        **dict.fromkeys(("class/label", "is_crowd", "difficult", "group_of"), tf.int64),
        "weight": tf.float32,
        **({"mask": tf.string} if masks else {}),
    }
    keys = {_OBJECT + name: tf.io.RaggedFeature(kind) for name, kind in kinds.items()}
    keys["image/encoded"] = tf.io.FixedLenFeature([], tf.string)
    parsed = tf.io.parse_single_example(serialized, keys)
    boxes = tf.stack([parsed[f"{_OBJECT}bbox/{side}"] for side in _SIDES], axis=1)
    count = tf.shape(boxes)[0]

    def column(name: str, default: Any) -> Any:
        """A column, filled up where the record does not have it."""
        given = parsed[_OBJECT + name]
        return tf.concat([given, tf.fill([count - tf.size(given)], default)], 0)

    nothing = tf.constant(0, tf.int64)
    pixels = tf.io.decode_image(parsed["image/encoded"], channels=3, expand_animations=False)
    pixels.set_shape([None, None, 3])
    image = {
        IMAGE: tf.cast(pixels, tf.float32),
        BOXES: boxes,
        "groundtruth_classes": column("class/label", nothing),
        "groundtruth_weights": column("weight", 1.0),
    }
    for name in ("is_crowd", "difficult", "group_of"):
        image[f"groundtruth_{name}"] = column(name, nothing) > 0
    if masks:
        image |= _decode_masks(column("mask", ""), tf.shape(pixels)[:2])
    shares = tf.reduce_all(tf.abs(boxes) <= SHARES_MAX, axis=1)
    return clip_rows(keep_rows(image, shares))


def _decode_masks(encoded: Any, size: Any) -> Tensors:
    """Masks [n, h, w] and their weights: a missing one is empty and weighs nothing."""
    tf = open_odapi().tf

    def decode(png: Any) -> Any:
        mask = tf.cond(
            tf.strings.length(png) > 0,
            lambda: tf.io.decode_image(png, channels=1, expand_animations=False)[..., 0],
            lambda: tf.zeros(size, tf.uint8),
        )
        return tf.cast(mask > 0, tf.float32)

    # one more than there are: without any, map_fn does not know the size
    more = tf.concat([encoded, [""]], 0)
    signature = tf.TensorSpec([None, None], tf.float32)
    masks = tf.map_fn(decode, more, fn_output_signature=signature)[:-1]
    weights = tf.cast(tf.strings.length(encoded) > 0, tf.float32)
    return {MASKS: masks, "groundtruth_instance_mask_weights": weights}


def _options(threads: int) -> Any:
    """Threads of its own, and each worker reads its own share: nothing to be sharded again."""
    tf = open_odapi().tf
    options = tf.data.Options()
    options.autotune.enabled = False
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    options.threading.private_threadpool_size = threads
    options.threading.max_intra_op_parallelism = 1
    return options
