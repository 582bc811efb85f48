"""What is quoted of another library's error."""

import pytest

from urbandet_ray.errors import first_line, last_line


@pytest.mark.parametrize(
    ("told", "first", "last"),
    [
        (ValueError("no such op"), "no such op", "no such op"),
        (RuntimeError("\n  no kernel \n\nframe 1\n  frame 2\n"), "no kernel", "frame 2"),
        (AssertionError(), "AssertionError", "AssertionError"),
        (OSError(" \n"), "OSError", "OSError"),
        ("Traceback:\nKeyError: 'x'\n", "Traceback:", "KeyError: 'x'"),
        ("", "no reason given", "no reason given"),
    ],
)
def test_an_error_is_quoted_by_a_line_that_says_something(
    told: BaseException | str, first: str, last: str
) -> None:
    """An empty message, as of a bare assert, is no IndexError."""
    assert (first_line(told), last_line(told)) == (first, last)
