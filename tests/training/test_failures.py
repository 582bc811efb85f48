"""Which errors of a worker end a training at once, and which are tried again."""

import pytest

from urbandet_ray.errors import ModelError
from urbandet_ray.training.trainer import failure_text

pytestmark = pytest.mark.train


@pytest.mark.parametrize(
    "error",
    [
        ValueError("Received filters=0"),
        KeyError("groundtruth_keypoints"),
        TypeError("missing argument"),
        AssertionError(),
        NotImplementedError("no such head"),
    ],
)
def test_what_is_the_same_on_every_try_is_told_at_once(error: Exception) -> None:
    """With its kind and the end of its trace: it is a mistake in a config or in the code."""
    try:
        raise error
    except Exception as caught:
        text = failure_text(caught)
    assert text is not None
    assert text.startswith(f"training stopped with {type(error).__name__}: ")
    assert "it was not tried again" in text
    assert "test_failures.py" in text


def test_a_persons_mistake_is_told_as_it_stands() -> None:
    """Without a trace."""
    assert failure_text(ModelError("num_classes is 3")) == "num_classes is 3"


@pytest.mark.parametrize("name", ["UnavailableError", "AbortedError", "InternalError"])
def test_what_a_lost_worker_leaves_behind_is_tried_again(name: str) -> None:
    """The others' connections to it broke."""
    from urbandet_ray.models.odapi import open_odapi

    assert failure_text(getattr(open_odapi().tf.errors, name)(None, None, "gone")) is None


@pytest.mark.parametrize("error", [ConnectionResetError(), OSError("disk"), TimeoutError()])
def test_what_a_machine_does_is_tried_again(error: Exception) -> None:
    """Another node may do better."""
    assert failure_text(error) is None


def test_a_broken_collective_is_tried_again() -> None:
    """Whatever kind of error says so."""
    from urbandet_ray.models.odapi import open_odapi

    told = "Collective ops is aborted by: peer is gone"
    assert failure_text(open_odapi().tf.errors.InvalidArgumentError(None, None, told)) is None


@pytest.mark.parametrize(
    "name", ["InvalidArgumentError", "ResourceExhaustedError", "NotFoundError"]
)
def test_tensorflow_s_own_refusals_are_told_at_once(name: str) -> None:
    """A batch that does not fit into memory does not fit the next time either."""
    from urbandet_ray.models.odapi import open_odapi

    text = failure_text(getattr(open_odapi().tf.errors, name)(None, None, "OOM\nmore"))
    assert text is not None
    assert text.startswith(f"training stopped with {name}: OOM. The same")


def test_an_error_of_a_traced_function_says_what_it_was() -> None:
    """TensorFlow puts the lines of the function before it."""
    from urbandet_ray.models.odapi import open_odapi

    @open_odapi().tf.function
    def step() -> None:
        raise ValueError("Received filters=0")

    with pytest.raises(ValueError, match="in user code") as raised:
        step()
    text = failure_text(raised.value)
    assert text is not None
    assert text.startswith("training stopped with ValueError: Received filters=0. The same would")
    assert "test_failures.py" in text
    assert "__autograph_generated" not in text
