"""A node dies in the middle of a job: bench/elastic.py's own verdicts, minutes each."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.train, pytest.mark.chaos, pytest.mark.long]

BENCH = Path(__file__).parents[2] / "bench" / "elastic.py"


@pytest.mark.parametrize("case", ["infer", "train"])
def test_nothing_is_lost_with_a_node(case: str, tmp_path: Path) -> None:
    """The same bytes of detections as undisturbed; every step of a training once."""
    written = ["--json", str(tmp_path / "elastic.json"), "--png", str(tmp_path / "elastic.png")]
    done = subprocess.run(
        [sys.executable, str(BENCH), case, *written], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{case}: passed" in done.stdout
