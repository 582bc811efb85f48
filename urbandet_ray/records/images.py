"""Encoded images to RGB arrays and back: JPEG by libjpeg-turbo, PNG by OpenCV.

A damaged or cut image is an error, never a half-grey picture. EXIF orientation is ignored, as
TensorFlow's decoders do: boxes refer to the stored pixels.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

from urbandet_ray.errors import RecordError
from urbandet_ray.frames import Frame, Image

MAX_PIXELS = 100_000_000

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_OTHER_FORMATS = {
    b"GIF8": "a GIF",
    b"BM": "a BMP",
    b"RIFF": "a WebP",
    b"II*\0": "a TIFF",
    b"MM\0*": "a TIFF",
}
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset(range(0xD0, 0xD8)) | {0x01}


def sniff_format(encoded: bytes) -> str | None:
    """ "jpeg" or "png" by the first bytes, None for anything else."""
    if encoded.startswith(b"\xff\xd8"):
        return "jpeg"
    return "png" if encoded.startswith(_PNG_MAGIC) else None


def image_size(encoded: bytes) -> tuple[str, int, int]:
    """Format, width and height in pixels, from the header only.

    Raises:
        RecordError: undecodable-image: neither JPEG nor PNG, or the header is cut or damaged.
    """
    image_format = sniff_format(encoded)
    if image_format == "jpeg":
        width, height = _jpeg_size(encoded)
    elif image_format == "png":
        if len(encoded) < 33 or encoded[12:16] != b"IHDR":
            raise _undecodable(f"the PNG of {len(encoded)} bytes has no header")
        width, height = struct.unpack(">II", encoded[16:24])
    else:
        raise _undecodable(_foreign(encoded))
    if width == 0 or height == 0:
        raise _undecodable(f"the header says {width}x{height} pixels")
    return image_format, width, height


def decode_image(
    encoded: bytes, *, max_pixels: int = MAX_PIXELS, least_wh: tuple[int, int] | None = None
) -> Image:
    """Decode a JPEG or PNG of any depth, grey, palette, CMYK or alpha to [h, w, 3] uint8 RGB.

    Args:
        encoded: the file's bytes.
        max_pixels: more are refused.
        least_wh: a JPEG may come smaller, by a factor that libjpeg decodes at (n/8), but not below
            this; None is its own size.

    Raises:
        RecordError: undecodable-image, or image-too-large by its header, before any allocation.
    """
    image_format, width, height = image_size(encoded)
    _check_pixels(width, height, max_pixels)
    return _decode_jpeg(encoded, least_wh) if image_format == "jpeg" else _decode_png(encoded)


def decode_frame(
    frame: Frame, *, max_pixels: int = MAX_PIXELS, least_wh: tuple[int, int] | None = None
) -> Image:
    """The frame's image as [h, w, 3] uint8 RGB; a raw frame's is a read-only view of its bytes.

    See `decode_image`.

    Raises:
        RecordError: undecodable-image or image-too-large.
    """
    if frame.format != "raw":
        encoded = bytes(frame.encoded)  # of a view, a copy
        return decode_image(encoded, max_pixels=max_pixels, least_wh=least_wh)
    if frame.size_wh is None:
        raise _undecodable("a raw frame without its size")
    width, height = frame.size_wh
    _check_pixels(width, height, max_pixels)
    if len(frame.encoded) != width * height * 3:
        raise _undecodable(f"{len(frame.encoded)} raw bytes are not {width}x{height} RGB pixels")
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


def _jpeg_size(encoded: bytes) -> tuple[int, int]:
    """Walk the segments up to the start-of-frame marker (ITU T.81, B.1.1)."""
    place, end = 2, len(encoded)
    while place + 4 <= end:
        if encoded[place] != 0xFF:
            break
        marker = encoded[place + 1]
        if marker == 0xFF or marker in _WITHOUT_LENGTH:
            place += 1 if marker == 0xFF else 2
            continue
        if marker in _START_OF_FRAME:
            if place + 9 > end:
                break
            height, width = struct.unpack_from(">HH", encoded, place + 5)
            return width, height
        place += 2 + max(int.from_bytes(encoded[place + 2 : place + 4], "big"), 2)
        if marker == 0xDA:
            break
    raise _undecodable(f"the JPEG of {end} bytes has no frame header: cut short or damaged")


def _decode_jpeg(encoded: bytes, least_wh: tuple[int, int] | None) -> Image:
    import simplejpeg

    width, height = least_wh or (0, 0)
    try:
        image: Image = simplejpeg.decode_jpeg(
            encoded, strict=True, min_width=width, min_height=height
        )
    except ValueError as error:
        raise _undecodable(f"the JPEG of {len(encoded)} bytes is damaged: {error}") from None
    return image


def _decode_png(encoded: bytes) -> Image:
    """Check the chunks first: OpenCV may hand out what it has of a damaged file."""
    place = len(_PNG_MAGIC)
    while place + 12 <= len(encoded):
        (length,) = struct.unpack_from(">I", encoded, place)
        stop = place + 8 + length
        kind = encoded[place + 4 : place + 8]
        if stop + 4 > len(encoded):
            break
        if zlib.crc32(encoded[place + 4 : stop]) != int.from_bytes(encoded[stop : stop + 4], "big"):
            raise _undecodable(f"the PNG's {kind!r} chunk at byte {place} is damaged")
        if kind == b"IEND":
            return _decode_png_pixels(encoded)
        place = stop + 4
    raise _undecodable(f"the PNG is cut short after {len(encoded)} bytes")


def _decode_png_pixels(encoded: bytes) -> Image:
    import cv2

    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    except cv2.error as error:
        raise _undecodable(f"the PNG's pixels are damaged: {str(error).strip()}") from None
    if image is None:
        raise _undecodable("the PNG's pixels are damaged")
    return image.astype(np.uint8, copy=False)


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise RecordError(
            "image-too-large",
            f"the header says {width}x{height} pixels; at most {max_pixels} are decoded",
        )


def _foreign(encoded: bytes) -> str:
    if not encoded:
        return "the image is empty: 0 bytes"
    for magic, name in _OTHER_FORMATS.items():
        if encoded.startswith(magic):
            return f"the image is {name}; expected JPEG or PNG"
    return f"the image begins with {encoded[:8]!r}; expected JPEG or PNG"


def _undecodable(detail: str) -> RecordError:
    return RecordError("undecodable-image", detail)
