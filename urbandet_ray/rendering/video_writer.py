"""Write frames into an MP4, WebM or GIF as they come; the video is never in memory as a whole."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Protocol, cast, get_args

import numpy as np

from urbandet_ray.errors import ConfigError, InputError, StorageError
from urbandet_ray.frames import Image
from urbandet_ray.rendering.labels_text import check_image

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

Format = Literal["mp4", "webm", "gif"]
FORMATS: tuple[Format, ...] = get_args(Format)
PRESETS = (
    "ultrafast",
    "superfast",
    "veryfast",
    "faster",
    "fast",
    "medium",
    "slow",
    "slower",
    "veryslow",
)
CRF_MAX = {"mp4": 51, "webm": 63, "gif": 0}
GIF_BYTES_LEAST = 100_000
_TICK_S = Fraction(1, 90_000)
"""Unit of the times of uneven frames: 24, 25, 30, 29.97 and 60 frames a second are whole in it."""
_USUAL_FPS = 30
_MACROBLOCK = 16  # pixels, ITU-T H.264
_CV_CPU_AVX512_SKX = 256  # OpenCV's core/cvdef.h; Python has no name for it
_BT709 = 1  # the number of BT.709 in ISO/IEC 23091-2 for primaries, transfer and matrix alike


class _Encoder(Protocol):
    """What turns frames of one size into a file."""

    def write(self, image: Image, start_s: Fraction, lasts_s: Fraction) -> None: ...
    def finish(self) -> None: ...
    def abort(self) -> None: ...


class VideoWriter:
    """An open video file: a context manager that leaves the whole video or nothing.

        with VideoWriter(Path("drive.mp4"), fps=10) as video:
            for image in images:
                video.write(image)

    Frames go to a hidden file beside `path`, renamed at `close`; an exception inside the block
    removes it. The first frame sets the size; later ones of another size are fitted into it with
    black bars. The same frames and options give the same bytes.

    Without `fps` each frame says how long it lasts, so that a video of any pace can be written.
    """

    def __init__(
        self,
        path: Path,
        *,
        fps: float | None = None,
        format: Format | None = None,
        crf: int | None = None,
        preset: str = "veryfast",
        threads: int = 2,
        gif_bytes_max: int = 8_000_000,
    ) -> None:
        """Check the options; the file is opened at the first frame.

        Args:
            path: where the video shall be; missing folders are made.
            fps: frames a second, above 0; None where each frame has a time of its own.
            format: by default what the suffix of `path` says.
            crf: quality, lower is better and bigger; 20 for MP4 and 30 for WebM by default.
            preset: x264's preset (MP4 only): faster ones make bigger files.
            threads: encoder threads, at least 1. Other numbers may give other bytes.
            gif_bytes_max: a GIF is made smaller, then slower, until it fits.

        Raises:
            ConfigError: an unknown format, or an option out of its range.
        """
        self.path = Path(path)
        self.format = format or _format_of(self.path)
        _check_options(self.format, fps, crf, preset, threads)
        self.fps = None if fps is None else Fraction(fps).limit_denominator(1001)
        self.crf, self.preset, self.threads = crf, preset, threads
        if gif_bytes_max < GIF_BYTES_LEAST:
            raise ConfigError(
                f"gif_bytes_max is {gif_bytes_max}: expected at least {GIF_BYTES_LEAST}"
            )
        self.gif_bytes_max = gif_bytes_max
        self.frames_written = 0
        self.seconds = Fraction(0)
        self.size_wh: tuple[int, int] | None = None
        self._partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        self._encoder: _Encoder | None = None
        self._closed = False

    def write(self, image: Image, lasts_s: Fraction | None = None) -> None:
        """Append a frame, [height, width, 3] uint8 RGB.

        Args:
            image: the frame.
            lasts_s: how long it is shown, above 0; of a video with `fps` that rate says it.

        Raises:
            ValueError: not such an image, no time of its own, or the video is closed.
            ConfigError: the encoder does not take the options.
            StorageError: the file cannot be written.
        """
        if self._closed:
            raise ValueError(f"{self.path} is closed: open a new VideoWriter")
        size_wh = check_image(image)
        lasts_s = 1 / self.fps if self.fps is not None else lasts_s
        if lasts_s is None or lasts_s <= 0:
            raise ValueError(f"a frame lasts {lasts_s} s: expected a time, as there is no fps")
        with self._guard():
            if self._encoder is None:
                self.size_wh = size_wh
                self._encoder = self._open(size_wh)
            if size_wh != self.size_wh and self.size_wh is not None:
                image = letterbox(image, self.size_wh)
            self._encoder.write(image, self.seconds, lasts_s)
        self.frames_written += 1
        self.seconds += lasts_s

    def close(self) -> None:
        """Finish the file and give it its name. Closing twice does nothing.

        Raises:
            InputError: no frame was written.
            StorageError: the file cannot be written.
        """
        if self._closed:
            return
        if self._encoder is None:
            self._closed = True
            raise InputError(f"no frame to write into {self.path}: the video needs at least one")
        with self._guard():
            self._encoder.finish()
            self._partial.replace(self.path)
        self._closed = True

    def abort(self) -> None:
        """Drop the video; nothing is left behind. Does nothing after `close`."""
        if self._closed:
            return
        self._closed = True
        if self._encoder is not None:
            with contextlib.suppress(Exception):  # the error that led here is the one to report
                self._encoder.abort()
        with contextlib.suppress(OSError):
            self._partial.unlink()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _open(self, size_wh: tuple[int, int]) -> _Encoder:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.format == "gif":
            from urbandet_ray.rendering.gif import GifEncoder

            return GifEncoder(self._partial, bytes_max=self.gif_bytes_max)
        options = _x264_options(self, size_wh[0]) if self.format == "mp4" else _vp9_options(self)
        return _StreamEncoder(self._partial, size_wh, self.fps, self.threads, options)

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        """Drop the file on any error; name the file in those of the disk and the encoder."""
        from av.error import FFmpegError

        try:
            yield
        except (OSError, FFmpegError) as error:
            self.abort()
            raise StorageError(f"cannot write {self.path}: {error}") from error
        except BaseException:
            self.abort()
            raise


class _StreamEncoder:
    """H.264 in MP4 or VP9 in WebM: a frame in, its packets on disk, nothing kept but lookahead."""

    def __init__(
        self,
        partial: Path,
        size_wh: tuple[int, int],
        fps: Fraction | None,
        threads: int,
        options: _CodecOptions,
    ) -> None:
        import av
        from av.video.reformatter import ColorRange

        self._even_wh = (size_wh[0] + size_wh[0] % 2, size_wh[1] + size_wh[1] % 2)
        self._is_even = fps is not None
        self._tick_s = _TICK_S if fps is None else 1 / fps
        self._next_pts = 0
        self._lasting: dict[int, int] = {}
        """By time stamp, in ticks: of the frames that the encoder holds."""
        self._container: OutputContainer = av.open(
            str(partial), "w", format=options.container, options=options.muxer
        )
        stream = cast(
            "VideoStream",
            self._container.add_stream(
                options.codec, rate=fps or _USUAL_FPS, options=options.encoder
            ),
        )
        stream.width, stream.height = self._even_wh
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.thread_count = threads
        context.time_base = self._tick_s
        if not self._is_even:
            context.max_b_frames = 0  # decoded as shown: MP4 counts time as frames are decoded
        context.color_range = ColorRange.MPEG
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        self._stream = stream

    def write(self, image: Image, start_s: Fraction, lasts_s: Fraction) -> None:
        """Encode one frame; odd sizes get their last row or column twice."""
        import av
        from av.video.reformatter import Colorspace

        height, width = image.shape[:2]
        odd = (self._even_wh[0] - width, self._even_wh[1] - height)
        if any(odd):
            image = np.pad(image, ((0, odd[1]), (0, odd[0]), (0, 0)), mode="edge")
        rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame = rgb.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, threads=1)
        frame.pts = max(round(start_s / self._tick_s), self._next_pts)
        frame.time_base = self._stream.codec_context.time_base
        self._next_pts = frame.pts + 1
        self._lasting[frame.pts] = round((start_s + lasts_s) / self._tick_s) - frame.pts
        self._mux(frame)

    def finish(self) -> None:
        """Write what the encoder still holds, and the index."""
        self._mux(None)
        self._container.close()

    def _mux(self, frame: VideoFrame | None) -> None:
        for packet in self._stream.encode(frame):
            lasts = self._lasting.pop(packet.pts, 0) if packet.pts is not None else 0
            if not self._is_even and lasts > 0:  # else the last frame lasts for a tick
                packet.duration = lasts
            self._container.mux(packet)

    def abort(self) -> None:
        """Close the file as it is."""
        self._container.close()


@dataclass(frozen=True)
class _CodecOptions:
    container: str
    codec: str
    encoder: dict[str, str]
    muxer: dict[str, str]


def _x264_options(video: VideoWriter, width: int) -> _CodecOptions:
    import cv2

    crf = 20 if video.crf is None else video.crf
    encoder = {"crf": str(crf), "preset": video.preset}
    # x264's AVX-512 code for macroblock-tree rate control goes 8 macroblocks at a time, and in a
    # row of another length reads motion vectors past its end: the bytes depend on what lies there.
    # AVX2 costs 5% more time.
    if -(-width // _MACROBLOCK) % 8 and cv2.checkHardwareSupport(_CV_CPU_AVX512_SKX):
        encoder["x264-params"] = "asm=avx2"
    # The index first: a browser starts before the download ends.
    return _CodecOptions("mp4", "libx264", encoder, {"movflags": "+faststart"})


def _vp9_options(video: VideoWriter) -> _CodecOptions:
    crf = 30 if video.crf is None else video.crf
    # "realtime" 7 costs a fifth of "good" 5 at the same PSNR on driving scenes (35.6 and 35.4 dB).
    speed = {"deadline": "realtime", "cpu-used": "7", "row-mt": "1"}
    return _CodecOptions(
        "webm", "libvpx-vp9", {"crf": str(crf), "b": "0", **speed}, {"fflags": "+bitexact"}
    )


def letterbox(image: Image, size_wh: tuple[int, int]) -> Image:
    """Fit an image into a size, its proportions kept, with black bars around it."""
    import cv2

    height, width = image.shape[:2]
    scale = min(size_wh[0] / width, size_wh[1] / height)
    inner_wh = (max(1, round(width * scale)), max(1, round(height * scale)))
    fitted = cv2.resize(
        image, inner_wh, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    )
    canvas = np.zeros((size_wh[1], size_wh[0], 3), np.uint8)
    x, y = (size_wh[0] - inner_wh[0]) // 2, (size_wh[1] - inner_wh[1]) // 2
    canvas[y : y + inner_wh[1], x : x + inner_wh[0]] = fitted
    return canvas


def _format_of(path: Path) -> Format:
    for known in FORMATS:
        if path.suffix.lower() == f".{known}":
            return known
    raise ConfigError(
        f"cannot tell the video format from {path.name!r}: end it in .mp4, .webm or .gif, "
        "or name the format"
    )


def _check_options(
    format: str, fps: float | None, crf: int | None, preset: str, threads: int
) -> None:
    if format not in FORMATS:
        raise ConfigError(f"video format {format!r}: expected one of {', '.join(FORMATS)}")
    if fps is not None and not 0 < fps <= 1000:
        raise ConfigError(f"video fps is {fps}: expected above 0 and at most 1000")
    if crf is not None and not 0 <= crf <= CRF_MAX[format]:
        raise ConfigError(f"crf is {crf}: expected 0 to {CRF_MAX[format]} for {format}")
    if preset not in PRESETS:
        raise ConfigError(f"preset {preset!r}: expected one of {', '.join(PRESETS)}")
    if threads < 1:
        raise ConfigError(f"video threads is {threads}: expected at least 1")
