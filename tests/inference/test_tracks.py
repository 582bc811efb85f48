"""Track ids over a finished run's detections."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from crowds import committed, crowd, row

from urbandet_ray.config import TrackConfig
from urbandet_ray.detections import Detections
from urbandet_ray.errors import ConfigError, RunError
from urbandet_ray.inference.tracks import track_rows, track_run
from urbandet_ray.runs.detections_table import DetectionRow, rows_to_parquet
from urbandet_ray.runs.run_folder import TRACKS_NAME, RunFolder, shard_name
from urbandet_ray.storage import Storage

EVERY = TrackConfig(min_hits=1)


def ids(rows: Sequence[DetectionRow], rules: TrackConfig = EVERY) -> list[list[int]]:
    """Track ids, a list a frame."""
    return [tracked.detections.track_ids.tolist() for tracked in track_rows(rows, rules)]


def test_objects_keep_their_ids_whatever_the_order_of_the_boxes() -> None:
    """Two moving objects, listed the other way round in every second frame."""
    seen = [[(100 + 9 * i, 100), (400 - 9 * i, 300)][:: (-1) ** i] for i in range(8)]
    assert ids([row(i, *things) for i, things in enumerate(seen)]) == [[1, 2], [2, 1]] * 4


def test_an_id_stays_with_its_class() -> None:
    """What was a vehicle and is now a pedestrian is another track."""
    assert ids([row(i, (100, 100, 0.9, 1 + i // 3)) for i in range(6)]) == [[1]] * 3 + [[2]] * 3


def test_classes_are_told_apart_where_boxes_coincide() -> None:
    """A cyclist and a pedestrian on one spot are two tracks."""
    both = [(100, 100, 0.9, 2), (100, 100, 0.9, 4)]
    assert ids([row(0, *both), row(1, *both[::-1])]) == [[1, 2], [2, 1]]


def test_unsure_detections_continue_tracks_but_start_none() -> None:
    """ByteTrack's idea: a covered object's low score is still its own."""
    seen = [(0.4, 0.9), (0.9, 0.4), (0.4, 0.05)]
    rows = [row(i, (100, 100, a), (300, 100, b)) for i, (a, b) in enumerate(seen)]
    assert ids(rows) == [[-1, 1], [2, 1], [2, -1]]


def test_limits_belong_to_what_they_let_in() -> None:
    """A score of exactly score_high starts a track, one of exactly score_low continues it."""
    assert ids([row(0, (9, 9, 0.5)), row(1, (9, 9, 0.1))]) == [[1], [1]]


@pytest.mark.parametrize(
    ("lost", "same"), [(0, True), (1, True), (10, True), (11, False), (10**9, False)]
)
def test_a_track_outlives_frames_kept_lost_frames(lost: int, same: bool) -> None:
    """One more, and it is a new track."""
    rows = [row(0, (100, 100)), row(1, (100, 100)), row(2 + lost, (100, 100))]
    assert ids(rows, TrackConfig(frames_kept=10, min_hits=1)) == [[1], [1], [1 if same else 2]]


def test_a_lost_frame_is_a_frame_without_detections() -> None:
    """A dead letter changes no other frame's ids."""
    rows = crowd(3, 60)
    for lost in (7, 8, 30, *range(40, 53)):
        rows[lost] = row(lost)
    without = [frame for frame in rows if len(frame.detections)]
    assert ids(without) == [own for own in ids(rows) if own]


def test_tracks_end_with_their_segment_and_ids_go_on() -> None:
    """The same place in the next segment is another object, its id unused before."""
    rows = [row(i, (100, 100), segment=segment) for segment in "ab" for i in range(3)]
    assert ids(rows) == [[1]] * 3 + [[2]] * 3


def test_short_tracks_get_no_id_and_leave_no_hole() -> None:
    """Ids count what is kept, in the order in which it appears."""
    rows = [row(0, (500, 9), (100, 100)), row(1, (100, 100), (300, 100)), row(2, (300, 100))]
    rows.append(row(3, (300, 100)))
    assert ids(rows, TrackConfig(min_hits=2)) == [[-1, 1], [1, 2], [2], [2]]
    assert ids(rows, TrackConfig(min_hits=3)) == [[-1, -1], [-1, 1], [1], [1]]


def test_nothing_to_track() -> None:
    """No rows, and frames that hold nothing."""
    assert ids([]) == []
    assert ids([row(0), row(1, segment="b"), row(2, (9, 9), segment="b")]) == [[], [], [1]]


@pytest.mark.parametrize("box", [[50, 50, 50, 90], [50, 50, 90, 50.5], [90, 90, 50, 50]])
def test_boxes_without_a_pixel_are_not_tracked(box: list[float]) -> None:
    """No height would make the filter's numbers infinite; the frame's other boxes are tracked."""
    detections = Detections.of([box, [200, 50, 260, 90]], [0.9, 0.9], [1, 1])
    rows = [replace(row(i), detections=detections) for i in range(3)]
    assert ids(rows) == [[-1, 1]] * 3


def test_everything_but_the_ids_stays() -> None:
    """Rows come back in order with their boxes, scores and names; old ids are not looked at."""
    rows = crowd(5, 30)
    tracked = list(track_rows(rows, EVERY))
    for before, after in zip(rows, tracked, strict=True):
        assert vars(replace(after, detections=before.detections)) == vars(before)
        for column in ("boxes_xyxy", "scores", "class_ids"):
            assert getattr(after.detections, column) is getattr(before.detections, column)
    assert ids(tracked) == ids(rows)


@pytest.mark.parametrize("seed", range(5))
def test_what_every_track_is(seed: int) -> None:
    """Once a frame at most, of one class, of min_hits detections, ids without holes."""
    rules = TrackConfig(min_hits=4)
    tracked = list(track_rows([*crowd(seed, 50), *crowd(seed, 50, segment="b")], rules))
    places: dict[int, list[tuple[str, int, int]]] = {}
    for frame in tracked:
        columns = frame.detections.track_ids.tolist(), frame.detections.class_ids.tolist()
        for track_id, class_id in zip(*columns, strict=True):
            places.setdefault(track_id, []).append((frame.segment, frame.index, class_id))
    del places[-1]
    assert sorted(places) == list(range(1, len(places) + 1))
    assert [found[0][:2] for _, found in sorted(places.items())] == sorted(
        found[0][:2] for found in places.values()
    )
    for found in places.values():
        segments, indices, classes = zip(*found, strict=True)
        assert len(set(indices)) == len(indices) >= 4
        assert len(set(segments)) == len(set(classes)) == 1


def test_one_segment_at_a_time_is_in_memory() -> None:
    """The first segment comes out when the first row of the second one has been read."""
    taken: list[str] = []

    def stream() -> Iterator[DetectionRow]:
        for segment in "abc":
            for index in range(5):
                taken.append(segment)
                yield row(index, (9, 9), segment=segment)

    tracked = track_rows(stream(), EVERY)
    next(tracked)
    assert taken == ["a"] * 5 + ["b"]


@pytest.mark.parametrize("indices", [(0, 2, 1), (0, 1, 1)])
def test_rows_out_of_order_are_refused(indices: tuple[int, ...]) -> None:
    """Ids of a shuffled drive would mean nothing."""
    with pytest.raises(ValueError, match=r"segment a: frame 1 follows frame \d, but tracks need"):
        ids([row(index, (9, 9)) for index in indices])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"score_high": 1.1}, "score_high: Input should be less than or equal to 1, got 1.1"),
        ({"score_low": -0.1}, "score_low: Input should be greater than or equal to 0, got -0.1"),
        ({"match_iou": float("nan")}, "match_iou: Input should be a finite number, got nan"),
        ({"match_iou_low": 2}, "match_iou_low: Input should be less than or equal to 1, got 2"),
        ({"score_low": 0.6}, "score_low is 0.6, above score_high 0.5: what lies between"),
        ({"match_iou": 0}, "match_iou: Input should be greater than 0, got 0"),
        ({"frames_kept": 0}, "frames_kept: Input should be greater than or equal to 1, got 0"),
        ({"min_hits": 0}, "min_hits: Input should be greater than or equal to 1, got 0"),
    ],
)
def test_rules_that_make_no_sense_are_refused(values: dict[str, float], message: str) -> None:
    """The message says what was got and what is wanted."""
    with pytest.raises(ConfigError, match=message):
        TrackConfig(**values)  # type: ignore[arg-type]


def test_ids_do_not_depend_on_the_order_of_commits(tmp_path: Path) -> None:
    """Inference runs out of order; the tracked files are the same bytes."""
    orders = list(range(10)), list(range(9, -1, -1)), [3, 9, 0, 7, 1, 8, 2, 6, 5, 4]
    runs = [
        committed(RunFolder(str(tmp_path / f"{i}"), Storage()), order)
        for i, order in enumerate(orders)
    ]
    files = [
        [(shard, rows_to_parquet(rows)) for shard, rows in track_run(run, EVERY)] for run in runs
    ]
    assert [shard for shard, _ in files[0]] == [
        shard_name(source, first) for source in "ba" for first in range(0, 20, 4)
    ]
    assert files[0] == files[1] == files[2]


def test_ids_cross_from_shard_to_shard(tmp_path: Path) -> None:
    """And the run's own detections are what is tracked, whatever was tracked before."""
    run = committed(RunFolder(str(tmp_path), Storage()))
    found = dict(track_run(run, EVERY))
    first, second = (
        {i for row in found[marker.shard] for i in row.detections.track_ids.tolist()} - {-1}
        for marker in run.markers()[:2]
    )
    assert first & second
    for shard, rows in found.items():
        run.storage.write_bytes(run.tracks_uri(shard), rows_to_parquet(rows[:1]))
    run.storage.write_bytes(run.path(TRACKS_NAME), b"{}")
    assert {one: rows_to_parquet(rows) for one, rows in track_run(run, EVERY)} == {
        one: rows_to_parquet(rows) for one, rows in found.items()
    }


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    """Ids of a part would change with the rest."""
    run = committed(RunFolder(str(tmp_path), Storage()), [0, 1, 2, 4, 5, 6, 7, 8, 9])
    with pytest.raises(RunError, match=r"is not finished: 1 of 2 files"):
        list(track_run(run, EVERY))


def test_objects_of_a_synthetic_drive_keep_their_ids() -> None:
    """The renderer knows who is who: most boxes of an object carry one id."""
    from urbandet_ray.streets.drive import plan_drive, render_shot

    drive = plan_drive(203, (240, 240))
    shots = [render_shot(drive, index).seen for index in range(25)]
    rows = [
        replace(
            row(index),
            detections=Detections.of(
                [thing.box_xyxy for thing in seen],
                [0.9] * len(seen),
                [thing.class_id for thing in seen],
            ),
        )
        for index, seen in enumerate(shots)
    ]
    ids_of: dict[int, list[int]] = {}
    for seen, own in zip(shots, ids(rows, TrackConfig()), strict=True):
        for thing, track_id in zip(seen, own, strict=True):
            ids_of.setdefault(thing.key, []).append(track_id)
    boxes = sum(len(own) for own in ids_of.values())
    steady = sum(
        max(own.count(i) for i in {*own} - {-1}) for own in ids_of.values() if max(own) > 0
    )
    assert boxes > 150
    assert steady > 0.85 * boxes
