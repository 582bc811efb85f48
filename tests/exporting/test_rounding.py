"""Weights rounded to bfloat16, on their own and in a checkpoint."""

import math
from pathlib import Path

import numpy as np
import pytest

from urbandet_ray.exporting.rounding import round_checkpoint, to_bfloat16
from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.training.optimisation.pruning import stored_weights

pytestmark = pytest.mark.train


def test_bfloat16_rounds_to_the_nearest_even() -> None:
    """As TensorFlow's own cast does."""
    tf = open_odapi().tf
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    expected = tf.cast(tf.cast(values, tf.bfloat16), tf.float32).numpy()
    assert np.array_equal(to_bfloat16(values), expected)


def test_bfloat16_keeps_infinity_and_what_is_no_number() -> None:
    """Rounding up would carry into the exponent, and make a number of NaN."""
    bits = np.array([0x7FFFFFFF, 0x7F800000, 0xFF800000], np.uint32)
    rounded = to_bfloat16(bits.view(np.float32))
    assert np.isnan(rounded[0])
    assert rounded[1:].tolist() == [math.inf, -math.inf]


def test_a_rounded_checkpoint_still_fits(tmp_path: Path) -> None:
    """Scalars stay scalars, what is no float32 stays as it is, names stay the variables' own."""
    tf = open_odapi().tf
    values = (1 / 3, np.full((2, 3), 1 / 7, np.float32), np.int64(2**40 + 1))
    given = [tf.Variable(one, name=f"part{n}") for n, one in enumerate(values)]
    prefix = tf.train.Checkpoint(parts=given).write(str(tmp_path / "ckpt"))
    round_checkpoint(prefix)
    read = [tf.Variable(tf.zeros_like(one)) for one in given]
    tf.train.Checkpoint(parts=read).read(prefix).assert_consumed()
    assert [one.numpy().tolist() for one in read] == [
        to_bfloat16(np.float32(1 / 3)).tolist(),
        to_bfloat16(values[1]).tolist(),
        2**40 + 1,
    ]
    assert sorted(name for name, _ in stored_weights(prefix)) == ["part0", "part1"]
