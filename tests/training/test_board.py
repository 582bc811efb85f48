"""What a run tells: metrics.jsonl, TensorBoard, notices."""

import json
from pathlib import Path

import pytest

from urbandet_ray.storage import Storage
from urbandet_ray.training.board import Board, read_lines

pytestmark = pytest.mark.train


def board(tmp_path: Path, first_step: int = 0, notices: list | None = None) -> Board:
    """Of the run in tmp_path/run."""
    notice = notices.append if notices is not None else lambda _: None
    return Board(str(tmp_path / "run"), Storage(), tmp_path / "scratch", first_step, notice)


def test_every_entry_is_a_line_and_a_notice(tmp_path: Path) -> None:
    """The same entries in the file and to whoever watches."""
    notices: list = []
    one = board(tmp_path, notices=notices)
    one.steps(10, {"total": 1.5, "rate": 0.01})
    one.event(12, "resumed")
    one.close()
    lines = read_lines((tmp_path / "run/metrics.jsonl").read_text())
    assert lines == notices
    assert [(line["kind"], line["step"]) for line in lines] == [("steps", 10), ("event", 12)]
    assert lines[0]["total"] == 1.5


def test_tensorboard_can_read_the_figures(tmp_path: Path) -> None:
    """Scalars by the names they were given, at their steps."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    one = board(tmp_path)
    one.steps(10, {"total": 1.5})
    one.steps(20, {"total": 1.25})
    one.close()
    events = EventAccumulator(str(tmp_path / "run/tensorboard"))
    events.Reload()
    assert events.Tags()["tensors"] == ["total"]
    assert [event.step for event in events.Tensors("total")] == [10, 20]


def test_a_resumed_run_takes_back_what_it_does_again(tmp_path: Path) -> None:
    """Lines after the checkpoint's step, and one that a crash cut short, go."""
    path = tmp_path / "run/metrics.jsonl"
    path.parent.mkdir()
    entries = [{"kind": "steps", "step": step} for step in (10, 20, 30)]
    path.write_text("".join(json.dumps(one) + "\n" for one in entries) + '{"kind": "st')
    one = board(tmp_path, first_step=20)
    one.steps(25, {"total": 1.0})
    one.close()
    assert [line["step"] for line in read_lines(path.read_text())] == [10, 20, 25]
