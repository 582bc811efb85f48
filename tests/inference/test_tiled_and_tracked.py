"""Tiles and tracks as settings of whole runs on a real Ray."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import urbandet_ray
from urbandet_ray.commands import infer as command
from urbandet_ray.errors import ConfigError, MissingExtraError, RunError
from urbandet_ray.inference import tracks as tracker
from urbandet_ray.runs.run_folder import TRACKS_NAME, RunFolder
from urbandet_ray.storage import Storage

pytestmark = pytest.mark.ray
PLAIN = {"shard": {"frames": 4}, "coco": True}
TRACKED = {**PLAIN, "track": {"enabled": True, "min_hits": 2, "score_high": 0.3}}


def contents(run: Path) -> dict[str, bytes]:
    """Every file of a run but the timings, by relative path."""
    files = (path for path in run.rglob("*") if path.is_file())
    kept = {str(path.relative_to(run)): path.read_bytes() for path in files}
    return {name: data for name, data in kept.items() if not name.startswith("attempts")}


def all_ids(run: Path) -> list[int]:
    """Track ids of a run's detections, in drive order."""
    folder = RunFolder(str(run), Storage())
    rows = (row for marker in folder.markers() for row in folder.rows(marker))
    return [int(i) for row in rows for i in row.detections.track_ids]


@pytest.fixture(scope="module")
def infer(ray_dashboard: str, drives: Path) -> Callable[..., command.InferReport]:
    """Infers on both drives."""
    return lambda run, **settings: urbandet_ray.infer(str(drives), str(run), **settings)


@pytest.fixture(scope="module")
def plain(infer: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without either."""
    run = tmp_path_factory.mktemp("plain") / "run"
    assert infer(run, **PLAIN).tracks is None
    return run


@pytest.fixture(scope="module")
def tracked(infer: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was tracked at its end."""
    run = tmp_path_factory.mktemp("tracked") / "run"
    report = infer(run, **TRACKED)
    assert report.tracks > 0
    assert f", {report.tracks} tracks" in report.to_text()
    return run


def test_a_run_without_either_says_nothing_of_them(plain: Path) -> None:
    """Its run.json is what it was before there were such settings."""
    settings = json.loads((plain / "run.json").read_text())["settings"]
    assert set(settings) == {"batch_size", "draw", "max_pixels", "shard"}
    assert set(all_ids(plain)) == {-1}


def test_tracks_change_nothing_else(plain: Path, tracked: Path) -> None:
    """Detections, frames, markers, COCO's files and the fingerprint; the ids are beside them."""
    known = json.loads((tracked / TRACKS_NAME).read_text())
    ids = all_ids(tracked)
    assert set(ids) == {-1, *range(1, known["tracks"] + 1)}
    assert len(ids) == known["detections"] == len(all_ids(plain))
    before, after = contents(plain), contents(tracked)
    changed = {name for name in after if after[name] != before.get(name)}
    tables = {Path(name).name for name in before if name.startswith("detections/")}
    assert changed == {TRACKS_NAME, *(f"tracks/{name}" for name in tables)}


def test_a_finished_run_is_tracked_later_without_ray(
    infer: Callable,
    plain: Path,
    tracked: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Switched on in the second try: the same bytes as from the start; and off again, they stay."""
    run = shutil.copytree(plain, tmp_path / "run")

    def no_ray(*_: object, **__: object) -> object:
        class Refused:
            def __enter__(self) -> None:
                raise AssertionError("a cluster was started")

            def __exit__(self, *_: object) -> None: ...

        return Refused()

    monkeypatch.setattr(command, "ray_session", no_ray)
    assert infer(run, **TRACKED).resumed
    assert contents(run) == contents(tracked)
    infer(run, **PLAIN)
    assert contents(run) == contents(tracked)


def test_a_resumed_run_is_tracked_anew(infer: Callable, tracked: Path, tmp_path: Path) -> None:
    """A shard done again has no ids: tracks.json of before claims nothing, then all come back."""
    run = shutil.copytree(tracked, tmp_path / "run")
    lost = "street-0007-00000004"
    (run / "commit" / f"{lost}.json").unlink()
    infer(run, **PLAIN)
    assert not (run / TRACKS_NAME).exists()
    (run / "commit" / f"{lost}.json").unlink()
    infer(run, **TRACKED)
    assert contents(run) == contents(tracked)


def test_track_is_the_same_by_itself(plain: Path, tracked: Path, tmp_path: Path) -> None:
    """From Python, over a finished run."""
    run = shutil.copytree(plain, tmp_path / "run")
    report = urbandet_ray.track(str(run), min_hits=2, score_high=0.3)
    assert (report.tracks, report.changed) == (max(all_ids(tracked)), True)
    assert contents(run) == contents(tracked)


@pytest.fixture(scope="module")
def tiled(infer: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with tiles."""
    run = tmp_path_factory.mktemp("tiled") / "run"
    assert infer(run, tiles={"rows": 1, "columns": 2}, **PLAIN).frames == 20
    return run


def sure(run: Path) -> int:
    """How many detections have a score of 0.3; all together are 100 a frame with any settings."""
    folder = RunFolder(str(run), Storage())
    rows = (row for marker in folder.markers() for row in folder.rows(marker))
    return sum(len(row.detections.above(0.3)) for row in rows)


def test_tiles_find_more(plain: Path, tiled: Path) -> None:
    """A look at both halves finds what the whole did not show; run.json says which parts."""
    assert len(all_ids(tiled)) >= len(all_ids(plain))
    assert sure(tiled) > 1.1 * sure(plain)
    settings = json.loads((tiled / "run.json").read_text())["settings"]
    assert settings["tiles"] == {
        "rows": 1, "columns": 2, "overlap": 0.2, "whole": True, "merge": "nms", "iou_max": 0.5
    }  # fmt: skip


@pytest.mark.parametrize(
    ("first", "tiles"),
    [
        ("plain", {"rows": 1, "columns": 2}),
        ("tiled", {}),
        ("tiled", {"rows": 2, "columns": 1}),
        ("tiled", {"rows": 1, "columns": 2, "merge": "fusion"}),
    ],
)
def test_other_tiles_are_another_run(
    infer: Callable, request: pytest.FixtureRequest, first: str, tiles: dict
) -> None:
    """With and without, by number and by every other setting."""
    run = request.getfixturevalue(first)
    before = contents(run)
    with pytest.raises(RunError, match="holds a run with another settings: choose another output"):
        infer(run, tiles=tiles, **PLAIN)
    assert contents(run) == before


def test_one_tile_is_none(infer: Callable, plain: Path) -> None:
    """1 x 1 is the whole image: the same run."""
    assert infer(plain, tiles={"rows": 1, "columns": 1, "merge": "fusion"}, **PLAIN).resumed


def test_what_cannot_be_tracked_is_said_before_anything_is_done(
    infer: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rules that contradict each other, and a tracker that is not there."""
    rules = {"enabled": True, "score_low": 0.9}
    with pytest.raises(ConfigError, match=r"score_low is 0.9, above score_high 0.5"):
        infer(tmp_path / "run", track=rules)

    def absent(name: str) -> str:
        raise tracker.PackageNotFoundError(name)

    monkeypatch.setattr(tracker, "version", absent)
    with pytest.raises(MissingExtraError, match="tracks need trackforge"):
        infer(tmp_path / "run", track={"enabled": True})
    assert not (tmp_path / "run").exists()
