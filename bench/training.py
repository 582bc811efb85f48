"""Our training step against the OD API's own loop: same config, batch, records and augmentation.

    python bench/training.py --data data/waymo --pipeline ssd_mobilenet_v2_fpnlite_320

Both are built in one process and take turns step by step, since timings on shared machines only
compare as ratios; a round's ratio is the median of its pairs, the figure that of the rounds. Theirs
is model_lib_v2.eager_train_step in a tf.function over inputs.train_input, what its train_loop runs;
ours is the step and the input of `urbandet train`. About 5 minutes on 2 cores with the default
model. Also measured: the share of our steps spent waiting for input, the input alone against what
the steps take, and what a checkpoint to S3 (moto, over HTTP on loopback, on the same cores) adds to
the step it is made behind and to those while it is carried away.

Several --pipeline may follow each other; each is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from urbandet_ray.config import StorageConfig, TrainConfig, load_config
from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.storage import Storage
from urbandet_ray.training.checkpoints import LAST, RunCheckpoints
from urbandet_ray.training.data.feed import Feed
from urbandet_ray.training.odapi_model import OdApiModel
from urbandet_ray.training.optimisation.optimizers import make_optimizer
from urbandet_ray.training.optimisation.step import make_step
from urbandet_ray.training.place import Place
from urbandet_ray.training.plan import TrainPlan
from urbandet_ray.training.planning import plan_run

RATE = 1e-4
S3_PORT = 5123
BARS = {
    "ratio": ("our step / the OD API's", "<= 1.00"),
    "input_wait": ("share of a step waiting for input", "<= 0.03"),
    "input_over_step": ("input alone / what the model takes", ">= 4"),
    "checkpoint_stall": ("checkpoint to S3, added to its step", "<= 0.10"),
    "checkpoint_beside": ("the same, to steps while it is carried", ""),
}


def their_steps(plan: TrainPlan) -> Callable[[], float]:
    """A function that makes one step the OD API's way and returns the seconds it took."""
    odapi = open_odapi()
    tf, config = odapi.tf, plan.pipeline_message()
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


class OurSteps:
    """Steps our way, one a call."""

    def __init__(self, plan: TrainPlan, threads: int) -> None:
        tf = open_odapi().tf
        self._model = OdApiModel(plan.pipeline_message())
        self._model.build(plan.batch_size)
        self._optimizer = make_optimizer("momentum")
        self._optimizer.learning_rate.assign(RATE)
        self._step = make_step(
            self._model,
            self._optimizer,
            self._model.trainable_variables,
            tf.distribute.get_strategy(),
            clip_norm=plan.clip_norm,
        )
        self.feed = Feed(plan, Place(threads=threads), self._model)
        self._batches = iter(self.feed.batches(0))

    def __call__(self) -> tuple[float, float]:
        """One step: its seconds, and those spent waiting for input."""
        begin = time.perf_counter()
        batch = next(self._batches)
        waited = time.perf_counter() - begin
        self._step([batch]).figures()
        return time.perf_counter() - begin, waited

    def checkpoint(self) -> Any:
        """What a run saves: model and optimizer."""
        return open_odapi().tf.train.Checkpoint(
            model=self._model.trackable, optimizer=self._optimizer
        )


@contextmanager
def s3_server() -> Iterator[Storage]:
    """An S3 server over HTTP on loopback with a bucket `bench`."""
    import boto3

    url = f"http://127.0.0.1:{S3_PORT}"
    os.environ |= {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"}
    os.environ |= {"AWS_DEFAULT_REGION": "us-east-1"}
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(S3_PORT)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(url).close()
                break
            except OSError:
                time.sleep(0.2)
        boto3.client("s3", endpoint_url=url).create_bucket(Bucket="bench")
        yield Storage(StorageConfig(endpoint_url=url))
    finally:
        server.terminate()
        server.wait()


def checkpoint_costs(ours: OurSteps, rounds: int) -> tuple[list[float], list[float]]:
    """What a checkpoint adds to a step as a share of it: to its own, and to the three behind."""
    own, beside = [], []
    with s3_server() as storage, tempfile.TemporaryDirectory() as scratch:
        saver = RunCheckpoints("s3://bench/run", storage, Path(scratch), carries=True, alone=True)
        whole = ours.checkpoint()
        for _ in range(2):  # once a run: connecting, tracing
            saver.save(LAST, whole, {"step": 0})
            saver.wait()
        for number in range(1, rounds + 1):
            plain = float(np.median([ours()[0] for _ in range(4)]))
            begin = time.perf_counter()
            saver.save(LAST, whole, {"step": number})
            own.append((time.perf_counter() - begin) / plain)
            beside.append(float(np.median([ours()[0] for _ in range(3)])) / plain - 1)
            saver.wait()
        saver.close()
    return own, beside


def measure(options: argparse.Namespace, pipeline: str) -> dict[str, Any]:
    """Everything about one model."""
    settings = {
        "output": "unused",
        "data": str(Path(options.data).absolute()),
        "pipeline": pipeline,
        "steps": 100,
        "batch.per_worker": options.batch,
        "fine_tune.checkpoint": "",
    }
    plan = plan_run(load_config(TrainConfig, None, settings), Storage())
    theirs, ours = their_steps(plan), OurSteps(plan, options.threads)
    for _ in range(3):  # tracing, and the first batches
        theirs(), ours()
    ratios, waits, seconds = [], [], []
    for _ in range(options.rounds):
        turns = [(theirs(), *ours()) for _ in range(options.steps)]  # step by step
        their_s, our_s, waited = np.sum(turns, axis=0).tolist()
        ratios.append(float(np.median([our / their for their, our, _ in turns])))
        waits.append(waited / our_s)
        seconds.append(our_s / options.steps)
        print(
            f"{pipeline}: ours / theirs {ratios[-1]:.3f} ({our_s / their_s:.3f} in all), "
            f"waiting {waits[-1]:.1%}",
            flush=True,
        )
    own, beside = checkpoint_costs(ours, options.rounds)
    batches, count = iter(ours.feed.batches(0)), 40
    next(batches)
    begin = time.perf_counter()
    for _ in range(count):
        next(batches)
    alone = count * options.batch / (time.perf_counter() - begin)
    return {
        "batch": options.batch,
        "ratios": ratios,
        "ratio": float(np.median(ratios)),
        "step_s": float(np.median(seconds)),
        "input_wait": float(np.median(waits)),
        "input_alone_images_per_s": alone,
        "input_over_step": alone * float(np.median(seconds)) / options.batch,
        "checkpoint_stalls": own,
        "checkpoint_stall": float(np.median(own)),
        "checkpoint_beside": float(np.median(beside)),
    }


def report(results: dict[str, dict[str, Any]]) -> None:
    """The table."""
    print(f"\n{'figure':42}{'bar':>8}" + "".join(f"{name:>34}" for name in results))
    for key, (text, bar) in BARS.items():
        print(f"{text:42}{bar:>8}" + "".join(f"{one[key]:34.3f}" for one in results.values()))


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--pipeline", nargs="+", default=["ssd_mobilenet_v2_fpnlite_320"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="of each, a round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, default=Path("bench/results/training.json"))
    options = parser.parse_args()
    results = {}
    if len(options.pipeline) == 1:
        results = {options.pipeline[0]: measure(options, options.pipeline[0])}
    for pipeline in options.pipeline if not results else ():
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder, "part.json")
            again = ["--pipeline", pipeline, "--json", str(part), "--data", options.data]
            for name in ("batch", "rounds", "steps", "threads"):
                again += [f"--{name}", str(getattr(options, name))]
            subprocess.run([sys.executable, __file__, *again], check=True)
            results |= json.loads(part.read_text())
    report(results)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
