"""The meter between log lines."""

import time

import pytest

from urbandet_ray.training.place import Meter


def test_a_line_has_means_and_pace() -> None:
    """Losses are averaged over the steps, images are counted over the time."""
    meter = Meter(images_a_step=8)
    for loss in (1.0, 3.0):
        meter.add({"total": loss}, gradient_norm=2.0)
    time.sleep(0.05)
    figures = meter.take()
    assert (figures["total"], figures["gradient_norm"]) == (2.0, 2.0)
    assert figures["images_per_s"] == pytest.approx(16 / (2 * figures["step_s"]), rel=1e-6)


def test_waiting_for_input_is_a_share_of_the_time() -> None:
    meter = Meter(1)
    with meter.waiting():
        time.sleep(0.05)
    time.sleep(0.05)
    assert 0.3 < meter.take()["input_wait"] < 0.7


def test_a_restart_forgets() -> None:
    """The time of an evaluation is not the steps'."""
    meter = Meter(1)
    time.sleep(0.05)
    meter.restart()
    meter.add({"total": 1.0}, 0.0)
    assert meter.take()["step_s"] < 0.05
