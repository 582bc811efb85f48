"""JSON files as typed values, and the words for a damaged one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from urbandet_ray.errors import NotFoundError, RunError
from urbandet_ray.json_files import digest, parse_value, read_value, to_json
from urbandet_ray.storage import Storage


@dataclass(frozen=True)
class Sample:
    """A value with a field of each kind."""

    name: str
    count: int
    share: float
    kind: Literal["a", "b"]
    parts: dict[str, Any]
    places: tuple[int, ...] = ()


GOOD: dict[str, Any] = {"name": "x", "count": 1, "share": 1, "kind": "a", "parts": {"y": [2]}}


def test_a_value_is_read_as_its_own_types(tmp_path: Path) -> None:
    """Lists become tuples, whole numbers may stand for floats, other keys are passed over."""
    file = tmp_path / "a.json"
    file.write_bytes(to_json(GOOD | {"places": [1, 2], "of a later version": True}))
    read = read_value(str(file), Storage(), Sample, "Mend it")
    assert read == Sample("x", 1, 1.0, "a", {"y": [2]}, (1, 2))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": 3}, "name is 3, expected a string"),
        ({"count": "1"}, 'count is "1", expected an integer'),
        ({"count": 1.5}, "count is 1.5, expected an integer"),
        ({"count": True}, "count is true, expected an integer"),
        ({"share": None}, "share is null, expected a number"),
        ({"kind": "c"}, "kind is \"c\", expected 'a' or 'b'"),
        ({"parts": []}, "parts is a list, expected an object"),
        ({"places": [1, "2"]}, 'places.1 is "2", expected an integer'),
        ({"name": {"of": "many"}}, "name is an object, expected a string"),
        ({"count": "x" * 99}, f'count is "{"x" * 36}..., expected an integer'),
    ],
)
def test_a_wrong_type_is_named_with_what_was_got(change: dict[str, Any], words: str) -> None:
    """The key, the value, what it should be, and the remedy; strict, as a file is no form."""
    with pytest.raises(RunError) as refused:
        parse_value(to_json(GOOD | change), "a.json", Sample, "Mend it")
    assert str(refused.value) == f"a.json is damaged: {words}. Mend it"


def test_a_missing_key_and_half_a_file_are_named() -> None:
    """What a program of another version, or a full disk, leaves."""
    with pytest.raises(RunError, match=r"a\.json is damaged: it lacks 'name'\. Mend it"):
        parse_value(b"{}", "a.json", Sample, "Mend it")
    with pytest.raises(RunError, match=r"damaged: it is no whole JSON \(EOF .*\)\. Mend it"):
        parse_value(to_json(GOOD)[:30], "a.json", Sample, "Mend it")


def test_no_file_is_no_damage(tmp_path: Path) -> None:
    """It may not be written yet."""
    with pytest.raises(NotFoundError):
        read_value(str(tmp_path / "a.json"), Storage(), Sample, "Mend it")


def test_equal_values_have_equal_digests() -> None:
    """In whatever order their keys come."""
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
