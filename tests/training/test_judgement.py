"""When a run ends before its last step, and what a plateau leaves of the rate."""

import math

import pytest

from urbandet_ray.config import TrainConfig, load_config
from urbandet_ray.training.judgement import DivergenceGuard, EarlyStopping, Judgement, Plateau


def test_early_stopping_counts_evaluations_since_the_best() -> None:
    """The same mAP again is no better one."""
    state = EarlyStopping(patience=2)
    for step, figure in ((10, 0.1), (20, 0.3), (30, 0.2)):
        state = state.observe(figure, step)
    assert not state.should_stop
    state = state.observe(0.3, 40)
    assert state.should_stop
    assert state.message() == ("stopped early: no mAP above 0.300 (step 20) in 2 evaluations")


def test_without_patience_it_never_stops() -> None:
    """The default."""
    state = EarlyStopping()
    for step in range(100):
        state = state.observe(0.0, step)
    assert not state.should_stop


def test_early_stopping_goes_on_where_a_checkpoint_left_it() -> None:
    """The count of evaluations comes back."""
    state = EarlyStopping(patience=2).observe(0.3, 10).observe(0.1, 20)
    assert EarlyStopping(patience=2).resumed(state.to_dict()) == state


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_trouble_at_once(loss: float) -> None:
    """With the figures of the step and the advice."""
    trouble = DivergenceGuard().check(7, loss, 3.0, 0.08)
    assert trouble is not None
    assert f"step 7: the loss is {loss} (gradient norm 3, rate 0.08)" in trouble
    assert "Lower schedule.rate" in trouble


def test_a_loss_that_stays_far_above_its_median_is_trouble() -> None:
    """One high loss is a hard batch; three in a row are not."""
    guard = DivergenceGuard(factor=5)
    for step in range(20):
        assert guard.check(step, 1.0 + 0.1 * (step % 3), 1.0, 0.1) is None
    told = [guard.check(20 + i, 9.0, 1.0, 0.1) for i in range(3)]
    assert told[:2] == [None, None]
    assert "blew up to 9, 8.2 times what it was (1.1" in told[2]


def test_a_falling_loss_is_never_trouble() -> None:
    """However fast it falls."""
    guard = DivergenceGuard(factor=5)
    assert all(guard.check(s, 100 * 0.9**s + 0.5, 1.0, 0.1) is None for s in range(300))


def test_a_single_high_loss_is_forgiven() -> None:
    """Two in a row as well."""
    guard = DivergenceGuard(factor=5)
    losses = [1.0] * 20 + [50.0, 50.0, 1.0] * 5
    assert all(guard.check(step, loss, 1.0, 0.1) is None for step, loss in enumerate(losses))


def test_the_guard_remembers_the_median_across_a_resume() -> None:
    """The third high loss after a resume is trouble."""
    guard = DivergenceGuard(factor=5)
    for step in range(20):
        guard.check(step, 1.0, 1.0, 0.1)
    again = DivergenceGuard(factor=5)
    again.resume(guard.to_dict())
    assert [again.check(20 + i, 9.0, 1.0, 0.1) is None for i in range(3)] == [True, True, False]


def test_a_median_of_zero_is_no_trouble_to_the_guard() -> None:
    """No division by it, and a loss of 1 still blows up."""
    guard = DivergenceGuard()
    for step in range(20):
        guard.check(step, 0.0, 1.0, 0.1)
    told = [guard.check(20 + i, 1.0, 1.0, 0.1) for i in range(3)]
    assert "blew up to 1" in told[2]


def test_a_message_tells_the_median_before() -> None:
    """So that a person sees what is usual."""
    guard = DivergenceGuard()
    guard.check(1, 2.5, 1.0, 0.1)
    assert "rate 0.1, median before 2.5)" in guard.check(2, math.nan, 1.0, 0.1)


def test_without_a_loss_scale_an_infinite_gradient_is_trouble_at_once() -> None:
    """The loss is still good, the weights are not any more."""
    assert "gradient norm inf" in DivergenceGuard(loss_scaled=False).check(4, 1.0, math.inf, 0.1)


def test_with_a_loss_scale_only_a_long_row_of_overflows_is_trouble() -> None:
    """The scale halves itself out of a short one."""
    guard = DivergenceGuard()
    told = [guard.check(step, 1.0, math.inf, 0.1) for step in range(29)]
    assert told == [None] * 29
    assert guard.check(29, 1.0, math.inf, 0.1) is not None
    assert guard.check(30, 1.0, 1.0, 0.1) is None


def test_a_plateau_lowers_the_rate_once_patience_is_at_its_end() -> None:
    """Two evaluations without a better mAP, then again two."""
    state, scales = Plateau(factor=0.5, patience=2), []
    for figure in (0.1, 0.2, 0.2, 0.19, 0.2, 0.1, 0.3):
        state = state.observe(figure)
        scales.append(state.scale)
    assert scales == [1, 1, 1, 0.5, 0.5, 0.25, 0.25]


def test_a_plateau_goes_on_where_a_checkpoint_left_it() -> None:
    """The evaluations without a better mAP are counted on."""
    state = Plateau(factor=0.5, patience=2).observe(0.2).observe(0.1)
    again = Plateau(factor=0.5, patience=2).resumed(state.to_dict())
    assert again == state
    assert again.observe(0.1).scale == 0.5


def test_a_loss_far_too_high_puts_the_run_in_doubt_until_the_next_good_one() -> None:
    """No weights to go back to lie behind it."""
    guard = DivergenceGuard(factor=5)
    for step in range(12):
        guard.check(step, 1.0, 1.0, 0.1)
    assert not guard.in_doubt
    guard.check(12, 9.0, 1.0, 0.1)
    assert guard.in_doubt
    guard.check(13, 1.0, 1.0, 0.1)
    assert not guard.in_doubt


def test_a_best_that_is_forgotten_counts_nowhere() -> None:
    """A lower mAP is the best again, for early stopping and for the plateau too."""
    config = load_config(
        TrainConfig, None, {"output": "run", "pipeline": "x", "schedule.kind": "plateau"}
    )
    judgement = Judgement.of(config)
    assert judgement.observe(10, 0.5)
    judgement.forget_best()
    assert judgement.observe(20, 0.2)
    assert (judgement.early.best, judgement.plateau.best) == (0.2, 0.2)
