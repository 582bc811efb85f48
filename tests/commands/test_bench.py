"""`urbandet bench`: a row a model, and only what warm actors did counts."""

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from drives import frame_image, make_frame, write_drive
from typer.testing import CliRunner

from urbandet_ray.cli import app
from urbandet_ray.commands import bench as module
from urbandet_ray.commands.bench import BenchReport, bench, warm_pace
from urbandet_ray.config import InferConfig
from urbandet_ray.errors import ConfigError, InputError, LabelError, ModelError
from urbandet_ray.inference.job import InferJob, ShardSummary
from urbandet_ray.inference.pipeline import RunResult
from urbandet_ray.records.images import decode_image, encode_jpeg
from urbandet_ray.records.writer import write_frames


def shard(actor: int, started: float, ended: float, frames: int = 10) -> ShardSummary:
    return ShardSummary(frames=frames, started=started, ended=ended, actor=actor)


WARM = (shard(1, 0, 1), shard(1, 1, 2), shard(2, 0, 1), shard(2, 1, 2))
"""Two actors of two shards each, 20 frames/s."""


def photos(folder: Path) -> Path:
    """Three frames without labels."""
    folder.mkdir()
    for index in range(3):
        (folder / f"{index}.jpg").write_bytes(encode_jpeg(frame_image(index)))
    return folder


def config_of(data: Path, **settings: object) -> InferConfig:
    return InferConfig(input=str(data), output="-", **settings)


class Runs:
    """Stands in for Ray: each run answers the next summaries, the last ones for ever."""

    def __init__(self, *answers: Sequence[ShardSummary], dead_letters: int = 0) -> None:
        self.allowed: list[int] = []
        self.sources: list[int] = []
        self._answers, self._dead_letters = answers, dead_letters

    def __call__(self, job: InferJob, sources: Sequence[object], *_: object) -> RunResult:
        answer = self._answers[min(len(self.allowed), len(self._answers) - 1)]
        self.allowed.append(job.config.max_bad_records)
        self.sources.append(len(sources))
        frames = sum(one.frames for one in answer)
        return RunResult(frames, 0, self._dead_letters, 0, False, tuple(answer))


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No Ray is started; `run_inference` is for the test to replace."""
    monkeypatch.setattr(module, "ray_session", lambda *_, **__: nullcontext())
    monkeypatch.setattr(module, "run_inference", refuse)
    return monkeypatch


def refuse(*_: object, **__: object) -> RunResult:
    raise AssertionError("nothing should have run")


def test_first_shards_do_not_count() -> None:
    """Two actors at 10 frames a second each; their first shards took five and seven times that."""
    slow = [shard(1, 0, 5), shard(2, 0, 7)]
    warm = [shard(1, 5, 6), shard(1, 6, 7), shard(1, 7, 8), shard(2, 7, 8), shard(2, 8, 9)]
    pace, counted = warm_pace([*slow, *warm, shard(1, 8, 9)])
    assert pace == pytest.approx(20)
    assert len(counted) == 4


def test_a_shard_under_way_counts_in_part() -> None:
    """Half of it lies after the moment when both are warm."""
    pace, _ = warm_pace([shard(1, 0, 1), shard(2, 0, 2), shard(1, 1, 3), shard(2, 2, 3)])
    assert pace == pytest.approx(5 + 10)


def test_one_shard_an_actor_counts_whole() -> None:
    """Where each actor had one alone there is no later one: all frames over the whole time."""
    pace, counted = warm_pace([shard(1, 0, 2), shard(2, 1, 2)])
    assert (pace, len(counted)) == (10, 2)


def test_bad_records_are_allowed_for_each_copy(
    without_ray: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A round of 3 s at 20 frames/s is two copies of 40 frames; a note says what is left out."""
    runs = Runs(WARM, dead_letters=2)
    without_ray.setattr(module, "run_inference", runs)
    data = photos(tmp_path / "data")
    report = bench(config_of(data, max_bad_records=5), ["shipped"], rounds=1, seconds=3)
    assert (runs.sources, runs.allowed) == ([1, 2], [5, 10])
    assert report.dead_letters == 2
    assert f"\nnote: 2 bad records of {data} are left out (urbandet data val" in report.to_text()


def test_memory_is_the_most_of_all_rounds(without_ray: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not the last one's."""
    rounds = [[replace(one, memory_mb=most) for one in WARM] for most in (50, 300, 200)]
    without_ray.setattr(module, "run_inference", Runs(*rounds))
    report = bench(config_of(photos(tmp_path / "data")), ["shipped"], rounds=2, seconds=1)
    assert report.rows[0].memory_mb == 300


@pytest.mark.parametrize("cold", [False, True])
def test_a_row_without_warm_shards_is_marked(
    without_ray: pytest.MonkeyPatch, tmp_path: Path, cold: bool
) -> None:
    """One round in which each actor had a shard alone is enough."""
    runs = Runs(WARM, (shard(1, 0, 1), shard(2, 0, 1)) if cold else WARM, WARM)
    without_ray.setattr(module, "run_inference", runs)
    report = bench(config_of(photos(tmp_path / "data")), ["shipped"], rounds=2, seconds=1)
    assert report.rows[0].cold is cold
    text = report.to_text()
    told = (" 20.0* " in text, "note: * with its actors' first" in text)
    assert told == (cold, cold)


def test_trouble_with_labels_is_no_lack_of_them(
    without_ray: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Only unlabelled records go without mAP; what is wrong with labels is told."""
    without_ray.setattr(module, "run_inference", Runs(WARM))

    def foreign(_: object) -> None:
        raise LabelError("class 7 is not in the label map")

    without_ray.setattr(module, "evaluate", foreign)
    report = bench(config_of(photos(tmp_path / "photos")), ["shipped"], rounds=1, seconds=1)
    assert report.rows[0].map is None
    records = write_drive(tmp_path / "data" / "drive.tfrecord", 3).parent
    with pytest.raises(LabelError, match="class 7 is not in the label map"):
        bench(config_of(records), ["shipped"], rounds=1, seconds=1)


@pytest.mark.parametrize("backend", ["given", "auto"])
def test_every_model_is_looked_at_before_one_runs(
    without_ray: pytest.MonkeyPatch, tmp_path: Path, backend: str
) -> None:
    """A typo in the last one costs no run of the first."""
    config = config_of(photos(tmp_path / "data"), backend=backend)
    with pytest.raises(ModelError, match=r"no model at .*typo\.tflite"):
        bench(config, ["shipped", str(tmp_path / "typo.tflite")])


@pytest.mark.parametrize(
    ("models", "settings", "error", "message"),
    [
        (["shipped"], {"rounds": 0}, ConfigError, "rounds start at 1; seconds and price are"),
        (["shipped"], {"seconds": 0}, ConfigError, "rounds start at 1"),
        (["shipped"], {"price": -1}, ConfigError, "rounds start at 1"),
        ([], {}, ConfigError, "no model to measure: name one or more"),
        (["shipped"], {}, InputError, "data holds no good record to measure on"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    without_ray: pytest.MonkeyPatch,
    tmp_path: Path,
    models: list[str],
    settings: dict,
    error: type[Exception],
    message: str,
) -> None:
    """By a message, before anything runs."""
    without_ray.setattr(module, "run_inference", Runs([]))
    with pytest.raises(error, match=message):
        bench(config_of(photos(tmp_path / "data")), models, **settings)


@pytest.mark.ray
def test_models_side_by_side(ray_dashboard: str, tmp_path: Path) -> None:
    """Through the command: table, JSON, picture; the shipped detector against itself."""
    records = write_drive(tmp_path / "data" / "drive.tfrecord", 6).parent
    out, picture = tmp_path / "bench.json", tmp_path / "bench.png"
    command = ["bench", "shipped", "shipped", "--data", str(records), "--rounds", "2"]
    command += ["--seconds", "0.5", "--price", "0.36", "--json", str(out), "--png", str(picture)]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    assert (found["frames"], found["price"], len(found["rows"])) == (6, 0.36, 2)
    for row in found["rows"]:
        assert (row["format"], row["precision"]) == ("stock-tflite", "as stored")
        assert row["threads"] == 1
        assert len(row["rounds"]) == 2 and min(row["rounds"]) > 0
        assert row["stage_ms"]["model"] > row["stage_ms"]["decode"] > 0
        middle = sum(row["rounds"]) / 2
        assert row["cost"] == pytest.approx(0.36 / 3600 / middle * 1000, rel=1e-3)
        assert row["map"] is not None and 0.5 < row["size_mb"] < 1 and row["memory_mb"] > 50
    assert "frames/s" in done.output and "cost of 1,000" in done.output
    sheet = decode_image(picture.read_bytes())
    assert sheet.shape[1] > 900 and sheet.std() > 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bench.json", "bench.png", "data"]


@pytest.mark.ray
@pytest.mark.long
def test_without_labels_there_is_no_map(ray_dashboard: str, tmp_path: Path, realdata: Path) -> None:
    """Unlabelled photos are measured all the same."""
    out = tmp_path / "bench.json"
    command = ["bench", "shipped", "--data", str(realdata / "coco_street"), "--rounds", "1"]
    done = CliRunner().invoke(app, [*command, "--seconds", "0.1", "--json", str(out)])
    assert done.exit_code == 0, done.output
    (row,) = json.loads(out.read_text())["rows"]
    assert (row["map"], row["cost"]) == (None, None)


@pytest.mark.ray
@pytest.mark.long
def test_a_bad_record_fails_no_benchmark(ray_dashboard: str, tmp_path: Path) -> None:
    """Though it is in every copy of the data, and one is allowed."""
    frames = [make_frame(index) for index in range(6)]
    frames[3] = replace(frames[3], encoded=frames[3].encoded[:-300])
    write_frames(frames, tmp_path / "data" / "drive.tfrecord")
    config = config_of(tmp_path / "data", max_bad_records=1)
    report: BenchReport = bench(config, ["shipped"], rounds=1, seconds=3)
    assert (report.frames, report.dead_letters) == (5, 1)
