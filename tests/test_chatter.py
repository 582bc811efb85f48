"""Remarks of C++ libraries stay off the terminal, and come back where they explain a failure."""

import os

import pytest

from urbandet_ray.chatter import lower_log_level, stderr_held


def test_what_a_block_writes_is_held_back(capfd: pytest.CaptureFixture[str]) -> None:
    """Descriptor 2 works again behind the block."""
    with stderr_held():
        os.write(2, b"remark\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


@pytest.mark.parametrize(("shown", "told"), [(True, "remark\n"), (False, "")])
def test_a_failure_may_show_what_was_held(
    shown: bool, told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A failing block's remarks may be all there is to go by."""
    with pytest.raises(ValueError, match="broken"), stderr_held(show_on_failure=shown):
        os.write(2, b"remark\n")
        raise ValueError("broken")
    assert capfd.readouterr().err == told


def test_a_level_that_a_person_chose_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """TF_CPP_MIN_LOG_LEVEL=0 is how one looks for trouble."""
    monkeypatch.setattr(os, "environ", {"TF_CPP_MIN_LOG_LEVEL": "0"})
    lower_log_level("tensorflow")
    lower_log_level("opencv")
    assert os.environ == {"TF_CPP_MIN_LOG_LEVEL": "0", "OPENCV_LOG_LEVEL": "ERROR"}
