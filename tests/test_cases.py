"""The small inputs that were read wrongly once, wherever they lie: see cases.py."""

import os
from pathlib import Path

import pytest
from cases import CASES, Case, played
from conftest import REPOSITORY

pytestmark = [pytest.mark.realdata, pytest.mark.train]


@pytest.fixture(scope="session")
def folder() -> Path:
    """The inputs; they are not part of the project."""
    beside = REPOSITORY.parent / "shared" / "cases"
    found = Path(os.environ.get("URBANDET_CASES", beside)).resolve()
    if not found.is_dir():
        pytest.skip(f"no cases in {found}; set URBANDET_CASES to a folder that has them")
    return found


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            case,
            id=f"{case.name}: {case.expected}",
            marks=[pytest.mark.ray, pytest.mark.long] if case.look is played else [],
        )
        for case in CASES
    ],
)
def test_a_case_comes_to_what_is_expected(case: Case, folder: Path) -> None:
    """By the commands that a person types."""
    assert case.wrong(folder) == ""
