"""Small videos in many formats, and damage done to them."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from urbandet_ray.frames import Image
from urbandet_ray.records.source import Record
from urbandet_ray.records.sources import list_sources, read_source
from urbandet_ray.storage import Storage

STORAGE = Storage()
WIDTH, HEIGHT = 64, 48


def picture(index: int) -> Image:
    """A noisy picture whose bright bar moves by 2 px a frame."""
    image = np.random.default_rng(5).integers(40, 120, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    at = 2 * index % (WIDTH - 8)
    image[8:40, at : at + 8] = 240
    return image


def write_video(
    path: Path,
    codec: str = "libx264",
    *,
    times_ms: list[int] | None = None,
    count: int = 40,
    group: int = 10,
    b_frames: int = 0,
    muxer: dict[str, str] | None = None,
) -> Path:
    """A video of `count` pictures, a key frame every `group`; 20 a second where no times are given.

    x264 makes one thread's bytes, so that tests see the same file everywhere.
    """
    times_ms = times_ms or [50 * i for i in range(count)]
    container_format = "mpegts" if path.suffix in (".mts", ".m2ts") else None
    with av.open(str(path), "w", format=container_format, options=muxer or {}) as container:
        options = {"sc_threshold": "0"} if codec == "libx264" else {}
        stream = container.add_stream(codec, rate=20, options=options)
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        context = stream.codec_context
        context.gop_size, context.max_b_frames, context.thread_count = group, b_frames, 1
        unit_ms = 1 if codec in ("libx264", "libvpx") else 50
        context.time_base = Fraction(unit_ms, 1000)
        for index, time_ms in enumerate(times_ms):
            frame = av.VideoFrame.from_ndarray(picture(index), format="rgb24")
            frame.pts, frame.time_base = time_ms // unit_ms, context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def damage_packet(path: Path, number: int, harm: Callable[[bytes], bytes]) -> Path:
    """The video with its `number`-th packet's payload changed; where it lies, the data says."""
    with av.open(str(path)) as container:
        packets = [bytes(one) for one in container.demux(video=0) if one.size]
    data = path.read_bytes()
    at = data.index(packets[number])
    assert data.count(packets[number]) == 1
    end = at + len(packets[number])
    hurt = path.with_name(f"hurt{path.suffix}")
    hurt.write_bytes(data[:at] + harm(data[at:end]) + data[end:])
    return hurt


def zeroed(payload: bytes) -> bytes:
    """As a bad sector leaves it."""
    return bytes(len(payload))


def garbled(payload: bytes) -> bytes:
    """As another file's sector."""
    return bytes((i * 89 + 7) % 251 for i in range(len(payload)))


def read_all(path: Path) -> list[Record]:
    """All records of the sources at a path."""
    sources = list_sources(str(path), STORAGE)
    return [record for source in sources for record in read_source(source, STORAGE)]


def split(records: list[Record]) -> tuple[list[Record], list[tuple[int, str, str]]]:
    """The sound ones, and index, reason and detail of the others."""
    bad = [(r.index, r.error.reason, r.error.detail) for r in records if r.error is not None]
    return [r for r in records if r.frame is not None], bad


def seconds_of(records: list[Record]) -> list[float]:
    """Times of the sound ones."""
    return [
        r.frame.timestamp_us / 1e6
        for r in records
        if r.frame is not None and r.frame.timestamp_us is not None
    ]
