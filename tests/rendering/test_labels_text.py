"""Label tiles and their places."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from urbandet_ray.rendering.annotate import DrawStyle
from urbandet_ray.rendering.fonts import runs_of
from urbandet_ray.rendering.labels_text import (
    COVER_MAX,
    blit,
    check_image,
    label_tiles,
    place_labels,
    text_tile,
)
from urbandet_ray.rendering.palette import INK, class_colour, contrast_ratio


def tile_colours(tile: np.ndarray) -> set[tuple[int, ...]]:
    return set(map(tuple, tile.reshape(-1, 3).tolist()))


@pytest.mark.parametrize("size_wh", [(640, 640), (1280, 720), (1920, 1280)])
def test_label_height_follows_the_image(size_wh: tuple[int, int]) -> None:
    """A label takes 2 to 4 % of the image's height, whatever the size, and at least 12 px."""
    font_px = DrawStyle.for_size(size_wh).font_px
    height = label_tiles("vehicle", 87, 1, font_px)[0].shape[0]
    assert 0.02 * size_wh[1] <= height <= 0.04 * size_wh[1]
    assert height >= 12


@pytest.mark.parametrize("class_id", [1, 2, 3, 4])
@pytest.mark.parametrize("font_px", [14, 34])
def test_label_ink_is_really_dark_or_light_enough(class_id: int, font_px: int) -> None:
    """The rendered pixels, not only the chosen colours, reach a contrast of 4.5."""
    tile = label_tiles("vehicle", 87, class_id, font_px)[0]
    best = max(contrast_ratio(class_colour(class_id), c) for c in tile_colours(tile))
    assert best >= 4.5


def test_tiles_of_one_size_are_equally_high() -> None:
    """Letters below the line or none at all: rows of labels line up."""
    heights = {text_tile(text, 14, INK).shape[0] for text in ("pedestrian 9%", "as", "87%", "gyq")}
    assert len(heights) == 1


def test_text_stays_off_the_tile_border() -> None:
    """No letter touches the edge, where it would merge with the picture."""
    tile = text_tile("pedestrian 100%", 14, INK)
    edges = [tile[0], tile[-1], tile[:, 0], tile[:, -1]]
    assert all((edge == INK).all() for edge in edges)


def test_shared_tiles_cannot_be_drawn_on() -> None:
    """A tile is shared by all frames: writing into it is refused."""
    tile = text_tile("vehicle", 14, INK)
    with pytest.raises(ValueError, match="read-only"):
        tile[0, 0] = 0


def test_signs_the_font_lacks_are_spelled_out() -> None:
    """A threshold in a title shows as ">=", not as an empty box."""
    assert np.array_equal(text_tile("score ≥ 0.3", 14, INK), text_tile("score >= 0.3", 14, INK))


def test_blit_cuts_what_sticks_out() -> None:
    """A tile over the bottom right corner is cut, one beyond it changes nothing."""
    scene = np.zeros((4, 4, 3), np.uint8)
    blit(scene, np.full((3, 3, 3), 7, np.uint8), 2, 3)
    assert np.argwhere(scene[..., 0]).tolist() == [[3, 2], [3, 3]]
    blit(scene, np.full((3, 3, 3), 9, np.uint8), 4, 0)
    assert scene.max() == 7


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((100, 100, 199, 199), (100, 90)),  # above
        ((100, 4, 199, 199), (100, 4)),  # no room above: inside at the top
        ((100, 4, 199, 18), (100, 19)),  # inside it would hide the box: below
        ((380, 100, 399, 199), (340, 90)),  # moved left into the image
        ((0, 0, 399, 399), (0, 0)),  # the whole image
    ],
)
def test_label_place(box: tuple[int, ...], expected: tuple[int, int]) -> None:
    """Table: a 60x10 label on boxes in a 400x400 image."""
    places = place_labels(np.array([box], np.int32), np.array([[[60, 10]]], np.int32), (400, 400))
    assert places == [(0, *expected)]


def test_short_label_where_the_long_one_has_no_place() -> None:
    """In a row of small boxes the second variant, narrower, is taken."""
    boxes = np.array([(100, 0, 129, 29), (131, 0, 160, 29), (200, 0, 390, 29)], np.int32)
    sizes = np.broadcast_to(np.array([(70, 20), (25, 10)], np.int32), (3, 2, 2))
    places = place_labels(boxes, sizes, (400, 30))
    assert [place[0] for place in places if place is not None] == [1, 1, 0]


def test_label_larger_than_the_image_is_left_out() -> None:
    """There is no place for it, and no error either."""
    box = np.array([(2, 2, 20, 20)], np.int32)
    assert place_labels(box, np.array([[[60, 10]]], np.int32), (30, 30)) == [None]


def test_width_zero_means_no_label() -> None:
    """Tiny boxes ask for none."""
    box = np.array([(100, 100, 110, 110)], np.int32)
    assert place_labels(box, np.zeros((1, 2, 2), np.int32), (400, 400)) == [None]


corner = st.tuples(st.integers(0, 180), st.integers(0, 180), st.integers(1, 90), st.integers(1, 90))


@settings(max_examples=60)
@given(st.lists(corner, min_size=1, max_size=25))
def test_labels_hide_neither_each_other_nor_boxes(raw: list[tuple[int, ...]]) -> None:
    """Whatever the boxes: labels in the image, disjoint, at most COVER_MAX of any box hidden."""
    size = (200, 200)
    boxes = np.array([(x, y, min(x + w, 199), min(y + h, 199)) for x, y, w, h in raw], np.int32)
    sizes = np.broadcast_to(np.array([(40, 9), (18, 9)], np.int32), (len(boxes), 2, 2))
    painted = np.zeros(size, np.int32)
    for place in place_labels(boxes, sizes, size):
        if place is not None:
            variant, x, y = place
            w, h = sizes[0, variant]
            assert x >= 0 and x + w <= 200 and y >= 0 and y + h <= 200
            painted[y : y + h, x : x + w] += 1
            for x0, y0, x1, y1 in boxes.tolist():
                overlap = max(0, min(x + w, x1) - max(x, x0)) * max(0, min(y + h, y1) - max(y, y0))
                assert overlap <= COVER_MAX * max(1, (x1 - x0) * (y1 - y0))
    assert painted.max() <= 1


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"got uint8 \(4, 4\): an image is uint8 RGB"),
        (np.zeros((4, 4, 3), np.float32), r"got float32 \(4, 4, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), r"got uint8 \(0, 4, 3\)"),
        (np.zeros((4, 4, 3), np.uint8)[..., ::-1], "rows of the image are not contiguous"),
    ],
)
def test_not_an_image(image: np.ndarray, message: str) -> None:
    """Grey, float, empty or strided arrays are named as what they are."""
    with pytest.raises(ValueError, match=message):
        check_image(image)


SCRIPTS = [
    "街道 87%",
    "カタカナ",
    "자동차",
    "سيارة حمراء",
    "машина",
    "गाड़ी",
    "รถยนต์",
    "עברית",
    "café",
    "🚗",
]


@pytest.mark.parametrize("text", SCRIPTS)
def test_names_are_drawn_in_their_script(text: str) -> None:
    """Each sign by a font that has it: the same tile height, ink inside, no box for a letter."""
    tile = text_tile(text, 20, INK, bold=False)
    assert tile.shape[0] == text_tile("vehicle", 20, INK, bold=False).shape[0]
    edges = [tile[0], tile[-1], tile[:, 0], tile[:, -1]]
    assert all((edge == INK).all() for edge in edges)
    assert len(tile_colours(tile)) > 5
    pieces = runs_of(text)
    assert "".join(piece for _, piece in pieces) == text
    letters = {sign for sign in text if sign.isalpha()}
    other = text_tile("\U0010ffff" * len(letters), 20, INK, bold=False)
    assert tile.shape != other.shape or not np.array_equal(tile, other)


def test_a_text_is_cut_where_its_font_changes() -> None:
    """Spaces within a right-to-left text stay in it, those behind it go to what follows."""
    pieces = runs_of("سيارة حمراء 87%")
    assert [piece for _, piece in pieces] == ["سيارة حمراء", " 87%"]
    assert "Arabic" in pieces[0][0].path


def test_kana_take_the_japanese_forms() -> None:
    """Han signs look otherwise in Japan: the text tells."""
    assert {face.number for face, _ in runs_of("漢字カナ")} == {0}
    assert {face.number for face, _ in runs_of("汉字")} == {2}


@pytest.mark.parametrize(
    ("text", "drawn"),
    [("a\U00012000", "a\\U00012000"), ("caf\udce9", "caf\\xe9"), ("a\nb", "a\\nb")],
)
def test_signs_that_no_font_has_are_written_as_escapes(text: str, drawn: str) -> None:
    """Nothing is drawn as an empty box, and no name ends a run."""
    assert "".join(piece for _, piece in runs_of(text)) == drawn
    assert text_tile(text, 14, INK).size
