"""`urbandet models`: the zoo as a table, one model in detail, and its files on this machine."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from web import RunningServer

from urbandet_ray.commands.models import list_models
from urbandet_ray.models.zoo import zoo_model, zoo_models

Run = Callable[..., tuple[int, str, str]]
NAME = "efficientdet_d0_coco17_tpu-32"


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch, urbandet: Run, tmp_path: Path) -> Run:
    """Runs `urbandet models ...` with an empty cache; exit code, output, error output."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home-cache"))
    return partial(urbandet, "models")


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """A model as the zoo's archives hold it."""
    folder = tmp_path / "given" / NAME
    (folder / "checkpoint").mkdir(parents=True)
    (folder / "pipeline.config").write_text("model { }")
    for ending in ("index", "data-00000-of-00001"):
        (folder / "checkpoint" / f"ckpt-0.{ending}").write_bytes(b"x" * 100)
    return folder


def test_list(models: Run) -> None:
    """A line a model, with the zoo's figures and our config."""
    code, out, err = models("list")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0].split()[:4] == ["name", "input", "mAP", "ms"]
    assert len([line for line in lines if "_coco17_" in line]) == len(zoo_models())
    row = next(line for line in lines if line.startswith(NAME))
    assert row.split() == [NAME, "512x512", "33.6", "39", "efficientdet_d0_512"]
    other = next(line for line in lines if line.startswith("efficientdet_d7"))
    assert other.split()[-1] == "-"


def test_list_marks_what_is_here(models: Run, unpacked: Path) -> None:
    """With a star."""
    models("fetch", NAME, "--from", unpacked)
    starred = [
        line.split()[0] for line in list_models().splitlines() if "_coco17_" in line and "*" in line
    ]
    assert starred == [NAME]


def test_show(models: Run) -> None:
    """Figures, address, our config with its reasons, and the classes."""
    code, out, _ = models("show", "mask_rcnn_inception_resnet_v2_640")
    assert code == 0
    for part in (
        "mask_rcnn_inception_resnet_v2_1024x1024_coco17_gpu-8",
        "COCO mAP 39.0, masks 34.6, 301 ms",
        f"archive      {zoo_model('mask_rcnn_inception_resnet_v2_640').url}",
        "no: urbandet models fetch mask_rcnn",
        "configs/models/mask_rcnn_inception_resnet_v2_640.config",
        "1 vehicle, 2 pedestrian, 4 cyclist",
        "Tuned: ",
    ):
        assert part in out


def test_show_without_a_config_of_ours(models: Run) -> None:
    """The archive has one."""
    code, out, _ = models("show", "efficientdet_d7_coco17_tpu-32")
    assert (code, "none of ours: the archive's own pipeline.config" in out) == (0, True)


def test_fetch_says_what_to_put_in(models: Run, unpacked: Path, tmp_path: Path) -> None:
    """Where the files are, and the line of train_config; show knows it afterwards."""
    code, out, _ = models("fetch", NAME, "--from", unpacked)
    place = tmp_path / "home-cache" / "urbandet" / "models" / "zoo" / NAME
    assert code == 0
    assert f"pipeline.config  {place / 'pipeline.config'}" in out
    assert f'fine_tune_checkpoint: "{place / "checkpoint" / "ckpt-0"}"' in out
    assert "none: it was given as an unpacked folder" in out
    assert f"on this disk {place}" in models("show", NAME)[1]


def test_fetch_over_http_with_progress_and_trust(
    models: Run, unpacked: Path, tmp_path: Path
) -> None:
    """Progress, and that the first checksum is trusted, are said plainly."""
    made = shutil.make_archive(str(tmp_path / NAME), "gztar", unpacked.parent)
    with RunningServer() as web:
        web.files[f"/{NAME}.tar.gz"] = Path(made).read_bytes()
        code, out, _ = models("fetch", NAME, "--from", web.url, "--cache", tmp_path / "cache")
    assert code == 0
    assert f"{NAME}: 0.0 of 0.0 MB (100%)" in out
    assert "trusted at first sight" in out
    assert (tmp_path / "cache" / NAME / "checkpoint" / "ckpt-0.index").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fetch", "efficientdet_d0_coco17_tpu-8"], f"did you mean {NAME}?"),
        (["show", "yolo"], "see `urbandet models list`"),
        (["fetch", NAME, "--from", "{tmp}/nowhere"], f"nowhere/{NAME}.tar.gz does not exist"),
        (["fetch", NAME, "--from", "ftp://host/x"], "the scheme ftp:// is not supported"),
        (["fetch", NAME, "--sha256", "12"], "is no sha256: expected 64 hex digits"),
        (["fetch", NAME, "--from", "http://no-such-host.invalid/"], "cannot reach http://no-such"),
    ],
)
def test_mistakes(models: Run, tmp_path: Path, arguments: list[str], message: str) -> None:
    """Exit code 1 and one line that says what to do."""
    code, _, err = models(*(text.format(tmp=tmp_path) for text in arguments))
    assert code == 1
    assert err.startswith("error: ")
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_folder_for_the_cache_that_cannot_be(models: Run, unpacked: Path, tmp_path: Path) -> None:
    """A file in its place is a mistake with a message, not a traceback."""
    (tmp_path / "file").write_text("")
    code, _, err = models("fetch", NAME, "--from", unpacked, "--cache", tmp_path / "file")
    assert code == 1
    assert err.startswith("error: ")
    assert "--cache" in err
