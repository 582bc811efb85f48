"""Averaged weights, batch norm measured anew, pruned weights: on small Keras models."""

import numpy as np
import pytest

from urbandet_ray.errors import ConfigError
from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.training.optimisation.averaging import make_average
from urbandet_ray.training.optimisation.batchnorm import kept_averages, reestimate, set_mode
from urbandet_ray.training.optimisation.pruning import (
    make_pruner,
    mask_of,
    report_text,
    sizes_bytes,
    sparsity_at,
)

pytestmark = pytest.mark.train


def test_the_average_follows_its_closed_form() -> None:
    """Decay min(d, (1 + t) / (10 + t)): a tenth of the first weights after one step."""
    tf = open_odapi().tf
    weight = tf.Variable([0.0])
    average = make_average([weight], 0.99)
    expected = 0.0
    for step in range(5):
        weight.assign([float(step + 1)])
        average.update(tf.constant(step, tf.int64))
        decay = min(0.99, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * (step + 1)
    assert average.averages[0].numpy()[0] == pytest.approx(expected)


def test_weights_are_swapped_and_come_back_to_the_bit() -> None:
    """Averaged inside, the trained ones after."""
    tf = open_odapi().tf
    weight = tf.Variable([0.1, 0.2])
    average = make_average([weight], 0.5)
    weight.assign([1 / 3, 2 / 3])
    before = weight.numpy()
    with average.swapped():
        assert weight.numpy() == pytest.approx([0.1, 0.2])
    assert weight.numpy().tobytes() == before.tobytes()


def test_the_average_is_in_a_checkpoint(tmp_path) -> None:
    """A resumed run goes on with it."""
    tf = open_odapi().tf
    first, second = (make_average([tf.Variable([v])], 0.9) for v in (5.0, 0.0))
    prefix = tf.train.Checkpoint(average=first).write(str(tmp_path / "ckpt"))
    tf.train.Checkpoint(average=second).read(prefix).assert_consumed()
    assert second.averages[0].numpy()[0] == 5.0


def test_batch_norm_is_measured_anew() -> None:
    """The averages become those of all batches as one; a frozen layer stays."""
    tf = open_odapi().tf
    layer = tf.keras.layers.BatchNormalization(momentum=0.99)
    frozen = tf.keras.layers.BatchNormalization(momentum=0.99, trainable=False)
    batches = [np.random.default_rng(i).normal(3, 2, (64, 5)).astype(np.float32) for i in range(4)]
    layer(batches[0]), frozen(batches[0])
    queue = iter(batches)

    def forward() -> None:
        batch = next(queue)
        layer(batch, training=True)
        frozen(batch, training=True)

    assert reestimate([layer, frozen], forward, 4) == 1
    means = np.mean([batch.mean(0) for batch in batches], axis=0)
    variances = np.concatenate(batches).var(0)
    assert layer.moving_mean.numpy() == pytest.approx(means, rel=1e-3)
    assert layer.moving_variance.numpy() == pytest.approx(variances, rel=1e-2)
    assert frozen.moving_mean.numpy() == pytest.approx(np.zeros(5))


def test_moving_averages_are_put_back() -> None:
    """What was measured for an evaluation does not stay."""
    tf = open_odapi().tf
    layer = tf.keras.layers.BatchNormalization()
    layer(np.ones((4, 3), np.float32))
    with kept_averages([layer]):
        layer.moving_mean.assign(np.full(3, 7.0))
    assert layer.moving_mean.numpy() == pytest.approx(np.zeros(3))


def test_modes_are_edits_of_the_pipeline_config() -> None:
    """train leaves it as it is; freeze and sync set their switches."""
    from tiny_models import tiny_ssd

    pipeline = tiny_ssd()
    before = str(pipeline)
    set_mode(pipeline, "train")
    assert str(pipeline) == before
    for mode in ("freeze", "freeze_statistics"):
        pipeline.model.ssd.freeze_batchnorm = False
        set_mode(pipeline, mode)
        assert pipeline.model.ssd.freeze_batchnorm
    set_mode(pipeline, "sync")
    hyperparams = pipeline.model.ssd.feature_extractor.conv_hyperparams
    assert hyperparams.WhichOneof("normalizer_oneof") == "sync_batch_norm"
    assert hyperparams.sync_batch_norm.decay == pytest.approx(0.97)


def test_a_mode_that_an_architecture_lacks_is_refused() -> None:
    """CenterNet has no switch for either."""
    pipeline = open_odapi().pipeline_pb2.TrainEvalPipelineConfig()
    pipeline.model.center_net.num_classes = 3
    with pytest.raises(ConfigError, match="freeze is not to be had with center_net"):
        set_mode(pipeline, "freeze")
    with pytest.raises(ConfigError, match="sync finds no batch_norm in the center_net"):
        set_mode(pipeline, "sync")


def test_sparsity_rises_with_a_cubic() -> None:
    """Nothing before, seven eighths half-way, all at the end (Zhu and Gupta 2017, eq. 1)."""
    steps = [sparsity_at(step, 0.8, 10, 30) for step in (0, 10, 20, 30, 99)]
    assert steps == pytest.approx([0, 0, 0.7, 0.8, 0.8])


@pytest.mark.parametrize("pattern", ["element", "block", "channel"])
def test_masks_drop_the_smallest(pattern: str) -> None:
    """Half of the weights, in the shape that the pattern asks for."""
    weights = np.random.default_rng(3).normal(size=(3, 3, 8, 16)).astype(np.float32)
    mask = mask_of(weights, 0.5, pattern)
    assert mask.shape == weights.shape
    assert mask.mean() == pytest.approx(0.5)
    flat = mask.reshape(-1, 16)
    if pattern == "channel":
        assert set(flat.mean(axis=0)) == {0.0, 1.0}
    elif pattern == "block":
        assert set(flat.reshape(-1, 4).mean(axis=1)) == {0.0, 1.0}
    else:
        assert np.abs(weights[mask]).min() >= np.abs(weights[~mask]).max()


def test_pruned_weights_stay_zero_through_steps_with_momentum() -> None:
    """The mask is put on again behind each step; biases and heads move."""
    tf = open_odapi().tf
    kernel = tf.Variable(np.arange(1, 17, dtype=np.float32).reshape(4, 4), name="conv/kernel")
    bias = tf.Variable(np.ones(4, np.float32), name="conv/bias")
    head = tf.Variable(np.ones((4, 4), np.float32), name="BoxPredictor/kernel")
    pruner = make_pruner([kernel, bias, head], sparsity=0.5, pattern="element", begin=0, end=50)
    optimizer = tf.keras.optimizers.legacy.SGD(0.1, momentum=0.9)
    for step in range(60):
        pruner.update(step)
        optimizer.apply_gradients([(tf.ones((4, 4)), kernel)])
        pruner.apply()
    (layer,) = pruner.report()
    assert (layer.name, layer.sparsity) == ("conv/kernel:0", 0.5)
    assert report_text([layer]).splitlines()[-1].split() == [
        "50.0%",
        "16",
        "all",
        "pruned",
        "kernels",
    ]


def test_zeros_and_short_weights_take_less_room() -> None:
    """bfloat16 half of float32, and deflated zeros next to nothing."""
    values = np.random.default_rng(0).normal(size=4096).astype(np.float32)
    values[::2] = 0
    sizes = sizes_bytes([values])
    assert sizes["float32"] == 4 * 4096 == 2 * sizes["bfloat16"]
    assert sizes["float32 deflated"] < 0.75 * sizes["float32"]
    assert sizes["bfloat16 deflated"] < sizes["float32 deflated"]
