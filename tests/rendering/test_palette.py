"""Class colours: stable, apart for colour-blind eyes, with text that reads on them."""

from itertools import combinations

import numpy as np
import pytest

from urbandet_ray.rendering.palette import class_colour, contrast_ratio, text_colour

# Linear RGB transforms of full dichromacy, Machado, Oliveira and Fernandes (2009), severity 1.0.
VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}
TO_XYZ_D65 = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)


def lab(colour: tuple[int, int, int], vision: str) -> np.ndarray:
    """CIE L*a*b* of a colour as an eye of that kind sees it."""
    value = np.array(colour) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    seen = np.clip(VISION[vision] @ linear, 0, 1)
    xyz = TO_XYZ_D65 @ seen / (0.95047, 1.0, 1.08883)
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize(
    ("class_ids", "least"),
    [((1, 2, 4), 48.0), ((1, 2, 3, 4), 24.0), (tuple(range(1, 8)), 16.0)],
    ids=["street", "first four", "all hues"],
)
def test_class_colours_stay_apart(vision: str, class_ids: tuple[int, ...], least: float) -> None:
    """Any two colours differ by far more than the eye's threshold (about 2.3 in L*a*b*)."""
    distances = [
        float(np.linalg.norm(lab(class_colour(a), vision) - lab(class_colour(b), vision)))
        for a, b in combinations(class_ids, 2)
    ]
    assert min(distances) >= least


def test_colours_depend_on_the_id_alone() -> None:
    """Golden: a class keeps its colour in every run and release."""
    assert [class_colour(i) for i in (1, 2, 4)] == [(86, 180, 233), (230, 159, 0), (0, 158, 115)]


def test_ids_beyond_the_hues_get_shades_of_their_own() -> None:
    """The first 21 ids all differ; after that they repeat."""
    assert len({class_colour(i) for i in range(1, 22)}) == 21
    assert class_colour(22) == class_colour(1)


@pytest.mark.parametrize("class_id", range(1, 22))
def test_text_contrasts_with_every_class_colour(class_id: int) -> None:
    """WCAG's bound for normal text, 4.5, holds on every label."""
    background = class_colour(class_id)
    assert contrast_ratio(background, text_colour(background)) >= 4.5


def test_contrast_ratio_is_wcags() -> None:
    """Black on white is 21, a colour on itself 1, and #777777 on white 4.48 as WCAG tools say."""
    assert contrast_ratio((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast_ratio((9, 99, 199), (9, 99, 199)) == pytest.approx(1)
    assert contrast_ratio((0x77, 0x77, 0x77), (255, 255, 255)) == pytest.approx(4.48, abs=0.005)
