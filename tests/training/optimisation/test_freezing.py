"""What freezing leaves as it is, to the bit: on an SSD MobileNet FPNLite that is really trained."""

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny_models import batch_of, enliven, street_image, tiny_ssd

from urbandet_ray.errors import ConfigError
from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.training.odapi_model import OdApiModel
from urbandet_ray.training.optimisation.batchnorm import set_mode
from urbandet_ray.training.optimisation.freezing import Trained, freeze
from urbandet_ray.training.optimisation.optimizers import make_optimizer
from urbandet_ray.training.optimisation.step import make_step

pytestmark = pytest.mark.train

FIRST_LAYERS = "^conv1|^conv_(dw|pw)_[12]_"


def trained_with(patterns: list[str], mode: str) -> tuple[Trained, set[str], set[str]]:
    """What was frozen; names of the variables that two steps changed, and of those they did not."""
    tf = open_odapi().tf
    config = tiny_ssd()
    set_mode(config, mode)
    tf.keras.utils.set_random_seed(3)
    model = OdApiModel(config)
    model.build(2)
    enliven(model)
    trained = freeze(model, patterns, norms=mode == "freeze")
    optimizer = make_optimizer("momentum")
    optimizer.learning_rate.assign(0.01)
    optimizer._create_all_weights(trained.variables)
    step = make_step(
        model, optimizer, trained.variables, tf.distribute.get_strategy(), clip_norm=0.0
    )
    before = {one.name: one.numpy() for one in model.variables}
    for seed in (2, 3):
        step([batch_of(model, street_image(seed), street_image(1))])
    after = {one.name: one.numpy() for one in model.variables}
    changed = {name for name, value in before.items() if not np.array_equal(value, after[name])}
    return trained, changed, set(before) - changed


def kinds(names: set[str]) -> set[str]:
    """gamma, beta, kernel ... of variables' names."""
    return {name.rpartition("/")[2].partition(":")[0] for name in names}


def test_what_a_pattern_finds_stays_to_the_bit_and_all_else_is_trained() -> None:
    """Kernels, scales, offsets and moving averages of the first layers. The
    line at the start counts what really changes."""
    trained, changed, same = trained_with([FIRST_LAYERS], "train")
    assert same == {name for name in changed | same if re.search(FIRST_LAYERS, name)}
    assert {"gamma", "beta", "moving_mean", "moving_variance"} < kinds(same)
    assert kinds(changed) >= kinds(same)
    weights = {name for name in changed if "moving_" not in name}
    assert {one.name for one in trained.variables} == weights
    still = len({name for name in same if "moving_mean" in name})
    moving = len({name for name in changed if "moving_mean" in name})
    count = sum(one.numpy().size for one in trained.variables)
    assert trained.told() == (
        f"trained: {len(weights)} variables ({count:,} weights); "
        f"frozen: {len(same) - 2 * still}; "
        f"moving averages of {moving} of {moving + still} batch-norm layers follow"
    )


def test_frozen_batch_norm_keeps_scales_offsets_and_averages() -> None:
    """batch_norm.mode: freeze. Kernels and biases alone are trained."""
    trained, changed, same = trained_with([], "freeze")
    assert kinds(same) == {"gamma", "beta", "moving_mean", "moving_variance"}
    assert not kinds(changed) & kinds(same)
    assert len(trained.variables) == len(changed)
    assert "moving averages of 0 of" in trained.told()


def test_frozen_statistics_leave_scales_and_offsets_to_be_trained() -> None:
    """batch_norm.mode: freeze_statistics, which is the OD API's own freeze_batchnorm."""
    trained, changed, same = trained_with([], "freeze_statistics")
    assert {name for name in changed | same if "moving_" in name} <= same
    assert {"gamma", "beta"} < kinds(changed)
    assert trained.frozen == 0
    assert "none is frozen; moving averages of 0 of" in trained.told()


NAMED = [SimpleNamespace(name=name, shape=(2,)) for name in ("fpn/conv/kernel:0", "head/kernel:0")]


def plain(*variables: Any) -> Any:
    """A model of some variables, without batch norm."""
    return SimpleNamespace(trainable_variables=variables, batch_norms=())


def test_frozen_variables_are_left_out() -> None:
    """Names are looked at without their ":0"."""
    names = [
        [one.name for one in freeze(plain(*NAMED), patterns, norms=False).variables]
        for patterns in (["^fpn/"], ["^head/kernel$"], [])
    ]
    assert names == [["head/kernel:0"], ["fpn/conv/kernel:0"], [one.name for one in NAMED]]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["backbone"], r"'backbone' matches no variable; the nearest is"),
        (["("], r"'\(' is no regular expression"),
        (["fpn", "head"], "leaves no variable to train: of 2, such as fpn/conv/kernel, it has to"),
    ],
)
def test_a_pattern_that_does_not_fit_is_named(patterns: list[str], message: str) -> None:
    """The message has the pattern, and what it could have found."""
    with pytest.raises(ConfigError, match=message):
        freeze(plain(*NAMED), patterns, norms=False)
