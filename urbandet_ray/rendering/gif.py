"""Animated GIF of bounded size: one palette for the whole clip, frames spooled on disk.

A palette can be chosen only when all frames are known, so reduced frames wait in a temporary file.
One palette for all frames, a dither pattern that stands still and pixels that are repainted
only when they really changed keep flat areas from shimmering, and the file small.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.frames import Image
from urbandet_ray.rendering.palette import BLACK, INK, OKABE_ITO, WHITE

WIDTH_MAX = 480
FPS_MAX = 10
WIDTH_KEPT = 240
"""Below this width frames are left out rather than made still smaller."""
DRAWN = (*OKABE_ITO, BLACK, WHITE, INK)
"""Colours of boxes and labels: in every palette, first, and never dithered."""
SAMPLES = 128
PALETTE_PIXELS = 40_000
HOLD = 7
"""A pixel is repainted when a channel differs by more than this (of 255) from what it shows."""
DITHER = 4.0
"""Height of the ordered dither pattern, in steps of 255."""


class GifEncoder:
    """Collects frames of one size; `finish` chooses the palette and writes the file."""

    def __init__(self, path: Path, *, bytes_max: int) -> None:
        """Open the spool.

        Args:
            path: the GIF to write.
            bytes_max: the file is made smaller, then slower, until it fits.
        """
        self._path, self._bytes_max = path, bytes_max
        self._starts_s: list[Fraction] = []
        """When each spooled frame is shown."""
        self._end_s = Fraction(0)
        self._spool = tempfile.TemporaryFile()  # noqa: SIM115 - closed by finish and abort
        self._spans: list[tuple[int, int]] = []

    def write(self, image: Image, start_s: Fraction, lasts_s: Fraction) -> None:
        """Spool a frame, reduced, unless it comes too soon for a GIF's frame rate."""
        import simplejpeg

        if not self._starts_s or start_s - self._starts_s[-1] >= Fraction(1, FPS_MAX):
            self._starts_s.append(start_s)
            reduced = _fit_width(image, min(WIDTH_MAX, image.shape[1]))
            encoded = simplejpeg.encode_jpeg(
                np.ascontiguousarray(reduced), quality=95, colorsubsampling="444"
            )
            self._spans.append((self._spool.seek(0, os.SEEK_END), len(encoded)))
            self._spool.write(encoded)
        self._end_s = start_s + lasts_s

    def finish(self) -> None:
        """Write the file, again and smaller while it is above the limit."""
        sampled = range(0, len(self._spans), math.ceil(len(self._spans) / SAMPLES))
        each = PALETTE_PIXELS // len(sampled)
        pixels = np.concatenate([_some_pixels(self._frame(i), each) for i in sampled])
        table = _colour_table(choose_palette(pixels))
        width, every = self._frame(0).shape[1], 1
        while (size_bytes := self._encode(table, width, every)) > self._bytes_max:
            width, every = _smaller(width, every, self._bytes_max / size_bytes, len(self._spans))
        self._spool.close()

    def abort(self) -> None:
        """Drop the spooled frames."""
        self._spool.close()

    def _frame(self, i: int) -> Image:
        import simplejpeg

        start, length = self._spans[i]
        self._spool.seek(start)
        image: Image = simplejpeg.decode_jpeg(self._spool.read(length))
        return image

    def _encode(self, table: _ColourTable, width: int, every: int) -> int:
        """Write every n-th spooled frame; stop early once over the limit.

        Returns:
            The size in bytes, projected to all frames where it stopped early.
        """
        import av

        shown = range(0, len(self._spans), every)
        starts_cs = [round(100 * self._starts_s[i]) for i in shown]
        last_cs = max(2, round(100 * self._end_s) - starts_cs[-1])
        size_bytes = 0
        images = (_fit_width(self._frame(i), width) for i in shown)
        with av.open(
            str(self._path), "w", format="gif", options={"final_delay": str(last_cs)}
        ) as container:
            stream = None
            for done, (indices, start_cs) in enumerate(
                zip(table.index_frames(images), starts_cs, strict=True), start=1
            ):
                if stream is None:
                    stream = container.add_stream("gif", rate=100)
                    stream.height, stream.width = indices.shape
                    stream.pix_fmt = "pal8"
                    stream.codec_context.time_base = Fraction(1, 100)
                # PyAV's stubs leave out the pair it documents for pal8.
                pair: Any = (indices, table.palette_argb)
                frame = av.VideoFrame.from_ndarray(pair, format="pal8")
                frame.pts, frame.time_base = start_cs, Fraction(1, 100)
                for packet in stream.encode(frame):
                    size_bytes += packet.size
                    container.mux(packet)
                projected = size_bytes * len(shown) // done
                if size_bytes > self._bytes_max or self._hopeless(projected, done, len(shown)):
                    return projected
            if stream is not None:
                container.mux(stream.encode(None))
        return self._path.stat().st_size

    def _hopeless(self, projected: int, done: int, frames: int) -> bool:
        return done >= max(12, frames // 6) and projected > 1.4 * self._bytes_max


def choose_palette(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """255 colours for a clip: the drawing's, exactly, and the clip's own, rare ones included.

    Args:
        pixels: [n, 3] uint8 RGB from all over the clip.

    Returns:
        [255, 3] uint8; short clips of few colours repeat the last one.
    """
    from PIL import Image as PilImage

    drawn = np.array(DRAWN, np.uint8)
    free = 255 - len(drawn)
    quantized = PilImage.fromarray(pixels[None]).quantize(
        colors=free, method=PilImage.Quantize.MAXCOVERAGE, kmeans=1
    )
    found = np.array(quantized.getpalette(), np.uint8).reshape(-1, 3)[:free]
    # A near-copy, from the spool's JPEG noise, would take the place of the colour itself.
    apart = np.abs(found[:, None].astype(int) - drawn).max(axis=2).min(axis=1) > 8
    palette = np.concatenate([drawn, found[apart]])
    return np.pad(palette, ((0, 255 - len(palette)), (0, 0)), mode="edge")


def _some_pixels(image: Image, count: int) -> NDArray[np.uint8]:
    """About `count` pixels; a prime stride spreads them over all rows and columns."""
    pixels = image.reshape(-1, 3)
    return pixels[:: _prime_from(len(pixels) // count)]


def _prime_from(least: int) -> int:
    """The smallest prime that is at least `least`; 1 for 1 and below."""
    number = max(1, least)
    while any(number % k == 0 for k in range(2, math.isqrt(number) + 1)):
        number += 1
    return number


class _ColourTable:
    """The palette and, for each colour of 6 bits a channel, its nearest entry."""

    def __init__(self, palette: NDArray[np.uint8], nearest: NDArray[np.uint8]) -> None:
        self.nearest = nearest
        # Entry 255 is transparent: the encoder writes it where a pixel stays as it is.
        self.palette_argb = np.zeros((256, 4), np.uint8)
        self.palette_argb[:255, 0] = 255
        self.palette_argb[:255, 1:] = palette

    def index_frames(self, images: Iterator[Image]) -> Iterator[NDArray[np.uint8]]:
        """Palette indices of each frame, pixels held while they hardly change."""
        shown: Image | None = None
        indices = np.zeros((0, 0), np.uint8)
        for image in images:
            fresh = self._indices(image)
            if shown is None:
                shown, indices = image.copy(), fresh
            else:
                changed = _changed(image, shown)
                shown[changed] = image[changed]
                indices = np.where(changed, fresh, indices)
            yield indices

    def _indices(self, image: Image) -> NDArray[np.uint8]:
        pattern = _dither_pattern(image.shape[0], image.shape[1])
        dithered = np.clip(image.astype(np.int16) + pattern[..., None], 0, 255)
        plain = self.nearest[_key(image)]
        return np.where(plain < len(DRAWN), plain, self.nearest[_key(dithered)])


def _key(image: NDArray[np.integer]) -> NDArray[np.int32]:
    """Place of each pixel's colour in the table: six bits a channel, red highest."""
    bits = image.astype(np.int32) >> 2
    key: NDArray[np.int32] = (bits[..., 0] << 12) | (bits[..., 1] << 6) | bits[..., 2]
    return key


def _colour_table(palette: NDArray[np.uint8]) -> _ColourTable:
    steps = (np.arange(64, dtype=np.float32) * 4) + 2
    # Green weighs most and blue least in what the eye takes for a difference.
    weights = np.sqrt(np.array([0.3, 0.59, 0.11], np.float32))
    entries = palette.astype(np.float32) * weights
    nearest = np.empty((64, 64 * 64), np.uint8)
    green, blue = np.meshgrid(steps, steps, indexing="ij")
    for i, red in enumerate(steps):
        colours = np.stack([np.full(4096, red), green.ravel(), blue.ravel()], axis=1) * weights
        distance = (entries**2).sum(axis=1) - 2 * colours @ entries.T
        nearest[i] = distance.argmin(axis=1)
    return _ColourTable(palette, nearest.reshape(-1))


def _changed(image: Image, shown: Image) -> NDArray[np.bool_]:
    import cv2

    changed: NDArray[np.bool_] = cv2.absdiff(image, shown).max(axis=2) > HOLD
    return changed


@lru_cache(maxsize=8)
def _dither_pattern(height: int, width: int) -> NDArray[np.int16]:
    """[height, width] Bayer's 8x8 threshold matrix, repeated, between -DITHER and DITHER."""
    matrix: NDArray[np.float64] = np.zeros((1, 1))
    for _ in range(3):
        matrix = np.block([[4 * matrix, 4 * matrix + 2], [4 * matrix + 3, 4 * matrix + 1]])
    unit = (matrix + 0.5) / 64 - 0.5
    tiled = np.tile(unit, (height // 8 + 1, width // 8 + 1))[:height, :width]
    return np.rint(tiled * 2 * DITHER).astype(np.int16)


def _fit_width(image: Image, width: int) -> Image:
    import cv2

    if width == image.shape[1]:
        return image
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _smaller(width: int, every: int, share: float, frames: int) -> tuple[int, int]:
    """Width and frame step that should bring the size to `share` of what it was."""
    share *= 0.92
    new_width = max(min(WIDTH_KEPT, width), int(width * math.sqrt(share)))
    rest = share / (new_width / width) ** 2
    if rest >= 1:
        return new_width, every
    if every < frames:
        return new_width, math.ceil(every / rest)
    return max(16, width // 2), every
