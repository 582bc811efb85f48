"""Lists in the middle of a sentence."""

import pytest

from urbandet_ray.phrases import some_of


@pytest.mark.parametrize(
    ("names", "told"),
    [([], ""), (["a"], "a"), (["a", "b"], "a, b"), (["a", "b", "c", "d"], "a, b and 2 more")],
)
def test_what_is_left_out_is_counted(names: list[str], told: str) -> None:
    """A message stays short, and nobody takes the part for the whole."""
    assert some_of(names, 2) == told
