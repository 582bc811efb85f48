"""Optimizers against their closed forms, and clipping."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from urbandet_ray.errors import ConfigError
from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.training.optimisation.optimizers import clip, loss_scaled, make_optimizer
from urbandet_ray.training.optimisation.step import make_step

pytestmark = pytest.mark.train


def stepped(optimizer, value: float, gradient: float, rate: float, shape=(2, 2), steps: int = 1):
    """A variable after some steps with the same gradient."""
    tf = open_odapi().tf
    variable = tf.Variable(np.full(shape, value, np.float32))
    optimizer.learning_rate.assign(rate)
    for _ in range(steps):
        optimizer.apply_gradients([(tf.fill(shape, gradient), variable)])
    return variable.numpy().flat[0]


def test_momentum_against_its_closed_form() -> None:
    """Velocity of the second step is 1.9 gradients."""
    optimizer = make_optimizer("momentum", momentum=0.9)
    assert stepped(optimizer, 1.0, 0.5, 0.1, steps=2) == pytest.approx(1 - 0.1 * 0.5 * (1 + 1.9))


def test_the_rate_is_the_one_that_was_assigned_last() -> None:
    """The OD API's way of handing it over as a function is read once and never again."""
    tf = open_odapi().tf
    optimizer, variable = make_optimizer("momentum", momentum=0.0), tf.Variable([0.0])
    for rate in (0.1, 0.01):
        optimizer.learning_rate.assign(rate)
        optimizer.apply_gradients([(tf.constant([1.0]), variable)])
    assert variable.numpy()[0] == pytest.approx(-0.11)


def test_weight_decay_is_decoupled_and_spares_biases() -> None:
    """Kernels lose rate x decay of themselves beside the step; vectors do not."""
    decayed = make_optimizer("momentum", momentum=0.0, weight_decay=0.1)
    assert stepped(decayed, 2.0, 0.5, 0.1) == pytest.approx(2 - 0.1 * 0.1 * 2 - 0.1 * 0.5)
    assert stepped(decayed, 2.0, 0.5, 0.1, shape=(4,)) == pytest.approx(2 - 0.1 * 0.5)


def test_adamw_is_adam_with_decay() -> None:
    """The first step of Adam is the rate, whatever the gradient; decay comes on top."""
    adam = stepped(make_optimizer("adam"), 1.0, 0.5, 0.01)
    adamw = stepped(make_optimizer("adamw", weight_decay=0.2), 1.0, 0.5, 0.01)
    assert adam == pytest.approx(0.99, abs=1e-5)
    assert adamw == pytest.approx(0.99 - 0.01 * 0.2, abs=1e-5)


def test_the_config_s_optimizer_has_its_numbers() -> None:
    """kind `config` takes the pipeline.config's own."""
    pipeline = open_odapi().pipeline_pb2.TrainEvalPipelineConfig()
    pipeline.train_config.optimizer.momentum_optimizer.momentum_optimizer_value = 0.75
    settings = make_optimizer("config", pipeline=pipeline).get_config()
    assert (settings["name"], settings["momentum"]) == ("SGD", 0.75)


def test_the_config_s_rmsprop_averages_over_its_decay() -> None:
    """The OD API's TF2 builder takes it for a decay of the rate."""
    pipeline = open_odapi().pipeline_pb2.TrainEvalPipelineConfig()
    pipeline.train_config.optimizer.rms_prop_optimizer.decay = 0.75
    settings = make_optimizer("config", pipeline=pipeline).get_config()
    assert (settings["name"], settings["rho"], settings["decay"]) == ("RMSprop", 0.75, 0.0)


def test_batches_whose_gradients_are_averaged_step_as_one_large_batch() -> None:
    """Gradient accumulation of a loss that is a mean over images."""
    tf = open_odapi().tf
    x = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)

    def weights_after(*parts: slice) -> np.ndarray:
        weight = tf.Variable([[1.0], [2.0]])
        model = SimpleNamespace(
            losses=lambda f, _: {"squares": tf.reduce_mean(tf.matmul(f["x"], weight) ** 2)},
            loss_counts=lambda _: {},
        )
        optimizer = make_optimizer("momentum")
        optimizer.learning_rate.assign(0.1)
        step = make_step(model, optimizer, [weight], tf.distribute.get_strategy(), clip_norm=0.5)
        step([({"x": tf.constant(x[part])}, {}) for part in parts])
        return weight.numpy()

    whole, halves = weights_after(slice(0, 8)), weights_after(slice(0, 4), slice(4, 8))
    assert halves == pytest.approx(whole, rel=1e-6)
    assert not np.allclose(whole, [[1.0], [2.0]])


def test_an_unknown_kind_and_a_missing_one_are_named() -> None:
    """With what there is, and which setting to give."""
    with pytest.raises(ConfigError, match=r"optimizer\.kind is 'lion': give one of momentum"):
        make_optimizer("lion")
    empty = open_odapi().pipeline_pb2.TrainEvalPipelineConfig()
    with pytest.raises(ConfigError, match=r"no train_config\.optimizer: set optimizer\.kind"):
        make_optimizer("config", pipeline=empty)


def test_clipping_keeps_the_direction_and_tells_the_norm() -> None:
    """The norm is the one of before; 0 does not clip."""
    tf = open_odapi().tf
    gradients, norm = clip([tf.constant([3.0]), None, tf.constant([4.0])], 1.0)
    assert float(norm) == pytest.approx(5.0)
    assert gradients[1] is None
    assert math.hypot(float(gradients[0][0]), float(gradients[2][0])) == pytest.approx(1.0)
    unclipped, _ = clip([tf.constant([3.0])], 0.0)
    assert float(unclipped[0][0]) == 3.0


def test_a_step_that_overflows_changes_nothing_but_the_scale() -> None:
    """An infinite gradient is skipped and the loss scale halved."""
    tf = open_odapi().tf
    optimizer = loss_scaled(make_optimizer("momentum"))
    optimizer.learning_rate.assign(0.1)
    variable = tf.Variable([[1.0]])
    scale = float(optimizer.loss_scale)
    optimizer.apply_gradients([(tf.constant([[np.inf]]), variable)])
    assert variable.numpy()[0, 0] == 1.0
    assert float(optimizer.loss_scale) == scale / 2
