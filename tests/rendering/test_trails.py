"""Trails beneath the boxes, checked by pixels."""

import numpy as np
import pytest

from urbandet_ray.detections import Detections
from urbandet_ray.frames import Image
from urbandet_ray.labels import STREET_LABELS
from urbandet_ray.rendering.annotate import Annotator, DrawStyle
from urbandet_ray.rendering.labels_text import label_tiles, text_tile
from urbandet_ray.rendering.palette import INK, OKABE_ITO, class_colour, contrast_ratio
from urbandet_ray.rendering.trails import Trails, trail_colour

GREY = 90


def scene(width: int = 640, height: int = 640) -> Image:
    return np.full((height, width, 3), GREY, np.uint8)


def standing_at(*places: tuple[float, float], track_id: int = 1, class_id: int = 1) -> Detections:
    """Boxes whose bottom centres are these points; ids from `track_id` on."""
    boxes = [[x - 20, y - 50, x + 20, y] for x, y in places]
    ids = list(range(track_id, track_id + len(places)))
    return Detections.of(boxes, [0.9] * len(places), [class_id] * len(places), ids)


def drawn(trails: Trails, *frames: Detections, segment: str = "a") -> Image:
    """The last of these frames."""
    images = [trails.draw(scene(), detections, segment) for detections in frames]
    return images[-1]


def strength(image: Image, x: int, y: int) -> int:
    """How far a pixel is from the background."""
    return int(np.abs(image[y, x].astype(int) - GREY).max())


def core_of(class_id: int) -> list[int]:
    """A new trail's colour on grey: its rim, 0.54 of it, then itself, 0.9 of it."""
    rim = [(GREY * (255 - 138) + c * 138 + 127) // 255 for c in INK]
    pairs = zip(rim, trail_colour(class_id), strict=True)
    return [(under * (255 - 230) + c * 230 + 127) // 255 for under, c in pairs]


def is_blank(image: Image) -> bool:
    return bool((image == GREY).all())


def test_trail_golden_pixels() -> None:
    """Golden: the trail's colour over its dark rim, which shows beside it; nothing further off."""
    image = drawn(Trails(), standing_at((100, 300)), standing_at((200, 300)))
    assert image[299:302, 150].tolist() == [core_of(1)] * 3
    for rim in image[[297, 302], 150]:
        assert rim.max() < GREY
    assert (image[:297] == GREY).all()
    assert (image[304:] == GREY).all()


def test_lines_are_smooth() -> None:
    """A slanted line has pixels of many strengths along its edge, at any size."""
    for width in (640, 1920):
        trails = Trails()
        trails.draw(scene(width), standing_at((100, 300)), "a")
        image = trails.draw(scene(width), standing_at((400, 383)), "a")
        assert len(np.unique(image[300:380, 150:350, 0])) > 20


@pytest.mark.parametrize(("size", "line"), [((640, 640), 4), ((1920, 1280), 8), ((320, 320), 2)])
def test_line_width_follows_the_image(size: tuple[int, int], line: int) -> None:
    """Trails keep their share of the picture, as boxes do."""
    trails = Trails()
    trails.draw(scene(*size), standing_at((100, 200)), "a")
    image = trails.draw(scene(*size), standing_at((200, 200)), "a")
    half = (GREY + core_of(1)[2]) / 2
    assert (image[150:250, 150, 2] > half).sum() == line


def test_a_trail_fades_towards_its_beginning() -> None:
    """The older, the weaker, and after `frames` frames gone."""
    trails = Trails(frames=8)
    image = drawn(trails, *(standing_at((40 + 40 * i, 300)) for i in range(12)))
    along = [strength(image, 60 + 40 * i, 299) for i in range(11)]
    assert along[:4] == [0] * 4
    assert along[4] > 0
    assert along[4:] == sorted(along[4:])
    assert len(set(along[4:])) == 7


def test_a_new_segment_starts_without_trails() -> None:
    """Nothing is carried over from another drive, not even by the same id."""
    trails = Trails()
    drawn(trails, standing_at((100, 300)), standing_at((200, 300)))
    assert is_blank(drawn(trails, standing_at((300, 300)), segment="b"))
    assert not is_blank(drawn(trails, standing_at((400, 300)), segment="b"))


def test_what_has_no_track_has_no_trail() -> None:
    """-1 is not an id that many share."""
    image = drawn(
        Trails(), standing_at((100, 300), track_id=-1), standing_at((200, 300), track_id=-1)
    )
    assert is_blank(image)


def test_a_trail_bridges_frames_without_its_box() -> None:
    """A detection was missed, the object has gone on."""
    image = drawn(Trails(), standing_at((100, 300)), Detections.empty(), standing_at((300, 300)))
    assert strength(image, 200, 299) > 50


def test_the_trail_of_what_is_gone_goes_soon() -> None:
    """No lines stay where nobody is: with 20 frames they last five more."""
    trails = Trails(frames=20)
    image = drawn(trails, standing_at((100, 300)), standing_at((200, 300)))
    left = [strength(image, 150, 299)]
    for _ in range(5):
        left.append(strength(drawn(trails, Detections.empty()), 150, 299))
    assert left == sorted(left, reverse=True)
    assert left[4] > 0 == left[5]


def test_strong_lines_are_not_cut_by_weak_ones() -> None:
    """Where an old trail crosses a new one, the new one stays whole, whatever the ids."""
    for old, new in ((1, 2), (2, 1)):
        trails = Trails(frames=8)
        drawn(trails, standing_at((200, 200), track_id=old), standing_at((200, 400), track_id=old))
        drawn(trails, *[standing_at((240, 400), track_id=old)] * 4)
        image = drawn(
            trails,
            standing_at((100, 300), track_id=new),
            Detections.of(
                [[280, 250, 320, 300], [220, 350, 260, 400]], [0.9] * 2, [1] * 2, [new, old]
            ),
        )
        assert strength(image, 200, 250) > 0
        assert len(np.unique(image[299, 150:250], axis=0)) == 1


@pytest.mark.parametrize(
    "box", [[-60, 10, -20, 90], [700, 10, 800, 90], [50, 650, 90, 700], [50, 50, 50, 90]]
)
def test_boxes_outside_or_empty_leave_no_point(box: list[float]) -> None:
    """A trail does not run along the image's edge to where nothing is seen."""
    outside = Detections.of([box], [0.9], [1], [1])
    assert is_blank(drawn(Trails(), standing_at((300, 300)), outside))


def test_a_box_over_the_edge_counts_by_its_visible_part() -> None:
    """Its foot is the bottom of the image, whatever the box says."""
    below = Detections.of([[180, 500, 220, 1e9]], [0.9], [1], [1])
    image = drawn(Trails(), standing_at((100, 639)), below)
    assert strength(image, 150, 639) > 50


def test_each_class_has_its_own_colour() -> None:
    """Two trails side by side."""
    trails = Trails()
    for x in (100, 200):
        both = Detections.of(
            [[x, 100, x + 40, 200], [x, 300, x + 40, 400]], [0.9] * 2, [1, 2], [1, 2]
        )
        image = trails.draw(scene(), both, "a")
    for class_id, y in ((1, 199), (2, 399)):
        assert image[y, 170].tolist() == core_of(class_id)


def test_trail_colours_are_no_class_colours() -> None:
    """Lighter than the class's, equal to none, and clear of the rim."""
    colours = [trail_colour(class_id) for class_id in range(1, 8)]
    assert not {*colours} & {*OKABE_ITO}
    for class_id, colour in enumerate(colours, start=1):
        assert all(light >= c for light, c in zip(colour, class_colour(class_id), strict=True))
        assert contrast_ratio(colour, INK) > 4.5


def test_draws_in_place() -> None:
    """The scene itself is changed and returned."""
    image = scene()
    assert Trails().draw(image, Detections.empty(), "a") is image


def test_rows_of_a_larger_picture_can_be_drawn_on() -> None:
    """A view whose rows do not follow each other, as in a side by side."""
    trails, wide = Trails(), scene(1280)
    trails.draw(scene(), standing_at((100, 300)), "a")
    trails.draw(wide[:, 640:], standing_at((200, 300)), "a")
    assert strength(wide, 640 + 150, 299) > 50
    assert is_blank(wide[:, :640])


def test_wrong_uses_are_refused() -> None:
    """A read-only picture and a trail without length."""
    image = scene()
    image.flags.writeable = False
    with pytest.raises(ValueError, match=r"read-only image: pass scene\.copy\(\)"):
        Trails().draw(image, Detections.empty(), "a")
    with pytest.raises(ValueError, match="a trail of 0 frames: it needs at least 1"):
        Trails(0)


def find_tile(image: Image, tile: Image) -> list[list[int]]:
    """Where a tile stands in an image, exactly: [y, x]."""
    windows = np.lib.stride_tricks.sliding_window_view(image, tile.shape)[:, :, 0]
    fits = (windows[..., 0, 0, :] == tile[0, 0]).all(axis=-1)
    return [[y, x] for y, x in np.argwhere(fits).tolist() if np.array_equal(windows[y, x], tile)]


def test_the_label_names_the_track_on_request() -> None:
    """ "vehicle #12 87%": without draw_ids, or without an id, as ever."""
    font_px = DrawStyle.for_size((640, 640)).font_px
    plain = label_tiles("vehicle", 87, 1, font_px)
    whose = text_tile("vehicle #12", font_px, class_colour(1))
    box = [[100, 200, 300, 400]]
    tracked = Detections.of(box, [0.87], [1], [12])
    image = Annotator(STREET_LABELS, draw_ids=True).annotate(scene(), tracked)
    top = 200 - whose.shape[0]
    assert find_tile(image, whose) == [[top, 100]]
    assert find_tile(image, plain[1]) == [[top, 100 + whose.shape[1]]]
    for annotator, detections in (
        (Annotator(STREET_LABELS), tracked),
        (Annotator(STREET_LABELS, draw_ids=True), Detections.of(box, [0.87], [1])),
    ):
        assert find_tile(annotator.annotate(scene(), detections), plain[0]) == [[top, 100]]
