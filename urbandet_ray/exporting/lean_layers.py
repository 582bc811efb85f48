"""Cheaper operations for the same arithmetic while a network is traced."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from urbandet_ray.models.odapi import open_odapi


@contextmanager
def lean_layers() -> Iterator[None]:
    """Within, models are built and traced with cheaper operations for the same arithmetic.

    The OD API enlarges feature maps by stacking copies, and sums a BiFPN's inputs as a matrix
    product of their stack: made for TPUs, and a third of an EfficientDet's time on a CPU. Here
    they are a resize and a sum of products: equal up to float rounding. Variables and their names
    stay.
    """
    odapi = open_odapi()
    tf, combine = odapi.tf, odapi.bifpn_utils.BiFPNCombineLayer

    def enlarge(
        input_tensor: Any,
        scale: int | None = None,
        height_scale: int | None = None,
        width_scale: int | None = None,
        name: str = "nearest_neighbor_upsampling",
    ) -> Any:
        factors = height_scale or scale, width_scale or scale
        sides = input_tensor.shape[1:3]
        if not sides.is_fully_defined():
            sides = tf.unstack(tf.shape(input_tensor)[1:3])
        size = [side * factor for side, factor in zip(sides, factors, strict=True)]
        return tf.raw_ops.ResizeNearestNeighbor(images=input_tensor, size=size, name=name)

    def weighted_sum(layer: Any, inputs: Sequence[Any]) -> Any:
        return _sum_of_products(inputs, layer.per_input_weights)

    def attention(layer: Any, inputs: Sequence[Any]) -> Any:
        return _sum_of_products(inputs, tf.nn.softmax(layer.per_input_weights))

    def fast_attention(layer: Any, inputs: Sequence[Any]) -> Any:
        weights = tf.nn.relu(layer.per_input_weights)
        return _sum_of_products(inputs, weights / (tf.reduce_sum(weights) + 0.0001))

    with ExitStack() as replaced:
        for owner, name, lean in (
            (odapi.ops, "nearest_neighbor_upsampling", enlarge),
            (combine, "_combine_weighted_sum", weighted_sum),
            (combine, "_combine_attention", attention),
            (combine, "_combine_fast_attention", fast_attention),
        ):
            replaced.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, lean)
        yield


def _sum_of_products(inputs: Sequence[Any], weights: Any) -> Any:
    products = [one * weights[i, 0] for i, one in enumerate(inputs)]
    return functools.reduce(operator.add, products)
