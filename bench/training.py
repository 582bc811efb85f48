"""Our training step against the OD API's own loop: same config, batch, records and augmentation.

    python bench/training.py --data data/waymo --pipeline ssd_mobilenet_v2_fpnlite_320

Both are built in one process and take turns, some steps each, since timings on shared machines only
compare as ratios. Theirs is model_lib_v2.eager_train_step in a tf.function over inputs.train_input,
what its train_loop runs; ours is the step and the input of `urbandet train`. About 5 minutes on 2
cores with the default model. Also measured: the share of our steps spent waiting for input, and the
input alone against what the steps take.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from urbandet_ray.config import TrainConfig, load_config
from urbandet_ray.models.odapi import open_odapi, parse_pipeline_config
from urbandet_ray.storage import Storage
from urbandet_ray.training.feed import Feed
from urbandet_ray.training.odapi_model import OdApiModel
from urbandet_ray.training.optimizers import make_optimizer
from urbandet_ray.training.place import Place
from urbandet_ray.training.plan import TrainPlan
from urbandet_ray.training.planning import plan_run
from urbandet_ray.training.step import make_step

RATE = 1e-4


def their_steps(plan: TrainPlan) -> Callable[[], float]:
    """A function that makes one step the OD API's way and returns the seconds it took."""
    odapi = open_odapi()
    tf, config = odapi.tf, parse_pipeline_config(plan.pipeline or "", "pipeline.config")
    model = odapi.model_builder.build(config.model, is_training=True)
    dataset = odapi.inputs.train_input(
        train_config=config.train_config,
        train_input_config=config.train_input_reader,
        model_config=config.model,
        model=model,
    ).repeat()
    optimizer = tf.keras.optimizers.legacy.SGD(RATE, momentum=0.9)
    batches = iter(dataset)

    @tf.function
    def step(features: Any, labels: Any) -> Any:
        return odapi.model_lib_v2.eager_train_step(
            model,
            features,
            labels,
            config.train_config.unpad_groundtruth_tensors,
            optimizer,
            training_step=0,
            add_regularization_loss=config.train_config.add_regularization_loss,
            clip_gradients_value=plan.clip_norm,
        )

    def timed() -> float:
        begin = time.perf_counter()
        losses = step(*next(batches))
        float(losses["Loss/total_loss"])
        return time.perf_counter() - begin

    return timed


def our_steps(plan: TrainPlan, threads: int) -> tuple[Callable[[], tuple[float, float]], Feed]:
    """A function that makes one step our way: its seconds, and those spent waiting for input."""
    tf = open_odapi().tf
    model = OdApiModel(plan.pipeline_message())
    model.build(plan.batch_size)
    optimizer = make_optimizer("momentum")
    optimizer.learning_rate.assign(RATE)
    step = make_step(
        model,
        optimizer,
        model.trainable_variables,
        tf.distribute.get_strategy(),
        clip_norm=plan.clip_norm,
    )
    feed = Feed(plan, Place(threads=threads), model)
    batches = iter(feed.batches(0))

    def timed() -> tuple[float, float]:
        begin = time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter() - begin
        step([batch]).figures()
        return time.perf_counter() - begin, waited

    return timed, feed


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--pipeline", default="ssd_mobilenet_v2_fpnlite_320")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="of each, a round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, default=Path("bench/results/training.json"))
    options = parser.parse_args()
    settings = {
        "output": "unused",
        "data": str(Path(options.data).absolute()),
        "pipeline": options.pipeline,
        "steps": 100,
        "batch.per_worker": options.batch,
        "fine_tune.checkpoint": "",
    }
    plan = plan_run(load_config(TrainConfig, None, settings), Storage()).plan
    theirs, (ours, feed) = their_steps(plan), our_steps(plan, options.threads)
    for _ in range(3):  # tracing, and the first batches
        theirs(), ours()
    ratios, waits, seconds = [], [], []
    for _ in range(options.rounds):
        their_s = sum(theirs() for _ in range(options.steps))
        taken = [ours() for _ in range(options.steps)]
        our_s = sum(one for one, _ in taken)
        ratios.append(our_s / their_s)
        waits.append(sum(waited for _, waited in taken) / our_s)
        seconds.append(our_s / options.steps)
        print(f"ours / theirs {ratios[-1]:.3f}, waiting {waits[-1]:.1%}", flush=True)
    batches, count = iter(feed.batches(0)), 40
    next(batches)
    begin = time.perf_counter()
    for _ in range(count):
        next(batches)
    alone = count * options.batch / (time.perf_counter() - begin)
    results = {
        "pipeline": options.pipeline,
        "batch": options.batch,
        "ratios": ratios,
        "ratio": float(np.median(ratios)),
        "input_wait": float(np.median(waits)),
        "step_s": float(np.median(seconds)),
        "input_alone_images_per_s": alone,
        "input_over_step": alone * float(np.median(seconds)) / options.batch,
    }
    print(json.dumps(results, indent=1))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
