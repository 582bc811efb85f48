"""Trainings of a tiny SSD: on the Ray of this process, or as a job with a Ray of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from conftest import OWN_MODELS, REPOSITORY
from drives import write_drive
from tiny_models import tiny_ssd

from urbandet_ray.commands import train as command
from urbandet_ray.commands.train import TrainReport, train
from urbandet_ray.config import TrainConfig, load_config
from urbandet_ray.labels import STREET_LABELS
from urbandet_ray.storage import Storage
from urbandet_ray.training.board import read_lines
from urbandet_ray.training.loop import train as train_on_place
from urbandet_ray.training.place import Place
from urbandet_ray.training.planning import plan_run

STEPS = 24


def write_records(folder: Path) -> Path:
    """Two drives to learn from and one to be judged by; the tiny model's config beside them."""
    for name, count in (("train/a", 12), ("train/b", 9), ("val/c", 7)):
        (folder / name).parent.mkdir(exist_ok=True)
        write_drive(folder / f"{name}.tfrecord", count)
    (folder / "label_map.pbtxt").write_text(STREET_LABELS.to_pbtxt())
    (folder / "pipeline.config").write_text(str(tiny_ssd(classes=4)))
    return folder


def settings(records: str | Path, run: str | Path, **more: object) -> dict[str, Any]:
    """Overrides of a run on the records, as strings or values."""
    return {
        "data": str(records),
        "pipeline": f"{records}/pipeline.config",
        "output": str(run),
        "steps": STEPS,
        "fine_tune.checkpoint": "",
        "batch.per_worker": 4,
        "schedule.rate": 0.002,
        "optimizer.kind": "adam",
        "augmentation.preset": "flip",
        "weight_average": 0.9,
        "batch_norm.reestimate_batches": 0,  # a pass of its own, to be traced in every worker
        "evaluation.every": 12,
        "checkpoint.every": 4,
        "doctor": "ignore",
        "workers.cpus": 1,
        "ray.object_store_mb": 80,
        **more,
    }


def train_here(
    given: dict[str, Any], on_notice: Callable[[dict[str, Any]], None] = lambda _: None
) -> TrainReport:
    """Train on the Ray that this process is connected to."""
    return train(load_config(TrainConfig, None, given), on_notice=on_notice)


def train_alone(given: dict[str, Any]) -> None:
    """What the only worker of a run does, in this process: no Ray."""
    plan = plan_run(load_config(TrainConfig, None, given), Storage())
    train_on_place(plan, Place())


def train_without_ray(given: dict[str, Any]) -> TrainReport:
    """`train`, whose only worker does its part in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "ray_session", lambda *_: nullcontext())
        patch.setattr(command, "run_workers", lambda plan, *_, **__: train_on_place(plan, Place()))
        return train_here(given)


def start(given: dict[str, Any], *, alone: bool) -> "subprocess.Popen[str]":
    """A training in a process of its own: jobs/train.py with a Ray of its own, or with none."""
    line = ["jobs/train.py", *(f"{key}={json.dumps(value)}" for key, value in given.items())]
    if alone:
        line = ["-c", f"import trainings; trainings.train_without_ray({given!r})"]
    env = {"RAY_ADDRESS": "local", "TF_NUM_INTRAOP_THREADS": "1", "PYTHONPATH": OWN_MODELS}
    return subprocess.Popen(
        [sys.executable, *line],
        cwd=REPOSITORY,
        env=os.environ | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def lines(run: Path, kind: str) -> list[dict[str, Any]]:
    """Entries of metrics.jsonl."""
    return [one for one in read_lines((run / "metrics.jsonl").read_text()) if one["kind"] == kind]


def step_reached(run: Path) -> int:
    """Step of the last checkpoint; 0 before the first."""
    try:
        return int(json.loads((run / "last/state.json").read_text())["step"])
    except FileNotFoundError:
        return 0
