"""Optimizers whose rate is assigned before each step, and clipping.

They are Keras' legacy optimizers: the OD API and MultiWorkerMirroredStrategy work with those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from urbandet_ray.errors import ConfigError
from urbandet_ray.models.odapi import open_odapi

KINDS = ("momentum", "adam", "adamw", "rmsprop", "config")
_ADAMW_DECAY = 0.01
"""Where adamw is asked for and no weight decay is given (PyTorch's default)."""


def make_optimizer(
    kind: str,
    *,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    pipeline: Any = None,
) -> Any:
    """An optimizer under the current strategy; assign its `learning_rate` before each step.

    Args:
        kind: momentum, adam, adamw, rmsprop, or config (kind and numbers of the pipeline.config).
        momentum, nesterov: of momentum; rmsprop takes the momentum.
        weight_decay: decoupled (arXiv 1711.05101): each step takes rate x decay off kernels, not
            off biases nor batch norm.
        pipeline: TrainEvalPipelineConfig message; for config.

    Raises:
        ConfigError: an unknown kind, or a pipeline.config without an optimizer.
    """
    if kind not in KINDS:
        raise ConfigError(f"optimizer.kind is {kind!r}: give one of {', '.join(KINDS)}")
    if kind == "config":
        kind, settings = _of_pipeline(pipeline)
    else:
        settings = {
            "momentum": {"momentum": momentum, "nesterov": nesterov},
            "rmsprop": {"momentum": momentum, "rho": 0.9, "epsilon": 1.0},
        }.get(kind, {"epsilon": 1e-7})
    if kind == "adamw":
        kind, weight_decay = "adam", weight_decay or _ADAMW_DECAY
    legacy = open_odapi().tf.keras.optimizers.legacy
    base = {"momentum": legacy.SGD, "adam": legacy.Adam, "rmsprop": legacy.RMSprop}[kind]
    made = _decaying(base) if weight_decay else base
    optimizer = made(learning_rate=0.0, **settings)
    optimizer.weight_decay = weight_decay
    return optimizer


def _of_pipeline(pipeline: Any) -> tuple[str, dict[str, float]]:
    """Kind and numbers of a pipeline.config's optimizer.

    Its RMSprop's `decay` is the average's, as the name and TF1 have it; the OD API's TF2 builder
    hands it to Keras as the decay of the rate instead, which then falls like 1 / step.
    """
    optimizer = pipeline.train_config.optimizer
    name = optimizer.WhichOneof("optimizer")
    if name is None:
        raise ConfigError(
            "the pipeline.config has no train_config.optimizer: set optimizer.kind to momentum"
        )
    one = getattr(optimizer, name)
    if name == "momentum_optimizer":
        return "momentum", {"momentum": one.momentum_optimizer_value}
    if name == "adam_optimizer":
        return "adam", {"epsilon": one.epsilon}
    return "rmsprop", {
        "rho": one.decay,
        "momentum": one.momentum_optimizer_value,
        "epsilon": one.epsilon,
    }


def _decaying(base: Any) -> Any:
    """The optimizer with decoupled weight decay.

    Inside the update of a single variable, where it is right under every strategy.
    """

    class Decaying(base):  # type: ignore[misc]
        weight_decay = 0.0

        def _resource_apply_dense(self, grad: Any, var: Any, apply_state: Any = None) -> Any:
            if len(var.shape) > 1:
                rate = self._get_hyper("learning_rate", var.dtype.base_dtype)
                var.assign_sub(rate * self.weight_decay * var, use_locking=self._use_locking)
            return super()._resource_apply_dense(grad, var, apply_state)

    Decaying.__name__ = base.__name__
    return Decaying


def loss_scaled(optimizer: Any) -> Any:
    """With a dynamic loss scale, for float16: a step whose gradients overflow changes nothing."""
    tf = open_odapi().tf
    return tf.keras.mixed_precision.LossScaleOptimizer(optimizer)


def clip(gradients: Sequence[Any], norm: float) -> tuple[list[Any], Any]:
    """Scale gradients down to a global norm, where it is above 0.

    Returns:
        The gradients (None stays None), and their norm before.
    """
    tf = open_odapi().tf
    before = tf.linalg.global_norm([one for one in gradients if one is not None])
    if not norm:
        return list(gradients), before
    clipped, _ = tf.clip_by_global_norm(list(gradients), norm, use_norm=before)
    return list(clipped), before
