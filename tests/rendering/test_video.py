"""Videos, read back with PyAV and Pillow."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image as PilImage
from PIL import ImageSequence

from urbandet_ray.errors import ConfigError, InputError, StorageError
from urbandet_ray.rendering.pace import pace_of
from urbandet_ray.rendering.video_writer import VideoWriter, letterbox


def numbered(count: int, width: int = 64, height: int = 48) -> Iterator[np.ndarray]:
    """Frames whose colour says their number: its digits to base 4 in red, green and blue."""
    for i in range(count):
        digits = [i % 4, i // 4 % 4, i // 16 % 4]
        yield np.full((height, width, 3), [40 + 60 * d for d in digits], np.uint8)


def number_of(image: np.ndarray) -> int:
    digits = np.rint((image.reshape(-1, 3).mean(axis=0) - 40) / 60).astype(int)
    return int(digits @ [1, 4, 16])


def write(path: Path, frames: Iterator[np.ndarray], fps: float = 10, **options: object) -> None:
    with VideoWriter(path, fps=fps, **options) as video:  # type: ignore[arg-type]
        for frame in frames:
            video.write(frame)


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def box_order(data: bytes) -> list[str]:
    """The top-level boxes of an MP4 (ISO/IEC 14496-12)."""
    names, at = [], 0
    while at < len(data):
        names.append(data[at + 4 : at + 8].decode())
        at += int.from_bytes(data[at : at + 4], "big")
    return names


def test_mp4_is_what_players_take(tmp_path: Path) -> None:
    """H.264, yuv420p, BT.709 limited range, every frame counted, the index first."""
    write(tmp_path / "a.mp4", numbered(30), fps=12.5)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.frames, stream.average_rate) == (30, Fraction(25, 2))
        colour = (context.color_range, context.color_primaries, context.color_trc)
        assert (*colour, context.colorspace) == (1, 1, 1, 1)
        assert stream.duration * stream.time_base == Fraction(30 * 2, 25)
    order = box_order((tmp_path / "a.mp4").read_bytes())
    assert order.index("moov") < order.index("mdat")


def test_webm_is_vp9(tmp_path: Path) -> None:
    """VP9, yuv420p, same colours tags, frames evenly in time."""
    write(tmp_path / "a.webm", numbered(12), fps=10)
    with av.open(str(tmp_path / "a.webm")) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt, context.colorspace) == ("vp9", "yuv420p", 1)
        times = [frame.time for frame in container.decode(video=0)]
    assert times == pytest.approx([i / 10 for i in range(12)])


@pytest.mark.parametrize("suffix", ["mp4", "webm", "gif"])
def test_frames_come_in_the_order_written(tmp_path: Path, suffix: str) -> None:
    """All 50 frames, none doubled, none swapped."""
    path = tmp_path / f"a.{suffix}"
    write(path, numbered(50))
    assert [number_of(image) for image in decoded(path)] == list(range(50))


@pytest.mark.parametrize("suffix", ["mp4", "webm"])
@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (230, 159, 0)])
def test_colours_survive(tmp_path: Path, suffix: str, colour: tuple[int, int, int]) -> None:
    """A strong colour comes back within 6 of 255, read by the file's own colour tags."""
    path = tmp_path / f"a.{suffix}"
    write(path, iter([np.full((32, 32, 3), colour, np.uint8)] * 2))
    assert np.abs(decoded(path)[1][16, 16].astype(int) - colour).max() <= 6


@pytest.mark.parametrize("suffix", ["mp4", "webm"])
def test_odd_sizes_are_padded_to_even(tmp_path: Path, suffix: str) -> None:
    """yuv420p needs even sides: the last row and column are repeated, not cut."""
    path = tmp_path / f"a.{suffix}"
    write(path, numbered(3, width=65, height=49))
    images = decoded(path)
    assert images[0].shape == (50, 66, 3)
    assert number_of(images[2]) == 2


def test_later_frames_of_another_size_are_letterboxed(tmp_path: Path) -> None:
    """A wide frame in a square video gets bars above and below."""
    frames = [np.full((64, 64, 3), 200, np.uint8), np.full((32, 64, 3), 200, np.uint8)]
    write(tmp_path / "a.mp4", iter(frames))
    second = decoded(tmp_path / "a.mp4")[1]
    assert second.shape == (64, 64, 3)
    assert second[8].max() < 30
    assert second[32].min() > 170


@pytest.mark.parametrize(("width", "height"), [(10, 400), (400, 10), (33, 7), (64, 48)])
def test_letterbox_keeps_proportions(width: int, height: int) -> None:
    """White content within a pixel of its proportions, centred, black around."""
    fitted = letterbox(np.full((height, width, 3), 255, np.uint8), (64, 48))
    rows, columns = np.nonzero(fitted[..., 0])
    got = (columns.max() - columns.min() + 1, rows.max() - rows.min() + 1)
    scale = min(64 / width, 48 / height)
    assert fitted.shape == (48, 64, 3)
    assert np.abs(np.array(got) - np.maximum(1, np.array([width, height]) * scale)).max() <= 1
    assert abs(columns.min() - (63 - columns.max())) <= 1


@pytest.mark.parametrize("suffix", ["mp4", "webm", "gif"])
def test_same_frames_give_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    """A video made again is byte-identical."""
    for name in ("a", "b"):
        write(tmp_path / f"{name}.{suffix}", numbered(12), threads=2)
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


@pytest.mark.parametrize("width", [128, 144])
def test_other_videos_in_the_process_change_no_byte(tmp_path: Path, width: int) -> None:
    """A moving scene, rows of 8 and of 9 macroblocks, 40 times between videos of other sizes.

    x264's AVX-512 code gives 3 to 8 different files at 9, so this can fail on such a CPU alone.
    """
    scene = np.random.default_rng(7).integers(0, 256, (16, 24, 3), np.uint8)
    scene = scene.repeat(8, axis=0).repeat(8, axis=1)

    def moving(width: int, height: int) -> Iterator[np.ndarray]:
        for j in range(12):
            yield np.ascontiguousarray(scene[j : j + height, 2 * j : 2 * j + width])

    made = set()
    for i in range(40):
        write(tmp_path / "other.mp4", moving(width=32 + 32 * (i % 3), height=32 + 16 * (i % 5)))
        write(tmp_path / "a.mp4", moving(width, height=96))
        made.add((tmp_path / "a.mp4").read_bytes())
    assert len(made) == 1


@pytest.mark.parametrize("suffix", ["mp4", "webm", "gif"])
def test_an_exception_leaves_nothing(tmp_path: Path, suffix: str) -> None:
    """Neither a half video nor the hidden file stays when the frames' source fails."""
    with (
        pytest.raises(RuntimeError, match="source broke"),
        VideoWriter(tmp_path / f"a.{suffix}", fps=10) as video,
    ):
        for frame in numbered(5):
            video.write(frame)
        raise RuntimeError("source broke")
    assert list(tmp_path.iterdir()) == []


def test_the_name_appears_only_at_close(tmp_path: Path) -> None:
    """Until then an older video of that name stays as it was."""
    path = tmp_path / "a.mp4"
    path.write_bytes(b"older")
    video = VideoWriter(path, fps=10)
    for frame in numbered(3):
        video.write(frame)
    assert path.read_bytes() == b"older"
    video.close()
    assert len(decoded(path)) == video.frames_written == 3
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_missing_folders_are_made(tmp_path: Path) -> None:
    """The video's folder need not exist."""
    write(tmp_path / "deep" / "er" / "a.mp4", numbered(2))
    assert len(decoded(tmp_path / "deep" / "er" / "a.mp4")) == 2


def test_a_video_without_frames_is_an_error(tmp_path: Path) -> None:
    """No empty file is left to be taken for a video."""
    with pytest.raises(InputError, match=r"no frame to write into .*a\.mp4"):
        VideoWriter(tmp_path / "a.mp4", fps=10).close()
    assert list(tmp_path.iterdir()) == []


def test_a_closed_video_takes_no_frame(tmp_path: Path) -> None:
    """Writing after close is a mistake in the code, closing twice is not."""
    video = VideoWriter(tmp_path / "a.mp4", fps=10)
    video.write(next(numbered(1)))
    video.close()
    video.close()
    with pytest.raises(ValueError, match=r"a\.mp4 is closed: open a new VideoWriter"):
        video.write(next(numbered(1)))


def test_a_path_that_cannot_be_written(tmp_path: Path) -> None:
    """The error names the video, not an encoder's number."""
    (tmp_path / "file").write_bytes(b"")
    video = VideoWriter(tmp_path / "file" / "a.mp4", fps=10)
    with pytest.raises(StorageError, match=r"cannot write .*a\.mp4"):
        video.write(next(numbered(1)))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.avi", {}, r"cannot tell the video format from 'a\.avi': end it in \.mp4"),
        ("a.mp4", {"format": "mov"}, "video format 'mov': expected one of mp4, webm, gif"),
        ("a.mp4", {"fps": 0}, "video fps is 0: expected above 0"),
        ("a.mp4", {"fps": float("nan")}, "video fps is nan"),
        ("a.mp4", {"crf": 52}, "crf is 52: expected 0 to 51 for mp4"),
        ("a.webm", {"crf": -1}, "crf is -1: expected 0 to 63 for webm"),
        ("a.mp4", {"preset": "warp"}, "preset 'warp': expected one of ultrafast"),
        ("a.mp4", {"threads": 0}, "video threads is 0: expected at least 1"),
        ("a.gif", {"gif_bytes_max": 5}, "gif_bytes_max is 5: expected at least 100000"),
    ],
)
def test_wrong_options(tmp_path: Path, name: str, options: dict, message: str) -> None:
    """Each is refused before a frame is drawn, with what would do."""
    with pytest.raises(ConfigError, match=message):
        VideoWriter(tmp_path / name, **{"fps": 10, **options})


def test_format_overrides_the_suffix(tmp_path: Path) -> None:
    """Any name will do when the format is given."""
    write(tmp_path / "clip.bin", numbered(2), format="gif")
    assert (tmp_path / "clip.bin").read_bytes()[:6] == b"GIF89a"


def noise(count: int, size: int) -> Iterator[np.ndarray]:
    """Frames that hardly compress."""
    rng = np.random.default_rng(1)
    for _ in range(count):
        yield rng.integers(0, 256, (size, size, 3), np.uint8)


def gif_durations_ms(path: Path) -> list[int]:
    with PilImage.open(path) as gif:
        return [frame.info["duration"] for frame in ImageSequence.Iterator(gif)]


@pytest.mark.parametrize(
    ("fps", "count", "frames"), [(10, 20, 20), (30, 31, 11), (7, 8, 8), (12, 12, 6), (3, 4, 4)]
)
def test_gif_timing_is_exact(tmp_path: Path, fps: float, count: int, frames: int) -> None:
    """At most 10 frames a second, every k-th one; the whole lasts as long as the drive."""
    write(tmp_path / "a.gif", numbered(count), fps=fps)
    durations = gif_durations_ms(tmp_path / "a.gif")
    assert len(durations) == frames
    assert sum(durations) == pytest.approx(1000 * count / fps, abs=10)
    assert max(durations[:-1]) - min(durations[:-1]) <= 10


def test_gif_repeats_for_ever_and_shows_still_frames(tmp_path: Path) -> None:
    """Equal frames keep their time, and the animation loops."""
    write(tmp_path / "a.gif", iter([np.full((48, 64, 3), 99, np.uint8)] * 10))
    with PilImage.open(tmp_path / "a.gif") as gif:
        assert gif.info["loop"] == 0
    assert sum(gif_durations_ms(tmp_path / "a.gif")) == 1000


def test_gif_is_at_most_480_wide(tmp_path: Path) -> None:
    """Proportions are kept."""
    write(tmp_path / "a.gif", numbered(3, width=960, height=640))
    with PilImage.open(tmp_path / "a.gif") as gif:
        assert gif.size == (480, 320)


UNEVEN_MS = [40, 30, 130, 10, 50, 240, 33, 1034, 50, 500]


@pytest.mark.parametrize("suffix", ["mp4", "webm"])
@pytest.mark.parametrize("lasting_ms", [UNEVEN_MS, [33] * 20 + [67] * 10, [2000], [5, 5, 1, 3000]])
def test_frames_have_times_of_their_own(tmp_path: Path, suffix: str, lasting_ms: list[int]) -> None:
    """Each is shown for as long as was asked, the last one too."""
    path = tmp_path / f"a.{suffix}"
    with VideoWriter(path) as video:
        for image, lasts in zip(numbered(len(lasting_ms)), lasting_ms, strict=True):
            video.write(image, Fraction(lasts, 1000))
    with av.open(str(path)) as container:
        assert container.duration == pytest.approx(1000 * sum(lasting_ms), abs=1000)
        times = [frame.time for frame in container.decode(video=0)]
    starts = [sum(lasting_ms[:i]) / 1000 for i in range(len(lasting_ms))]
    assert times == pytest.approx(starts, abs=0.001)


def test_a_gif_of_uneven_frames(tmp_path: Path) -> None:
    """Those that come within a tenth of a second are left out; the whole lasts as long."""
    with VideoWriter(tmp_path / "a.gif") as video:
        for image, lasts in zip(numbered(len(UNEVEN_MS)), UNEVEN_MS, strict=True):
            video.write(image, Fraction(lasts, 1000))
    durations = gif_durations_ms(tmp_path / "a.gif")
    assert len(durations) == 4
    assert durations[:2] == [200, 300]
    assert sum(durations) == pytest.approx(sum(UNEVEN_MS), abs=10)


def test_a_frame_needs_a_time(tmp_path: Path) -> None:
    """Without a rate each frame says how long it lasts."""
    video = VideoWriter(tmp_path / "a.mp4")
    for lasts in (None, Fraction(0), Fraction(-1)):
        with pytest.raises(ValueError, match="expected a time, as there is no fps"):
            video.write(next(numbered(1)), lasts)


@pytest.mark.parametrize(
    ("times", "before", "lasting"),
    [
        ([0, 0.5, 0.6, 0.7], 0, [0.5, 0.1, 0.1, 0.1]),
        ([1.0, 1.1], 10, [1.1, 0.1]),  # ten frames before them were lost
        ([1.6e9, 1.6e9 + 0.1], 7, [0.1, 0.1]),  # since 1970
        ([3.0], 0, [0.1]),
        ([0, 0, 0.1], 0, None),
        ([0, 0.2, 0.1], 0, None),
        ([0, None, 0.1], 0, None),
        ([], 0, None),
    ],
)
def test_pace(times: list[float | None], before: int, lasting: list[float] | None) -> None:
    """A frame lasts until the next one; times that do not increase say nothing."""
    found = pace_of(times, before)
    assert found == (None if lasting is None else [Fraction(str(one)) for one in lasting])


@pytest.mark.parametrize(("count", "size"), [(30, 160), (8, 480)])
def test_gif_stays_below_its_bound(tmp_path: Path, count: int, size: int) -> None:
    """Even noise is brought below the limit, and the time stays right."""
    path = tmp_path / "a.gif"
    write(path, noise(count, size), gif_bytes_max=300_000)
    assert 100_000 < path.stat().st_size <= 300_000
    assert sum(gif_durations_ms(path)) == pytest.approx(100 * count, abs=10)


def test_gif_keeps_class_colours_exactly(tmp_path: Path) -> None:
    """Box and label colours stand in the palette as they are, photos around or not."""
    frames = list(noise(3, 96))
    for frame in frames:
        frame[20:60, 20:60] = (230, 159, 0)
    write(tmp_path / "a.gif", iter(frames))
    with PilImage.open(tmp_path / "a.gif") as gif:
        inner = np.array(gif.convert("RGB"))[30:50, 30:50]
    assert (inner == (230, 159, 0)).all()
