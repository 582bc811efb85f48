"""The command line: help, and one clear message for every mistake."""

from pathlib import Path

import pytest
from conftest import Run
from drives import write_drive

from urbandet_ray.version import __version__


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """A TFRecord of three frames."""
    return write_drive(tmp_path / "records" / "a.tfrecord", 3)


def test_help_names_the_commands(urbandet: Run) -> None:
    """What it loads is in test_imports.py, how long it takes in bench/startup.py."""
    code, out, _ = urbandet("--help")
    assert code == 0
    assert all(name in out for name in ("infer", "eval", "video", "train", "data"))


def test_version(urbandet: Run) -> None:
    """The package's own."""
    assert urbandet("--version") == (0, f"{__version__}\n", "")


def test_validate_stats_and_show(urbandet: Run, records: Path, tmp_path: Path) -> None:
    """What a person does first; a clean file is exit code 0."""
    code, out, _ = urbandet("data", "validate", records)
    assert (code, "3 good records, 0 bad" in out) == (0, True)
    code, out, _ = urbandet("data", "stats", records)
    assert "3 frames" in out
    assert "vehicle" in out
    sheet = tmp_path / "sheet.png"
    code, out, _ = urbandet("data", "show", records, "--out", sheet, "--count", 2)
    assert code == 0
    assert sheet.read_bytes().startswith(b"\x89PNG")


def test_validate_exits_with_3_where_something_is_broken(urbandet: Run, records: Path) -> None:
    """So that a script notices."""
    data = bytearray(records.read_bytes())
    data[-100] ^= 1
    records.write_bytes(data)
    code, out, _ = urbandet("data", "validate", records)
    assert code == 3
    assert "bad-data-crc" in out


def test_synth_writes_a_labelled_drive(urbandet: Run, tmp_path: Path) -> None:
    """Records that validate, with the label map beside them."""
    size = ("--width", 160, "--height", 160)
    code, _, _ = urbandet("data", "synth", tmp_path / "s", "--drives", 1, "--frames", 2, *size)
    assert code == 0
    assert urbandet("data", "validate", tmp_path / "s")[0] == 0
    assert "cyclist" in (tmp_path / "s" / "label_map.pbtxt").read_text()


MISTAKES = {
    "missing input": (["{tmp}/nowhere", "--out", "{tmp}/run"], "nowhere"),
    "empty folder": (["{tmp}/empty", "--out", "{tmp}/run"], "empty folder"),
    "nothing usable": (["{tmp}/texts", "--out", "{tmp}/run"], "texts"),
    "no output": (["{records}"], "output: is needed"),
    "unknown setting": (
        ["{records}", "--out", "{tmp}/run", "--set", "actors.maxx=3"],
        "actors.maxx: unknown key; did you mean 'max'",
    ),
    "no key=value": (["{records}", "--out", "{tmp}/run", "--set", "fast"], "key=value"),
    "tiles that are no grid": (
        ["{records}", "--out", "{tmp}/run", "--tiles", "3"],
        "--tiles is '3': give rows x columns, such as 3x3",
    ),
    "no tile at all": (
        ["{records}", "--out", "{tmp}/run", "--tiles", "0x2"],
        "tiles.rows: Input should be greater than or equal to 1, got 0",
    ),
    "track rules that contradict": (
        ["{records}", "--out", "{tmp}/run", "--track", "--set", "track.score_high=0.05"],
        "score_low is 0.1, above score_high 0.05",
    ),
    "missing config": (["--config", "{tmp}/no.yaml"], "cannot read the config"),
    "missing model": (
        ["{records}", "--out", "{tmp}/run", "--model", "{tmp}/no.tflite"],
        "no.tflite",
    ),
    "model of another kind": (
        ["{records}", "--out", "{tmp}/run", "--model", "{tmp}/texts/a.txt"],
        "a.txt",
    ),
    "not a run folder": (["{records}", "--out", "{tmp}/texts"], "not empty and not a run"),
    "output inside the input": (["{tmp}/texts", "--out", "{tmp}/texts/run"], "inside the input"),
    "unsupported scheme": (["ftp://host/x", "--out", "{tmp}/run"], "ftp"),
    "label map that is none": (
        ["{records}", "--out", "{tmp}/run", "--labels", "{tmp}/texts/model.config"],
        "neither a label_map.pbtxt",
    ),
    "label map that does not fit": (
        ["{records}", "--out", "{tmp}/run", "--labels", "{tmp}/animals.pbtxt"],
        "none of the model's classes",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_of_infer(urbandet: Run, records: Path, tmp_path: Path, name: str) -> None:
    """Exit code 1, one message that names the thing, no traceback, and no run left behind."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("no model, no record")
    (tmp_path / "texts/model.config").write_text("model { ssd { } }")
    (tmp_path / "animals.pbtxt").write_text("item { id: 1 name: 'cat' }")
    arguments, message = MISTAKES[name]
    filled = [text.format(tmp=tmp_path, records=records) for text in arguments]
    code, _, err = urbandet("infer", *filled)
    assert code == 1
    assert err.startswith("error: ")
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "{tmp}", "--truth", "{records}"], "is not a run folder"),
        (["video", "{tmp}", "--out", "{tmp}/v.mp4"], "is not a run folder"),
        (["eval", "{tmp}"], "truth: is needed"),
        (["track", "{tmp}"], "is not a run folder"),
        (["track", "{tmp}", "--score-high", "2"], "score_high: Input should be less than or equal"),
        (["data", "stats", "{tmp}/nowhere"], "nowhere"),
        (
            ["bench", "shipped", "--data", "{records}", "--mapping", "{tmp}/no.yaml"],
            "no class mapping",
        ),
        (["bench", "shipped", "--data", "{records}", "--model-labels", "{tmp}/no"], "no label map"),
        (["bench", "shipped", "--data", "{records}", "--actors", "0"], "actors.min"),
        (["bench", "shipped", "--data", "{records}", "--gpus", "-1"], "actors.gpus"),
        (["data", "show", "{tmp}/nowhere"], "nowhere"),
    ],
)
def test_mistakes_of_other_commands(
    urbandet: Run, records: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    """The same for what reads runs and data."""
    code, _, err = urbandet(*(text.format(tmp=tmp_path, records=records) for text in arguments))
    assert (code, message in err, "Traceback" in err) == (1, True, False)


@pytest.mark.s3
def test_a_missing_bucket_is_named(urbandet: Run, s3_server, tmp_path: Path) -> None:
    """With the endpoint it was looked for at."""
    options = ("--out", tmp_path / "run", "--s3-endpoint", s3_server.endpoint_url)
    code, _, err = urbandet("infer", "s3://no-such-bucket-here/x", *options)
    assert code == 1
    assert "no-such-bucket-here" in err
    assert "Traceback" not in err
