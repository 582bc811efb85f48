"""Track ids written into a finished run, once, and again where they have to be."""

import json
from pathlib import Path

import pytest
from crowds import committed

from urbandet_ray.commands.track import track
from urbandet_ray.config import TrackConfig
from urbandet_ray.errors import MissingExtraError, NotFoundError, RunError
from urbandet_ray.inference import tracks as tracker
from urbandet_ray.inference.track_files import read_tracks, write_tracks
from urbandet_ray.runs.lock import LOCK_NAME, WriterLock
from urbandet_ray.runs.run_folder import TRACKS_NAME, RunFolder
from urbandet_ray.storage import Storage

RULES = TrackConfig()


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A finished run of two drives in ten shards."""
    return committed(RunFolder(str(tmp_path / "run"), Storage()))


def files(run: RunFolder) -> dict[str, bytes]:
    """All that stands in a run."""
    return {f.uri: run.storage.read_bytes(f.uri) for f in run.storage.list_files(run.uri)}


def ids(run: RunFolder) -> list[int]:
    """Track ids of all detections, in drive order."""
    rows = (row for marker in run.markers() for row in run.rows(marker))
    return [int(track_id) for row in rows for track_id in row.detections.track_ids]


def test_ids_stand_in_files_of_their_own_and_are_counted(run: RunFolder) -> None:
    """The report and tracks.json say what the files hold, and by which rules."""
    assert set(ids(run)) == {-1}
    report = track(run.uri, RULES, run.storage)
    found = ids(run)
    counts = (max(found), sum(i > 0 for i in found), len(found))
    assert (report.tracks, report.tracked, report.detections, report.changed) == (*counts, True)
    assert set(found) == {-1, *range(1, report.tracks + 1)}
    known = json.loads(run.storage.read_bytes(run.path(TRACKS_NAME)))
    assert (known["tracks"], known["tracked"], known["detections"]) == counts
    assert known["rules"] == RULES.model_dump()
    assert known["trackforge"] == tracker.tracker_version()
    assert f"{counts[0]} tracks, {counts[1]} of {counts[2]} detections" in report.to_text()
    assert LOCK_NAME not in "".join(files(run))


def test_nothing_but_the_ids_changes(run: RunFolder) -> None:
    """Boxes, scores, classes, names and order stay; what markers vouch for is not written again."""
    before, rows = files(run), [row for marker in run.markers() for row in run.rows(marker)]
    track(run.uri, RULES, run.storage)
    after = files(run)
    assert {uri for uri in after if after[uri] != before.get(uri)} == {
        run.path(TRACKS_NAME), *(run.tracks_uri(marker.shard) for marker in run.markers())
    }  # fmt: skip
    for old, new in zip(rows, (r for m in run.markers() for r in run.rows(m)), strict=True):
        assert (old.shard, old.index, old.frame_key) == (new.shard, new.index, new.frame_key)
        for column in ("boxes_xyxy", "scores", "class_ids"):
            kept = getattr(old.detections, column) == getattr(new.detections, column)
            assert kept.all()


def test_the_same_rules_again_change_no_byte(run: RunFolder) -> None:
    """And the report is the same but for saying so."""
    first = track(run.uri, RULES, run.storage)
    before = files(run)
    times = {path: path.stat().st_mtime_ns for path in Path(run.uri).rglob("*.parquet")}
    again = track(run.uri, RULES, run.storage)
    assert vars(again) == {**vars(first), "changed": False}
    assert again.to_text().endswith("(as before)")
    assert files(run) == before
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_other_rules_give_other_ids(run: RunFolder) -> None:
    """Ids of one set of rules never mix with another's; and back again gives the first bytes."""
    track(run.uri, RULES, run.storage)
    first = files(run)
    report = track(run.uri, TrackConfig(min_hits=1), run.storage)
    assert report.changed
    assert report.tracks > max(json.loads(first[run.path(TRACKS_NAME)])["tracks"], 0)
    track(run.uri, RULES, run.storage)
    assert files(run) == first


def test_another_trackforge_gives_the_ids_anew(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They depend on it."""
    track(run.uri, RULES, run.storage)
    monkeypatch.setattr(tracker, "version", lambda name: "9.9")
    assert track(run.uri, RULES, run.storage).changed
    assert read_tracks(run).trackforge == "9.9"


class Cut(Storage):
    """Dies at the fourth file it is to write, the lock not counted."""

    left = 3

    def write_bytes(self, uri: str, data: bytes, **how) -> str:
        """Write it, while it lives."""
        if not uri.endswith(LOCK_NAME):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
        return super().write_bytes(uri, data, **how)


def test_a_try_that_was_cut_off_is_done_again(run: RunFolder, tmp_path: Path) -> None:
    """Half of the ids of other rules: no tracks.json claims them, and the next try mends all."""
    whole = committed(RunFolder(str(tmp_path / "whole"), Storage()))
    track(whole.uri, RULES, whole.storage)
    track(run.uri, TrackConfig(min_hits=1), run.storage)
    with pytest.raises(KeyboardInterrupt):
        track(run.uri, RULES, Cut())
    with pytest.raises(NotFoundError, match=rf"no tracks.json\): run `urbandet track {run.uri}` f"):
        read_tracks(run)
    assert track(run.uri, RULES, run.storage).changed
    read_tracks(run)
    assert list(files(run).values()) == list(files(whole).values())


def test_who_lost_the_lock_writes_nothing_more(run: RunFolder) -> None:
    """Another writer may have taken over: no detections, no tracks.json."""
    before = files(run)

    def lost() -> None:
        raise RunError("this writer lost its lock")

    with pytest.raises(RunError, match="lost its lock"):
        write_tracks(run, RULES, lost)
    assert files(run) == before


@pytest.mark.parametrize("content", [b"half a fi", b"[]", b'{"tracks": 3}'])
def test_a_damaged_file_is_no_claim(run: RunFolder, content: bytes) -> None:
    """Whatever stands in tracks.json, the ids come right."""
    track(run.uri, RULES, run.storage)
    before = files(run)
    run.storage.write_bytes(run.path(TRACKS_NAME), content)
    assert track(run.uri, RULES, run.storage).changed
    assert files(run) == before


def test_an_unfinished_run_is_refused_and_left_alone(tmp_path: Path) -> None:
    """Ids of a part would change with the rest."""
    run = committed(RunFolder(str(tmp_path / "run"), Storage()), [0, 1, 2, 4, 5, 6, 7, 8, 9])
    before = files(run)
    with pytest.raises(RunError, match=r"is not finished: 1 of 2 files .*Repeat the `urbandet inf"):
        track(run.uri, RULES, run.storage)
    assert files(run) == before


def test_what_is_no_run_is_refused_and_left_alone(tmp_path: Path) -> None:
    """Not even a lock is left in it."""
    with pytest.raises(NotFoundError, match="is not a run folder"):
        track(str(tmp_path), RULES, Storage())
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_somebody_writes_to_is_refused(run: RunFolder) -> None:
    """As any second writer is."""
    held = WriterLock(run.storage, run.path(LOCK_NAME), "test")
    with held, pytest.raises(RunError, match="another writer is live"):
        track(run.uri, RULES, run.storage)
    assert set(ids(run)) == {-1}


def test_a_missing_tracker_is_named(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what installs it; the run is as it was."""

    def absent(name: str) -> str:
        raise tracker.PackageNotFoundError(name)

    before = files(run)
    monkeypatch.setattr(tracker, "version", absent)
    with pytest.raises(MissingExtraError, match=r"need trackforge, .*pip install --require-hashes"):
        track(run.uri, RULES, run.storage)
    assert files(run) == before


@pytest.mark.s3
def test_s3_gets_the_same_ids(run: RunFolder, s3_server) -> None:
    """The same bytes as a local run, and nothing to do the second time."""
    remote = committed(RunFolder(s3_server.make_bucket("tracks") + "/run",
                                 Storage(s3_server.options)))  # fmt: skip
    for each in (run, remote):
        track(each.uri, RULES, each.storage)
    assert list(files(remote).values()) == list(files(run).values())
    assert not track(remote.uri, RULES, remote.storage).changed


def test_a_damaged_file_is_named_with_the_command_that_mends_it(run: RunFolder) -> None:
    """`urbandet video --tracks` of such a run."""
    run.storage.write_bytes(run.path(TRACKS_NAME), b'{"rules": {}, "trackforge": "0.4"}')
    with pytest.raises(RunError, match=r"tracks\.json is damaged: it lacks 'tracks'\. .*bandet tr"):
        read_tracks(run)
