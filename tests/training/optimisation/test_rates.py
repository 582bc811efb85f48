"""Which learning rate a run takes, and what it says of it."""

import pytest

from urbandet_ray.config import TrainConfig, load_config
from urbandet_ray.models.pipeline_config import PipelineConfig, parse_pipeline
from urbandet_ray.training.optimisation.rates import (
    plan_rate,
    reference_rate,
    stated_rate,
    stock_batch,
)

pytestmark = pytest.mark.train

RUN = {"output": "run", "pipeline": "pipeline.config"}
COSINE = "cosine_decay_learning_rate { learning_rate_base: 0.003 total_steps: 9 }"


def pipeline(schedule: str = COSINE) -> PipelineConfig:
    """A pipeline.config of nothing but an optimizer, in line 7."""
    text = f"momentum_optimizer {{ learning_rate {{ {schedule} }} }}"
    text = f"train_config {{ optimizer {{ {text} }} }}"
    return parse_pipeline("\n" * 6 + text, "pipeline.config")


def told(given: PipelineConfig | None, **settings: object) -> tuple[float, str]:
    """The rate with 16 images a step, and the line about it."""
    rate = plan_rate(load_config(TrainConfig, None, {**RUN, **settings}), given)
    return rate.highest(16), rate.told(16)


@pytest.mark.parametrize(
    ("optimizer", "batch", "rate"),
    [
        ("momentum_optimizer", 128, 0.08),
        ("momentum_optimizer", 64, 0.04),
        ("momentum_optimizer", 16, 0.01),
        ("adam_optimizer", 128, 0.001),
        ("adam_optimizer", 32, 0.0005),
        ("rms_prop_optimizer", 24, 0.004),
    ],
)
def test_reference_rates(optimizer: str, batch: int, rate: float) -> None:
    """Those of the OD API's tuned configs."""
    assert reference_rate(optimizer, batch) == pytest.approx(rate)


def test_a_rate_that_the_file_states_is_taken_as_it_stands() -> None:
    """Not the reference, and not scaled to the batch; the line has both, and the place."""
    rate, line = told(pipeline())
    assert rate == pytest.approx(0.003)
    assert line == (
        "learning rate: up to 0.003, pipeline.config:7 (learning_rate_base) as it stands "
        "(schedule.rate sets another); the reference for momentum and 16 images a step is 0.01"
    )


def test_the_run_config_s_rate_comes_before_the_file_s() -> None:
    """schedule.rate is what the person who starts the run says."""
    rate, line = told(pipeline(), **{"schedule.rate": 0.002})
    assert rate == 0.002
    assert line == (
        "learning rate: up to 0.002, schedule.rate of the run config; "
        "the reference for momentum and 16 images a step is 0.01"
    )


def test_without_a_stated_rate_the_reference_is_taken() -> None:
    """A field that nobody wrote has a default in the protocol, which nobody meant."""
    rate, line = told(pipeline("cosine_decay_learning_rate { total_steps: 9 }"))
    assert rate == pytest.approx(0.01)
    assert line == (
        "learning rate: up to 0.01, the reference for momentum and 16 images a step; "
        "pipeline.config:7 states no rate (schedule.rate sets one)"
    )


def test_the_rate_of_another_optimizer_is_not_taken() -> None:
    """0.003 is momentum's; the run trains with Adam."""
    rate, line = told(pipeline(), **{"optimizer.kind": "adamw"})
    assert rate == pytest.approx(0.001 * (16 / 128) ** 0.5)
    assert "the reference for adam and 16 images a step" in line
    assert "the 0.003 of pipeline.config:7 (learning_rate_base) is momentum's" in line


def test_the_same_optimizer_by_name_keeps_the_file_s_rate() -> None:
    """optimizer.kind: momentum changes its numbers, not its kind."""
    assert told(pipeline(), **{"optimizer.kind": "momentum"})[0] == pytest.approx(0.003)


def test_a_schedule_to_the_letter_says_so() -> None:
    """The line has the highest rate of a schedule that the OD API makes."""
    _, line = told(pipeline(), **{"schedule.kind": "config"})
    assert "up to 0.003, the schedule of pipeline.config:7 to the letter; the reference" in line


@pytest.mark.parametrize(
    ("schedule", "rate", "place"),
    [
        ("constant_learning_rate { learning_rate: 0.5 }", 0.5, "learning_rate"),
        ("exponential_decay_learning_rate { initial_learning_rate: 0.5 }", 0.5, "initial"),
        (
            "manual_step_learning_rate { initial_learning_rate: 0.1 "
            "schedule { step: 5 learning_rate: 0.2 } schedule { step: 9 learning_rate: 0.5 } }",
            0.5,
            "schedule[1].learning_rate",
        ),
    ],
)
def test_the_highest_rate_of_every_schedule(schedule: str, rate: float, place: str) -> None:
    """The run-sized schedule rises to it."""
    found = stated_rate(pipeline(schedule).message)
    assert found is not None
    assert found.value == pytest.approx(rate)
    assert place in found.place


def test_stock_rates_are_known() -> None:
    """As protobuf reads them: 0.08 is 0.07999999821186066 there."""
    base = COSINE.replace("0.003", "0.08")
    found = stated_rate(pipeline(base).message)
    assert found is not None
    assert stock_batch("momentum_optimizer", found.value) == 128
    assert stock_batch("momentum_optimizer", 0.003) is None
    assert stock_batch("adam_optimizer", 0.001) == 128
