"""The README: a result at once, and commands that run as they stand there."""

import re
import shlex
from pathlib import Path

import pytest
from cluster.deployment import entrypoint_problems
from conftest import Run
from pages import REPOSITORY, blocks

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def block(language: str, containing: str) -> str:
    """The code block of a language that has the text in it."""
    (found,) = [text for text in blocks(README, language) if containing in text]
    return found


def test_the_first_30_lines_show_a_result() -> None:
    """The picture, an mAP, how to get it, and the five commands of the main job."""
    first = "\n".join(README.splitlines()[:30])
    for shown in ("docs/demo.gif", "mAP 0.", "make demo", "pip install"):
        assert shown in first
    for verb in ("train", "export", "infer", "eval", "video"):
        assert f"\nurbandet {verb} " in first


def test_make_has_the_targets_that_it_names() -> None:
    """`make demo`, `make test`, ..."""
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:`|\$ )make ([a-z]+)", README))
    assert "demo" in named
    assert [one for one in named if not re.search(rf"^{one}:", makefile, re.M)] == []


def test_each_submitted_job_would_start() -> None:
    """The job and its config are there, and the config takes the overrides."""
    lines = block("bash", "ray job submit").replace("\\\n", " ").strip().splitlines()
    jobs = [line.partition(" -- ")[2] for line in lines]
    assert len(jobs) == 3
    assert [problem for job in jobs for problem in entrypoint_problems(job)] == []


@pytest.mark.ray
def test_the_commands_of_try_it_without_training(
    ray_dashboard: str, urbandet: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Line by line in an empty folder; at the end there are a sheet and three videos."""
    monkeypatch.chdir(tmp_path)
    lines = block("console", "urbandet data synth").strip().splitlines()
    assert len(lines) == 11
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "urbandet"
        code, out, told = urbandet(*arguments)
        assert code == 0, f"{line}\n{out}{told}"
    made = {path.name for path in tmp_path.iterdir()}
    assert {"sheet.png", "drive.mp4", "careful.mp4", "tracks.mp4"} <= made


@pytest.mark.ray
def test_the_notebook_lines(
    ray_dashboard: str, urbandet: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The five lines of Python."""
    monkeypatch.chdir(tmp_path)
    assert urbandet("data", "synth", "drives", "--drives", "1", "--frames", "4")[0] == 0
    exec(compile(block("python", "import urbandet_ray"), "README.md", "exec"), {})
    assert (tmp_path / "drive.mp4").stat().st_size > 1000
