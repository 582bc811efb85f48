"""Whole trainings on a real Ray with a tiny SSD: to the end, whatever is killed on the way."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import S3Server
from drives import write_drive
from tiny_models import tiny_ssd

from urbandet_ray.config import TrainConfig, load_config
from urbandet_ray.errors import ConfigError
from urbandet_ray.labels import STREET_LABELS
from urbandet_ray.training.board import read_lines

pytestmark = [pytest.mark.ray, pytest.mark.train]
REPOSITORY = Path(__file__).parent.parent.parent
STEPS = 24


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two drives to learn from and one to be judged by; the tiny model's config beside them."""
    folder = tmp_path_factory.mktemp("records")
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
        "evaluation.every": 12,
        "checkpoint.every": 4,
        "doctor": "ignore",
        "workers.cpus": 1,
        "ray.object_store_mb": 80,
        **more,
    }


def start(given: dict[str, Any], env: dict[str, str] | None = None) -> "subprocess.Popen[str]":
    """The job in a process of its own, with a Ray of its own."""
    pairs = [f"{key}={json.dumps(value)}" for key, value in given.items()]
    return subprocess.Popen(
        [sys.executable, "jobs/train.py", *pairs],
        cwd=REPOSITORY,
        env={**os.environ, "RAY_ADDRESS": "local", "TF_NUM_INTRAOP_THREADS": "1", **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


RAY = str(Path(sys.executable).parent / "ray")
OPEN = {"RAY_AUTH_MODE": "disabled"}


@contextmanager
def cluster(env: dict[str, str]) -> Iterator[str]:
    """A Ray that knows nothing of this project, beside others; its dashboard's address."""
    ports = free_ports(4)
    names = ("port", "dashboard-port", "dashboard-agent-listen-port", "ray-client-server-port")
    command = [RAY, "start", "--head", "--block", "--num-cpus=2", "--include-dashboard=true"]
    command += ["--object-store-memory=100000000", "--disable-usage-stats"]
    command += [f"--{name}={port}" for name, port in zip(names, ports, strict=True)]
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "TF_"))}
    process = subprocess.Popen(
        command,
        env={**clean, **env, **OPEN},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{ports[1]}"
    finally:
        process.terminate()
        process.wait(timeout=180)  # it gives all of its processes time to end


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at."""
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def submit(dashboard: str, given: dict[str, Any]) -> str:
    """Output of `ray job submit -- python jobs/train.py ...`, which has to end well."""
    command = [RAY, "job", "submit", "--address", dashboard, "--working-dir", str(REPOSITORY)]
    command += ["--", sys.executable, "jobs/train.py"]
    command += [f"{key}={json.dumps(value)}" for key, value in given.items()]
    env = {**os.environ, **OPEN}
    for _ in range(30):
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=400, env=env
        )
        if not any(early in done.stderr for early in ("No available agent", "Failed to connect")):
            break  # a busy machine starts both late
        time.sleep(2)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def finish(process: "subprocess.Popen[str]") -> str:
    """Its output, once it has ended well."""
    out, _ = process.communicate(timeout=400)
    assert process.returncode == 0, out
    return out


def lines(run: Path, kind: str) -> list[dict[str, Any]]:
    """Entries of metrics.jsonl."""
    return [one for one in read_lines((run / "metrics.jsonl").read_text()) if one["kind"] == kind]


def wait_for(what: Callable[[], Any], seconds: float = 180) -> Any:
    """The first true answer."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := what():
            return found
        time.sleep(0.2)
    raise AssertionError("it never came")


def step_reached(run: Path) -> int:
    """Step of the last checkpoint; 0 before the first."""
    try:
        return int(json.loads((run / "last/state.json").read_text())["step"])
    except FileNotFoundError:
        return 0


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


@pytest.fixture(scope="module")
def finished(records: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run of one worker."""
    run = tmp_path_factory.mktemp("finished") / "run"
    out = finish(start(settings(records, run)))
    assert "24 steps" in out
    assert "\x1b" not in out, "a job's log is plain"
    return run


def test_a_run_leaves_what_it_promises(finished: Path) -> None:
    """Checkpoints, logs, the resolved config and the doctor's findings."""
    names = {path.name for path in finished.iterdir()}
    assert names >= {
        "best",
        "last",
        "tensorboard",
        "metrics.jsonl",
        "pipeline.config",
        "label_map.pbtxt",
        "config.json",
        "doctor.json",
        "result.json",
        "run.json",
    }
    assert step_reached(finished) == STEPS
    assert [one["step"] for one in lines(finished, "evaluation")] == [12, 24]
    losses = [one["total"] for one in lines(finished, "steps")]
    assert losses[-1] < losses[0]


def test_a_finished_run_is_not_trained_again(finished: Path, records: Path) -> None:
    """The same command says how it ended, at once."""
    before = (finished / "metrics.jsonl").read_bytes()
    out = finish(start(settings(records, finished)))
    assert "24 steps" in out
    assert (finished / "metrics.jsonl").read_bytes() == before


def test_other_settings_do_not_mix_into_a_run(finished: Path, records: Path) -> None:
    process = start(settings(records, finished, seed=5))
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "holds a run with another settings" in out
    assert "Traceback" not in out


def test_the_trained_model_exports_and_answers(finished: Path, tmp_path: Path) -> None:
    """Through the OD API's exporter into our detector, labels found beside the model."""
    import numpy as np

    from urbandet_ray.commands.export import export
    from urbandet_ray.models.loading import ModelSpec, load_detector
    from urbandet_ray.storage import Storage

    report = export(str(finished), out=str(tmp_path / "export"), storage=Storage())
    detector = load_detector(ModelSpec(report.model, score_min=0.0), Storage(), STREET_LABELS)
    (found,) = detector.detect([np.full((48, 64, 3), 90, np.uint8)])
    assert len(found) > 0


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


@pytest.mark.s3
def test_records_and_run_folder_on_s3(records: Path, s3_server: S3Server, tmp_path: Path) -> None:
    """The same over HTTP, by `ray job submit`; what is left on S3 is what is left on a disk."""
    import boto3

    bucket = s3_server.make_bucket("training")
    client = boto3.client("s3", endpoint_url=s3_server.endpoint_url)
    for path in records.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), "training", f"data/{path.relative_to(records)}")
    given = settings(f"{bucket}/data", f"{bucket}/run", cache=str(tmp_path / "cache"))
    with cluster(s3_server.env) as dashboard:
        out = submit(dashboard, given)
    assert "24 steps" in out
    listed = client.list_objects_v2(Bucket="training", Prefix="run/")["Contents"]
    keys = {entry["Key"] for entry in listed}
    assert {"run/last/ckpt-24.index", "run/best/state.json", "run/metrics.jsonl"} <= keys
    body = client.get_object(Bucket="training", Key="run/metrics.jsonl")["Body"].read().decode()
    assert [e["step"] for e in read_lines(body) if e["kind"] == "evaluation"] == [12, 24]


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


def test_a_pruned_run_exports_the_zeros_that_it_reports(records: Path, tmp_path: Path) -> None:
    """In the averaged weights too, rounded or not; a best mAP of before the full sparsity does not
    count."""
    from urbandet_ray.training.pruning import stored_weights

    run = tmp_path / "run"
    finish(start(settings(records, run, **{"prune.sparsity": 0.6, "evaluation.every": 6})))
    assert json.loads((run / "best/state.json").read_text())["step"] > 0.7 * STEPS
    table = (run / "pruning.txt").read_text()
    (total,) = [line.split() for line in table.splitlines() if "all pruned kernels" in line]
    assert float(total[0].rstrip("%")) == pytest.approx(60, abs=1)
    assert "MB  bfloat16 deflated" in table
    (event,) = [one["text"] for one in lines(run, "event") if "pruned" in one["text"]]
    assert event.startswith(f"pruned: {total[0]} of {total[1]} weights")

    command = [sys.executable, "-m", "urbandet_ray.cli", "export", str(run)]  # names as in training
    subprocess.run([*command, "--precision", "bf16"], check=True, capture_output=True)
    model = run / "exports/best-stock-bf16/saved_model"
    weights = dict(stored_weights(str(model / "variables/variables")))
    rows = [line.split() for line in table.split("\n\n")[0].splitlines()[1:-1]]
    assert len(rows) > 10
    for share, size, name in rows:
        assert weights[name].size == int(size.replace(",", ""))
        assert f"{(weights[name] == 0).mean():.1%}" == share, name


def test_errors_of_the_doctor_stop_a_run_before_it_starts(records: Path, tmp_path: Path) -> None:
    """Three classes where the label map's ids go to 4."""
    from urbandet_ray.commands.train import train

    (tmp_path / "pipeline.config").write_text(str(tiny_ssd(classes=3)))
    given = settings(records, tmp_path / "run", doctor="refuse")
    given["pipeline"] = str(tmp_path / "pipeline.config")
    with pytest.raises(ConfigError, match=r"the doctor found 1 errors in .*nothing was started"):
        train(load_config(TrainConfig, None, given))
    assert not (tmp_path / "run/run.json").exists()
