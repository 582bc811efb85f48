"""The documentation as tests read it: pages, their code blocks, and the commands in them."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parent.parent
DOCS = REPOSITORY / "docs"
PAGES = sorted(
    [
        *DOCS.rglob("*.md"),
        *(REPOSITORY / f"{n}.md" for n in ("README", "CONTRIBUTING", "CHANGELOG")),
    ]
)


def read(*names: str) -> str:
    """Text of pages of docs/, one after the other."""
    return "\n".join((DOCS / name).read_text(encoding="utf-8") for name in names)


def blocks(text: str, *languages: str) -> list[str]:
    """Fenced code blocks of these languages; "" is a block without one."""
    found: list[str] = []
    inside: list[str] | None = None
    language = ""
    for line in text.splitlines(keepends=True):
        if not line.startswith("```"):
            if inside is not None:
                inside.append(line)
        elif inside is None:
            language, inside = line.strip("`\n"), []
        else:
            if language in languages:
                found.append("".join(inside))
            inside = None
    return found


def commands(text: str, program: str, *languages: str) -> list[str]:
    """Each command that begins with the program, its continued lines joined, without comment."""
    joined = "\n".join(blocks(text, *languages)).replace("\\\n", " ").splitlines()
    lines = (line.strip().removeprefix("$ ") for line in joined)
    return [re.sub(r"\s+#.*", "", line) for line in lines if line.startswith(f"{program} ")]


def problems(command: str) -> Iterator[str]:
    """What `ray` or `urbandet` itself says to the arguments; nothing is run."""
    import click
    from ray.scripts.scripts import cli as ray_cli
    from typer.main import get_command

    from urbandet_ray.cli import app

    program, *arguments = shlex.split(re.split(r" > | \|\| ", command)[0])
    found: Any = {"ray": ray_cli, "urbandet": get_command(app)}[program]
    try:
        while hasattr(found, "commands"):
            name, *arguments = arguments
            if name not in found.commands:
                yield f"{program} has no command {name}"
                return
            found = found.commands[name]
        with pytest.MonkeyPatch.context() as patch:
            for key in ("URBANDET_IMAGE", "URBANDET_ROLE"):
                patch.setenv(key, "given")
            found.make_context(program, list(arguments))
    except Exception as error:  # typer and click have trees of their own
        if not isinstance(error, (click.ClickException, ValueError)) and "UsageError" not in str(
            type(error).mro()
        ):
            raise
        yield f"{command}: {getattr(error, 'message', error)}"
