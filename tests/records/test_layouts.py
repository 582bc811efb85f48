"""Every layout of a data folder means the same files to every command."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from urbandet_ray.frames import Frame, Truth
from urbandet_ray.records.data_folder import (
    read_data_folder,
    records_at,
    sources_and_labels,
)
from urbandet_ray.records.images import encode_jpeg
from urbandet_ray.records.soundness import validate
from urbandet_ray.records.sources import list_sources
from urbandet_ray.records.stats import statistics
from urbandet_ray.records.writer import write_frames
from urbandet_ray.storage import Storage
from urbandet_ray.training.doctor.dataset import read_split

LAYOUTS = {
    "train, val": ("train/a.tfrecord", "val/b.tfrecord"),
    "train, valid, test": ("train/a.tfrecord", "valid/b.tfrecord", "test/c.tfrecord"),
    "capitals": ("Train/a.tfrecord", "Validation/b.tfrecord", "Testing/c.tfrecord"),
    "shards": (
        "train/a.record-00000-of-00002", "train/a.record-00001-of-00002", "eval/b.tfrecord",
    ),
    "shards, other form": (
        "train/a-00000-of-00002.tfrecord", "train/a-00001-of-00002.tfrecord",
        "val/b.tfrecord-00000-of-00001",
    ),
    "mixed endings": (
        "train/a.tfrecord", "train/b.tfrecords", "train/c.record", "train/d.tfrec",
        "train/e.records.gz", "train/f.tfrecord.gz", "val/g.record.gz", "val/h.tfrecords.gz",
    ),
    "packed shards": (
        "train/a.tfrecord-00000-of-00001.gz", "val/a.record-00000-of-00001.gz",
    ),
    "one name in all parts": ("train/a.record", "val/a.record", "test/a.record"),
    "deeper": ("train/day/a.tfrecord", "train/night/a.tfrecord", "val/day/b.tfrecord"),
    "no parts": ("a.tfrecord", "b.record", "day/c.tfrecords.gz"),
}  # fmt: skip


def written(folder: Path, names: tuple[str, ...]) -> int:
    """Records of those names, the n-th of n + 1 frames, and a label map; how many frames."""
    seed = 0
    for number, name in enumerate(names):
        frames = []
        for _ in range(number + 1):
            noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
            image = encode_jpeg(cv2.resize(noise, (80, 60), interpolation=cv2.INTER_CUBIC))
            truth = Truth.of([[5, 5, 30, 30]], [1], ("car",))
            frames.append(Frame(f"f{seed}.jpg", "s", image, "jpeg", (80, 60), truth))
            seed += 1
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_frames(frames, path, compress=name.endswith(".gz"))
    (folder / "label_map.pbtxt").write_text("item { id: 1 name: 'car' }")
    return seed


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_command_means_the_same_files(tmp_path: Path, layout: str) -> None:
    """stats, show, validate: the data folder; doctor, train: its parts; infer, eval: all of it."""
    names, storage = LAYOUTS[layout], Storage()
    frames = written(tmp_path, names)
    files = sorted(str(tmp_path / name) for name in names)
    data = read_data_folder(str(tmp_path), storage)
    assert sorted(one.uri for one in data.sources) == files
    assert statistics(data, storage, data.labels).frames == frames
    report = validate(data, storage, data.labels)
    assert (report.good, report.problems) == (frames, ())
    infer = list_sources(str(tmp_path), storage)
    truth, labels = sources_and_labels(str(tmp_path), storage)
    assert [one.name for one in infer] == [one.name for one in truth]
    assert sorted(one.uri for one in infer) == files
    assert labels == data.labels
    for part in data.parts.values():
        named = [one for pattern in part.patterns for one in records_at(pattern, storage)]
        assert sorted(one.uri for one in named) == sorted(one.uri for one in part.records)
    read = [
        read_split(part.patterns, part.records, storage, data.labels).frames
        for part in data.parts.values()
    ]
    assert not read or sum(read) == frames
