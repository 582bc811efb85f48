"""Progress: how far, how fast, what holds it up."""

from types import SimpleNamespace

import pytest

from urbandet_ray.commands.display import clock, describe
from urbandet_ray.inference import progress
from urbandet_ray.inference.job import ShardSummary
from urbandet_ray.inference.progress import ProgressMeter

NOW = 1_800_000_000.0


@pytest.fixture(autouse=True)
def standing_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meter's clock stands still."""
    monkeypatch.setattr(progress, "time", SimpleNamespace(time=lambda: NOW))


def summary(source: str, frames: int, extent: float, **busy: float) -> ShardSummary:
    """A shard that was begun ten seconds ago."""
    return ShardSummary(
        source=source,
        frames=frames,
        detections=2 * frames,
        extent=extent,
        busy_s=busy,
        started=NOW - 10,
    )


def test_fraction_weighs_files_by_their_bytes() -> None:
    """Half of a file three times as large counts three times as much."""
    meter = ProgressMeter({"a": 300, "b": 100}, {})
    meter.add(summary("a", 15, 0.5, model=1.0))
    assert meter.snapshot().fraction == pytest.approx(150 / 400)


def test_time_left_follows_this_tries_pace() -> None:
    """What an earlier try did does not make this one look faster."""
    meter = ProgressMeter({"a": 100, "b": 100}, {"a": 1.0}, frames=50)
    meter.add(summary("b", 25, 0.5, model=1.0))
    state = meter.snapshot()
    assert state.frames == 75
    assert state.frames_per_s == pytest.approx(2.5)
    assert state.left_s == pytest.approx(10)


def test_bottleneck_is_the_busiest_stage() -> None:
    """Over all shards so far."""
    meter = ProgressMeter({"a": 100}, {})
    meter.add(summary("a", 5, 0.5, model=1.0, decode=2.0))
    meter.add(summary("a", 5, 0.9, model=4.0, decode=1.0))
    state = meter.snapshot()
    assert state.bottleneck == "model"
    assert state.shares["model"] == pytest.approx(5 / 8)


def test_shards_out_of_order_add_up() -> None:
    """Actors finish when they finish; the last shard of a file is not the whole file."""
    meter = ProgressMeter({"a": 100}, {})
    meter.add(summary("a", 1, 0.1))
    assert meter.snapshot().fraction == pytest.approx(0.1)
    meter.add(summary("a", 9, 0.9))
    assert meter.snapshot().fraction == pytest.approx(1.0)


def test_the_line_a_person_reads() -> None:
    """Frames, pace, dead letters, time left, bottleneck and what to do; no control characters."""
    meter = ProgressMeter({"a": 100}, {})
    meter.add(summary("a", 20, 0.5, model=1.0))
    line = describe(meter.snapshot())
    assert line.startswith("20 frames (50%), 2.0 frames/s, 0 dead letters, 0:10 left, most time in")
    assert "model (100%; more actors or a faster model)" in line
    assert line.isprintable()


@pytest.mark.parametrize(("seconds", "text"), [(5, "0:05"), (65, "1:05"), (7384, "2:03:04")])
def test_clock(seconds: float, text: str) -> None:
    """Minutes and seconds, hours where needed."""
    assert clock(seconds) == text
