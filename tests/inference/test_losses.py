"""What a marker vouches for is on the disk before it, and is missed when it is gone."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from drives import SquareDetector, write_drive

from urbandet_ray.config import InferConfig, load_config
from urbandet_ray.errors import RecordError
from urbandet_ray.inference.job import InferJob
from urbandet_ray.inference.processor import ShardProcessor
from urbandet_ray.inference.shards import CutRule, Shard, read_shards
from urbandet_ray.labels import STREET_LABELS
from urbandet_ray.records.images import decode_image
from urbandet_ray.records.sources import list_sources
from urbandet_ray.runs.completeness import find_losses
from urbandet_ray.runs.run_folder import RunFolder
from urbandet_ray.storage import Storage

STORAGE = Storage()


def processor_of(run: Path, **settings: object) -> ShardProcessor:
    """Into a run folder."""
    config = load_config(InferConfig, None, {"input": "a", "output": str(run), **settings})
    return ShardProcessor(InferJob(config, STORAGE, SquareDetector, STREET_LABELS))


def shards_of(path: Path) -> list[Shard]:
    """Of four records; the second one has a bad record."""
    (source,) = list_sources(str(path), STORAGE)
    first, second, *rest = read_shards(source, 0, STORAGE, CutRule(4, 1 << 20), {})
    broken = replace(second.records[1], frame=None, error=RecordError("bad-crc", "x"), raw=b"raw")
    records = (second.records[0], broken, *second.records[2:])
    return [first, replace(second, records=records), *rest]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Ten frames of one drive in three shards."""
    processor = processor_of(tmp_path / "run")
    for shard in shards_of(write_drive(tmp_path / "a.tfrecord", 10)):
        processor.process(shard)
    return RunFolder(str(tmp_path / "run"), STORAGE)


def emptied(path: Path) -> None:
    """Its name stays, as after a power cut."""
    path.write_bytes(b"")


def shortened(path: Path) -> None:
    """By a byte."""
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("spoil", [Path.unlink, emptied, shortened])
@pytest.mark.parametrize(
    ("name", "shard"),
    [
        ("frames/a/000000.jpg", 0),
        ("frames/a/000007.jpg", 4),
        ("frames/a/000009.jpg", 8),
        ("detections/a-00000004.parquet", 4),
        ("dead_letter/a-00000005.bin", 4),
        ("dead_letter/a-00000004.jsonl", 4),
    ],
)
def test_a_lost_file_is_missed(
    run: RunFolder, spoil: Callable[[Path], None], name: str, shard: int
) -> None:
    """The shard is named, with what is there and what should be."""
    markers = run.markers()
    assert find_losses(run, markers) == []
    spoil(Path(run.uri, name))
    (loss,) = find_losses(run, markers)
    assert loss.marker.shard == f"a-{shard:08d}"
    assert f"is damaged: {loss.files} files of " in loss.to_text()


def test_what_nobody_vouches_for_is_no_loss(run: RunFolder, tmp_path: Path) -> None:
    """Files of shards that are not done, and markers that count no files."""
    Path(run.uri, "frames/a/000010.jpg").write_bytes(b"of a shard that was cut off")
    Path(run.uri, "commit/a-00000008.json").unlink()
    early = [replace(one, files=-1, size_bytes=-1) for one in run.markers()]
    assert find_losses(run, run.markers()) == find_losses(run, early) == []
    shutil.rmtree(Path(run.uri, "frames"))
    assert len(find_losses(run, run.markers())) == 2
    assert find_losses(run, early) == []


def test_a_run_without_frames_lacks_none(tmp_path: Path) -> None:
    """Its detections are all."""
    processor = processor_of(tmp_path / "run", **{"draw.enabled": False})
    for shard in shards_of(write_drive(tmp_path / "a.tfrecord", 10)):
        processor.process(shard)
    run = RunFolder(str(tmp_path / "run"), STORAGE)
    assert find_losses(run, run.markers()) == []
    assert [one.files for one in run.markers()] == [1, 3, 1]


@contextmanager
def mounted(image: Path, place: Path) -> Iterator[Path]:
    """A file system in a file; skips where this process may not mount one."""
    place.mkdir()
    done = subprocess.run(
        ["mount", "-o", "loop", str(image), str(place)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no loop device here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.chaos
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mkfs.ext4"), reason="needs root, ext4")
def test_a_power_cut_behind_a_marker_loses_nothing_of_its_shard(tmp_path: Path) -> None:
    """The disk as it is at that moment, mounted anew: what only memory had is gone."""
    disk, shards = tmp_path / "disk.img", shards_of(write_drive(tmp_path / "a.tfrecord", 10))
    with disk.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(disk)], check=True)
    with mounted(disk, tmp_path / "mounted") as place:
        processor = processor_of(place / "runs" / "run")
        for number, shard in enumerate(shards):
            processor.process(shard)
            shutil.copyfile(disk, tmp_path / f"cut-{number}.img")
    for number in range(len(shards)):
        with mounted(tmp_path / f"cut-{number}.img", tmp_path / f"found-{number}") as place:
            run = RunFolder(str(place / "runs" / "run"), STORAGE)
            markers = run.markers()
            assert len(markers) == number + 1
            assert find_losses(run, markers) == []
            for frame in place.rglob("*.jpg"):
                assert decode_image(frame.read_bytes()).size
            assert sum(len(run.rows(marker)) for marker in markers) == [4, 7, 9][number]
