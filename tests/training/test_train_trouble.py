"""Trainings in trouble: whatever is killed on the way, and losses that blow up."""

import importlib
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import EXAMPLES
from tiny_models import tiny_ssd
from trainings import (
    STEPS,
    lines,
    settings,
    start,
    step_reached,
    train_alone,
    train_here,
    train_without_ray,
    write_records,
)
from waiting import wait_for

from urbandet_ray.errors import RunError

pytestmark = [pytest.mark.ray, pytest.mark.train]


OWN_MODEL = {
    "model": "small_centre_net:build",
    "pipeline": None,
    "schedule.rate": 0.005,
    "evaluation.every": STEPS,
}
"""The docs' example, small: it costs a tenth of what an SSD's losses cost to trace."""


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `write_records`."""
    return write_records(tmp_path_factory.mktemp("records"))


def worker_pids() -> list[int]:
    """Training workers of the Ray that this process started."""
    parents, names = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                status = (folder / "stat").read_text()
                names[int(folder.name)] = (folder / "cmdline").read_text()
            except OSError:
                continue  # it has ended meanwhile
            parents[int(folder.name)] = int(status.rpartition(")")[2].split()[1])

    def descends(pid: int) -> bool:
        while pid > 1 and pid != os.getpid():
            pid = parents.get(pid, 0)
        return pid == os.getpid()

    return sorted(pid for pid in names if "RayTrainWorker" in names[pid] and descends(pid))


@pytest.mark.chaos
@pytest.mark.parametrize(
    "alone",
    [
        pytest.param(True, id="without a Ray"),
        pytest.param(False, id="with a Ray of its own", marks=pytest.mark.long),
    ],
)
def test_a_killed_driver_loses_nothing_but_steps_since_the_checkpoint(
    request: pytest.FixtureRequest,
    records: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    alone: bool,
) -> None:
    """The same settings go on from last/, and each step is logged once. The model is one's own: its
    losses fall, and best/ reads into it."""
    from urbandet_ray.models.odapi import open_odapi

    if not alone:
        request.getfixturevalue("ray_dashboard")
    monkeypatch.syspath_prepend(EXAMPLES)
    run = tmp_path / "run"
    given = settings(records, run, **OWN_MODEL)
    process = start(given, alone=alone)
    wait_for(lambda: step_reached(run) >= 8 or process.poll() is not None, "step 8")
    process.send_signal(signal.SIGKILL)
    out, _ = process.communicate()
    reached = step_reached(run)
    assert 8 <= reached < STEPS, out
    report = train_without_ray(given) if alone else train_here(given)
    assert report.resumed
    assert not report.exports
    assert "urbandet export" not in report.to_text(), "which would refuse it"
    resumed = [e["text"] for e in lines(run, "event") if "resumed" in e["text"]]
    assert len(resumed) == 1
    assert int(resumed[0].rpartition("step ")[2]) >= reached
    logged = lines(run, "steps")
    steps = [one["step"] for one in logged]
    assert steps == sorted(set(steps))
    assert report.steps == step_reached(run) == STEPS
    assert logged[-1]["Loss/heatmap"] < 0.5 * logged[0]["Loss/heatmap"]
    assert logged[-1]["Loss/box"] < 0.5 * logged[0]["Loss/box"]

    model = importlib.import_module("small_centre_net").build(4)
    model.build(1)
    best = json.loads((run / "best/state.json").read_text())["checkpoint"]
    status = open_odapi().tf.train.Checkpoint(model=model.trackable).read(str(run / "best" / best))
    status.assert_existing_objects_matched()


@pytest.mark.chaos
@pytest.mark.parametrize(
    "model", [pytest.param(OWN_MODEL, id="own"), pytest.param({}, marks=pytest.mark.long, id="ssd")]
)
def test_two_workers_survive_the_loss_of_one(
    ray_dashboard: str,
    records: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: dict[str, Any],
) -> None:
    """kill -9 of a worker: Ray Train starts both anew, and the run ends by itself."""
    monkeypatch.syspath_prepend(EXAMPLES)
    run = tmp_path / "run"
    pair = {"workers.count": 2, "batch.per_worker": 2, "evaluation.every": 24}
    given = settings(records, run, **{**model, **pair})
    ended, killed = threading.Event(), []

    def kill_one() -> None:
        wait_for(lambda: step_reached(run) >= 4 or ended.is_set(), "step 4")
        if len(victims := worker_pids()) == 2:
            killed.extend(victims[-1:])
            os.kill(victims[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    notices: list[dict[str, Any]] = []
    try:
        report = train_here(given, notices.append)
    finally:
        ended.set()
        killer.join()
    assert killed
    starts = [one for one in notices if one["kind"] == "start"]
    assert starts == [{"kind": "start", "workers": 2, "threads": 1}] * 2
    assert report.steps == step_reached(run) == STEPS
    assert lines(run, "evaluation")[-1]["step"] == STEPS


def test_a_loss_that_blows_up_ends_the_run_with_advice(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, for a person: see test_mixed_nodes.py for how Ray Train passes it on."""
    monkeypatch.syspath_prepend(EXAMPLES)
    given = settings(records, tmp_path / "run", **{**OWN_MODEL, "optimizer.kind": "momentum"})
    given |= {"schedule.rate": 1e9, "optimizer.clip_norm": 0}
    with pytest.raises(RunError, match=r"^step \d+: .*Lower schedule.rate"):
        train_alone(given)


def test_a_loss_that_blows_up_takes_the_run_back_to_its_last_checkpoint(
    records: Path, tmp_path: Path
) -> None:
    """At a lower rate, to its end; no step is in the log twice, and what was saved last lies before
    the first loss that looked wrong."""
    config = tiny_ssd(classes=4)
    rates = config.train_config.optimizer.momentum_optimizer.learning_rate
    rates.manual_step_learning_rate.initial_learning_rate = 0.002
    rates.manual_step_learning_rate.schedule.add(step=12, learning_rate=20.0)
    (tmp_path / "pipeline.config").write_text(str(config))
    run = tmp_path / "run"
    given = settings(records, run, pipeline=str(tmp_path / "pipeline.config"))
    given |= {"schedule.kind": "config", "checkpoint.every": 3, "evaluation.frames": 2}
    given |= {"divergence.action": "rollback", "divergence.rollbacks": 20}
    train_alone(given)
    told = [one["text"] for one in lines(run, "event") if "back to step" in one["text"]]
    assert told[0].startswith("back to step 12 at 0.3 of the rate: step 1")
    assert step_reached(run) == STEPS
    for kind in ("steps", "evaluation"):
        steps = [one["step"] for one in lines(run, kind)]
        assert steps == sorted(set(steps))
        assert steps[-1] == STEPS
    assert json.loads((run / "last/state.json").read_text())["rollbacks"] == len(told)
    last = lines(run, "steps")[-1]
    assert last["rate"] == pytest.approx(20.0 * 0.3 ** len(told), rel=1e-3)
