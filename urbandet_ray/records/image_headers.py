"""What an encoded image says of itself before its pixels: the format, the width and the height."""

from __future__ import annotations

import io
import struct
from typing import Any

from urbandet_ray.errors import RecordError

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
)
"""Endings of files that are images, in small letters."""
FORMAT_NAMES = ("JPEG", "PNG", "BMP", "GIF", "WebP", "TIFF")

_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset(range(0xD0, 0xD8)) | {0x00, 0x01}
_EXPECTED = f"expected {', '.join(FORMAT_NAMES[:-1])} or {FORMAT_NAMES[-1]}"
_FOREIGN = {
    b"\0\0\0\x0cjP  ": "a JPEG 2000",
    b"\0\0\0\x0cJXL ": "a JPEG XL",
    b"\xff\x0a": "a JPEG XL",
    b"8BPS": "a Photoshop file",
    b"%PDF": "a PDF",
}
_IN_CONTAINERS = {b"avif": "an AVIF", b"avis": "an AVIF"} | dict.fromkeys(
    (b"heic", b"heix", b"hevc", b"heif", b"mif1", b"msf1"), "a HEIC (an iPhone's)"
)
"""Brands of ISO base media files (ISO/IEC 14496-12, 4.3)."""


def sniff_format(encoded: bytes) -> str | None:
    """ "jpeg", "png", "bmp", "gif", "webp" or "tiff" by the first bytes, None for anything else."""
    if encoded.startswith(b"\xff\xd8"):
        return "jpeg"
    if encoded.startswith(PNG_MAGIC):
        return "png"
    if encoded.startswith(b"RIFF") and encoded[8:12] == b"WEBP":
        return "webp"
    if encoded.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if encoded.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "tiff"
    return "bmp" if encoded.startswith(b"BM") else None


def image_size(encoded: bytes) -> tuple[str, int, int]:
    """Format, width and height in pixels, from the header only; of the pixels as they are encoded.

    Raises:
        RecordError: undecodable-image: another format, or the header is cut or damaged.
    """
    image_format = sniff_format(encoded)
    if image_format == "jpeg":
        width, height = _jpeg_size(encoded)
    elif image_format == "png":
        if len(encoded) < 33 or encoded[12:16] != b"IHDR":
            raise undecodable(f"the PNG of {len(encoded)} bytes has no header")
        width, height = struct.unpack(">II", encoded[16:24])
    elif image_format is not None:
        width, height = open_with_pillow(encoded, image_format).size
    else:
        raise undecodable(_foreign(encoded))
    if width == 0 or height == 0:
        raise undecodable(f"the header says {width}x{height} pixels")
    return image_format, width, height


def open_with_pillow(encoded: bytes, image_format: str) -> Any:
    """Pillow's picture of any format but PNG, its pixels not decoded yet.

    By its class: PIL.Image.open would refuse and warn by a limit of its own.

    Raises:
        RecordError: undecodable-image: the header is cut or damaged.
    """
    from PIL import (
        BmpImagePlugin,
        GifImagePlugin,
        JpegImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
    )

    kinds: dict[str, Any] = {
        "jpeg": JpegImagePlugin.JpegImageFile,
        "bmp": BmpImagePlugin.BmpImageFile,
        "gif": GifImagePlugin.GifImageFile,
        "tiff": TiffImagePlugin.TiffImageFile,
        "webp": WebPImagePlugin.WebPImageFile,
    }
    try:
        return kinds[image_format](io.BytesIO(encoded))
    except Exception as error:  # of damaged bytes Pillow's readers raise errors of many kinds
        raise damaged_by_pillow(encoded, image_format, error) from None


def damaged_by_pillow(encoded: bytes, image_format: str, error: Exception) -> RecordError:
    """What to raise of bytes that Pillow refuses."""
    name = next(name for name in FORMAT_NAMES if name.lower() == image_format)
    told = str(error).strip() or type(error).__name__
    return undecodable(f"the {name} of {len(encoded)} bytes is damaged: {told}")


def undecodable(detail: str) -> RecordError:
    """The error of an image that cannot be decoded."""
    return RecordError("undecodable-image", detail)


def _jpeg_size(encoded: bytes) -> tuple[int, int]:
    """Walk the segments up to the start-of-frame marker (ITU T.81, B.1.1).

    What stands between segments is passed over, as libjpeg does (jdmarker.c, next_marker).
    """
    place, end = 2, len(encoded)
    while 0 <= place <= end - 4:
        marker = encoded[place + 1]
        if encoded[place] != 0xFF or marker == 0xFF or marker in _WITHOUT_LENGTH:
            place = encoded.find(b"\xff", place + 1)
            continue
        if marker in _START_OF_FRAME:
            if place + 9 > end:
                break
            height, width = struct.unpack_from(">HH", encoded, place + 5)
            return width, height
        place += 2 + max(int.from_bytes(encoded[place + 2 : place + 4], "big"), 2)
        if marker == 0xDA:
            break
    raise undecodable(f"the JPEG of {end} bytes has no frame header: cut short or damaged")


def _foreign(encoded: bytes) -> str:
    if not encoded:
        return "the image is empty: 0 bytes"
    if encoded[4:8] == b"ftyp" and encoded[8:12] in _IN_CONTAINERS:
        return f"the image is {_IN_CONTAINERS[encoded[8:12]]}; {_EXPECTED}"
    for magic, name in _FOREIGN.items():
        if encoded.startswith(magic):
            return f"the image is {name}; {_EXPECTED}"
    return f"the image begins with {encoded[:8]!r}; {_EXPECTED}"
