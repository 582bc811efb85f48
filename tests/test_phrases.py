"""Lists in the middle of a sentence."""

import pytest

from urbandet_ray.phrases import printable, some_of


@pytest.mark.parametrize(
    ("names", "told"),
    [([], ""), (["a"], "a"), (["a", "b"], "a, b"), (["a", "b", "c", "d"], "a, b and 2 more")],
)
def test_what_is_left_out_is_counted(names: list[str], told: str) -> None:
    """A message stays short, and nobody takes the part for the whole."""
    assert some_of(names, 2) == told


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plain name.jpg", "plain name.jpg"),
        ("街道 سيارة", "街道 سيارة"),
        ("caf\udce9", "caf\\xe9"),
        ("a\tb\nc", "a\\tb\\nc"),
        ("half \ud83d of a pair", "half \\ud83d of a pair"),
    ],
)
def test_names_of_any_bytes_print(name: str, text: str) -> None:
    """Every stream and every file format takes them, and the text is printable itself."""
    assert printable(name) == text
    assert printable(text) == text
    assert text.encode().decode() == text
