"""Frames in both parts are found by what they show, not by what files are called."""

import cv2
import numpy as np
import pytest

from urbandet_ray.frames import Frame
from urbandet_ray.records.images import encode_jpeg, encode_png
from urbandet_ray.records.leaks import Leaks, Pictures, find_leaks


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
