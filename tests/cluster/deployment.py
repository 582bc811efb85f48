"""The files of cluster/, what the repository says about itself, and mistakes to plant in them."""

import copy
import shlex
import tomllib
from collections.abc import Hashable
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from pydantic import BaseModel

from urbandet_ray.config import EvalConfig, InferConfig, TrainConfig, VideoConfig, load_config
from urbandet_ray.errors import ConfigError

REPOSITORY = Path(__file__).parent.parent.parent
CLUSTER = REPOSITORY / "cluster"
WORKDIR = PurePosixPath("/srv/urbandet")  # of the image: jobs/ and configs/ are below it

PLACEHOLDERS = {
    "YOUR-REGION": "us-west-2",
    "YOUR-REGISTRY": "123456789012.dkr.ecr.us-west-2.amazonaws.com",
    "YOUR-SECURITY-GROUP": "sg-0123456789abcdef0",
    "YOUR-BUCKET": "street-drives",
}

JOBS: dict[str, type[BaseModel]] = {
    "jobs/train.py": TrainConfig,
    "jobs/batch_infer.py": InferConfig,
    "jobs/evaluate.py": EvalConfig,
    "jobs/make_video.py": VideoConfig,
}

REMOVED = object()
"""Plant this to take a key away."""


class _Strict(yaml.SafeLoader):
    """YAML as Kubernetes reads it: a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value]
        if twice := {key for key in keys if keys.count(key) > 1}:
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: {sorted(twice)} given twice")
        return super().construct_mapping(node, deep)


def filled(text: str) -> str:
    """The text with every marked place filled in."""
    for mark, value in PLACEHOLDERS.items():
        text = text.replace(mark, value)
    return text


def parse_yaml(text: str) -> Any:
    """One document, its anchors resolved into copies."""
    return _unshared(yaml.load(filled(text), _Strict))


def read(name: str) -> Any:
    """A YAML file of cluster/ with every marked place filled in; yours to change."""
    return copy.deepcopy(_parsed(name))


@cache
def _parsed(name: str) -> Any:
    return parse_yaml((CLUSTER / name).read_text(encoding="utf-8"))


def plant(document: Any, path: str, value: Any) -> Any:
    """A copy with one value changed, added or, by REMOVED, taken away.

    Args:
        path: keys and list positions, "spec > workerGroupSpecs > 0 > groupName"; * is every one.
    """
    planted = copy.deepcopy(document)
    _plant(planted, path.split(" > "), value)
    return planted


def _plant(tree: Any, path: list[str], value: Any) -> None:
    step, *rest = path
    if step == "*":
        for key in tree if isinstance(tree, dict) else range(len(tree)):
            _plant(tree, [str(key), *rest], value)
        return
    key = int(step) if isinstance(tree, list) else step
    if rest:
        _plant(tree[key], rest, value)
    elif value is REMOVED:
        del tree[key]
    else:
        tree[key] = value


def _unshared(tree: Any) -> Any:
    """A copy in which nothing that an anchor shared is the same object."""
    if isinstance(tree, dict):
        return {key: _unshared(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_unshared(value) for value in tree]
    return tree


@cache
def package_version() -> str:
    """The version in pyproject.toml."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    return str(project["project"]["version"])


def pins(lock: Path) -> dict[str, str]:
    """Version of each package of a lock file."""
    lines = lock.read_text(encoding="utf-8").splitlines()
    found = (line.split()[0].split("==") for line in lines if "==" in line.split("#")[0])
    return {name: version for name, version in found if not name.startswith("-")}


@cache
def ray_version() -> str:
    """The lock's Ray."""
    return pins(REPOSITORY / "requirements" / "core.lock")["ray"]


def image_problems(image: str, target: str, where: str) -> list[str]:
    """What is wrong with an image's name: tags are VERSION-TARGET of cluster/Dockerfile."""
    expected = f"urbandet-ray:{package_version()}-{target}"
    return [] if image.endswith(f"/{expected}") else [f"{where}: image {image}, want {expected}"]


def entrypoint_problems(entrypoint: str) -> list[str]:
    """What is wrong with `python jobs/JOB.py configs/runs/RUN.yaml key=value ...`."""
    try:
        python, *arguments = shlex.split(entrypoint)
        job, config, *overrides = arguments
    except ValueError:
        return [f"{entrypoint!r} is no python JOB CONFIG key=value ..."]
    job, config = (_in_repository(name) for name in (job, config))
    problems = [] if python == "python" else [f"{python} instead of python"]
    problems += [f"no {name} in the repository" for name in (job, config) if not _is_there(name)]
    if job not in JOBS:
        return [*problems, f"{job} is none of {sorted(JOBS)}"]
    if problems:
        return problems
    try:
        load_config(JOBS[job], REPOSITORY / config, overrides)
    except ConfigError as error:
        return [str(error)]
    return []


def _in_repository(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.relative_to(WORKDIR) if path.is_relative_to(WORKDIR) else path)


def _is_there(name: str) -> bool:
    return not PurePosixPath(name).is_absolute() and (REPOSITORY / name).is_file()


def ray_start_problems(arguments: list[str], where: str) -> list[str]:
    """What `ray start` itself says to its arguments; nothing is started."""
    import click
    from ray.scripts.scripts import start

    try:
        start.make_context("ray start", list(arguments))
    except click.ClickException as error:
        return [f"{where}: ray start: {error.format_message()}"]
    return []
