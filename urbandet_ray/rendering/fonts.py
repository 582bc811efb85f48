"""Fonts by coverage: each piece of a text in the first font that has its signs."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from urbandet_ray.phrases import printable

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

_WEIGHT = 450
"""Of variable fonts: as strong as the font that Pillow carries, whose default is Regular."""
_JAPANESE, _CHINESE = 0, 2
"""Faces of Noto Sans CJK: the same code points in the forms that each reader expects."""
_KANA = range(0x3040, 0x3100)
_JOINS = ("M", "C", "Z", "P")
"""Categories of signs that stay with the letters before them: marks, joiners, spaces, points."""


class Face(NamedTuple):
    """One font: a file, "" for the one that Pillow carries, and its number within the file."""

    path: str
    number: int = 0


PILLOWS = Face("")
"""The font of names in ASCII, which it has all signs of."""


def runs_of(text: str) -> list[tuple[Face, str]]:
    """A text in pieces of one font each, in the order of reading.

    Signs that no font has are written as escapes (\\u2fa1), so that nothing is drawn as a box.
    """
    text = printable(text)
    if text.isascii():
        return [(PILLOWS, text)]
    japanese = any(ord(sign) in _KANA for sign in text)
    pieces: list[tuple[Face, str]] = []
    for sign in text:
        last = pieces[-1][0] if pieces else None
        face, drawn = _face_for(sign, last, japanese)
        if face == last:
            pieces[-1] = (face, pieces[-1][1] + drawn)
        else:
            _open_piece(pieces, face, drawn)
    return pieces


@lru_cache(maxsize=128)
def font_of(face: Face, font_px: int) -> FreeTypeFont | ImageFont:
    """A face at a size, in a weight that stays legible in a video."""
    from PIL import ImageFont

    if not face.path:
        return ImageFont.load_default(font_px)
    font = ImageFont.truetype(face.path, font_px, face.number)
    font.set_variation_by_axes([_WEIGHT])
    return font


def _face_for(sign: str, last: Face | None, japanese: bool) -> tuple[Face, str]:
    """The face of a sign, and what is drawn for it."""
    if last is not None and unicodedata.category(sign)[0] in _JOINS and ord(sign) in _signs(last):
        return last, sign
    for face in _faces(japanese):
        if ord(sign) in _signs(face):
            return face, sign
    return _faces(japanese)[0], sign.encode("unicode_escape").decode()


def _open_piece(pieces: list[tuple[Face, str]], face: Face, drawn: str) -> None:
    """Begin a piece; it takes the spaces before it, which a right-to-left piece would turn over."""
    if pieces:
        before, text = pieces[-1]
        kept = text.rstrip(" ")
        pieces[-1] = (before, kept)
        drawn = text[len(kept) :] + drawn
    pieces.append((face, drawn))


@lru_cache(maxsize=2)
def _faces(japanese: bool) -> tuple[Face, ...]:
    """In the order in which they are asked; the largest comes last."""
    number = _JAPANESE if japanese else _CHINESE
    return (*(Face(path) for path in _noto()), Face(_noto_cjk(), number))


def _noto() -> Iterator[str]:
    """Noto Sans, then its other scripts, symbols and emoji."""
    import manimgx_fonts

    files = sorted(Path(manimgx_fonts.__file__).parent.glob("*.ttf"))
    upright = [str(one) for one in files if "Italic" not in one.name]
    yield from sorted(upright, key=lambda one: "NotoSans[" not in one)


def _noto_cjk() -> str:
    import manimgx_fonts_cjk

    return str(next(Path(manimgx_fonts_cjk.__file__).parent.glob("*.ttc")))


@lru_cache(maxsize=64)
def _signs(face: Face) -> frozenset[int]:
    """Code points that a face has a glyph for."""
    from fontTools.ttLib import TTFont

    with TTFont(face.path, fontNumber=face.number, lazy=True) as font:
        return frozenset(font.getBestCmap())
