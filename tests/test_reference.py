"""The reference pages: all of the code is in them, and nothing that the code does not have."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pytest
import typer

from urbandet_ray import errors
from urbandet_ray.cli import app
from urbandet_ray.cli.reference import commands_page, config_page, stale_pages, write_pages
from urbandet_ray.config.sections import Section

REFERENCE = Path(__file__).parent.parent / "docs" / "reference"


def all_sections(kind: type[Section] = Section) -> Iterator[type[Section]]:
    """Every section of every run config."""
    for child in kind.__subclasses__():
        yield child
        yield from all_sections(child)


def test_the_pages_say_what_the_code_says() -> None:
    """`make docs` was run after the last change of an option or a key."""
    stale = [page.name for page in stale_pages(REFERENCE, app)]
    assert stale == [], f"{stale} in docs/reference are stale: run `make docs` and commit them"


@pytest.mark.parametrize("page", ["commands.md", "config.md"])
def test_a_page_with_an_option_that_is_gone_is_stale(page: str, tmp_path: Path) -> None:
    """A row too many, as it stays behind when an option is deleted."""
    write_pages(tmp_path, app)
    assert stale_pages(tmp_path, app) == []
    with (tmp_path / page).open("a", encoding="utf-8") as file:
        file.write("| `--gone <str>` | An option that was deleted. | |\n")
    assert stale_pages(tmp_path, app) == [tmp_path / page]


def test_an_option_that_no_page_has_makes_it_stale(tmp_path: Path) -> None:
    """A new option of a command is missing in the page that was written before."""
    first, second = typer.Typer(), typer.Typer()

    @first.command()
    @second.command(name="other")
    def work() -> None:
        """Work."""

    first.command(name="other")(work)
    write_pages(tmp_path, first)

    @second.command(name="work")
    def work_hard(hard: Annotated[bool, typer.Option("--hard", help="Hard.")] = False) -> None:
        """Work."""
        del hard

    assert stale_pages(tmp_path, second) == [tmp_path / "commands.md"]


def test_a_parameter_has_its_meaning_default_and_limits() -> None:
    """An argument, an option with a default and a limit, a choice, an environment variable."""
    page = commands_page(app)
    assert (
        "| `--drives <int>` | Drives to render. Each is one TFRecord. | default: 4; x>=1 |" in page
    )
    assert "| `--checkpoint <best\\|last>` |" in page
    assert "env var: URBANDET_ROLE; required |" in page


def test_a_key_has_its_type_default_and_meaning() -> None:
    """A required one, one with limits, one that may be left out."""
    page = config_page()
    assert "| `model.score_min` | number >= 0 and <= 1 | `0.01` |" in page
    assert "| `actors.max` | integer >= 1 or null | `null` |" in page
    assert "| `input` | text | required |" in page


def test_every_key_of_every_section_is_there() -> None:
    """And each has a docstring, which becomes its meaning."""
    page = config_page()
    for section in all_sections():
        for key, field in section.model_fields.items():
            named = f"{key}`" in page
            nested = isinstance(field.annotation, type) and issubclass(field.annotation, Section)
            assert named, f"{section.__name__}.{key} is not in the page"
            assert nested or field.description, f"{section.__name__}.{key} has no docstring"


def test_every_error_is_on_its_page() -> None:
    """errors.md has the tree of errors.py."""
    text = (REFERENCE / "errors.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^\| `(\w+)`", text, re.M))
    kinds = vars(errors).values()
    assert told == {one.__name__ for one in kinds if isinstance(one, type)}
