"""The pages on clusters: their commands, held to the repository and to the programs they call."""

import re
import subprocess

import pytest
from cluster.deployment import CLUSTER, PLACEHOLDERS, REPOSITORY, entrypoint_problems
from pages import blocks, problems, read
from pages import commands as commands_in

PAGES = ("cluster.md", "kubernetes.md", "submit-jobs.md")
DOCS = read(*(f"how-to/{name}" for name in PAGES))
BLOCKS = blocks(DOCS, "bash")


def commands(program: str) -> list[str]:
    """Commands of the three pages."""
    return commands_in(DOCS, program, "bash")


@pytest.mark.parametrize("block", BLOCKS)
def test_each_block_is_bash(block: str) -> None:
    """Parsed, not run."""
    done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
    assert done.stderr == ""


@pytest.mark.parametrize("command", commands("ray") + commands("urbandet"))
def test_each_command_has_the_options_it_is_given(command: str) -> None:
    """Of ray and of urbandet."""
    assert list(problems(command)) == []


def test_an_option_that_does_not_exist_is_caught() -> None:
    """And so is a command."""
    assert any("No such option" in found for found in problems("ray up --yess cluster/aws.yaml"))
    assert list(problems("ray upp cluster/aws.yaml")) == ["ray has no command upp"]


def test_each_submitted_job_would_start() -> None:
    """The job and its config are there, and the config takes the overrides."""
    submitted = [line.partition(" -- ")[2] for line in commands("ray job submit")]
    jobs = [line for line in submitted if line.startswith("python ")]
    assert {line.split()[1] for line in jobs} == {
        "jobs/train.py",
        "jobs/batch_infer.py",
        "jobs/evaluate.py",
        "jobs/make_video.py",
    }
    assert [problem for line in jobs for problem in entrypoint_problems(line)] == []
    (other,) = set(submitted) - set(jobs)
    assert list(problems(other)) == []


def test_the_marked_places_are_all_filled() -> None:
    """What stands in cluster/ is what the sed line replaces."""
    files = [*CLUSTER.glob("*.yaml"), *CLUSTER.glob("*.json")]
    marks = {mark for path in files for mark in re.findall(r"YOUR-[A-Z-]+", path.read_text())}
    (line,) = commands("sed")
    assert marks == set(re.findall(r"YOUR-[A-Z-]+", line)) == PLACEHOLDERS.keys()


def test_the_files_it_names_are_there() -> None:
    """In cluster/ and elsewhere, and none of cluster/ is left out."""
    named = set(re.findall(r"\b(?:cluster|configs|jobs|tests)/[\w./-]+\w", DOCS))
    assert [name for name in named if not (REPOSITORY / name).exists()] == []
    assert [path.name for path in CLUSTER.glob("*.[yj]*") if path.name not in DOCS] == []
