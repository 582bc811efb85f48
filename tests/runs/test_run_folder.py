"""The run folder: what counts as done, and what is refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from urbandet_ray.errors import NotFoundError, RunError
from urbandet_ray.runs.run_folder import Marker, RunFolder, unfinished_sources
from urbandet_ray.storage import Storage

MANIFEST = {"fingerprint": {"model": "m", "settings": "s", "input": "i"}}
MARKER = Marker("a-00000000", "a", 0, 0, 4, 0, 100, False, 4, 9, 0)
END = replace(MARKER, shard="a-00000004", first_index=4, next_index=6, last=True)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run folder that does not exist yet."""
    return RunFolder(str(tmp_path / "run"), Storage())


def test_begin_then_resume(folder: RunFolder) -> None:
    """The first try starts, the second goes on, run.json stays as it was."""
    assert folder.begin(MANIFEST) is False
    before = folder.manifest()
    assert folder.begin(MANIFEST) is True
    assert folder.manifest() == before


@pytest.mark.parametrize("part", ["model", "settings", "input"])
def test_another_run_is_refused_by_what_differs(folder: RunFolder, part: str) -> None:
    """The message names the part."""
    folder.begin(MANIFEST)
    other = {"fingerprint": {**MANIFEST["fingerprint"], part: "x"}}
    with pytest.raises(RunError, match=f"holds a run with another {part}: choose another output"):
        folder.begin(other)


def test_a_folder_with_other_files_is_refused(folder: RunFolder, tmp_path: Path) -> None:
    """Nobody's photos get mixed with a run."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match=r"not empty and not a run \(.*thesis.txt is in it\)"):
        folder.begin(MANIFEST)


def test_no_run_says_how_to_get_one(folder: RunFolder) -> None:
    """`urbandet eval` on a wrong folder."""
    with pytest.raises(NotFoundError, match=r"is not a run folder: it has no run\.json"):
        folder.manifest()


@pytest.mark.parametrize("text", ["{", '{"format": 99}', "[]"])
def test_a_damaged_manifest_is_refused(folder: RunFolder, tmp_path: Path, text: str) -> None:
    """Truncated, of the future, or something else."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(text)
    with pytest.raises(RunError, match=r"run\.json is "):
        folder.manifest()


def test_markers_come_in_drive_order(folder: RunFolder) -> None:
    """Not in the order of names or of commits."""
    second = replace(MARKER, shard="0-late", source="0", source_order=1)
    for marker in (second, END, MARKER):
        folder.commit(marker)
    assert folder.markers() == [MARKER, END, second]


@pytest.mark.parametrize(
    ("markers", "open_sources"),
    [([], 1), ([MARKER], 1), ([END], 1), ([MARKER, END], 0)],
)
def test_a_source_is_done_from_its_first_record_to_its_last(
    markers: list[Marker], open_sources: int
) -> None:
    """A gap at the start or the end keeps it open."""
    assert unfinished_sources(markers, 1) == open_sources


def test_sweep_removes_only_what_killed_writers_left(folder: RunFolder, tmp_path: Path) -> None:
    """Finished files and other hidden files stay."""
    folder.begin(MANIFEST)
    left = tmp_path / "run" / ".000001.jpg.0123456789ab.tmp"
    kept = tmp_path / "run" / ".gitkeep"
    left.write_bytes(b"half")
    kept.write_bytes(b"")
    assert folder.storage.sweep(folder.uri) == 1
    assert not left.exists()
    assert kept.exists()
    assert folder.begin(MANIFEST) is True


def test_an_unfinished_run_is_not_shown_as_a_whole(folder: RunFolder) -> None:
    """eval and video refuse it and say how to finish it."""
    folder.begin({**MANIFEST, "sources": 1})
    folder.commit(MARKER)
    with pytest.raises(RunError, match=r"is not finished: 1 of 1 files .* it resumes"):
        folder.finished_markers()
    folder.commit(END)
    assert folder.finished_markers() == [MARKER, END]
