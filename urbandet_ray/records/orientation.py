"""How a picture's EXIF tag says it is held, and pictures turned upright.

Records are used as they are encoded: TensorFlow's decoders, and so the OD API, overlook the tag.
Folders of images are used upright, as people and their labelling tools see them.
"""

from __future__ import annotations

import numpy as np

from urbandet_ray.frames import Image
from urbandet_ray.records.image_headers import sniff_format

UPRIGHT = 1

_TAG = 0x0112
_SWAPPED = frozenset({5, 6, 7, 8})
_JPEG_HEAD_BYTES = 1 << 18
"""EXIF stands before a JPEG's pixels, behind a colour profile at the most."""
_MARKS = {"jpeg": b"Exif\0\0", "png": b"eXIf", "webp": b"EXIF"}
_SKIPPED = {"jpeg": 6, "png": 4, "webp": 8}
"""From the mark to the TIFF header that EXIF is."""


def exif_orientation(encoded: bytes) -> int:
    """EXIF orientation 1 to 8 of an encoded picture; 1, upright, where no tag says otherwise.

    Tag 0x0112 (EXIF 2.32, 4.6.4) of a JPEG, a PNG or a WebP. A TIFF's is no matter: its decoder
    turns it. BMP and GIF have none.
    """
    image_format = sniff_format(encoded) or ""
    if image_format not in _MARKS:
        return UPRIGHT
    end = _JPEG_HEAD_BYTES if image_format == "jpeg" else len(encoded)
    place = encoded.find(_MARKS[image_format], 0, end)
    if place < 0:  # nearly always: nothing is parsed
        return UPRIGHT
    from PIL import Image as Pillow

    exif = Pillow.Exif()
    try:
        exif.load(encoded[place + _SKIPPED[image_format] :][: 1 << 16])
        value = exif.get(_TAG, UPRIGHT)
    except Exception:  # of damaged bytes Pillow raises errors of many kinds; they turn nothing
        return UPRIGHT
    return value if isinstance(value, int) and 1 <= value <= 8 else UPRIGHT


def turned_upright(image: Image, orientation: int) -> Image:
    """Pixels [h, w, 3] turned and mirrored as an EXIF orientation says; the same for 1."""
    if orientation == UPRIGHT:
        return image
    if orientation in _SWAPPED:  # 5 and 7 are mirrored too
        turned = {5: image.swapaxes(0, 1), 7: np.rot90(image, 2).swapaxes(0, 1)}
        seen = turned[orientation] if orientation in turned else np.rot90(image, orientation - 7)
    else:
        seen = {2: image[:, ::-1], 3: image[::-1, ::-1], 4: image[::-1]}[orientation]
    return np.ascontiguousarray(seen)


def size_upright(size_wh: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Width and height of a picture once it is turned upright."""
    return (size_wh[1], size_wh[0]) if orientation in _SWAPPED else size_wh
