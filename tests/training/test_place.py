"""The meter between log lines."""

from types import SimpleNamespace

import pytest

from urbandet_ray.training import place
from urbandet_ray.training.place import Meter


class Clock:
    """Seconds that pass when a test says so."""

    now = 100.0

    def perf_counter(self) -> float:
        """As the module `time` has it."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that meters see."""
    seen = Clock()
    monkeypatch.setattr(place, "time", SimpleNamespace(perf_counter=seen.perf_counter))
    return seen


def test_a_line_has_means_and_pace(clock: Clock) -> None:
    """Losses are averaged over the steps, images are counted over the time."""
    meter = Meter(images_a_step=8)
    for loss in (1.0, 3.0):
        meter.add({"total": loss}, gradient_norm=2.0)
    clock.now += 4
    figures = meter.take()
    assert (figures["total"], figures["gradient_norm"]) == (2.0, 2.0)
    assert (figures["step_s"], figures["images_per_s"]) == (2.0, 4.0)


def test_waiting_for_input_is_a_share_of_the_time(clock: Clock) -> None:
    """One second of four."""
    meter = Meter(1)
    with meter.waiting():
        clock.now += 1
    clock.now += 3
    assert meter.take()["input_wait"] == 0.25


def test_a_restart_forgets(clock: Clock) -> None:
    """The time of an evaluation is not the steps'."""
    meter = Meter(1)
    clock.now += 60
    meter.restart()
    clock.now += 2
    meter.add({"total": 1.0}, 0.0)
    assert meter.take()["step_s"] == 2.0
