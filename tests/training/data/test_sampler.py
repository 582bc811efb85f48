"""The order of records: complete epochs, a pure function of the step, rare classes more often."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from urbandet_ray.errors import InputError
from urbandet_ray.training.data.sampler import Sampler, repeat_factors


@settings(max_examples=40)
@given(n=st.integers(1, 30), batch=st.integers(1, 9), seed=st.integers(0, 5))
def test_every_epoch_has_each_record_once(n: int, batch: int, seed: int) -> None:
    """Batches run over the ends of epochs."""
    sampler = Sampler(n, batch, seed, rank=0)
    row = np.concatenate([sampler.ids(step) for step in range(3 * n // batch + 1)])
    for epoch in range(len(row) // n):
        assert sorted(row[epoch * n : epoch * n + n].tolist()) == list(range(n))


@settings(max_examples=40)
@given(
    steps=st.lists(st.integers(0, 60), min_size=1, max_size=8),
    factors=st.none() | st.lists(st.floats(1, 4), min_size=7, max_size=7),
)
def test_a_step_does_not_depend_on_the_steps_before(
    steps: list[int], factors: list[float] | None
) -> None:
    """A run that goes on at a step gets the batch it would have had."""
    repeat = None if factors is None else np.array(factors)
    used = Sampler(7, 3, seed=1, rank=2, repeat=repeat)
    for step in steps:
        fresh = Sampler(7, 3, seed=1, rank=2, repeat=repeat)
        assert used.ids(step).tolist() == fresh.ids(step).tolist()
        assert used.companions(step).tolist() == fresh.companions(step).tolist()


@pytest.mark.parametrize("other", [{"seed": 1}, {"rank": 1}])
def test_seed_and_rank_change_the_order(other: dict[str, int]) -> None:
    """Workers do not walk in step."""
    given = {"seed": 0, "rank": 0}
    one, two = Sampler(50, 50, **given), Sampler(50, 50, **{**given, **other})
    assert one.ids(0).tolist() != two.ids(0).tolist()


def test_epochs_are_in_different_order() -> None:
    """Each is shuffled anew."""
    sampler = Sampler(50, 50, 0, 0)
    assert sampler.ids(0).tolist() != sampler.ids(1).tolist()


def test_factors_repeat_records() -> None:
    """Whole factors exactly, fractions on average."""
    sampler = Sampler(3, 1, 0, 0, repeat=np.array([1.0, 2.0, 1.25]))
    row = np.concatenate([sampler.ids(step) for step in range(3400)])
    counts = np.bincount(row) / (3400 / 4.25)
    assert counts == pytest.approx([1, 2, 1.25], abs=0.06)


def test_repeated_epochs_hold_every_record() -> None:
    """None is left out while others come twice."""
    sampler = Sampler(3, 1, 0, 0, repeat=np.array([1.0, 3.0, 1.0]))
    row = np.concatenate([sampler.ids(step) for step in range(10)])
    assert sorted(row[:5].tolist()) == sorted(row[5:].tolist()) == [0, 1, 1, 1, 2]


def test_repeat_factors_by_hand() -> None:
    """Four frames: class 1 in all, 2 in one, 3 in none; threshold 0.64: sqrt(0.64 / 0.25) = 1.6."""
    presence = np.array([[0, 1, 0, 0], [0, 1, 1, 0], [0, 1, 0, 0], [0, 1, 0, 0]], bool)
    assert repeat_factors(presence, 0.64) == pytest.approx([1, 1.6, 1, 1])


def test_no_frame_is_repeated_without_a_threshold() -> None:
    """Frames without any class count once too."""
    presence = np.array([[False, True], [False, False]])
    assert repeat_factors(presence, 0.0).tolist() == [1, 1]


def test_companions_are_other_records() -> None:
    """Three for each image, of all records but itself."""
    sampler = Sampler(4, 4, 0, 0)
    for step in range(30):
        companions = sampler.companions(step)
        assert companions.shape == (4, 3)
        assert (companions != sampler.ids(step)[:, None]).all()
        assert set(companions.ravel().tolist()) <= {0, 1, 2, 3}


def test_a_single_record_is_its_own_companion() -> None:
    """There is no other."""
    assert Sampler(1, 2, 0, 0).companions(5).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_epoch_counts_what_is_done() -> None:
    """In records, not in steps."""
    assert Sampler(10, 4, 0, 0).epoch(5) == pytest.approx(2.0)


def test_a_worker_without_records_is_told() -> None:
    """More workers than records."""
    with pytest.raises(InputError, match="worker 3 has no record to train on: use fewer workers"):
        Sampler(0, 4, 0, 3)
