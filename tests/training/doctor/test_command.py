"""`urbandet doctor`: what a person sees, and what a script does."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from urbandet_ray.commands.doctor import Diagnosis

pytestmark = pytest.mark.train

Doctor = Callable[..., Diagnosis]
Run = Callable[..., tuple[int, str, str]]
WRONG = (("num_classes: 3", "num_classes: 2"), ("total_steps: 100", "total_steps: 30000"))


def test_sound_config_is_exit_code_0(urbandet: Run, doctor: Doctor, tmp_path: Path) -> None:
    """Warnings alone do not stop a script."""
    doctor()
    code, out, _ = urbandet("doctor", tmp_path / "pipeline.config")
    assert code == 0
    assert out.endswith("0 errors, 1 warning, 1 note\n")


def test_errors_come_first_and_are_exit_code_3(
    urbandet: Run, doctor: Doctor, tmp_path: Path
) -> None:
    """File and line as editors understand them, then what happens and what to set."""
    doctor(*WRONG)
    path = tmp_path / "pipeline.config"
    code, out, _ = urbandet("doctor", path)
    assert code == 3
    assert out.startswith(f"error: id-beyond-num-classes  {path}:3\n  at   model.ssd.num_classes\n")
    assert "  fix  num_classes: 3 [--fix]\n" in out
    assert out.index("error: schedule-longer-than-run") < out.index("warning: from-scratch")
    assert "2 errors, 1 warning, 1 note; --fix OUT sees to 2 of them" in out


def test_json(urbandet: Run, doctor: Doctor, tmp_path: Path) -> None:
    """Every finding with code, place, line and whether it is fixed by --fix."""
    doctor(*WRONG)
    code, out, _ = urbandet("doctor", tmp_path / "pipeline.config", "--json")
    told = json.loads(out)
    assert (code, told["has_errors"]) == (3, True)
    first = told["findings"][0]
    assert (first["code"], first["line"], first["fixable"]) == ("id-beyond-num-classes", 3, True)


def test_fix_writes_a_sound_copy_and_shows_the_change(
    urbandet: Run, doctor: Doctor, tmp_path: Path
) -> None:
    """The copy has no error left, and says at its top what was changed."""
    doctor(*WRONG)
    path, out_path = tmp_path / "pipeline.config", tmp_path / "fixed.config"
    before = path.read_text()
    code, out, _ = urbandet("doctor", path, "--fix", out_path)
    assert code == 3
    assert "-    num_classes: 2\n+    num_classes: 3\n" in out
    assert "-          total_steps: 30000\n+          total_steps: 100\n" in out
    assert f"wrote {out_path}" in out
    assert path.read_text() == before
    assert "#   id-beyond-num-classes: num_classes: 3\n" in out_path.read_text()
    code, out, _ = urbandet("doctor", out_path)
    assert (code, "0 errors" in out) == (0, True)


def test_fix_never_overwrites(urbandet: Run, doctor: Doctor, tmp_path: Path) -> None:
    """An existing file is refused at once, by name."""
    doctor(*WRONG)
    path = tmp_path / "pipeline.config"
    before = path.read_text()
    code, _, err = urbandet("doctor", path, "--fix", path)
    assert code == 1
    assert f"{path} exists and is not overwritten: give --fix a new name" in err
    assert path.read_text() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"model { ssd {\n num_clases: 3 } }", ":2: Ssd has no field 'num_clases'; did you mean"),
        (b"\xff\xfe\x00", "is not text, expected a pipeline.config"),
        (b"{{{{", ":1: not a pipeline config of the OD API"),
    ],
)
def test_no_pipeline_config_is_one_line(
    urbandet: Run, tmp_path: Path, content: bytes, message: str
) -> None:
    """Exit code 1 and no traceback."""
    path = tmp_path / "pipeline.config"
    path.write_bytes(content)
    code, _, err = urbandet("doctor", path)
    assert code == 1
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_empty_file(urbandet: Run, tmp_path: Path) -> None:
    """It parses, and everything is missing."""
    path = tmp_path / "pipeline.config"
    path.write_bytes(b"")
    code, out, _ = urbandet("doctor", path)
    assert code == 3
    for name in ("no-model", "no-learning-rate", "path-missing", "eval-counts-nothing"):
        assert f"error: {name}" in out


def test_missing_file(urbandet: Run, tmp_path: Path) -> None:
    """Named in the message."""
    code, _, err = urbandet("doctor", tmp_path / "no.config")
    assert code == 1
    assert "no.config" in err
    assert "Traceback" not in err
