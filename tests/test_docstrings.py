"""Every test says in its docstring which behaviour it holds."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


def undocumented(source: str) -> list[str]:
    """Names of the tests in a file that have no docstring."""
    return [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]


def test_every_test_has_its_docstring() -> None:
    """Of all files below tests/."""
    found = {
        str(path.relative_to(TESTS)): names
        for path in sorted(TESTS.rglob("test_*.py"))
        if (names := undocumented(path.read_text(encoding="utf-8")))
    }
    assert found == {}


@pytest.mark.parametrize(
    "source",
    [
        "def test_it():\n    assert True",
        "class TestIt:\n    def test_it(self):\n        assert True",
        'def test_it():\n    """ """\n    assert True',
    ],
)
def test_a_test_without_one_is_found(source: str) -> None:
    """In a class as well, and where the docstring is empty."""
    assert undocumented(source) == ["test_it"]
