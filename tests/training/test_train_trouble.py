"""Trainings in trouble: whatever is killed on the way, and losses that blow up."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_models import tiny_ssd
from trainings import STEPS, finish, lines, settings, start, step_reached, write_records

pytestmark = [pytest.mark.ray, pytest.mark.train]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `write_records`."""
    return write_records(tmp_path_factory.mktemp("records"))


def wait_for(what: Callable[[], Any], seconds: float = 180) -> Any:
    """The first true answer."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := what():
            return found
        time.sleep(0.2)
    raise AssertionError("it never came")


def worker_pids(parent: int) -> list[int]:
    """Training workers among what a process and its Ray started."""
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
        while pid > 1 and pid != parent:
            pid = parents.get(pid, 0)
        return pid == parent

    return sorted(pid for pid in names if "RayTrainWorker" in names[pid] and descends(pid))


@pytest.mark.chaos
def test_a_killed_driver_loses_nothing_but_steps_since_the_checkpoint(
    records: Path, tmp_path: Path
) -> None:
    """The same command goes on from last/, and each step is logged once."""
    run = tmp_path / "run"
    given = settings(records, run, **{"evaluation.every": 24})
    process = start(given)
    wait_for(lambda: step_reached(run) >= 8 or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.wait()
    reached = step_reached(run)
    out = finish(start(given))
    assert "an earlier try was resumed" in out
    resumed = [e["text"] for e in lines(run, "event") if "resumed" in e["text"]]
    assert len(resumed) == 1
    assert int(resumed[0].rpartition("step ")[2]) >= reached
    assert step_reached(run) == STEPS


@pytest.mark.chaos
def test_two_workers_survive_the_loss_of_one(records: Path, tmp_path: Path) -> None:
    """kill -9 of a worker: Ray Train starts both anew, and the run ends by itself."""
    run = tmp_path / "run"
    given = settings(
        records, run, **{"workers.count": 2, "batch.per_worker": 2, "evaluation.every": 24}
    )
    process = start(given)
    output: list[str] = []
    reader = threading.Thread(target=lambda: output.extend(process.stdout or []))
    reader.start()
    try:
        wait_for(lambda: step_reached(run) >= 4 or process.poll() is not None)
        victims = worker_pids(process.pid)
        assert len(victims) == 2, "".join(output)
        os.kill(victims[-1], signal.SIGKILL)
        assert process.wait(timeout=400) == 0, "".join(output)
    finally:
        process.kill()
        reader.join()
    text = "".join(output)
    assert text.count("2 workers of 1 cores each have started") == 2
    assert step_reached(run) == STEPS
    assert lines(run, "evaluation")[-1]["step"] == STEPS


def test_a_loss_that_blows_up_ends_the_run_with_advice(records: Path, tmp_path: Path) -> None:
    """Not after three tries, and without a traceback."""
    given = settings(records, tmp_path / "run", **{"optimizer.kind": "momentum"})
    given |= {"schedule.rate": 1e9, "optimizer.clip_norm": 0}
    process = start(given)
    out, _ = process.communicate(timeout=400)
    assert process.returncode == 1, out
    assert "error: step" in out
    assert "Lower schedule.rate" in out
    assert "Traceback" not in out


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
    finish(start(given))
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
