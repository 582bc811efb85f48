"""cluster/sagemaker.Dockerfile and docs/how-to/sagemaker.md, held to the repository."""

import importlib.util
import json
import re
import subprocess

import pytest
from docker_parser import DockerfileError, parse_dockerfile
from pages import REPOSITORY, blocks, commands, problems, read

DOCKERFILE = (REPOSITORY / "cluster" / "sagemaker.Dockerfile").read_text(encoding="utf-8")
DOCS = read("how-to/sagemaker.md")
BLOCKS = blocks(DOCS, "bash")


def image_problems(text: str) -> list[str]:
    """What SageMaker or Docker would stumble over."""
    try:
        instructions = parse_dockerfile(text)
    except DockerfileError as error:
        return [f"no Dockerfile: {error}"]
    by_name = {one.cmd.lower(): one for one in instructions}
    found = [f"no instruction {one.cmd}" for one in instructions if not one.is_known]
    start = by_name.get("entrypoint")
    if start is None or not start.json:
        found.append("ENTRYPOINT has to be a list: a shell does not pass SIGTERM on")
    elif tuple(start.value[:2]) != ("python", "-m") or not _is_module(start.value[2]):
        found.append(f"ENTRYPOINT {start.value} is no module")
    user = by_name.get("user")
    if user is None or user.value[0] != "0:0":
        found.append("USER has to be root: /opt/ml is root's")
    if "cmd" in by_name:
        found.append("CMD: SageMaker gives train or serve itself")
    names = {one.value[0] for one in instructions if one.cmd.lower() == "arg"}
    base = by_name["from"].value[0] if "from" in by_name else ""
    if re.sub(r"\W", "", base) not in names:
        found.append(f"FROM {base} is not an ARG")
    return found


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def test_the_image_is_one_that_sagemaker_starts() -> None:
    """By Docker's parser and by SageMaker's rules."""
    assert image_problems(DOCKERFILE) == []


MISTAKES = {
    "shell form": (
        'ENTRYPOINT ["python", "-m", "urbandet_ray.entrypoints.sagemaker_container"]',
        "ENTRYPOINT python -m urbandet_ray.entrypoints.sagemaker_container",
        "has to be a list",
    ),
    "no such module": ("entrypoints.sagemaker_container", "entrypoints.start", "is no module"),
    "another user": ("USER 0:0", "USER 1000:1000", "has to be root"),
    "no base": ("FROM ${IMAGE}", "FROM ${BASE}", "is not an ARG"),
    "misspelt": ("LABEL com", "LABLE com", "no instruction LABLE"),
    "a command": ("ENTRYPOINT [", 'CMD ["train"]\nENTRYPOINT [', "gives train or serve itself"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_caught(mistake: str) -> None:
    """Each in its place."""
    right, wrong, expected = MISTAKES[mistake]
    assert right in DOCKERFILE
    assert expected in "\n".join(image_problems(DOCKERFILE.replace(right, wrong)))


@pytest.mark.parametrize("block", BLOCKS)
def test_each_block_is_bash(block: str) -> None:
    """Parsed, not run."""
    done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
    assert done.stderr == ""


@pytest.mark.parametrize("command", commands(DOCS, "urbandet", "bash"))
def test_each_command_has_the_options_it_is_given(command: str) -> None:
    """Of `urbandet sagemaker` and of the others."""
    assert list(problems(command)) == []


def test_an_option_that_does_not_exist_is_caught() -> None:
    """And so is a command."""
    assert any("No such option" in one for one in problems("urbandet sagemaker stop a --now"))
    assert list(problems("urbandet sagemaker begin")) == ["urbandet has no command begin"]


def test_the_files_it_names_are_there() -> None:
    """Of this repository."""
    named = set(re.findall(r"\b(?:cluster|configs|tests)/[\w./-]+\w", DOCS))
    assert [name for name in named if not (REPOSITORY / name).exists()] == []


def test_the_roles_policy_is_json() -> None:
    """Each statement allows something somewhere, and never everything."""
    (text,) = re.findall(r"<<END\n(.*?)\nEND", DOCS, re.S)
    policy = json.loads(re.sub(r"\$\w+", "x", text))
    assert policy["Version"] == "2012-10-17"
    for one in policy["Statement"]:
        assert one.keys() == {"Effect", "Action", "Resource"}
        assert "*" not in str(one["Action"])
