"""Learning rates by step."""

import math

import pytest

from urbandet_ray.errors import ConfigError
from urbandet_ray.models.pipeline_config import parse_pipeline
from urbandet_ray.training.optimisation.schedules import (
    config_schedule,
    make_schedule,
)


@pytest.mark.parametrize(
    "kind", ["cosine", "constant", "step", "exponential", "one_cycle", "restarts"]
)
@pytest.mark.parametrize("steps", [1, 7, 100, 2500])
def test_every_kind_fits_every_run(kind: str, steps: int) -> None:
    """Positive, never above the highest rate, and steady behind the end."""
    schedule = make_schedule(kind, 0.1, steps)
    rates = [schedule(step) for step in range(steps + 5)]
    assert all(0 < rate <= 0.1 + 1e-12 for rate in rates)
    assert rates[-1] == pytest.approx(schedule(steps), rel=1e-9)


def test_cosine_against_its_closed_form() -> None:
    """Warm-up to the top at a tenth, half-way down in the middle, the final share at the end."""
    schedule = make_schedule("cosine", 1.0, 100, 0.1, final_share=0.0)
    assert [schedule(step) for step in (0, 4, 10)] == pytest.approx([1 / 11, 5 / 11, 1.0])
    assert schedule(55) == pytest.approx(0.5)
    assert schedule(32) == pytest.approx(0.5 * (1 + math.cos(math.pi * 22 / 90)))
    assert schedule(100) == pytest.approx(0.0, abs=1e-12)


def test_step_lowers_the_rate_at_its_milestones() -> None:
    """By the factor, from the milestone's own step on."""
    schedule = make_schedule("step", 1.0, 100, 0.0, milestones=(0.5, 0.8), factor=0.1)
    rates = [schedule(step) for step in (49, 50, 79, 80, 99)]
    assert rates == pytest.approx([1, 0.1, 0.1, 0.01, 0.01])


def test_exponential_ends_at_the_final_share() -> None:
    """Half the way is the square root of it."""
    schedule = make_schedule("exponential", 2.0, 100, 0.0, final_share=0.01)
    assert [schedule(step) for step in (0, 50, 100)] == pytest.approx([2.0, 0.2, 0.02])


def test_one_cycle_peaks_at_three_tenths() -> None:
    """It starts at a 25th and ends at the final share."""
    schedule = make_schedule("one_cycle", 1.0, 100, final_share=0.001)
    assert max(range(100), key=schedule) == 30
    assert [schedule(step) for step in (0, 30, 100)] == pytest.approx([1 / 25, 1.0, 0.001])


def test_restarts_jump_back_to_the_top_and_double_in_length() -> None:
    """Three descents over 70 steps: 10, 20 and 40 steps."""
    schedule = make_schedule("restarts", 1.0, 70, 0.0, final_share=0.0, cycles=3)
    tops = [step for step in range(70) if schedule(step) == pytest.approx(1.0)]
    assert tops == [0, 10, 30]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rate": 0.0}, "needs a rate and steps above 0"),
        ({"warmup_share": 0.96, "steps": 10}, "the whole run of 10 steps"),
    ],
)
def test_nonsense_is_refused(changes: dict, message: str) -> None:
    """Values that no schedule can have, by the setting's name."""
    given = {"kind": "cosine", "rate": 0.1, "steps": 100, **changes}
    with pytest.raises(ConfigError, match=message):
        make_schedule(given.pop("kind"), given.pop("rate"), given.pop("steps"), **given)


COSINE = """cosine_decay_learning_rate { learning_rate_base: 0.1 total_steps: 100
    warmup_learning_rate: 0.01 warmup_steps: 10 }"""
EXPONENTIAL = """exponential_decay_learning_rate { initial_learning_rate: 1.0 decay_steps: 10
    decay_factor: 0.5 staircase: STAIRS burnin_learning_rate: 0.2 burnin_steps: 5
    min_learning_rate: 0.01 }"""
MANUAL = """manual_step_learning_rate { initial_learning_rate: 1.0
    schedule { step: 10 learning_rate: 0.1 } schedule { step: 20 learning_rate: 0.01 } }"""


def of_config(rate: str, optimizer: str = "momentum_optimizer"):
    text = f"train_config {{ optimizer {{ {optimizer} {{ learning_rate {{ {rate} }} }} }} }}"
    return config_schedule(parse_pipeline(text, "test").message)


@pytest.mark.train
@pytest.mark.parametrize(
    "optimizer", ["momentum_optimizer", "adam_optimizer", "rms_prop_optimizer"]
)
@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        ("constant_learning_rate { learning_rate: 0.3 }", {0: 0.3, 999: 0.3}),
        (COSINE, {0: 0.01, 5: 0.055, 10: 0.1, 55: 0.05, 100: 0.0, 150: 0.0}),
        (EXPONENTIAL.replace("STAIRS", "true"), {3: 0.2, 5: 1, 14: 1, 15: 0.5, 26: 0.25}),
        (EXPONENTIAL.replace("STAIRS", "false"), {3: 0.2, 5: 1, 30: 0.5**2.5, 999: 0.01}),
        (MANUAL, {0: 1.0, 9: 1.0, 10: 0.1, 19: 0.1, 20: 0.01, 999: 0.01}),
    ],
)
def test_the_config_s_own_rate_against_its_closed_form(
    optimizer: str, rate: str, expected: dict[int, float]
) -> None:
    """All of the OD API's kinds under all of its optimizers, steps in any order."""
    schedule = of_config(rate, optimizer)
    steps = sorted(expected, reverse=True)
    got = [schedule(step) for step in steps]
    assert got == pytest.approx([expected[step] for step in steps], rel=1e-5, abs=1e-7)


@pytest.mark.train
@pytest.mark.parametrize(
    "rate",
    [
        COSINE.replace("0.01", "0.5"),
        COSINE.replace("warmup_steps: 10", "warmup_steps: 101"),
        "manual_step_learning_rate { }",
        "",
    ],
)
def test_a_config_without_a_sound_rate_is_refused_before_the_first_step(rate: str) -> None:
    """Warm-up above the base rate or beyond the end, no steps, nothing at all."""
    with pytest.raises(ConfigError, match=r"no learning rate of train_config\.optimizer"):
        of_config(rate)
