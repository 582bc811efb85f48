"""How a picture's EXIF tag says it is held; records are used as they are encoded."""

from __future__ import annotations

import io

_TAG = 0x0112
_UPRIGHT = 1


def exif_orientation(encoded: bytes) -> int:
    """EXIF orientation 1 to 8 of an encoded picture; 1, upright, where no tag says otherwise.

    TIFF tag 0x0112 (EXIF 2.32, 4.6.4). TensorFlow's decoders, and so the OD API, overlook it.
    """
    head = encoded[: 1 << 16]
    if b"Exif" not in head and b"eXIf" not in head:  # nearly always: nothing is parsed
        return _UPRIGHT
    from PIL import Image, UnidentifiedImageError

    try:
        value = Image.open(io.BytesIO(encoded)).getexif().get(_TAG, _UPRIGHT)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        return _UPRIGHT
    return value if isinstance(value, int) and 1 <= value <= 8 else _UPRIGHT
