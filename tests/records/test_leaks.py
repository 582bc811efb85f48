"""Frames in both parts are found by what they show, not by what files are called."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from urbandet_ray.frames import Frame
from urbandet_ray.records.data_folder import read_data_folder
from urbandet_ray.records.images import encode_jpeg, encode_png
from urbandet_ray.records.leaks import Leaks, Pictures, find_leaks
from urbandet_ray.records.soundness import validate
from urbandet_ray.records.writer import write_frames
from urbandet_ray.storage import Storage


def picture(seed: int) -> np.ndarray:
    """A street of its own: blurred noise, 320 x 240."""
    noise = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
    return cv2.resize(noise, (320, 240), interpolation=cv2.INTER_CUBIC)


def part(segment: str, *encoded: bytes, keys: str = "frame_{}") -> Pictures:
    """Frames of one file."""
    pictures = Pictures()
    for n, one in enumerate(encoded):
        pictures.add(Frame(keys.format(n), segment, one, "jpeg"))
    return pictures


def leaks(val: bytes) -> Leaks:
    """Of one validation frame against three training frames, the first of which it may show."""
    train = [encode_jpeg(picture(seed), 95) for seed in (1, 2, 3)]
    return find_leaks(part("a", *train), part("b", val))


@pytest.mark.parametrize(
    ("encoded", "same", "alike"),
    [
        (encode_jpeg(picture(1), 95), 1, 0),
        (encode_jpeg(picture(1), 40), 0, 1),
        (encode_png(picture(1)), 0, 1),
        (encode_jpeg(cv2.resize(picture(1), (192, 144), interpolation=cv2.INTER_AREA), 80), 0, 1),
        (encode_jpeg(picture(9), 95), 0, 0),
        (encode_jpeg(255 - picture(1), 95), 0, 0),
    ],
    ids=["copy", "quality", "PNG", "scaled", "another", "negative"],
)
def test_a_planted_frame_is_found(encoded: bytes, same: int, alike: int) -> None:
    """Under another file name, to the byte or encoded anew; other frames are none."""
    found = leaks(encoded)
    assert (found.same, found.alike) == (same, alike)
    assert found.examples == (("b/frame_0 = a/frame_0",) if same + alike else ())


@pytest.mark.parametrize(
    ("earlier", "later", "said"),
    [
        ("train", "val", "1 of 2 validation pictures are training's, encoded anew or scaled"),
        ("train", "test", "1 of 2 test pictures are training's, encoded anew or scaled"),
        ("val", "test", "1 of 2 test pictures are validation's, encoded anew or scaled"),
    ],
)
def test_validate_finds_a_leak_between_any_two_parts(
    tmp_path: Path, earlier: str, later: str, said: str
) -> None:
    """The same frame encoded anew, in a file of another name and under another key."""
    seeds = {"train": (1, 2), "val": (3, 4), "test": (5, 6)}
    for name, own in seeds.items():
        frames = [
            Frame(f"{name}_{seed}", name, encode_jpeg(picture(seed), 95), "jpeg", (320, 240))
            for seed in own
        ]
        if name == later:
            planted = encode_jpeg(picture(seeds[earlier][0]), 40)
            frames[0] = Frame("planted_1", name, planted, "jpeg", (320, 240))
        write_frames(frames, tmp_path / name / f"{name}-drive.tfrecord")
    report = validate(read_data_folder(str(tmp_path), Storage()), Storage())
    (problem,) = report.problems
    assert (problem.reason, problem.uri) == ("shared-frames", str(tmp_path / later))
    assert problem.detail.startswith(said)
    assert f"planted_1 = {earlier}-drive/{earlier}_{seeds[earlier][0]}" in problem.detail


def test_plain_pictures_are_not_compared() -> None:
    """A grey wall looks like any other."""
    grey = [encode_jpeg(np.full((240, 320, 3), level, np.uint8), 90) for level in (90, 91)]
    train, val = part("a", grey[0]), part("b", grey[1])
    assert (train.plain, val.plain, find_leaks(train, val).alike) == (1, 1, 0)


@pytest.mark.parametrize(
    ("keys", "segments", "drives"),
    [
        ("segment-123_{}", ("one", "two"), ("segment-123",)),
        ("frame_{}", ("one", "two"), ()),
        ("data-00000-of-00001-{}", ("data-00000-of-00001", "data-00000-of-00001"), ()),
    ],
)
def test_drives_are_known_by_frame_keys(
    keys: str, segments: tuple[str, str], drives: tuple[str, ...]
) -> None:
    """Not by the names of the files they are in."""
    encoded = [encode_jpeg(picture(seed), 90) for seed in (1, 2)]
    parts = [part(one, enc, keys=keys) for one, enc in zip(segments, encoded, strict=True)]
    assert find_leaks(*parts).drives == drives


def test_a_sample_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies are found among all frames; the likeness is looked for in some."""
    monkeypatch.setattr("urbandet_ray.records.leaks.COMPARED", 2)
    train = [encode_jpeg(picture(seed), 90) for seed in range(5)]
    found = find_leaks(part("a", *train), part("b", *train[3:]))
    assert (found.same, found.compared) == (
        2,
        "likeness is looked for in 2 of 5 training pictures",
    )
