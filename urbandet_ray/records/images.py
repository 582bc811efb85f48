"""Encoded images to RGB arrays and back: JPEG by libjpeg-turbo, PNG by OpenCV, others by Pillow.

A damaged or cut image is an error where the field's decoders say so. A strict decoder comes first;
what it refuses goes to one that reads as TensorFlow, OpenCV and Pillow do. Whoever asks is told
which images took that second way.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np

from urbandet_ray.errors import RecordError
from urbandet_ray.frames import Frame, Image
from urbandet_ray.records.image_headers import (
    PNG_MAGIC,
    damaged_by_pillow,
    image_size,
    open_with_pillow,
    undecodable,
)
from urbandet_ray.records.orientation import UPRIGHT, size_upright, turned_upright

MAX_PIXELS = 100_000_000

_WIDE = ("I;16", "I;16L", "I;16B", "I;16N")
"""Pillow's modes of 16-bit grey, which it would cut at 255."""


def frame_size(frame: Frame) -> tuple[int, int]:
    """Width and height in pixels of what `decode_frame` makes of a frame, from its header.

    Raises:
        RecordError: undecodable-image: the header is damaged.
    """
    if frame.size_wh is not None:
        return frame.size_wh
    return size_upright(image_size(frame.encoded)[1:], frame.orientation)


def decode_image(
    encoded: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    least_wh: tuple[int, int] | None = None,
    orientation: int = UPRIGHT,
    doubts: list[str] | None = None,
) -> Image:
    """Decode an image of any depth, grey, palette, CMYK or alpha to [h, w, 3] uint8 RGB.

    Of an animation or of several pages it is the first. Alpha is left out.

    Args:
        encoded: the file's bytes: JPEG, PNG, BMP, GIF, WebP or TIFF.
        max_pixels: more are refused.
        least_wh: a JPEG may come smaller, by a factor that libjpeg decodes at (n/8), but not below
            this; None is its own size.
        orientation: EXIF orientation to turn the pixels by; 1 is as they are encoded.
        doubts: gets what the strict decoder said, where it refused and the tolerant one did not.

    Raises:
        RecordError: undecodable-image, or image-too-large by its header, before any allocation.
    """
    image_format, width, height = image_size(encoded)
    _check_pixels(width, height, max_pixels)
    if image_format == "jpeg":
        least = None if least_wh is None else size_upright(least_wh, orientation)
        image = _decode_jpeg(encoded, least, doubts)
    elif image_format == "png":
        image = _decode_png(encoded, doubts)
    else:
        image = _decode_with_pillow(encoded, image_format)
    return turned_upright(image, orientation)


def decode_frame(
    frame: Frame,
    *,
    max_pixels: int = MAX_PIXELS,
    least_wh: tuple[int, int] | None = None,
    doubts: list[str] | None = None,
) -> Image:
    """The frame's image as [h, w, 3] uint8 RGB; a raw frame's is a read-only view of its bytes.

    It is turned by the frame's orientation. See `decode_image`.

    Raises:
        RecordError: undecodable-image or image-too-large.
    """
    if frame.format != "raw":
        return decode_image(
            bytes(frame.encoded),  # of a view, a copy
            max_pixels=max_pixels,
            least_wh=least_wh,
            orientation=frame.orientation,
            doubts=doubts,
        )
    if frame.size_wh is None:
        raise undecodable("a raw frame without its size")
    width, height = frame.size_wh
    _check_pixels(width, height, max_pixels)
    if len(frame.encoded) != width * height * 3:
        raise undecodable(f"{len(frame.encoded)} raw bytes are not {width}x{height} RGB pixels")
    return np.frombuffer(frame.encoded, np.uint8).reshape(height, width, 3)


def encode_jpeg(image: Image, quality: int = 90) -> bytes:
    """Encode [h, w, 3] uint8 RGB as JPEG with 4:2:0 chroma; quality 1 to 100."""
    import simplejpeg

    encoded: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(image), quality=quality, colorspace="RGB", colorsubsampling="420"
    )
    return encoded


def encode_png(image: Image) -> bytes:
    """Encode [h, w, 3] uint8 RGB, or [h, w] grey, as PNG."""
    import cv2

    order = image[..., ::-1] if image.ndim == 3 else image
    done, encoded = cv2.imencode(".png", np.ascontiguousarray(order))
    if not done:
        raise ValueError(f"no PNG from an array of shape {image.shape} {image.dtype}")
    return encoded.tobytes()


def _decode_jpeg(
    encoded: bytes, least_wh: tuple[int, int] | None, doubts: list[str] | None
) -> Image:
    import simplejpeg

    width, height = least_wh or (0, 0)
    try:
        image: Image = simplejpeg.decode_jpeg(
            encoded, strict=True, min_width=width, min_height=height
        )
    except ValueError as error:
        complaint = f"the JPEG of {len(encoded)} bytes is damaged: {error}"
        return _decode_odd_jpeg(encoded, complaint, doubts)
    return image


def _decode_odd_jpeg(encoded: bytes, complaint: str, doubts: list[str] | None) -> Image:
    """Pillow takes and refuses the JPEGs that TensorFlow does, to the same pixels.

    Stray bytes between segments, odd scan headers, bytes before the end marker: libjpeg warns and
    goes on. A file that ends too early is refused, and nothing is made up for what is missing.

    Raises:
        RecordError: undecodable-image, with the strict decoder's complaint.
    """
    try:
        image = np.array(open_with_pillow(encoded, "jpeg").convert("RGB"))
    except Exception:  # of damaged bytes Pillow's readers raise errors of many kinds
        raise undecodable(complaint) from None
    if doubts is not None:
        doubts.append(complaint)
    return image


def _decode_with_pillow(encoded: bytes, image_format: str) -> Image:
    picture = open_with_pillow(encoded, image_format)
    try:
        picture.load()
        return _to_rgb(picture)
    except RecordError:
        raise
    except Exception as error:  # of damaged bytes Pillow's readers raise errors of many kinds
        raise damaged_by_pillow(encoded, image_format, error) from None


def _to_rgb(picture: Any) -> Image:
    if picture.mode in _WIDE:
        grey = (np.asarray(picture).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if picture.mode in ("I", "F"):
        kind = {"I": "32-bit numbers", "F": "floating point numbers"}[picture.mode]
        raise undecodable(f"its pixels are {kind}, expected 8 or 16 bits: save it as 8-bit RGB")
    return np.array(picture.convert("RGB"))


def _decode_png(encoded: bytes, doubts: list[str] | None) -> Image:
    """Check the chunks first: OpenCV may hand out what it has of a damaged file.

    A chunk of text or metadata is not needed for the pixels, and libpng passes over it where its
    checksum is wrong (PNG 3, 13.2: ancillary chunks, whose names begin with a small letter).
    """
    place = len(PNG_MAGIC)
    while place + 12 <= len(encoded):
        (length,) = struct.unpack_from(">I", encoded, place)
        stop = place + 8 + length
        kind = encoded[place + 4 : place + 8]
        if stop + 4 > len(encoded):
            break
        if zlib.crc32(encoded[place + 4 : stop]) != int.from_bytes(encoded[stop : stop + 4], "big"):
            complaint = f"the PNG's {kind!r} chunk at byte {place} is damaged"
            if not kind[:1].islower():
                raise undecodable(complaint)
            if doubts is not None:
                doubts.append(complaint)
        if kind == b"IEND":
            return _decode_png_pixels(encoded)
        place = stop + 4
    raise undecodable(f"the PNG is cut short after {len(encoded)} bytes")


def _decode_png_pixels(encoded: bytes) -> Image:
    import cv2

    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    except cv2.error as error:
        raise undecodable(f"the PNG's pixels are damaged: {str(error).strip()}") from None
    if image is None:
        raise undecodable("the PNG's pixels are damaged")
    return image.astype(np.uint8, copy=False)


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise RecordError(
            "image-too-large",
            f"the header says {width}x{height} pixels; at most {max_pixels} are decoded",
        )
