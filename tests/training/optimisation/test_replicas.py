"""Averaging, pruning, weight decay, loss scaling and batch norm where variables are mirrored.

Two replicas on one machine's CPU. A process can be divided only before TensorFlow has begun, so
they run in another.
"""

import json
import subprocess
import sys
from typing import Any

import pytest
from waiting import END_S

pytestmark = pytest.mark.train

SCRIPT = """
import json
import sys
import numpy as np

from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.training.optimisation.averaging import make_average
from urbandet_ray.training.optimisation.batchnorm import reestimate
from urbandet_ray.training.optimisation.optimizers import loss_scaled, make_optimizer
from urbandet_ray.training.optimisation.pruning import make_pruner, stored_layers, stored_weights
from urbandet_ray.training.optimisation.step import make_forward, make_step

tf = open_odapi().tf
halves = [tf.config.LogicalDeviceConfiguration()] * 2
tf.keras.utils.set_random_seed(7)  # layers take their seeds from Python, not from TensorFlow
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], halves)
pair = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

class Model:
    def __init__(self):
        self.norm = tf.keras.layers.BatchNormalization(momentum=0.9)
        layer = tf.keras.layers.Dense
        self.net = tf.keras.Sequential(
            [layer(8, use_bias=False, input_shape=(4,)), self.norm, layer(1)])
    def losses(self, features, labels):
        return {"squares": tf.reduce_mean((self.net(features, training=True) - labels) ** 2)}
    def loss_counts(self, labels):
        return {}

def parts(variable):
    return [one.numpy() for one in pair.experimental_local_results(variable)]

def same(variables):
    return all(np.array_equal(*parts(one)) for one in variables)

def batch(seed, scale=1.0):
    x = [np.random.default_rng(seed + i).normal(size=(16, 4)).astype(np.float32) for i in (0, 1)]
    place = pair.experimental_distribute_values_from_function
    return (place(lambda c: tf.constant(x[c.replica_id_in_sync_group] * np.float32(scale))),
            place(lambda c: tf.constant(x[c.replica_id_in_sync_group].sum(1, keepdims=True))))

facts, losses = {}, []
with pair.scope():
    model = Model()
    variables = tuple(model.net.trainable_variables)
    optimizer = make_optimizer("momentum", weight_decay=0.01)
    optimizer._create_all_weights(variables)
    average = make_average(variables, 0.99)
    pruner = make_pruner(variables, sparsity=0.5, pattern="element", begin=0, end=10)
    first = tf.VariableAggregation.ONLY_FIRST_REPLICA
    counter = tf.Variable(0, dtype=tf.int64, trainable=False, aggregation=first)
def after():
    pruner.apply()
    average.update(counter)
step = make_step(model, optimizer, variables, pair, clip_norm=1.0, after=after)
for number in range(40):
    optimizer.learning_rate.assign(0.05)
    counter.assign(number)
    pruner.update(number)
    loss = step([batch(4 * number), batch(4 * number + 2)]).figures()[0]["total"]
    losses.append(loss)
facts["loss before and after"] = [float(np.mean(losses[:5])), float(np.mean(losses[-5:]))]
facts["sparsity"] = [one.sparsity for one in pruner.report()]
stored = stored_weights(tf.train.Checkpoint(model=model.net).write(sys.argv[1] + "/ckpt"))
layers = stored_layers(stored, [one.name for one in pruner.report()])
facts["stored sparsity"] = [one.sparsity for one in layers]
facts["weights same"], facts["averages same"] = same(variables), same(average.averages)
before = [parts(one) for one in variables]
with average.swapped():
    pruner.apply()
    facts["swapped same"] = same(variables)
    facts["swapped sparsity"] = [one.sparsity for one in pruner.report()]
facts["back"] = all(np.array_equal(b, parts(v)) for b, v in zip(before, variables))

data = [batch(1000 + 2 * i) for i in range(3)]
queue, forward = iter(data), make_forward(model, pair)
reestimate([model.norm], lambda: forward(*next(queue)), 3)
seen = [np.concatenate(parts(x)) @ before[0][0] for x, _ in data]
gap = model.norm.moving_mean.numpy() - np.concatenate(seen).mean(0)
facts["mean gap"] = float(np.abs(gap).max())
facts["norm same"] = same([model.norm.moving_mean, model.norm.moving_variance])

with pair.scope():
    scaled = loss_scaled(make_optimizer("momentum", weight_decay=0.01))
    scaled._create_all_weights(variables)
scaled.learning_rate.assign(0.05)
step = make_step(model, scaled, variables, pair, clip_norm=1.0)
scale, before = float(scaled.loss_scale), [parts(one)[0] for one in variables]
step([batch(1, float("inf"))])
facts["scale"] = float(scaled.loss_scale) / scale
facts["skipped"] = all(np.array_equal(b, parts(v)[0]) for b, v in zip(before, variables))

with pair.scope():
    weight = tf.Variable([[2.0, 2.0]])
    decaying = make_optimizer("momentum", momentum=0.0, weight_decay=0.1)
decaying.learning_rate.assign(0.1)
class Flat:
    def losses(self, features, labels):
        return {"sum": tf.reduce_sum(weight) * 0.5}
    def loss_counts(self, labels):
        return {}
make_step(Flat(), decaying, [weight], pair, clip_norm=0.0)([batch(0)])
facts["decayed"] = [float(one[0, 0]) for one in parts(weight)]
print("FACTS" + json.dumps(facts))
"""


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What was seen in a process with two replicas."""
    command = [sys.executable, "-c", SCRIPT, str(tmp_path_factory.mktemp("replicas"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=END_S, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.rpartition("FACTS")[2])


def test_training_keeps_replicas_the_same(facts: dict[str, Any]) -> None:
    """Their weights agree after some steps, and the loss has fallen."""
    assert facts["weights same"]
    before, after = facts["loss before and after"]
    assert after < 0.5 * before


def test_averages_are_the_same_on_all_replicas(facts: dict[str, Any]) -> None:
    """The average itself, and the weights it is swapped with."""
    assert facts["averages same"]
    assert facts["swapped same"]


def test_swapped_weights_come_back_on_all_replicas(facts: dict[str, Any]) -> None:
    """As they were before the evaluation."""
    assert facts["back"]


def test_kernels_are_pruned_on_all_replicas(facts: dict[str, Any]) -> None:
    """In the weights, and in the averages once the masks are laid over them."""
    assert facts["sparsity"] == facts["swapped sparsity"] == [0.5, 0.5]


def test_pruned_kernels_are_found_in_a_checkpoint_by_name(facts: dict[str, Any]) -> None:
    """The names of mirrored variables are those that the checkpoint has."""
    assert facts["stored sparsity"] == [0.5, 0.5]


def test_batch_norm_is_measured_over_all_replicas(facts: dict[str, Any]) -> None:
    """The mean is that of all images, not of one replica's."""
    assert facts["mean gap"] < 1e-5
    assert facts["norm same"]


def test_an_overflow_is_skipped_by_all_replicas(facts: dict[str, Any]) -> None:
    """Though only one of them has it; all halve the scale."""
    assert facts["skipped"]
    assert facts["scale"] == 0.5


def test_weight_decay_is_taken_once(facts: dict[str, Any]) -> None:
    """Not once a replica: 2 - rate x decay x 2 - rate x gradient."""
    assert facts["decayed"] == pytest.approx([2 - 0.1 * 0.1 * 2 - 0.1 * 0.5] * 2)
