"""Whole trainings on a real Ray with a tiny SSD, undisturbed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, S3Server
from rays import OPEN, RAY, ray_head
from tiny_models import tiny_ssd
from trainings import STEPS, finish, lines, settings, start, step_reached, write_records

from urbandet_ray.config import TrainConfig, load_config
from urbandet_ray.errors import ConfigError
from urbandet_ray.labels import STREET_LABELS
from urbandet_ray.training.board import read_lines

pytestmark = [pytest.mark.ray, pytest.mark.train]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `write_records`."""
    return write_records(tmp_path_factory.mktemp("records"))


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


def test_a_run_says_at_its_start_what_it_trains_and_at_which_rate(finished: Path) -> None:
    """In the log, and so on the screen, before its first step."""
    texts = [one["text"] for one in lines(finished, "event") if one["step"] == 0]
    (rate,) = [text for text in texts if text.startswith("learning rate: ")]
    assert rate.startswith("learning rate: up to 0.002, schedule.rate of the run config; ")
    assert "the reference for adam and 4 images a step is 0.000177" in rate
    assert [text for text in texts if text.startswith("trained: ") and "none is frozen" in text]


def test_a_finished_run_is_not_trained_again(finished: Path, records: Path) -> None:
    """The same command says how it ended, at once."""
    before = (finished / "metrics.jsonl").read_bytes()
    out = finish(start(settings(records, finished)))
    assert "24 steps" in out
    assert (finished / "metrics.jsonl").read_bytes() == before


def test_other_settings_do_not_mix_into_a_run(finished: Path, records: Path) -> None:
    """Another seed is another run."""
    process = start(settings(records, finished, seed=5))
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "holds a run with another settings" in out
    assert "Traceback" not in out


def test_the_trained_model_exports_and_answers(finished: Path, tmp_path: Path) -> None:
    """Through the OD API's exporter into our detector, labels found beside the model."""
    import numpy as np

    from urbandet_ray.commands.export import export
    from urbandet_ray.config import ModelConfig
    from urbandet_ray.models.loader import load_detector
    from urbandet_ray.storage import Storage

    report = export(str(finished), out=str(tmp_path / "export"), storage=Storage())
    detector = load_detector(ModelConfig(uri=report.model, score_min=0.0), Storage(), STREET_LABELS)
    (found,) = detector.detect([np.full((48, 64, 3), 90, np.uint8)])
    assert len(found) > 0


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
    with ray_head({**s3_server.env, **OPEN}) as head:
        out = submit(head.dashboard, given)
    assert "24 steps" in out
    listed = client.list_objects_v2(Bucket="training", Prefix="run/")["Contents"]
    keys = {entry["Key"] for entry in listed}
    assert {"run/last/ckpt-24.index", "run/best/state.json", "run/metrics.jsonl"} <= keys
    body = client.get_object(Bucket="training", Key="run/metrics.jsonl")["Body"].read().decode()
    assert [e["step"] for e in read_lines(body) if e["kind"] == "evaluation"] == [12, 24]


def test_a_pruned_run_exports_the_zeros_that_it_reports(records: Path, tmp_path: Path) -> None:
    """In the averaged weights too, rounded or not; a best mAP of before the full sparsity does not
    count."""
    from urbandet_ray.training.optimisation.pruning import stored_weights

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
