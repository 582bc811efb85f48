"""A section is checked when it is made, wherever its values come from."""

import pickle

import pytest

from urbandet_ray.config import InferConfig, ModelConfig, load_config
from urbandet_ray.errors import ConfigError


def test_a_section_made_in_python_says_what_is_wrong() -> None:
    """All its mistakes, a line each, in the words of a config file's."""
    with pytest.raises(ConfigError) as caught:
        ModelConfig(uri="x", score_min=2, thread=2)  # type: ignore[call-arg]
    assert str(caught.value).splitlines() == [
        "this ModelConfig cannot be used:",
        "  score_min: Input should be less than or equal to 1, got 2",
        "  thread: unknown key; did you mean 'threads'?",
    ]


def test_a_section_within_another_keeps_the_place_of_its_keys() -> None:
    """The mistakes of all sections come together, by their dotted keys."""
    wanted = ["  model.score_min: Input should", "  batch_size: Input should"]
    tree = {"input": "a", "output": "b", "model": {"score_min": 2}, "batch_size": 0}
    with pytest.raises(ConfigError) as made:
        InferConfig(**tree)  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as loaded:
        load_config(InferConfig, None, tree)
    for caught, origin in ((made, "this InferConfig"), (loaded, "the settings")):
        head, *lines = str(caught.value).splitlines()
        assert head == f"{origin} cannot be used:"
        assert [line[: len(begin)] for line, begin in zip(lines, wanted, strict=True)] == wanted


def test_a_section_travels_by_pickle() -> None:
    """Actors and workers get it from the driver; it is not checked again."""
    config = load_config(InferConfig, None, {"input": "a", "output": "b", "model.threads": 2})
    assert pickle.loads(pickle.dumps(config)) == config
