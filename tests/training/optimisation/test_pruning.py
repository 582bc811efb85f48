"""Which kernels are pruned, and masks that outlive a restart."""

import math

import numpy as np
import pytest

from urbandet_ray.errors import ConfigError
from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.training.optimisation.pruning import (
    EVERY_STEPS,
    make_pruner,
    mask_of,
    sizes_text,
)

pytestmark = pytest.mark.train


def kernel(name: str = "conv/kernel", shape: tuple[int, ...] = (3, 3, 16, 16)):
    tf = open_odapi().tf
    values = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    return tf.Variable(values, name=name)


def pruner_of(*variables, sparsity: float = 0.5, begin: int = 0, end: int = 100):
    return make_pruner(variables, sparsity=sparsity, pattern="element", begin=begin, end=end)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("Conv1/kernel", (3, 3, 3, 32)),
        ("block_1_depthwise/depthwise_kernel", (3, 3, 16, 1)),
        ("WeightSharedConvolutionalBoxPredictor/ClassPredictionTower/conv/kernel", (3, 3, 16, 16)),
        ("mask_rcnn_keras_box_predictor/ClassPredictor_dense/kernel", (64, 4)),
        ("conv2d_9/kernel", (1, 1, 256, 2)),
        ("conv2d_transpose/kernel", (4, 4, 64, 64)),
        ("bifpn/node_02/combine/bifpn_combine_weights", (2, 1)),
        ("logits/kernel", (1280, 1000)),
        ("conv/bias", (16,)),
    ],
)
def test_first_layer_heads_and_depthwise_kernels_are_kept(name: str, shape) -> None:
    """Only the kernel that may be pruned is in the report."""
    (layer,) = pruner_of(kernel(), kernel(name, shape)).report()
    assert layer.name == "conv/kernel:0"


def test_nothing_to_prune_is_an_error() -> None:
    """A sparsity without a kernel to have it."""
    with pytest.raises(ConfigError, match=r"prune\.sparsity is 0\.5, but none of 1 trained"):
        pruner_of(kernel("conv/bias", (16,)))


def test_an_end_before_the_beginning_is_an_error() -> None:
    """It would prune nothing at all."""
    with pytest.raises(ConfigError, match=r"begin with step 80 and end with step 70: prune\.begin"):
        pruner_of(kernel(), begin=80, end=70)


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 1.0])
def test_the_share_is_exact_even_among_equals(sparsity: float) -> None:
    """Ties do not take more than the share."""
    mask = mask_of(np.ones((5, 7), np.float32), sparsity, "element")
    assert (~mask).sum() == math.floor(sparsity * 35)


def test_channels_go_by_their_norm() -> None:
    """The weakest channels are cut out whole."""
    weights = np.ones((1, 1, 4, 4), np.float32) * np.array([3, 1, 4, 2], np.float32)
    assert mask_of(weights, 0.5, "channel")[0, 0, 0].tolist() == [True, False, True, False]


@pytest.mark.parametrize("stopped_at", [EVERY_STEPS + 7, 100, 160])
def test_masks_are_found_again_after_a_restart(stopped_at: int) -> None:
    """Between two choices, at the end, and behind it, where no choice would be due."""
    weights = kernel()
    before = pruner_of(weights)
    for step in range(stopped_at + 1):
        before.update(step)
        before.apply()
    zeros = before.report()[0].zeros
    after = pruner_of(weights)
    after.update(stopped_at)
    assert np.array_equal(after.masks[0].numpy(), before.masks[0].numpy())
    weights.assign_add(open_odapi().tf.ones(weights.shape))
    after.apply()
    assert after.report()[0].zeros == zeros > 0


@pytest.mark.parametrize("begin", [0, 20])
def test_going_back_to_an_earlier_step_opens_the_masks_again(begin: int) -> None:
    """A rollback restores weights that were not yet zero: to the first choice, or before it."""
    weights = kernel()
    start = weights.numpy()
    pruner = pruner_of(weights, begin=begin)
    pruner.update(100)
    weights.assign(start)
    pruner.update(0)
    pruner.apply()
    assert np.array_equal(weights.numpy(), start)


def test_sizes_are_told_in_megabytes() -> None:
    """With two decimals, a line each."""
    told = sizes_text({"float32": 12_345_678, "bfloat16": 6_172_839}).splitlines()
    assert [line.split() for line in told] == [
        ["12.35", "MB", "float32"],
        ["6.17", "MB", "bfloat16"],
    ]
