"""One step on one replica; several are in test_replicas.py."""

from typing import Any

import pytest

from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.training.optimisation.optimizers import make_optimizer
from urbandet_ray.training.optimisation.step import make_step

pytestmark = pytest.mark.train


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_variables_without_a_gradient_stay_as_they_are(clip_norm: float) -> None:
    """EfficientNet's classifier in an EfficientDet: in the model, and in no loss."""
    tf = open_odapi().tf
    used, unused = tf.Variable([2.0, -1.0]), tf.Variable([3.0])

    class Model:
        def losses(self, features: Any, labels: Any) -> dict[str, Any]:
            return {"squares": tf.reduce_sum((used * features["x"] - labels["y"]) ** 2)}

        def loss_counts(self, labels: Any) -> dict[str, Any]:
            return {}

    optimizer = make_optimizer("momentum", weight_decay=0.01)
    optimizer.learning_rate.assign(0.1)
    variables = (unused, used)
    optimizer._create_all_weights(variables)
    strategy = tf.distribute.get_strategy()
    step = make_step(Model(), optimizer, variables, strategy, clip_norm=clip_norm)  # type: ignore[arg-type]
    batch = ({"x": tf.constant([1.0, 1.0])}, {"y": tf.constant([0.0, 0.0])})
    losses = [step([batch, batch]).figures()[0]["total"] for _ in range(5)]
    assert losses[0] == pytest.approx(5.0)
    assert losses[-1] < 3.0
    assert unused.numpy().tolist() == [3.0]
