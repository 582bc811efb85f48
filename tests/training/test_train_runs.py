"""Whole trainings on a real Ray with a tiny SSD, undisturbed."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, S3Server
from rays import RAY
from tiny_models import tiny_ssd
from trainings import STEPS, lines, settings, step_reached, train_here, write_records
from waiting import END_S, wait_for

from urbandet_ray.commands import train as command
from urbandet_ray.errors import ConfigError, RunError
from urbandet_ray.labels import STREET_LABELS
from urbandet_ray.storage import Storage

pytestmark = [pytest.mark.ray, pytest.mark.train, pytest.mark.s3]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `write_records`."""
    return write_records(tmp_path_factory.mktemp("records"))


def submit(dashboard: str, given: dict[str, Any]) -> str:
    """Output of `ray job submit -- python jobs/train.py ...`, which has to end well."""
    command = [RAY, "job", "submit", "--address", dashboard, "--working-dir", str(REPOSITORY)]
    command += ["--log-color", "false", "--", sys.executable, "jobs/train.py"]
    command += [f"{key}={json.dumps(value)}" for key, value in given.items()]

    def submitted() -> "subprocess.CompletedProcess[str] | None":
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=END_S, env=os.environ
        )
        early = ("No available agent", "Failed to connect")  # a busy machine starts both late
        return None if any(words in done.stderr for words in early) else done

    done = wait_for(submitted, "the dashboard's agent")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass(frozen=True)
class Run:
    """A finished run on S3, and the same files on this machine."""

    settings: dict[str, Any]
    log: str
    folder: Path


@pytest.fixture(scope="module")
def finished(
    records: Path, ray_dashboard: str, s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """An undisturbed run of one worker over HTTP, by `ray job submit`, that averages and prunes."""
    bucket, storage = s3_server.make_bucket("training"), Storage(s3_server.options)
    for path in records.rglob("*"):
        if path.is_file():
            storage.upload_file(path, f"{bucket}/data/{path.relative_to(records)}")
    given = settings(
        f"{bucket}/data",
        f"{bucket}/run",
        cache=str(tmp_path_factory.mktemp("cache")),
        **{
            "storage.endpoint_url": s3_server.endpoint_url,
            "prune.sparsity": 0.6,
            "batch_norm.reestimate_batches": None,
            "evaluation.every": 6,
        },
    )
    log = submit(ray_dashboard, given)
    folder = tmp_path_factory.mktemp("finished") / "run"
    for info in storage.list_files(f"{bucket}/run"):
        copy = folder / info.uri.removeprefix(f"{bucket}/run/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(storage.read_bytes(info.uri))
    return Run(given, log, folder)


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be started."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(command, "ray_session", refuse)


def test_a_run_leaves_what_it_promises(finished: Run) -> None:
    """Checkpoints, logs, the resolved config and the doctor's findings."""
    names = {path.name for path in finished.folder.iterdir()}
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
    assert (finished.folder / f"last/ckpt-{STEPS}.index").exists()
    assert step_reached(finished.folder) == STEPS
    assert [one["step"] for one in lines(finished.folder, "evaluation")] == [6, 12, 18, 24]


def test_the_loss_falls(finished: Run) -> None:
    """From the first line to the last."""
    losses = [one["total"] for one in lines(finished.folder, "steps")]
    assert losses[-1] < losses[0]


def test_a_run_says_at_its_start_what_it_trains_and_at_which_rate(finished: Run) -> None:
    """In the log, and so on the screen, before its first step."""
    texts = [one["text"] for one in lines(finished.folder, "event") if one["step"] == 0]
    (rate,) = [text for text in texts if text.startswith("learning rate: ")]
    assert rate.startswith("learning rate: up to 0.002, schedule.rate of the run config; ")
    assert "the reference for adam and 4 images a step is 0.000177" in rate
    assert [text for text in texts if text.startswith("trained: ") and "none is frozen" in text]


def test_a_job_s_log_is_plain(finished: Run) -> None:
    """How it ended, without a terminal's colours."""
    assert "24 steps" in finished.log
    assert "\x1b" not in finished.log


def test_a_finished_run_is_not_trained_again(
    finished: Run, s3_server: S3Server, no_ray: None
) -> None:
    """The same settings say how it ended, at once."""
    log = f"{finished.settings['output']}/metrics.jsonl"
    before = Storage(s3_server.options).info(log).version
    report = train_here(finished.settings)
    assert (report.steps, report.resumed) == (STEPS, True)
    assert Storage(s3_server.options).info(log).version == before


def test_other_settings_do_not_mix_into_a_run(finished: Run, no_ray: None) -> None:
    """Another seed is another run: refused before Ray starts."""
    with pytest.raises(RunError, match="holds a run with another settings"):
        train_here({**finished.settings, "seed": 5})


@pytest.fixture(scope="module")
def exported(finished: Run) -> Path:
    """The run's SavedModel, rounded; by a process of its own, as Keras numbers the layers of a
    second model on."""
    words = [sys.executable, "-m", "urbandet_ray.cli", "export", str(finished.folder)]
    subprocess.run([*words, "--precision", "bf16"], check=True, capture_output=True)
    return finished.folder / "exports/best-stock-bf16/saved_model"


def test_the_trained_model_exports_and_answers(exported: Path) -> None:
    """Through the OD API's exporter into our detector, labels found beside the model."""
    import numpy as np

    from urbandet_ray.config import ModelConfig
    from urbandet_ray.models.loader import load_detector

    model = ModelConfig(uri=str(exported), score_min=0.0)
    detector = load_detector(model, Storage(), STREET_LABELS)
    (found,) = detector.detect([np.full((48, 64, 3), 90, np.uint8)])
    assert len(found) > 0


def test_a_best_map_of_before_the_full_sparsity_does_not_count(finished: Run) -> None:
    """best/ is of a step at which all is pruned that is to be."""
    assert json.loads((finished.folder / "best/state.json").read_text())["step"] > 0.7 * STEPS


def test_a_pruned_run_exports_the_zeros_that_it_reports(finished: Run, exported: Path) -> None:
    """In the averaged weights too, rounded or not."""
    from urbandet_ray.training.optimisation.pruning import stored_weights

    table = (finished.folder / "pruning.txt").read_text()
    (total,) = [line.split() for line in table.splitlines() if "all pruned kernels" in line]
    assert float(total[0].rstrip("%")) == pytest.approx(60, abs=1)
    assert "MB  bfloat16 deflated" in table
    (event,) = [one["text"] for one in lines(finished.folder, "event") if "pruned" in one["text"]]
    assert event.startswith(f"pruned: {total[0]} of {total[1]} weights")

    weights = dict(stored_weights(str(exported / "variables/variables")))
    rows = [line.split() for line in table.split("\n\n")[0].splitlines()[1:-1]]
    assert len(rows) > 10
    for share, size, name in rows:  # names as in training
        assert weights[name].size == int(size.replace(",", ""))
        assert f"{(weights[name] == 0).mean():.1%}" == share, name


def test_errors_of_the_doctor_stop_a_run_before_it_starts(
    records: Path, tmp_path: Path, no_ray: None
) -> None:
    """Three classes where the label map's ids go to 4."""
    (tmp_path / "pipeline.config").write_text(str(tiny_ssd(classes=3)))
    given = settings(records, tmp_path / "run", doctor="refuse")
    given["pipeline"] = str(tmp_path / "pipeline.config")
    with pytest.raises(
        ConfigError, match=r"the doctor found .* nothing was started:\n  model\.ssd\.num_cl"
    ):
        train_here(given)
    assert not (tmp_path / "run/run.json").exists()
