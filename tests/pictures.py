"""Odd encoded pictures that tests make: JPEGs and PNGs that only strict decoders refuse."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
from PIL import Image as Pillow

from urbandet_ray.frames import Image

PNG_MAGIC_BYTES = 8


def smooth_picture(width: int = 90, height: int = 60, seed: int = 3) -> Image:
    """Noise without hard edges, which no codec distorts much."""
    small = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def saved(image: Any, image_format: str, **settings: Any) -> bytes:
    """What Pillow writes, of an array or of a picture of its own."""
    file = io.BytesIO()
    picture = image if isinstance(image, Pillow.Image) else Pillow.fromarray(image)
    picture.save(file, image_format, **settings)
    return file.getvalue()


def exif_turn(orientation: int) -> bytes:
    """An EXIF block that says how a picture is held."""
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def odd_jpegs(image: Image) -> dict[str, bytes]:
    """JPEGs that TensorFlow, OpenCV and Pillow decode to the pixels of `sound`, among them."""
    sound = saved(image, "JPEG", quality=90)
    scan, frame = sound.index(b"\xff\xda"), sound.index(b"\xff\xc0")
    spectral = scan + 5 + 2 * sound[scan + 4]
    return {
        "sound": sound,
        "stray bytes before the tables": _with(sound, sound.index(b"\xff\xdb"), b"\x01\x02\x03"),
        "stray bytes before the frame": _with(sound, frame, b"\0\0"),
        "stray bytes before the scan": _with(sound, scan, b"abc"),
        "a scan header that ends at 0": sound[: spectral + 1] + b"\0" + sound[spectral + 2 :],
        "a scan header that begins at 1": sound[:spectral] + b"\1" + sound[spectral + 1 :],
        "bytes before the end marker": sound[:-2] + bytes(10) + sound[-2:],
        "a JFIF of version 2.9": sound.replace(b"JFIF\0\1\1", b"JFIF\0\2\x09"),
    }


def odd_pngs(image: Image) -> dict[str, bytes]:
    """PNGs with a wrong checksum where no pixel depends on it; `sound` is among them."""
    sound = saved(image, "PNG")
    header_end = PNG_MAGIC_BYTES + 25
    return {
        "sound": sound,
        "text": _with(sound, header_end, _bad_chunk(b"tEXt", b"Comment\0hello")),
        "size in metres": _with(sound, header_end, _bad_chunk(b"pHYs", bytes(9))),
        "gamma": _with(sound, header_end, _bad_chunk(b"gAMA", struct.pack(">I", 45455))),
        "text at the end": _with(sound, len(sound) - 12, _bad_chunk(b"tEXt", b"a\0b")),
    }


def _bad_chunk(kind: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(kind + body) ^ 1
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def _with(data: bytes, place: int, more: bytes) -> bytes:
    return data[:place] + more + data[place:]
