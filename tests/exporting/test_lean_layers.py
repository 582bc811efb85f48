"""Cheaper operations in place of the OD API's: the same arithmetic, and only while asked for."""

import importlib
import os
from typing import Any

import numpy as np
import pytest

from urbandet_ray.exporting.lean_layers import lean_layers
from urbandet_ray.models.odapi import open_odapi

# read while tests are collected, so before any of them imports TensorFlow into this process
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
pytestmark = pytest.mark.train


def opened(name: str) -> Any:
    """A module of the OD API's utils."""
    open_odapi()
    return importlib.import_module(f"object_detection.utils.{name}")


@pytest.mark.parametrize("factors", [{"scale": 2}, {"height_scale": 3, "width_scale": 2}], ids=str)
@pytest.mark.parametrize("known", [True, False], ids=["static", "dynamic"])
def test_maps_are_enlarged_alike(factors: dict[str, int], known: bool) -> None:
    """Bit for bit, and so are the gradients, with sizes known while tracing or not."""
    tf, ops = open_odapi().tf, opened("ops")
    given = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype(np.float32)
    shape = given.shape if known else (None, None, None, 3)

    @tf.function(input_signature=[tf.TensorSpec(shape)])
    def enlarged(maps: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(maps)
            answer = ops.nearest_neighbor_upsampling(maps, **factors)
            total = tf.reduce_sum(answer * tf.cast(tf.range(tf.size(answer)) % 7, tf.float32)[0])
        return answer, tape.gradient(total, maps)

    expected = [value.numpy() for value in enlarged(given)]
    enlarged = tf.function(enlarged.python_function, input_signature=[tf.TensorSpec(shape)])
    with lean_layers():
        found = [value.numpy() for value in enlarged(given)]
    assert np.array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-6)


@pytest.mark.parametrize("method", ["sum", "weighted_sum", "attention", "fast_attention"])
def test_maps_are_combined_alike(method: str) -> None:
    """By every rule of a BiFPN, with the same gradients and the same variables."""
    tf, layer_of = open_odapi().tf, opened("bifpn_utils").BiFPNCombineLayer
    draw = np.random.default_rng(1)
    maps = [tf.constant(draw.normal(size=(2, 4, 4, 3)).astype(np.float32)) for _ in range(3)]
    weights = np.array([[0.7], [-0.2], [1.9]], np.float32)

    def combined() -> list[Any]:
        layer = layer_of(method)
        layer.build([one.shape for one in maps])
        for variable in layer.trainable_variables:
            assert variable.name.startswith("bifpn_combine_weights")
            variable.assign(weights)
        with tf.GradientTape() as tape:
            tape.watch(maps)
            answer = layer(maps)
            total = tf.reduce_sum(answer**2)
        return [answer, *tape.gradient(total, [*maps, *layer.trainable_variables])]

    expected = combined()
    with lean_layers():
        found = combined()
    assert len(found) == len(expected) == (4 if method == "sum" else 5)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-5)


def test_the_od_apis_own_come_back() -> None:
    """The stock export keeps them, after an error too; within there is no stack of copies."""
    tf, ops, combine = open_odapi().tf, opened("ops"), opened("bifpn_utils").BiFPNCombineLayer
    names = ("_combine_weighted_sum", "_combine_attention", "_combine_fast_attention")
    before = [ops.nearest_neighbor_upsampling, *(getattr(combine, name) for name in names)]

    def operations() -> set[str]:
        traced = tf.function(lambda maps: ops.nearest_neighbor_upsampling(maps, scale=2))
        graph = traced.get_concrete_function(tf.TensorSpec((1, 4, 4, 3))).graph
        return {operation.type for operation in graph.get_operations()}

    with pytest.raises(KeyError), lean_layers():
        assert "ResizeNearestNeighbor" in operations()
        assert "Pack" not in operations()
        raise KeyError
    after = [ops.nearest_neighbor_upsampling, *(getattr(combine, name) for name in names)]
    assert after == before
    assert "Pack" in operations()
