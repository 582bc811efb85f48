"""The run folder: what counts as done, and what is refused."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from manifests import inference_manifest

from urbandet_ray.errors import NotFoundError, RunError
from urbandet_ray.runs.manifest import begin_run
from urbandet_ray.runs.run_folder import Marker, RunFolder, unfinished_sources
from urbandet_ray.storage import Storage

MARKER = Marker("a-00000000", "a", 0, 0, 4, 0, 100, False, 4, 9, 0)
END = replace(
    MARKER,
    shard="a-00000004",
    first_index=4,
    next_index=6,
    first_offset=100,
    next_offset=150,
    last=True,
)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run folder that does not exist yet."""
    return RunFolder(str(tmp_path / "run"), Storage())


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
    begin_run(inference_manifest(), folder.uri, folder.storage)
    left = tmp_path / "run" / ".000001.jpg.0123456789ab.tmp"
    kept = tmp_path / "run" / ".gitkeep"
    left.write_bytes(b"half")
    kept.write_bytes(b"")
    assert folder.storage.sweep(folder.uri) == 1
    assert not left.exists()
    assert kept.exists()
    assert begin_run(inference_manifest(), folder.uri, folder.storage) is True


def test_an_unfinished_run_is_not_shown_as_a_whole(folder: RunFolder) -> None:
    """eval and video refuse it and say how to finish it."""
    begin_run(inference_manifest(), folder.uri, folder.storage)
    folder.commit(MARKER)
    with pytest.raises(RunError, match=r"is not finished: 1 of 1 files .* it resumes"):
        folder.finished_markers()
    folder.commit(END)
    assert folder.finished_markers() == [MARKER, END]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", r"it is no whole JSON \("),
        ('{"shard": "a-00000000", "sou', r"it is no whole JSON \("),
        ("[]", "it is a list, expected an object"),
        ('{"shard": "a-00000000"}', "it lacks 'source'"),
        ("WRONG TYPE", 'frames is "four", expected an integer'),
        ("NO ADVANCE", "it is an object, expected records in order, from first_index to a higher"),
    ],
)
def test_a_damaged_marker_is_named_with_what_to_do(folder: RunFolder, text: str, why: str) -> None:
    """One that does not advance would have been followed for ever."""
    wrong = {"WRONG TYPE": {"frames": "four"}, "NO ADVANCE": {"next_index": 0}}
    if text in wrong:
        text = json.dumps({**asdict(MARKER), **wrong[text]})
    folder.storage.write_bytes(folder.path("commit", "a-00000000.json"), text.encode())
    with pytest.raises(RunError, match=rf"a-00000000\.json is damaged: {why}.*Delete it and res"):
        folder.markers()


@pytest.mark.parametrize(
    ("first", "other"),
    [
        ({}, {"first_index": 3}),  # begins inside the one before
        ({}, {"first_offset": 99}),  # adjoins by index, not by offset
        ({"last": True}, {}),  # begins behind the last one
        ({"next_index": 9}, {}),  # ends behind the beginning of the one after
        ({}, {"source": "b"}),  # two sources in one place of the drive
    ],
)
def test_shards_of_two_cuts_are_refused(
    folder: RunFolder, first: dict[str, object], other: dict[str, object]
) -> None:
    """Their frames would count twice."""
    folder.commit(replace(MARKER, **first))
    folder.commit(replace(END, **other))
    with pytest.raises(RunError, match=r"was cut in two ways: shard a-00000000 holds the records"):
        folder.markers()


def test_shards_that_lack_between_are_no_fault(folder: RunFolder) -> None:
    """They are still to be done."""
    late = replace(END, shard="a-00000009", first_index=9, next_index=10, first_offset=400)
    folder.commit(MARKER)
    folder.commit(late)
    assert folder.markers() == [MARKER, late]


def test_a_marker_under_another_name_is_refused(folder: RunFolder) -> None:
    """A copy would count its shard twice."""
    folder.commit(MARKER)
    copy = folder.storage.read_bytes(folder.path("commit", "a-00000000.json"))
    folder.storage.write_bytes(folder.path("commit", "copy.json"), copy)
    with pytest.raises(RunError, match=r"copy\.json is no marker of its name: it says a-0000"):
        folder.markers()


def test_a_committed_shard_without_detections_is_named(folder: RunFolder) -> None:
    """The remedy names the marker: the detections alone are not made again."""
    folder.commit(MARKER)
    with pytest.raises(NotFoundError, match=r"are gone\. Delete .*commit/a-00000000\.json and res"):
        folder.rows(MARKER)
