"""Class colours that stay apart for colour-blind people, and the text colour that reads on them.

The seven hues are Okabe and Ito's ("Color Universal Design", 2008; Wong, Nature Methods 8, 441,
2011), reordered so that the first ids, a street's classes, are as far apart as the set allows.
"""

from __future__ import annotations

from functools import cache

Colour = tuple[int, int, int]
"""Red, green, blue, each 0-255 (sRGB)."""

OKABE_ITO: tuple[Colour, ...] = (
    (86, 180, 233),  # sky blue
    (230, 159, 0),  # orange
    (0, 114, 178),  # blue
    (0, 158, 115),  # bluish green
    (240, 228, 66),  # yellow
    (213, 94, 0),  # vermillion
    (204, 121, 167),  # reddish purple
)
BLACK: Colour = (0, 0, 0)
WHITE: Colour = (255, 255, 255)
INK: Colour = (24, 26, 30)
"""Nearly black: panels, title bars and the rim around boxes."""


@cache
def class_colour(class_id: int) -> Colour:
    """The colour of a class; it depends on the id alone, so runs and pictures agree.

    Ids beyond the seven hues repeat them lighter, then darker, then start over.
    """
    shade, hue = divmod(class_id - 1, len(OKABE_ITO))
    toward, weight = ((BLACK, 0.0), (WHITE, 0.5), (BLACK, 0.4))[shade % 3]
    red, green, blue = (
        round(channel + (other - channel) * weight)
        for channel, other in zip(OKABE_ITO[hue], toward, strict=True)
    )
    return red, green, blue


@cache
def text_colour(background: Colour) -> Colour:
    """Black or white, whichever has the higher contrast on `background` (always above 4.5)."""
    on_black = contrast_ratio(background, BLACK)
    return BLACK if on_black >= contrast_ratio(background, WHITE) else WHITE


def contrast_ratio(a: Colour, b: Colour) -> float:
    """Contrast of two colours in [1, 21] (WCAG 2.2, "contrast ratio")."""
    darker, lighter = sorted((_luminance(a), _luminance(b)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: Colour) -> float:
    """Relative luminance in [0, 1] (WCAG 2.2)."""
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (v / 255 for v in colour)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
