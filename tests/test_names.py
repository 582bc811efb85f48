"""One name a thing, and nothing that only tests use: what a reader may rely on in the package."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from conftest import REPOSITORY

PACKAGE = REPOSITORY / "urbandet_ray"
MODULES = sorted(PACKAGE.rglob("*.py"))
MIRRORS = {"cli", "commands"}
"""A command's options and its work share a name, and may share it with the room they lead to."""

GONE = ("Tiling", "TrackRules", "ModelSpec", "S3Options", "ActorPool")
"""Second types of what a section of the run config says already."""

ONLY_TESTED = {"models/network/postprocess.py: detect_from_boxes"}
"""Takes boxes decoded already, as the OD API's own post-processing does, which it is held to."""

Definition = ast.FunctionDef | ast.ClassDef


@cache
def tree(path: Path) -> ast.Module:
    """A module's syntax."""
    return ast.parse(path.read_text("utf-8"))


def room(path: Path) -> str:
    """The folder of the package that a module lies in; "" on the ground."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


def doubled(named: Iterator[tuple[str, Path]]) -> dict[str, list[str]]:
    """Names that stand for several places."""
    places = defaultdict(list)
    for name, path in named:
        places[name].append(path.relative_to(PACKAGE).as_posix())
    return {name: found for name, found in places.items() if len(found) > 1}


def test_no_module_stem_stands_twice() -> None:
    """cli/ mirrors commands/; all other modules and packages have names of their own."""
    stems = [(path.stem, path) for path in MODULES if not path.stem.startswith("__")]
    packages = [(path.parent.name, path) for path in MODULES if path.name == "__init__.py"]
    inner = [one for one in stems if room(one[1]) not in MIRRORS]
    assert doubled(iter([*inner, *packages])) == {}
    for mirror in MIRRORS:
        others = [one for one in stems if room(one[1]) not in MIRRORS - {mirror}]
        assert doubled(iter(others)) == {}


def test_no_public_class_name_stands_twice() -> None:
    """Nor one that is made inside a function."""
    named = (
        (node.name, path)
        for path in MODULES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert doubled(named) == {}


@pytest.mark.parametrize("name", GONE)
def test_a_setting_has_one_type(name: str) -> None:
    """Whoever needs a setting takes the config's own section."""
    users = [path for path in MODULES if name in names_in(path)]
    assert users == []


def test_one_module_parses_a_pipeline_config() -> None:
    """Its text is read once; the parsed message travels as a value. `labels` reads label maps."""
    users = [
        path.relative_to(PACKAGE).as_posix()
        for path in MODULES
        if names_in(path) & {"text_format", "MessageToString"}
    ]
    assert users == ["labels.py", "models/pipeline_config.py"]


@cache
def names_in(path: Path) -> frozenset[str]:
    """Every identifier that a module defines, uses or imports."""
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            found.update(alias.name.rpartition(".")[2] for alias in node.names)
        elif isinstance(node, Definition):
            found.add(node.name)
    return frozenset(found)


def test_what_the_package_defines_is_used_outside_the_tests() -> None:
    """A function, class or constant that only tests call is theirs, or nobody's.

    Counted by name: used in its own module, imported by another, or an attribute of something.
    What a decorator registers (commands, validators) is called by the decorator's library.
    """
    users = [
        *MODULES,
        *(p for d in ("jobs", "bench", "docs") for p in (REPOSITORY / d).rglob("*.py")),
    ]
    imported: set[str] = set()
    attributes: set[str] = set()
    for path in users:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Attribute):
                attributes.add(node.attr)
            elif isinstance(node, ast.ImportFrom) and path.name != "__init__.py":
                imported.update(alias.name for alias in node.names)
    unused = {
        f"{path.relative_to(PACKAGE).as_posix()}: {name}"
        for path in MODULES
        for name in top_names(path)
        if name not in imported | attributes | loaded(path)
    }
    assert unused == ONLY_TESTED


def top_names(path: Path) -> Iterator[str]:
    """Functions, classes and constants of a module's top level."""
    for node in tree(path).body:
        if isinstance(node, Definition) and not node.decorator_list:
            names = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [one.id for one in targets if isinstance(one, ast.Name)]
        else:
            continue
        yield from (name for name in names if not name.startswith("__"))


def loaded(path: Path) -> set[str]:
    """Names that a module uses itself."""
    return {
        node.id
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
