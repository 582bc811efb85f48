"""Which frames are looked at, where not all are."""

from pathlib import Path

import pytest
from drives import make_frame, write_drive
from small_videos import damage_packet, read_all, seconds_of, split, write_video, zeroed

from urbandet_ray.config import SampleConfig
from urbandet_ray.errors import ConfigError
from urbandet_ray.records.sampling import check_sample
from urbandet_ray.records.source import Record
from urbandet_ray.records.sources import list_sources, read_source
from urbandet_ray.storage import Storage

STORAGE = Storage()


def sampled(path: Path, **sample: float) -> list[Record]:
    """The records of all sources at a path that are looked at."""
    config = SampleConfig(**sample)
    sources = list_sources(str(path), STORAGE)
    return [one for source in sources for one in read_source(source, STORAGE, sample=config)]


def put_images(folder: Path, count: int) -> Path:
    """A folder of images."""
    folder.mkdir()
    for i in range(count):
        (folder / f"{i}.jpg").write_bytes(make_frame(i).encoded)
    return folder


@pytest.mark.parametrize("every", [1, 3, 10, 100])
@pytest.mark.parametrize("kind", ["images", "tfrecord", "video"])
def test_every_nth_frame(tmp_path: Path, kind: str, every: int) -> None:
    """The same places in every kind of source, with the numbers and bytes that they have anyway."""
    if kind == "images":
        path = put_images(tmp_path / "clip", 25)
    elif kind == "tfrecord":
        path = write_drive(tmp_path / "clip.tfrecord", 25)
    else:
        path = write_video(tmp_path / "clip.mp4", count=25)
    whole, some = read_all(path), sampled(path, every=every)
    assert [r.index for r in some] == list(range(0, 25, every))
    assert [r.raw for r in some] == [whole[r.index].raw for r in some]


@pytest.mark.parametrize(
    ("times_ms", "rate", "seconds"),
    [
        ([50 * i for i in range(40)], 1, [0, 1]),
        ([50 * i for i in range(20)], 4, [0, 0.25, 0.5, 0.75]),
        ([50 * i for i in range(20)], 100, [i / 20 for i in range(20)]),
        ([0, 900, 950, 1600, 2050, 5000, 5100], 1, [0, 1.6, 2.05, 5]),
        ([0, 33, 67, 100, 133, 167, 200], 10, [0, 0.1, 0.2]),
    ],
)
def test_frames_a_second(
    tmp_path: Path, times_ms: list[int], rate: float, seconds: list[float]
) -> None:
    """The first frame of each span, by the frames' own times."""
    path = write_video(tmp_path / "a.mp4", times_ms=times_ms)
    assert seconds_of(sampled(path, per_second=rate)) == pytest.approx(seconds, abs=0.002)


@pytest.mark.parametrize("sample", [{"every": 7}, {"per_second": 2}])
def test_damage_is_told_whatever_is_looked_at(tmp_path: Path, sample: dict[str, float]) -> None:
    """A dead letter is no frame that was left out."""
    hurt = damage_packet(write_video(tmp_path / "a.mp4"), 13, zeroed)
    _, bad = split(sampled(hurt, **sample))
    assert [(index, reason) for index, reason, _ in bad] == [(13, "damaged-video")]


@pytest.mark.parametrize("kind", ["a folder of images", "a TFRecord file"])
def test_what_has_no_rate_has_no_frames_a_second(tmp_path: Path, kind: str) -> None:
    """The message names the other way."""
    if kind == "a TFRecord file":
        path = write_drive(tmp_path / "clip.tfrecord", 2)
    else:
        path = put_images(tmp_path / "clip", 2)
    sources = list_sources(str(path), STORAGE)
    with pytest.raises(ConfigError, match=rf"\(--per-second\) is 2, .*clip.* is {kind}, .*--every"):
        check_sample(SampleConfig(per_second=2), sources)
    check_sample(SampleConfig(every=2), sources)


def test_two_ways_at_once_are_refused() -> None:
    """They contradict each other."""
    with pytest.raises(ConfigError, match="every is 2 and per_second 5: both choose frames"):
        SampleConfig(every=2, per_second=5)
