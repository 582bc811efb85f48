"""Several batches, on several workers, step as one batch of their images would.

Two replicas on one machine's CPU, in a process of its own: it can be divided only before TensorFlow
has begun. Batch norm is frozen: the statistics of a batch are its own, whoever adds up its losses.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.train
TESTS = Path(__file__).parent.parent.parent

SCRIPT = """
import json
import sys
import numpy as np
from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.models.pipeline_config import read_pipeline
from urbandet_ray.models.zoo import model_config_path
from urbandet_ray.training.odapi_model import OdApiModel
from urbandet_ray.training.optimisation.freezing import freeze
from urbandet_ray.training.optimisation.optimizers import make_optimizer
from urbandet_ray.training.optimisation.step import make_step
from tiny_models import batch_of, enliven, tiny_ssd

tf = open_odapi().tf
halves = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], halves)
pair = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

def config_of(name):
    if name.startswith("ssd"):
        config = tiny_ssd()
        config.model.ssd.normalize_loss_by_num_matches = name == "ssd"
        return config
    config = read_pipeline(model_config_path(name)).message
    resizer = getattr(config.model, config.model.WhichOneof("model")).image_resizer
    size = resizer.keep_aspect_ratio_resizer
    size.min_dimension = size.max_dimension = 128
    rcnn = config.model.faster_rcnn
    if config.model.HasField("faster_rcnn"):  # so many that the samplers take all, none by chance
        rcnn.first_stage_minibatch_size = 100_000
        rcnn.first_stage_max_proposals = rcnn.second_stage_batch_size = 16
    return config

def image(boxes):
    rng = np.random.default_rng(boxes)
    low = rng.uniform(0, 0.7, (boxes, 2))
    corners = np.concatenate([low, low + rng.uniform(0.1, 0.3, (boxes, 2))], 1)
    none = tf.zeros([boxes], tf.bool)
    return {"image": tf.constant(rng.uniform(0, 255, (96, 96, 3)), tf.float32),
            "groundtruth_boxes": tf.constant(corners, tf.float32),
            "groundtruth_classes": tf.constant(rng.integers(1, 4, boxes), tf.int64),
            "groundtruth_weights": tf.ones([boxes]), "groundtruth_is_crowd": none,
            "groundtruth_difficult": none, "groundtruth_group_of": none}

def made(strategy):
    with strategy.scope():
        model = OdApiModel(config_of(sys.argv[1]))
        model.build(4)
        variables = freeze(model, [], norms=True).variables
        optimizer = make_optimizer("momentum", momentum=0.0)
        optimizer._create_all_weights(variables)
    optimizer.learning_rate.assign(1e-3)
    return model, variables, make_step(model, optimizer, variables, strategy, clip_norm=0.0)

one, both = made(tf.distribute.get_strategy()), made(pair)
enliven(one[0])
start = [value.numpy() for value in one[0].variables]
images = [image(boxes) for boxes in (1, 40, 3, 12, 0, 0, 0, 0)]

def batch(*numbers):
    return batch_of(one[0], *[images[number] for number in numbers])

def moved(which, batches):
    model, variables, step = which
    for value, first in zip(model.variables, start, strict=True):
        value.assign(first)
    before = [value.numpy() for value in variables]
    losses = step(batches).figures()[0]
    gaps = [(value.numpy() - old).ravel() for value, old in zip(variables, before)]
    return losses, np.concatenate(gaps)

def shared(left, right):
    place = pair.experimental_distribute_values_from_function
    return tf.nest.map_structure(lambda *two: place(
        lambda c: two[c.replica_id_in_sync_group]), batch(*left), batch(*right))

whole, halves = [batch(*range(8))], [batch(*range(4)), batch(*range(4, 8))]
ways = {
    "two replicas": lambda: (both, [shared(range(4), range(4, 8))]),
    "two batches": lambda: (one, halves),
    "both": lambda: (both, [shared((0, 4), (5, 6)), shared((1, 2), (7, 3))]),
}
losses, gap = moved(one, whole)
facts = {"losses": {"whole": losses}, "off": {}, "size": float(np.abs(gap).max())}
for name in sys.argv[2:]:
    facts["losses"][name], other = moved(*ways[name]())
    facts["off"][name] = float(np.linalg.norm(other - gap) / np.linalg.norm(gap))
if "two batches" in facts["off"]:
    one[0].loss_counts = lambda labels: {}
    untold = make_step(one[0], make_optimizer("momentum", momentum=0.0), one[1],
                       tf.distribute.get_strategy(), clip_norm=0.0)
    facts["losses"]["untold"], _ = moved((one[0], one[1], untold), halves)
print("FACTS" + json.dumps(facts))
"""


WAYS = ("two replicas", "two batches", "both")
MODELS = [
    pytest.param(("ssd", "both"), id="ssd"),  # batches of replicas: each way alone takes longer
    *(
        pytest.param((model, *WAYS), marks=pytest.mark.long, id=f"{model}, each way")
        for model in (
            "ssd",
            "ssd by sums",
            "centernet_resnet50_v1_fpn_640",
            "faster_rcnn_resnet50_v1_640",
        )
    ),
]


@pytest.fixture(scope="module", params=MODELS)
def facts(request: pytest.FixtureRequest) -> dict[str, Any]:
    """How far apart one step of eight images, and one of their parts, have moved a model."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *request.param],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.rpartition("FACTS")[2])


def test_weights_move_as_by_one_batch(facts: dict[str, Any]) -> None:
    """From 56 boxes in one half and none in the other, whose sums have different counts."""
    assert facts["size"] > 0
    assert facts["off"]
    assert max(facts["off"].values()) < 1e-4


def test_losses_are_those_of_one_batch(facts: dict[str, Any]) -> None:
    """What the log shows does not depend on how the images were shared out."""
    for way in facts["off"]:
        assert facts["losses"][way] == pytest.approx(facts["losses"]["whole"], rel=1e-4)


def test_a_mean_of_the_batches_means_is_something_else(facts: dict[str, Any]) -> None:
    """What a step would be whose model does not tell its counts: the half without boxes has half
    of the say. Faster R-CNN's losses alone are means over images, and it has nothing to tell."""
    if "untold" not in facts["losses"]:
        pytest.skip("shown where batches are added up one after the other")
    whole, untold = (facts["losses"][name] for name in ("whole", "untold"))
    over_images = "Loss/RPNLoss/objectness_loss" in whole
    assert (untold["total"] == pytest.approx(whole["total"], rel=1e-4)) == over_images
