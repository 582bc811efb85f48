"""Batch norm's averages measured anew, and its modes in models that are really built."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from urbandet_ray.errors import ConfigError
from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.training.optimisation.batchnorm import reestimate, set_mode, settled

pytestmark = pytest.mark.train


def measured(batches: list[np.ndarray], momentum: float, old: float = 0.0, **more: Any) -> Any:
    """A layer measured anew over batches, whose averages were `old` before; and how many moved."""
    tf = open_odapi().tf
    layer = tf.keras.layers.BatchNormalization(momentum=momentum, **more)
    layer(batches[0])
    layer.moving_mean.assign(np.full(batches[0].shape[-1], old))
    layer.moving_variance.assign(np.full(batches[0].shape[-1], abs(old)))
    queue: Iterator[np.ndarray] = iter(batches)
    return layer, reestimate([layer], lambda: layer(next(queue), training=True), len(batches))


def some_batches(spread: float = 1.0) -> list[np.ndarray]:
    """Twenty batches whose means differ, as those of a few images do."""
    rng = np.random.default_rng(0)
    shifts = rng.normal(0, spread, (20, 1, 8))
    return [(rng.normal(0, 1, (32, 8)) + shift).astype(np.float32) for shift in shifts]


@pytest.mark.parametrize("momentum", [0.9, 0.99, 0.999])
def test_the_averages_become_those_of_all_batches_as_one(momentum: float) -> None:
    """Exactly, whatever the decay: spread within batches and between them."""
    batches = some_batches()
    layer, moved = measured(batches, momentum)
    whole = np.concatenate(batches)
    assert moved == 1
    assert layer.moving_mean.numpy() == pytest.approx(whole.mean(0), abs=1e-4)
    assert layer.moving_variance.numpy() == pytest.approx(whole.var(0), rel=1e-4)


def test_averages_settle_in_time_that_their_decay_says() -> None:
    """0.997 of the start goes with each step: 1 % of it is left after 1,533."""
    norm = open_odapi().tf.keras.layers.BatchNormalization
    layers = [norm(momentum=0.9), norm(momentum=0.997)]
    assert not settled(layers, 4)
    assert not settled(layers, 1532)
    assert settled(layers, 1533)
    assert settled([], 0)


def test_far_off_averages_leave_no_trace() -> None:
    """A decay of 0.999 magnifies what rounding leaves of them a thousand times."""
    batches = [one * np.float32(0.01) for one in some_batches(0.0)]
    layer, _ = measured(batches, 0.999, old=300.0)
    # only the first batch is measured from the old averages, the others from zero
    once, _ = measured(batches[:1], 0.999, old=300.0)
    truth = np.concatenate(batches).mean(0)
    errors = [np.abs(one.moving_mean.numpy() - truth).max() for one in (layer, once)]
    assert errors[0] < errors[1] / 10


def test_a_frozen_layer_stays_to_the_bit() -> None:
    """Measuring anew leaves it alone."""
    layer, moved = measured(some_batches(), 0.999, old=123.456, trainable=False)
    assert moved == 0
    assert np.all(layer.moving_mean.numpy() == np.float32(123.456))


def built_layers(mode: str) -> list[Any]:
    """Batch-norm layers of a tiny SSD with a mode."""
    from tiny_models import tiny_ssd

    odapi, pipeline = open_odapi(), tiny_ssd()
    set_mode(pipeline, mode)
    model = odapi.model_builder.build(pipeline.model, is_training=True)
    image, shapes = model.preprocess(odapi.tf.zeros([1, 64, 64, 3]))
    model.predict(image, shapes)
    return [one for one in model._flatten_layers() if hasattr(one, "moving_mean")]


def test_synchronising_takes_no_layer_away() -> None:
    """The OD API's weight-shared predictor drops batch norm where it is not `batch_norm`."""
    plain, synchronised = built_layers("train"), built_layers("sync")
    assert len(plain) == len(synchronised)
    kinds = {type(one).__name__ for one in synchronised}
    assert kinds == {"FreezableBatchNorm", "FreezableSyncBatchNorm"}


@pytest.mark.parametrize("mode", ["freeze", "sync"])
def test_an_efficientdet_has_no_mode_but_train(mode: str) -> None:
    """Frozen, 48 layers of its backbone would go on moving; synchronised, it does not build."""
    pipeline = open_odapi().pipeline_pb2.TrainEvalPipelineConfig()
    extractor = pipeline.model.ssd.feature_extractor
    extractor.type = "ssd_efficientnet-b0_bifpn_keras"
    extractor.conv_hyperparams.batch_norm.decay = 0.99
    set_mode(pipeline, "train")
    with pytest.raises(ConfigError, match=f"{mode} is not to be had with ssd_efficientnet-b0"):
        set_mode(pipeline, mode)


def test_a_faster_rcnn_is_frozen_in_its_extractor() -> None:
    """Its config has another switch than an SSD's."""
    pipeline = open_odapi().pipeline_pb2.TrainEvalPipelineConfig()
    extractor = pipeline.model.faster_rcnn.feature_extractor
    extractor.batch_norm_trainable = True
    set_mode(pipeline, "freeze")
    assert not extractor.batch_norm_trainable
