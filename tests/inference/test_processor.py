"""One shard from records to committed files."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from drives import SquareDetector, frame_image, square_of, write_drive
from pictures import exif_turn, odd_jpegs, odd_pngs, saved, smooth_picture

from urbandet_ray.config import InferConfig, load_config
from urbandet_ray.detections import Detections
from urbandet_ray.errors import ModelError, RecordError, RunError
from urbandet_ray.inference.job import InferJob
from urbandet_ray.inference.processor import ShardProcessor
from urbandet_ray.inference.shards import CutRule, read_shards
from urbandet_ray.labels import STREET_LABELS
from urbandet_ray.records.images import decode_image
from urbandet_ray.records.sources import list_sources
from urbandet_ray.runs.lock import LOCK_NAME, WriterLock
from urbandet_ray.runs.run_folder import RunFolder
from urbandet_ray.storage import Storage

STORAGE = Storage()


def job_of(run: Path, **changes) -> InferJob:
    """A job with the square detector."""
    settings = {"batch_size": 3, **changes}
    config = load_config(InferConfig, None, {"input": "a", "output": str(run), **settings})
    return InferJob(config, STORAGE, SquareDetector, STREET_LABELS)


def only_shard(path: Path, frames: int = 64):
    """The first shard of a file."""
    (source,) = list_sources(str(path), STORAGE)
    return next(read_shards(source, 0, STORAGE, CutRule(frames, 1 << 20), {}))


@pytest.mark.parametrize("batch_size", [1, 3, 7, 50])
def test_a_shard_is_done_whole_and_in_order(tmp_path: Path, batch_size: int) -> None:
    """Every frame once, with its own box, whatever the batch size."""
    shard = only_shard(write_drive(tmp_path / "a.tfrecord", 7))
    summary = ShardProcessor(job_of(tmp_path / "run", batch_size=batch_size)).process(shard)
    folder = RunFolder(str(tmp_path / "run"), STORAGE)
    (marker,) = folder.markers()
    rows = folder.rows(marker)
    assert (summary.frames, marker.frames, marker.last) == (7, 7, True)
    assert summary.memory_mb > 10
    assert [row.index for row in rows] == list(range(7))
    for row in rows:
        assert abs(row.detections.boxes_xyxy[0] - square_of(row.index)).max() <= 1
        assert row.frame_key == f"a-{row.index:06d}"


def test_annotated_frames_show_the_frame_with_its_box(tmp_path: Path) -> None:
    """The picture is the frame, changed where the box is."""
    shard = only_shard(write_drive(tmp_path / "a.tfrecord", 2))
    ShardProcessor(job_of(tmp_path / "run", **{"draw.jpeg_quality": 100})).process(shard)
    drawn = decode_image((tmp_path / "run/frames/a/000001.jpg").read_bytes())
    difference = abs(drawn.astype(int) - frame_image(1)).max(axis=2)
    assert difference[35:, 50:].max() < 12  # untouched corner
    assert difference[8:32].max() > 60  # the box


def test_bad_records_become_dead_letters(tmp_path: Path) -> None:
    """The others are done; the letter says where and why, and keeps the bytes."""
    path = write_drive(tmp_path / "a.tfrecord", 5)
    shard = only_shard(path)
    cut = shard.records[2]
    broken = replace(cut, frame=replace(cut.frame, encoded=cut.frame.encoded[:200]))
    shard = replace(shard, records=(*shard.records[:2], broken, *shard.records[3:]))
    summary = ShardProcessor(job_of(tmp_path / "run")).process(shard)
    (letter,) = summary.dead_letters
    assert (letter.index, letter.offset, letter.reason) == (2, cut.offset, "undecodable-image")
    assert letter.file == str(path)
    kept = tmp_path / "run/dead_letter"
    assert (kept / letter.raw).read_bytes() == cut.frame.encoded[:200]
    assert json.loads((kept / "a-00000000.jsonl").read_text())["index"] == 2
    (marker,) = RunFolder(str(tmp_path / "run"), STORAGE).markers()
    assert (marker.frames, marker.dead_letters, marker.next_index) == (4, 1, 5)
    assert not (tmp_path / "run/frames/a/000002.jpg").exists()


def test_too_large_an_image_is_refused_before_decoding(tmp_path: Path) -> None:
    """By the header alone."""
    shard = only_shard(write_drive(tmp_path / "a.tfrecord", 1))
    summary = ShardProcessor(job_of(tmp_path / "run", max_pixels=1000)).process(shard)
    assert [letter.reason for letter in summary.dead_letters] == ["image-too-large"]


class ShortDetector(SquareDetector):
    """Answers for the first image only, as a stock export told to batch does."""

    def detect(self, images) -> list[Detections]:
        """One answer, whatever comes in."""
        return super().detect(images[:1])


def test_a_model_that_skips_images_ends_the_run(tmp_path: Path) -> None:
    """And nothing is committed."""
    shard = only_shard(write_drive(tmp_path / "a.tfrecord", 4))
    job = replace(job_of(tmp_path / "run"), make_detector=ShortDetector)
    with pytest.raises(ModelError, match="answered for 1 of 3 images"):
        ShardProcessor(job).process(shard)
    assert RunFolder(str(tmp_path / "run"), STORAGE).markers() == []


def files_of(run: Path) -> dict[Path, tuple[bytes, int]]:
    """Content and time of all files but the lock's."""
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in run.rglob("*")
        if path.is_file() and path.name != LOCK_NAME
    }


def test_a_committed_shard_is_left_as_it_is(tmp_path: Path) -> None:
    """By a try that gets it again; it tells what the first one told."""
    path = write_drive(tmp_path / "a.tfrecord", 5)
    shard = only_shard(path)
    broken = replace(shard.records[2], frame=None, error=RecordError("bad-crc", "x"))
    shard = replace(shard, records=(*shard.records[:2], broken, *shard.records[3:]))
    first = ShardProcessor(job_of(tmp_path / "run")).process(shard)
    before = files_of(tmp_path / "run")
    job = replace(job_of(tmp_path / "run"), make_detector=ShortDetector)
    again = ShardProcessor(job).process(shard)
    assert files_of(tmp_path / "run") == before
    for name in ("shard", "frames", "detections", "dead_letters", "extent"):
        assert getattr(again, name) == getattr(first, name)


def test_a_process_that_lost_the_run_folder_writes_nothing(tmp_path: Path) -> None:
    """Neither frames nor detections nor a marker."""
    shard = only_shard(write_drive(tmp_path / "a.tfrecord", 5))
    lock = str(tmp_path / "run" / LOCK_NAME)
    with WriterLock(STORAGE, lock, "the first") as first:
        claim = first.claim
    with (
        WriterLock(STORAGE, lock, "the second"),
        pytest.raises(RunError, match="is now that of 'the second'"),
    ):
        ShardProcessor(replace(job_of(tmp_path / "run"), claim=claim)).process(shard)
    assert files_of(tmp_path / "run") == {}


def test_a_lock_that_is_lost_within_a_shard_keeps_it_from_being_committed(tmp_path: Path) -> None:
    """A process that stood still between two batches."""
    shard = only_shard(write_drive(tmp_path / "a.tfrecord", 7))
    lock = tmp_path / "run" / LOCK_NAME

    class Losing(SquareDetector):
        """Loses the lock when it is asked."""

        def detect(self, images) -> list[Detections]:
            lock.write_text("{}")
            return super().detect(images)

    with WriterLock(STORAGE, str(lock), "the first") as first:
        job = replace(job_of(tmp_path / "run"), make_detector=Losing, claim=first.claim)
        with pytest.raises(RunError, match="is gone"):
            ShardProcessor(job).process(shard)
    assert not (tmp_path / "run/commit").exists()


def test_the_same_shard_gives_the_same_bytes(tmp_path: Path) -> None:
    """What makes a repeated try harmless."""
    shard = only_shard(write_drive(tmp_path / "a.tfrecord", 6))
    contents = []
    for name in ("one", "two"):
        ShardProcessor(job_of(tmp_path / name)).process(shard)
        files = sorted(p for p in (tmp_path / name).rglob("*") if p.is_file())
        contents.append({str(p.relative_to(tmp_path / name)): p.read_bytes() for p in files})
    assert len(contents[0]) == 6 + 2
    assert contents[0] == contents[1]


def test_without_drawing_no_frames_are_written(tmp_path: Path) -> None:
    """draw=False is the fast way to numbers."""
    shard = only_shard(write_drive(tmp_path / "a.tfrecord", 2))
    summary = ShardProcessor(job_of(tmp_path / "run", **{"draw.enabled": False})).process(shard)
    assert not (tmp_path / "run/frames").exists()
    assert "encode" not in summary.busy_s


def test_reduced_frames_give_boxes_of_the_whole_frame(tmp_path: Path) -> None:
    """A frame of 64 x 48 decoded at half its size: the row has the frame's size and pixels."""
    path = write_drive(tmp_path / "a.tfrecord", 5)
    seen: list[tuple[int, ...]] = []

    class Watching(SquareDetector):
        def detect(self, images):
            seen.extend(image.shape for image in images)
            return super().detect(images)

    job = job_of(tmp_path / "run", **{"draw.enabled": False})
    job = replace(job, least_wh=(32, 20), make_detector=Watching)
    ShardProcessor(job).process(only_shard(path))
    assert set(seen) == {(24, 32, 3)}
    folder = RunFolder(str(tmp_path / "run"), STORAGE)
    rows = folder.rows(folder.markers()[0])
    assert [row.size_wh for row in rows] == [(64, 48)] * 5
    for row in rows:
        assert abs(row.detections.boxes_xyxy[0] - square_of(row.index)).max() <= 2


@pytest.mark.parametrize("least_wh", [None, (20, 30)])
def test_pictures_of_a_folder_are_detected_upright(
    tmp_path: Path, least_wh: tuple[int, int] | None
) -> None:
    """Held sideways, mirrored or upright: rows and drawn frames have the size that people see."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for turn in (1, 2, 6, 7):
        picture = saved(smooth_picture(), "JPEG", exif=exif_turn(turn))
        (folder / f"{turn}.jpg").write_bytes(picture)
    job = replace(job_of(tmp_path / "run"), least_wh=least_wh)
    ShardProcessor(job).process(only_shard(folder))
    run = RunFolder(str(tmp_path / "run"), STORAGE)
    (marker,) = run.markers()
    sizes = [row.size_wh for row in run.rows(marker)]
    assert sizes == [(90, 60), (90, 60), (60, 90), (60, 90)]
    if least_wh is None:
        drawn = decode_image(STORAGE.read_bytes(run.frame_uri(marker.source, 2)))
        assert drawn.shape == (90, 60, 3)


def test_what_the_tolerant_decoder_took_is_counted_and_named(tmp_path: Path) -> None:
    """In the marker, for the whole run, and by name in the summary."""
    folder = tmp_path / "photos"
    folder.mkdir()
    jpegs, pngs = odd_jpegs(smooth_picture()), odd_pngs(smooth_picture())
    (folder / "a.jpg").write_bytes(jpegs["sound"])
    (folder / "b.jpg").write_bytes(jpegs["stray bytes before the scan"])
    (folder / "c.png").write_bytes(pngs["text"])
    (folder / "d.jpg").write_bytes(jpegs["sound"][:-200])
    summary = ShardProcessor(job_of(tmp_path / "run")).process(only_shard(folder))
    (marker,) = RunFolder(str(tmp_path / "run"), STORAGE).markers()
    assert (marker.frames, marker.doubts, marker.dead_letters) == (3, 2, 1)
    assert [one.partition(":")[0] for one in summary.doubts] == ["b", "c"]
