"""Videos as people have them: covers, damage, cuts, edit lists, many containers, uneven times."""

import os
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from small_videos import (
    damage_packet,
    garbled,
    picture,
    read_all,
    seconds_of,
    split,
    write_video,
    zeroed,
)

UNEVEN_MS = [0, 40, 70, 200, 210, 260, 500, 533, 566, 1600, 1650, 1700]


def write_streams(path: Path, *streams: tuple[str, int, int, int]) -> Path:
    """A video of several streams: codec, width, pictures, disposition."""
    with av.open(str(path), "w") as container:
        opened = []
        for codec, width, count, disposition in streams:
            stream = container.add_stream(codec, rate=10)
            stream.width, stream.height = width, 48
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            stream.disposition = disposition
            opened.append((stream, count))
        for stream, count in opened:
            for i in range(count):
                image = np.full((48, stream.width, 3), 20 * i, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())
    return path


COVER = Disposition.attached_pic.value
PREFERRED = Disposition.default.value


@pytest.mark.parametrize(
    ("suffix", "streams"),
    [
        ("mp4", [("mjpeg", 32, 1, COVER), ("mpeg4", 64, 9, PREFERRED)]),
        ("mov", [("mjpeg", 128, 1, PREFERRED), ("mpeg4", 64, 9, 0)]),
        ("mp4", [("mpeg4", 64, 9, PREFERRED), ("mjpeg", 128, 1, COVER)]),
    ],
)
def test_the_moving_picture_is_read(tmp_path: Path, suffix: str, streams: list) -> None:
    """Not the cover before it, whether it is marked as one or has one picture."""
    good, bad = split(read_all(write_streams(tmp_path / f"a.{suffix}", *streams)))
    assert len(good) == 9
    assert bad == []
    assert {r.frame.size_wh for r in good if r.frame} == {(64, 48)}


@pytest.mark.parametrize(
    ("streams", "width"),
    [
        ([("mpeg4", 32, 3, PREFERRED), ("mpeg4", 64, 12, 0)], 64),  # a preview stands before it
        ([("mpeg4", 32, 12, 0), ("mpeg4", 64, 12, PREFERRED)], 64),
        ([("mpeg4", 96, 12, PREFERRED), ("mpeg4", 64, 12, PREFERRED)], 96),
    ],
)
def test_a_second_moving_picture_is_told(tmp_path: Path, streams: list, width: int) -> None:
    """The longest is read, then the default, then the largest; the other is a bad record."""
    good, bad = split(read_all(write_streams(tmp_path / "a.mp4", *streams)))
    assert {r.frame.size_wh for r in good if r.frame} == {(width, 48)}
    ((index, reason, detail),) = bad
    assert (index, reason) == (12, "unread-stream")
    assert f"a.mp4 has 2 moving pictures: stream {[s[1] for s in streams].index(width)} " in detail
    assert "ffmpeg -i IN -map 0:" in detail


@pytest.mark.parametrize(
    ("name", "codec", "packet", "harm", "lost"),
    [
        ("a.mp4", "libx264", 13, zeroed, (13, 20)),
        ("a.mp4", "libx264", 13, garbled, (13, 20)),
        ("a.mp4", "libx264", 20, zeroed, (20, 30)),
        ("a.mp4", "libx264", 0, zeroed, (0, 10)),
        ("a.mp4", "libx264", 39, zeroed, (39, 40)),
        ("a.mkv", "libx264", 13, zeroed, (13, 20)),
        ("a.flv", "libx264", 13, zeroed, (13, 20)),
        ("a.webm", "libvpx", 13, zeroed, (13, 20)),
        ("a.avi", "mjpeg", 13, garbled, (13, 14)),
        ("a.avi", "mpeg4", 13, zeroed, (13, 20)),
        ("a.mp4", "libx264", 13, zeroed, None),
        ("a.mkv", "mpeg4", 13, garbled, None),
        ("a.mkv", "mpeg2video", 13, zeroed, (13, 20)),
    ],
)
def test_a_bad_packet_costs_what_it_damages(
    tmp_path: Path,
    name: str,
    codec: str,
    packet: int,
    harm: Callable[[bytes], bytes],
    lost: tuple[int, int] | None,
) -> None:
    """One bad record, up to the next key frame; all other frames as they were, at their times."""
    path = write_video(tmp_path / name, codec, b_frames=0 if lost else 2)
    clean = {r.index: (r.raw, r.frame.timestamp_us) for r in read_all(path) if r.frame}
    hurt = damage_packet(path, packet, harm)
    path.unlink()
    good, bad = split(read_all(hurt))
    assert len(clean) == 40
    ((index, reason, detail),) = bad
    assert reason == "damaged-video"
    assert all(clean[r.index] == (r.raw, r.frame.timestamp_us) for r in good if r.frame)
    if lost is None:  # where frames are reordered it begins within a few of the packet
        assert 8 < index < 18
        assert {*range(10), *range(22, 40)} <= {r.index for r in good}
        return
    first, end = lost
    assert index == first
    assert [r.index for r in good] == [i for i in range(40) if not first <= i < end]
    span = f"frame {first} from" if end - first == 1 else f"frames {first} to {end - 1} from"
    assert f"hurt.{name[2:]}, {span} {first / 20:.3f} s on: " in detail


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs 2 cores"
)
def test_a_flipped_bit_costs_the_same_on_any_number_of_cores(tmp_path: Path) -> None:
    """What is sound, what is damaged and why, to the byte; several threads differed."""
    draw = np.random.default_rng(12)
    path, cores = write_video(tmp_path / "a.mp4", b_frames=2), os.sched_getaffinity(0)

    def flipped(payload: bytes) -> bytes:
        place, bit = int(draw.integers(6, len(payload))), int(draw.integers(8))
        changed = bytearray(payload)
        changed[place] ^= 1 << bit
        return bytes(changed)

    def told(hurt: Path) -> list[tuple[int, str, bytes]]:
        return [
            (one.index, one.error.detail, b"") if one.error else (one.index, "", one.raw)
            for one in read_all(hurt)
        ]

    damaged = 0
    for number in range(1, 39):
        hurt = damage_packet(path, number, flipped)
        on_all = told(hurt)
        try:
            os.sched_setaffinity(0, {min(cores)})
            assert told(hurt) == on_all, number
        finally:
            os.sched_setaffinity(0, cores)
        damaged += any(detail for _, detail, _ in on_all)
    assert damaged > 10


def test_every_kind_of_damage_is_told_apart(tmp_path: Path) -> None:
    """Two damaged groups are two bad records, and all between them is read."""
    hurt = damage_packet(write_video(tmp_path / "a.mp4"), 3, zeroed)
    twice = damage_packet(hurt.rename(tmp_path / "b.mp4"), 25, garbled)
    good, bad = split(read_all(twice))
    assert [(index, reason) for index, reason, _ in bad] == [
        (3, "damaged-video"),
        (25, "damaged-video"),
    ]
    assert [r.index for r in good] == [*range(3), *range(10, 25), *range(30, 40)]
    assert bad[0][2].endswith("is left out, up to the next key frame")


def test_reading_may_begin_behind_damage(tmp_path: Path) -> None:
    """A resumed run meets the same frames under the same numbers."""
    from urbandet_ray.records.sources import list_sources, read_source
    from urbandet_ray.storage import Storage

    hurt = damage_packet(write_video(tmp_path / "a.mp4"), 13, zeroed)
    (source,) = list_sources(str(hurt), Storage())
    whole = list(read_source(source, Storage()))
    for first in (5, 13, 14, 20, 33):
        later = list(read_source(source, Storage(), first_index=first, offset=first))
        expected = [(r.index, r.raw) for r in whole if r.index >= first]
        assert [(r.index, r.raw) for r in later] == expected


def test_a_recording_that_begins_between_key_frames(tmp_path: Path) -> None:
    """What cannot be decoded before the first key frame is one bad record."""
    whole = write_video(tmp_path / "a.ts")
    with av.open(str(whole)) as container:
        at = [one.pos for one in container.demux(video=0) if one.size][4]
    header = whole.read_bytes()[: 3 * 188]
    (tmp_path / "b.ts").write_bytes(header + whole.read_bytes()[at:])
    good, bad = split(read_all(tmp_path / "b.ts"))
    assert len(good) == 30
    ((index, reason, detail),) = bad
    assert (index, reason) == (0, "damaged-video")
    assert "without a key frame" in detail


@pytest.mark.parametrize(
    ("name", "share"), [("a.mp4", 0.6), ("a.mkv", 0.6), ("a.avi", 0.75), ("a.3gp", 0.8)]
)
def test_a_cut_video_is_told_once(tmp_path: Path, name: str, share: float) -> None:
    """The frames before the cut, and one bad record with where it ends."""
    codec = "libx264" if name in ("a.mp4", "a.mkv") else "mpeg4"
    index_first = {} if name in ("a.mkv", "a.avi") else {"movflags": "+faststart"}
    whole = write_video(tmp_path / name, codec, count=80, muxer=index_first)
    cut = tmp_path / f"cut{whole.suffix}"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
    good, bad = split(read_all(cut))
    assert 5 < len(good) < 75
    ((index, reason, detail),) = bad
    assert (index, reason) == (len(good), "truncated-video")
    assert f"ends after {len(good)} frames" in detail
    assert "header says" in detail


def trimmed(path: Path, skip_ms: int, length_ms: int) -> Path:
    """The video with an edit list that plays a part of it (ISO/IEC 14496-12, elst)."""
    data = bytearray(path.read_bytes())
    entry = data.index(b"elst") + 4 + 8
    assert data[entry - 4 : entry] == bytes([0, 0, 0, 1])
    start = struct.unpack(">i", data[entry + 4 : entry + 8])[0]
    with av.open(str(path)) as container:
        base = container.streams.video[0].time_base
    assert base is not None
    skipped = round(Fraction(skip_ms, 1000) / base)
    data[entry : entry + 8] = struct.pack(">Ii", length_ms, start + skipped)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("skip_ms", "length_ms", "frames"), [(0, 1000, 20), (550, 1000, 20), (1000, 1000, 20)]
)
def test_edit_lists_are_honoured(tmp_path: Path, skip_ms: int, length_ms: int, frames: int) -> None:
    """As a telephone trims: what it left out is not read, and not called missing."""
    good, bad = split(read_all(trimmed(write_video(tmp_path / "a.mp4"), skip_ms, length_ms)))
    assert bad == []
    assert abs(len(good) - frames) <= 1
    first = good[0].frame
    assert first is not None
    image = np.frombuffer(first.encoded, np.uint8).reshape(48, 64, 3)
    bar = [one[8:40].mean(axis=(0, 2)) > 180 for one in (image, picture(skip_ms // 50))]
    np.testing.assert_array_equal(*bar)
    assert seconds_of(good)[0] == 0


CONTAINERS = {
    "3g2": "mpeg4", "3gp": "mpeg4", "asf": "mpeg4", "avi": "mpeg4", "flv": "flv",
    "m2ts": "mpeg2video", "m2v": "mpeg2video", "m4v": "libx264", "mkv": "libx264",
    "mov": "mpeg4", "mp4": "libx264",
    "mpeg": "mpeg2video", "mpg": "mpeg2video", "mts": "libx264", "nut": "mpeg4", "ts": "libx264",
    "vob": "mpeg2video", "webm": "libvpx", "wmv": "wmv2", "h264": "libx264", "mjpeg": "mjpeg",
    "MP4": "libx264", "MTS": "mpeg2video",
}  # fmt: skip


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_container_kinds(tmp_path: Path, suffix: str) -> None:
    """Each is found by its ending and read whole, in order, at its pace."""
    path = write_video(tmp_path / f"clip.{suffix}", CONTAINERS[suffix], count=25)
    good, bad = split(read_all(path))
    assert (len(good), bad) == (25, [])
    assert {r.frame.segment for r in good if r.frame} == {"clip"}
    seconds = seconds_of(good)
    assert seconds[0] == 0
    if suffix not in ("m2v", "h264", "mjpeg"):  # these hold no times
        np.testing.assert_allclose(np.diff(seconds), 0.05, atol=0.002)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.mov"])
def test_uneven_times_are_kept(tmp_path: Path, name: str) -> None:
    """A telephone's frames come when there is light enough for them."""
    good, bad = split(read_all(write_video(tmp_path / name, times_ms=UNEVEN_MS)))
    assert bad == []
    np.testing.assert_allclose(np.array(seconds_of(good)) * 1000, UNEVEN_MS, atol=1)


def test_joined_recordings_go_on(tmp_path: Path) -> None:
    """MPEG-TS files copied behind each other: the clock begins again, their times do not."""
    whole = write_video(tmp_path / "a.ts").read_bytes()
    (tmp_path / "b.ts").write_bytes(whole + whole)
    good, _ = split(read_all(tmp_path / "b.ts"))
    assert len(good) >= 79
    steps = np.diff(seconds_of(good))
    assert steps.min() > 0
    assert steps.max() < 0.2
