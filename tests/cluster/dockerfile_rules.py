"""What is wrong with a Dockerfile: by Docker's own parser, by the repository, by our rules."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import PurePosixPath

from cluster.deployment import CLUSTER, REPOSITORY, WORKDIR
from docker_parser import Command, DockerfileError, parse_dockerfile

_PINNED = re.compile(r"[a-z0-9./-]+:[a-z0-9.-]*\d[a-z0-9.-]*")


@dataclass
class Stage:
    """What a FROM begins, with what it takes over from the stage it is from."""

    name: str
    copied: set[str] = field(default_factory=set)  # files in the image, by their path there
    env: dict[str, str] = field(default_factory=dict)
    user: str = "root"
    workdir: str = "/"


def problems(text: str, ignore: str | None = None) -> list[str]:
    """Everything that is wrong; empty where the image can be built.

    Args:
        ignore: text of the .dockerignore; None is the one in cluster/.
    """
    try:
        commands = parse_dockerfile(text)
    except DockerfileError as error:
        return [f"no Dockerfile: {error}"]
    if ignore is None:
        ignore = (CLUSTER / "Dockerfile.dockerignore").read_text(encoding="utf-8")
    kept = [line[1:].strip() for line in ignore.splitlines() if line.startswith("!")]
    stages: dict[str, Stage] = {}
    found = list(_read(commands, stages, kept))
    for target in ("cpu", "cuda"):
        if target not in stages:
            found.append(f"there is no target {target}")
        else:
            found += _target_problems(stages[target])
    return found


def _read(commands: list[Command], stages: dict[str, Stage], kept: list[str]) -> Iterator[str]:
    """Walk through the commands, noting each stage."""
    stage = Stage("")
    for command in commands:
        where = f"line {command.start_line}"
        name = command.cmd.lower()
        if not command.is_known:
            yield f"{where}: there is no instruction {command.cmd}"
        elif not command.value:
            yield f"{where}: {command.cmd} without an argument"
        elif name == "from":
            stage = _begin(command.value, stages)
            yield from _base_problems(command.value[0], stages, where)
            stages[stage.name] = stage
        elif name == "copy":
            yield from _copy(command, stage, stages, kept, where)
        elif name == "env":
            stage.env |= dict(zip(command.value[::2], command.value[1::2], strict=True))
        elif name == "user":
            stage.user = command.value[0]
        elif name == "workdir":
            stage.workdir = command.value[0]
        elif name == "run":
            yield from _run_problems(" ".join(command.value), stage, where)


def _begin(value: tuple[str, ...], stages: dict[str, Stage]) -> Stage:
    name = value[2] if len(value) > 2 else f"stage {len(stages)}"
    base = stages.get(value[0], Stage(""))
    return Stage(name, set(base.copied), dict(base.env), base.user, base.workdir)


def _base_problems(base: str, stages: dict[str, Stage], where: str) -> Iterator[str]:
    if base not in stages and not _PINNED.fullmatch(base):
        yield f"{where}: {base} is no stage above, nor an image with a version"


def _copy(
    command: Command, stage: Stage, stages: dict[str, Stage], kept: list[str], where: str
) -> Iterator[str]:
    *sources, target = command.value
    for source in sources:  # of a folder Docker copies what is in it
        is_folder = (REPOSITORY / source).is_dir()
        inside = PurePosixPath(target) / ("" if is_folder else PurePosixPath(source).name)
        stage.copied.add(str(inside))
    origins = [flag.partition("=")[2] for flag in command.flags if flag.startswith("--from=")]
    if origins:
        if origins[0] not in stages:
            yield f"{where}: there is no stage {origins[0]} above"
        return
    for source in sources:
        if not (REPOSITORY / source).exists():
            yield f"{where}: there is no {source} in the repository"
        elif not any(fnmatch(source, pattern) for pattern in kept):
            yield f"{where}: Dockerfile.dockerignore keeps {source} from the build"


def _run_problems(script: str, stage: Stage, where: str) -> Iterator[str]:
    for part in re.split(r"&&|;", script):
        words = part.split()
        if words[:2] != ["pip", "install"]:
            continue
        locks = [words[at + 1] for at, word in enumerate(words) if word == "-r"]
        wheels = [word for word in words if word.endswith(".whl")]
        if locks and "--require-hashes" not in words:
            yield f"{where}: {locks} without --require-hashes"
        if not locks and not (wheels and "--no-deps" in words):
            yield f"{where}: installs what no lock file names: {part.strip()}"
        for lock in locks:
            if lock not in stage.copied:
                yield f"{where}: {lock} was not copied into the image"


def _target_problems(stage: Stage) -> Iterator[str]:
    if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", stage.user):
        yield f"{stage.name}: USER {stage.user}, want the number of one who is not root"
    home = stage.env.get("HOME", "")
    if not home.startswith("/home/"):  # `ray up` mounts the token below what the image says
        yield f"{stage.name}: ENV HOME is {home!r}, want that of the user"
    if stage.env.get("RAY_AUTH_MODE") != "token":
        yield f"{stage.name}: want ENV RAY_AUTH_MODE=token"
    if stage.workdir != str(WORKDIR):
        yield f"{stage.name}: WORKDIR {stage.workdir}, the run jobs expect {WORKDIR}"
    for lock in ("all.lock", "odapi.lock"):
        if f"/tmp/requirements/{lock}" not in stage.copied:
            yield f"{stage.name}: lacks the packages of requirements/{lock}"
    if ("/tmp/requirements/cuda.lock" in stage.copied) != (stage.name == "cuda"):
        yield f"{stage.name}: cuda.lock belongs to the target cuda"
    for folder in ("jobs", "configs"):
        if folder not in stage.copied:
            yield f"{stage.name}: has no {folder}/"
