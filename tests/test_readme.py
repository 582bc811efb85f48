"""The README's commands, run as they stand there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def block(language: str, containing: str) -> str:
    """The code block of a language that has the text in it."""
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.S)
    (found,) = [text for text in blocks if containing in text]
    return found


@pytest.mark.ray
def test_the_commands_of_on_your_own_drive(tmp_path: Path) -> None:
    """Line by line in an empty folder; at the end there are a sheet and three videos."""
    lines = block("console", "urbandet data synth").strip().splitlines()
    assert len(lines) == 11
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "urbandet"
        command = [sys.executable, "-m", "urbandet_ray.cli", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    made = {path.name for path in tmp_path.iterdir()}
    assert {"sheet.png", "drive.mp4", "careful.mp4", "tracks.mp4"} <= made


@pytest.mark.ray
def test_the_notebook_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The five lines of Python."""
    monkeypatch.chdir(tmp_path)
    synth = ["data", "synth", "drives", "--drives", "1", "--frames", "4"]
    subprocess.run([sys.executable, "-m", "urbandet_ray.cli", *synth], check=True)
    exec(compile(block("python", "import urbandet_ray"), "README.md", "exec"), {})
    assert (tmp_path / "drive.mp4").stat().st_size > 1000
