"""The documentation: links, commands, paths, the tutorial, and the map of the code."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from pages import DOCS, PAGES, REPOSITORY, blocks, commands, problems, read

PACKAGE = REPOSITORY / "urbandet_ray"
ARCHITECTURE = read("architecture.md")
LINK = re.compile(r"(?<!\\)\[[^\]\n]*\]\(([^)\s]+)\)")
LINES = 120
CODE = ("console", "bash", "")


def name_of(page: Path) -> str:
    """The page's path, for the name of a test."""
    return str(page.relative_to(REPOSITORY))


def broken_links(page: Path, text: str) -> list[str]:
    """Targets that are not there; a web address is not looked at."""
    targets = [
        target for target in LINK.findall(text) if not re.match(r"https?:|mailto:|#", target)
    ]
    return [one for one in targets if not (page.parent / one.partition("#")[0]).exists()]


def missing_paths(text: str) -> list[str]:
    """Files of this repository that a text names and that are not there."""
    folders = "bench|cluster|configs|docs|jobs|requirements|tests|urbandet_ray"
    named = set(re.findall(rf"(?<![\w/.$-])(?:{folders})/[\w./-]+\w", text))
    return sorted(one for one in named if "NAME" not in one and not (REPOSITORY / one).exists())


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    """Links between pages, and from a page to a file or a picture."""
    assert broken_links(page, page.read_text(encoding="utf-8")) == []


def test_a_broken_link_is_caught() -> None:
    """To a page that was moved."""
    text = "see [here](how-to/gone.md) and [there](how-to/gpu.md#several)"
    assert broken_links(DOCS / "README.md", text) == ["how-to/gone.md"]


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "CHANGELOG.md"], ids=name_of)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    """A path from the repository's root."""
    assert missing_paths(page.read_text(encoding="utf-8")) == []


def test_every_page_that_the_code_names_is_there() -> None:
    """Messages, docstrings and comments send people to docs/."""
    folders = ("urbandet_ray", "configs", "cluster", "jobs", "bench")
    files = [path for name in folders for path in (REPOSITORY / name).rglob("*") if path.is_file()]
    texts = [(path, path.read_bytes().decode(errors="ignore")) for path in files]
    named = {(path, one) for path, text in texts for one in re.findall(r"docs/[\w./-]+\.md", text)}
    assert len(named) > 10
    assert [one for one in named if not (REPOSITORY / one[1]).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_lines_are_short(page: Path) -> None:
    """At most 120 characters; tables and lines with a link may be longer."""
    lines = page.read_text(encoding="utf-8").splitlines()
    generated = page.parent.name == "reference" and page.name in ("commands.md", "config.md")
    long = [line for line in lines if len(line) > LINES and line[:1] != "|" and "](" not in line]
    assert generated or long == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_has_the_options_it_is_given(page: Path) -> None:
    """Those of urbandet, in fenced blocks and in indented ones."""
    text = page.read_text(encoding="utf-8")
    indented = "\n".join(re.findall(r"^ {4,}(.*)$", text, re.M))
    found = [*commands(text, "urbandet", *CODE), *commands(f"```\n{indented}\n```", "urbandet", "")]
    told = [line for line in found if "OPTIONS" not in line and "--->" not in line]
    assert [problem for line in told for problem in problems(line)] == []


def test_every_page_is_on_the_map() -> None:
    """docs/README.md links each page."""
    map_ = read("README.md")
    pages = [path.relative_to(DOCS) for path in DOCS.rglob("*.md") if path != DOCS / "README.md"]
    assert [str(page) for page in pages if f"({page})" not in map_] == []


def test_the_map_has_every_room_and_no_other() -> None:
    """The table of rooms against the folders and modules of the package."""
    table = ARCHITECTURE.partition("## The rooms")[2].partition("## ")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    told = {name.rstrip("/") for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
    rooms = {
        path.name
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert told == rooms - {"__init__.py"}


def test_the_floors_are_those_of_the_import_contract() -> None:
    """The picture of the floors has pyproject.toml's layers, top to bottom."""
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    picture = ARCHITECTURE.partition("## The rooms")[2].partition("| room |")[0]
    floors = [
        re.split(r"\s{2,}", line.strip())[0] for line in re.findall(r"^    .*$", picture, re.M)
    ]
    assert [set(floor.split(" | ")) for floor in floors] == [
        set(one.split(" | ")) for one in layers
    ]


def test_the_way_of_a_frame_names_types_that_exist() -> None:
    """Each with the file that defines it."""
    way = ARCHITECTURE.partition("## The way of a frame")[2].partition("## ")[0]
    steps = re.findall(r"\| `(\w+)` \| `([\w/.]+)` \|", way)
    assert len(steps) >= 10
    for kind, file in steps:
        text = (PACKAGE / file).read_text(encoding="utf-8")
        assert re.search(rf"^(class {kind}\b|{kind} = )", text, re.M), f"{kind} is not in {file}"


def test_the_files_of_architecture_exist() -> None:
    """Paths inside the package that the page names."""
    named = set(re.findall(r"`([a-z_]+(?:/[a-z_]+)*\.py)`", ARCHITECTURE))
    assert len(named) > 15
    roots = (PACKAGE, REPOSITORY)
    assert [one for one in named if not any((root / one).exists() for root in roots)] == []


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.train
def test_the_tutorial_runs_as_it_stands(tmp_path: Path) -> None:
    """All its commands in an empty folder; at the end there are two videos."""
    (tmp_path / "urbandet_ray").symlink_to(PACKAGE)
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "urbandet"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m urbandet_ray.cli "$@"\n')
    program.chmod(0o755)
    script = "set -e\n" + "\n".join(blocks(read("tutorial/README.md"), "console"))
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, check=True, timeout=3000)
    assert {"sheet.png", "street.config", "drive.mp4", "compare.mp4"} <= {
        path.name for path in tmp_path.iterdir()
    }
