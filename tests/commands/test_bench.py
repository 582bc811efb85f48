"""`urbandet bench`: a row a model, and only what warm actors did counts."""

import json
from pathlib import Path

import pytest
from drives import write_drive
from typer.testing import CliRunner

from urbandet_ray.cli import app
from urbandet_ray.commands.bench import warm_pace
from urbandet_ray.inference.job import ShardSummary
from urbandet_ray.records.images import decode_image


def shard(actor: int, started: float, ended: float, frames: int = 10) -> ShardSummary:
    return ShardSummary(frames=frames, started=started, ended=ended, actor=actor)


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
    pace, counted = warm_pace([shard(1, 0, 2), shard(2, 1, 2)])
    assert (pace, len(counted)) == (10, 2)


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
        assert (row["format"], row["precision"], row["threads"]) == ("stock-tflite", "f32", 1)
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
def test_without_labels_there_is_no_map(ray_dashboard: str, tmp_path: Path, realdata: Path) -> None:
    """Unlabelled photos are measured all the same."""
    out = tmp_path / "bench.json"
    command = ["bench", "shipped", "--data", str(realdata / "coco_street"), "--rounds", "1"]
    done = CliRunner().invoke(app, [*command, "--seconds", "0.1", "--json", str(out)])
    assert done.exit_code == 0, done.output
    (row,) = json.loads(out.read_text())["rows"]
    assert (row["map"], row["cost"]) == (None, None)
