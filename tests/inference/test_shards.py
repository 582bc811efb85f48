"""Cutting sources into shards, and finding where to go on."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from drives import make_frame, write_drive
from small_videos import damage_packet, write_video, zeroed

from urbandet_ray.config import SampleConfig, ShardConfig
from urbandet_ray.errors import RunError
from urbandet_ray.inference.shards import (
    CutRule,
    fitting_frames,
    fitting_rule,
    read_shards,
    resume_point,
)
from urbandet_ray.inference.source_reader import pack, unpack
from urbandet_ray.records.sources import Source, list_sources
from urbandet_ray.runs.run_folder import Marker, unfinished_sources
from urbandet_ray.storage import Storage

STORAGE = Storage()


def shards_of(path: Path, rule: CutRule, done: dict[int, Marker] | None = None) -> list:
    """All shards of a file that are not done."""
    (source,) = list_sources(str(path), STORAGE)
    return list(read_shards(source, 0, STORAGE, rule, done or {}))


def marker(shard) -> Marker:
    """The marker an actor would write for a shard without bad records."""
    return Marker(
        shard=shard.name,
        source=shard.source,
        source_order=0,
        first_index=shard.first_index,
        next_index=shard.next_index,
        first_offset=shard.first_offset,
        next_offset=shard.next_offset,
        last=shard.last,
        frames=len(shard.records),
        detections=0,
        dead_letters=0,
    )


@pytest.mark.parametrize(
    ("records", "sizes"), [(1, [1]), (4, [4]), (5, [4, 1]), (8, [4, 4]), (9, [4, 4, 1])]
)
def test_shards_cover_every_record_once(tmp_path: Path, records: int, sizes: list[int]) -> None:
    """No shard is empty, only the last one says so, and indexes are consecutive."""
    shards = shards_of(write_drive(tmp_path / "a.tfrecord", records), CutRule(4, 1 << 20))
    assert [len(shard.records) for shard in shards] == sizes
    assert [shard.last for shard in shards] == [False] * (len(sizes) - 1) + [True]
    indexes = [record.index for shard in shards for record in shard.records]
    assert indexes == list(range(records))
    assert sum(shard.extent for shard in shards) == pytest.approx(1.0)


def test_size_bounds_a_shard(tmp_path: Path) -> None:
    """Large frames make short shards; one frame above the limit still travels."""
    size = len(make_frame(0).encoded)
    path = write_drive(tmp_path / "a.tfrecord", 6)
    assert [len(s.records) for s in shards_of(path, CutRule(64, int(2.5 * size)))] == [2, 2, 2]
    assert [len(s.records) for s in shards_of(path, CutRule(64, 10))] == [1] * 6


def test_what_later_stages_do_not_need_is_left_out(tmp_path: Path) -> None:
    """Neither the record's bytes beside the image's, nor labels that nobody draws."""
    path = write_drive(tmp_path / "a.tfrecord", 1)
    (plain,), (labelled,) = (shards_of(path, CutRule(4, 1 << 20, keep)) for keep in (False, True))
    assert plain.records[0].raw == b""
    assert plain.records[0].frame.truth is None
    assert len(labelled.records[0].frame.truth) == 1


def test_an_empty_file_is_one_dead_record(tmp_path: Path) -> None:
    """It is reported and committed, not lost."""
    (tmp_path / "a.tfrecord").write_bytes(b"")
    (shard,) = shards_of(tmp_path / "a.tfrecord", CutRule(4, 1 << 20))
    assert shard.last
    assert shard.records[0].error.reason == "empty-file"


@pytest.mark.parametrize("committed", [(0,), (0, 1), (1,), (0, 2), (2,), (0, 1, 2)])
def test_resume_reads_exactly_what_is_missing(tmp_path: Path, committed: tuple[int, ...]) -> None:
    """Whichever shards are done, the others come again with the same bounds and bytes."""
    rule = CutRule(4, 1 << 20)
    path = write_drive(tmp_path / "a.tfrecord", 10)
    whole = shards_of(path, rule)
    done = {whole[i].first_index: marker(whole[i]) for i in committed}
    again = shards_of(path, rule, done)
    missing = [shard for i, shard in enumerate(whole) if i not in committed]
    assert [s.name for s in again] == [s.name for s in missing]
    for old, new in zip(missing, again, strict=True):
        assert [r.frame.encoded for r in old.records] == [r.frame.encoded for r in new.records]
        assert (old.next_offset, old.last) == (new.next_offset, new.last)


def test_resume_point_stops_at_the_first_gap(tmp_path: Path) -> None:
    """Shards after a gap do not move it; a closed chain needs nothing."""
    whole = shards_of(write_drive(tmp_path / "a.tfrecord", 10), CutRule(4, 1 << 20))
    markers = {shard.first_index: marker(shard) for shard in whole}
    assert resume_point({}) == (0, 0)
    assert resume_point({0: markers[0], 8: markers[8]}) == (4, whole[0].next_offset)
    assert resume_point(markers) is None


@pytest.mark.parametrize("frames", [3, 5, 13, 14])
def test_shards_of_a_damaged_video_join(tmp_path: Path, frames: int) -> None:
    """Frames 13 to 19 are one bad record; wherever a shard ends, the next begins there."""
    path = damage_packet(write_video(tmp_path / "a.mp4"), 13, zeroed)
    (tmp_path / "a.mp4").unlink()
    rule = CutRule(frames, 1 << 20)
    whole = shards_of(path, rule)
    markers = [marker(shard) for shard in whole]
    assert unfinished_sources(markers, 1) == 0
    indexes = [record.index for shard in whole for record in shard.records]
    assert indexes == [*range(14), *range(20, 40)]
    done = {one.first_index: one for one in markers[:-2]}
    assert [s.name for s in shards_of(path, rule, done)] == [s.name for s in whole[-2:]]


@pytest.mark.parametrize(("every", "frames"), [(2, 3), (3, 1), (7, 2), (50, 4)])
def test_sampled_shards_join_and_are_resumed(tmp_path: Path, every: int, frames: int) -> None:
    """Whichever shards are done, the others come again."""
    path = write_drive(tmp_path / "a.tfrecord", 25)
    rule = CutRule(frames, 1 << 20, sample=SampleConfig(every=every))
    whole = shards_of(path, rule)
    assert [r.index for s in whole for r in s.records] == list(range(0, 25, every))
    markers = {shard.first_index: marker(shard) for shard in whole}
    assert unfinished_sources([*markers.values()], 1) == 0
    for missing in whole:
        done = {first: one for first, one in markers.items() if first != missing.first_index}
        (again,) = shards_of(path, rule, done)
        assert [r.index for r in again.records] == [r.index for r in missing.records]
        assert again.name == missing.name


def test_a_small_input_makes_small_shards(tmp_path: Path) -> None:
    """So that every actor gets some; a large one stays at the upper limit."""
    (listed,) = list_sources(str(write_drive(tmp_path / "a.tfrecord", 1)), STORAGE)

    def source(megabytes: float) -> Source:
        return replace(listed, size_bytes=int(megabytes * 1e6))

    assert fitting_frames([source(0.5)]) == 8
    assert fitting_frames([source(100)]) == 15
    assert fitting_frames([source(100), source(100)]) == 31
    assert fitting_frames([source(5000)]) == 64


def test_the_end_of_an_input_is_cut_finer(tmp_path: Path) -> None:
    """The last sixteenth of all sources together, wherever one of them ends."""
    path = write_drive(tmp_path / "a.tfrecord", 32)
    (listed,) = list_sources(str(path), STORAGE)
    rule = fitting_rule([listed], ShardConfig(megabytes=1))
    assert rule.fine_from == (0, listed.size_bytes * 15 // 16)
    assert [len(shard.records) for shard in shards_of(path, rule)] == [8, 8, 8, 8]
    early = replace(rule, fine_from=(0, listed.size_bytes // 2))
    assert [len(s.records) for s in shards_of(path, early)] == [8, 8, 8, 2, 2, 2, 2]
    assert [len(s.records) for s in shards_of(path, replace(rule, fine_from=(1, 0)))] == [8] * 4

    def source(size_bytes: int) -> Source:
        return replace(listed, size_bytes=size_bytes)

    sources = [source(900), source(0), source(700)]
    assert fitting_rule(sources, ShardConfig()).fine_from == (2, 600)


def test_a_shard_has_the_frames_that_were_asked_for(tmp_path: Path) -> None:
    """Neither the end of the input nor the model's batch changes them."""
    path = write_drive(tmp_path / "a.tfrecord", 10)
    (listed,) = list_sources(str(path), STORAGE)
    rule = fitting_rule([listed], ShardConfig(frames=3), batch=4)
    assert [len(shard.records) for shard in shards_of(path, rule)] == [3, 3, 3, 1]


def test_shards_are_whole_batches(tmp_path: Path) -> None:
    """A model that takes five at a time is not called for three, but at the end of a file."""
    path = write_drive(tmp_path / "a.tfrecord", 32)
    (listed,) = list_sources(str(path), STORAGE)
    rule = fitting_rule([listed], ShardConfig(megabytes=1), batch=5)
    assert [len(shard.records) for shard in shards_of(path, rule)] == [10, 10, 10, 2]
    early = replace(rule, fine_from=(0, listed.size_bytes // 2))
    assert [len(s.records) for s in shards_of(path, early)] == [10, 10, 5, 5, 2]
    assert [len(s.records) for s in shards_of(path, replace(rule, batch=64))] == [32]


def test_a_run_is_cut_as_it_began(tmp_path: Path) -> None:
    """run.json decides, whatever the model's batch or the rule's numbers are by now."""
    begun = CutRule(12, 1 << 20, fine_from=(0, 500), batch=4)
    now = CutRule(64, 1 << 21, keep_truth=True, batch=5)
    told = json.loads(json.dumps(begun.to_dict()))
    assert now.as_begun(told, "run") == replace(begun, keep_truth=True)
    assert now.as_begun({}, "run") == now
    for damaged in ({"frames": 3}, {**told, "frames": 0}, {**told, "fine_from": [1]}):
        with pytest.raises(RunError, match=r"run\.json of there is damaged: its cut is "):
            now.as_begun(damaged, "there")


def test_a_shard_travels_whole(tmp_path: Path) -> None:
    """Images above and below the size that is put aside, and labels, come out as they went in."""
    (shard,) = shards_of(write_drive(tmp_path / "a.tfrecord", 6), CutRule(64, 1 << 30, True))
    small = replace(shard.records[0], raw=b"tiny", index=99)
    shard = replace(shard, records=(*shard.records, small))
    (message,) = unpack(pack("a message"))
    two = pa.concat_tables([pack(shard), pack(shard)])
    assert message == "a message"
    for table in (two, two.combine_chunks(), two.slice(1)):
        for got in unpack(table):
            assert got.name == shard.name
            for before, after in zip(shard.records, got.records, strict=True):
                assert after.raw == before.raw
                assert type(after.frame.encoded) is bytes
                assert after.frame.encoded == before.frame.encoded
                assert np.array_equal(after.frame.truth.boxes_xyxy, before.frame.truth.boxes_xyxy)
