"""Drawing on frames, checked by pixels."""

import pickle
import time

import numpy as np
import pytest

from urbandet_ray.detections import Detections
from urbandet_ray.frames import Truth
from urbandet_ray.labels import STREET_LABELS
from urbandet_ray.rendering.annotate import Annotator, DrawStyle, draw_dashed
from urbandet_ray.rendering.labels_text import label_tiles
from urbandet_ray.rendering.palette import INK, class_colour

GREY = 90


def scene(width: int = 640, height: int = 640) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


def draw(detections: Detections, **options: object) -> np.ndarray:
    return Annotator(STREET_LABELS, **options).annotate(scene(), detections)  # type: ignore[arg-type]


def find_tile(image: np.ndarray, tile: np.ndarray) -> list[tuple[int, int]]:
    """Where a tile stands in an image, exactly."""
    windows = np.lib.stride_tricks.sliding_window_view(image, tile.shape)[:, :, 0]
    corner_fits = (windows[..., 0, 0, :] == tile[0, 0]).all(axis=-1)
    return [
        (x, y) for y, x in np.argwhere(corner_fits).tolist() if np.array_equal(windows[y, x], tile)
    ]


def test_box_golden_pixels() -> None:
    """Golden: a dark rim outside, two pixels of the class colour inside, the interior untouched."""
    image = draw(Detections.of([[100, 200, 300, 400]], [0.9], [2]))
    across = image[300, 97:104].tolist()
    colour = list(class_colour(2))
    assert across == [[GREY] * 3, [GREY] * 3, list(INK), colour, colour, [GREY] * 3, [GREY] * 3]
    assert image[300, 296:302].tolist() == [
        [GREY] * 3, [GREY] * 3, colour, colour, list(INK), [GREY] * 3,
    ]  # fmt: skip


@pytest.mark.parametrize(("size", "line"), [((640, 640), 2), ((1920, 1280), 5), ((320, 320), 1)])
def test_line_width_follows_the_image(size: tuple[int, int], line: int) -> None:
    """Lines keep their share of the picture."""
    image = scene(*size)
    box = [size[0] * 0.3, size[1] * 0.4, size[0] * 0.6, size[1] * 0.8]
    Annotator(STREET_LABELS).annotate(image, Detections.of([box], [0.9], [1]))
    row = image[int(size[1] * 0.6)]
    assert (row == class_colour(1)).all(axis=-1).sum() == 2 * line


def test_label_says_class_and_percent() -> None:
    """ "vehicle 87%" stands above the box, its left edge on the box's."""
    image = draw(Detections.of([[100, 200, 300, 400]], [0.874], [1]))
    tile = label_tiles("vehicle", 87, 1, DrawStyle.for_size((640, 640)).font_px)[0]
    assert find_tile(image, tile) == [(100, 200 - tile.shape[0])]


def test_unknown_class_is_drawn_by_number() -> None:
    """A class id without label gets "class 9", not an error."""
    image = draw(Detections.of([[100, 200, 300, 400]], [0.5], [9]))
    tile = label_tiles("class 9", 50, 9, DrawStyle.for_size((640, 640)).font_px)[0]
    assert len(find_tile(image, tile)) == 1


def test_draws_in_place() -> None:
    """The scene itself is changed and returned: no copy is made."""
    image = scene()
    result = Annotator(STREET_LABELS).annotate(image, Detections.of([[9, 9, 90, 90]], [0.5], [1]))
    assert result is image


def test_tiny_boxes_get_a_thin_line_and_no_label() -> None:
    """A 14x10 box changes only its own outline."""
    image = draw(Detections.of([[100, 200, 114, 210]], [0.9], [1]))
    changed = np.argwhere((image != GREY).any(axis=-1))
    assert changed.min(axis=0).tolist() == [200, 100]
    assert changed.max(axis=0).tolist() == [209, 113]
    assert len(changed) == 2 * 14 + 2 * 8


def test_high_scores_lie_on_top_whatever_the_order() -> None:
    """Where two boxes cross, the surer one's line is seen."""
    boxes = [[100, 100, 300, 300], [100, 200, 300, 400]]
    for order in ([0, 1], [1, 0]):
        detections = Detections.of(
            np.array(boxes)[order], np.array([0.9, 0.3])[order], np.array([1, 2])[order]
        )
        assert draw(detections)[250, 100].tolist() == list(class_colour(1))


def test_scores_below_the_bound_are_not_drawn() -> None:
    """score_min hides; a score equal to it stays."""
    detections = Detections.of([[9, 99, 90, 190], [300, 99, 390, 190]], [0.5, 0.49], [1, 1])
    image = draw(detections, score_min=0.5)
    assert (image[:, :200] != GREY).any()
    assert (image[:, 250:] == GREY).all()


@pytest.mark.parametrize(
    "box",
    [[-50, -50, -1, -1], [700, 10, 800, 90], [50, 50, 50, 90], [90, 90, 20, 20]],
    ids=["left of it", "right of it", "no width", "inverted"],
)
def test_boxes_without_pixels_change_nothing(box: list[float]) -> None:
    """Outside of the image, empty or inverted: nothing to draw."""
    assert (draw(Detections.of([box], [0.9], [1])) == GREY).all()


def test_boxes_over_the_edge_are_cut() -> None:
    """A huge box is drawn along the image's edge, its label inside."""
    image = draw(Detections.of([[-1e9, -5, 1e9, 2000]], [0.9], [1]))
    assert image[300, 0].tolist() == image[639, 300].tolist() == list(class_colour(1))
    tile = label_tiles("vehicle", 90, 1, DrawStyle.for_size((640, 640)).font_px)[0]
    assert find_tile(image, tile) == [(0, 0)]


def test_no_detections_leave_the_frame_alone() -> None:
    """An empty frame stays as it is."""
    assert (draw(Detections.empty()) == GREY).all()


def test_truth_is_drawn_only_on_request() -> None:
    """draw_truth decides, and nothing but black and white dashes appears."""
    truth = Truth.of([[100, 100, 200, 200]], [1])
    without = Annotator(STREET_LABELS).annotate(scene(), Detections.empty(), truth)
    drawn = Annotator(STREET_LABELS, draw_truth=True).annotate(scene(), Detections.empty(), truth)
    assert (without == GREY).all()
    assert set(np.unique(drawn)) == {0, GREY, 255}


def test_dashes_golden() -> None:
    """Golden: white and black in turn along the edge, one pixel thin, corners white."""
    image = scene(30, 20)
    draw_dashed(
        image,
        np.array([[2, 3, 14, 13]], np.float32),
        DrawStyle(line=2, font_px=11, tiny=12, dash=3),
    )
    assert image[3, 1:15, 0].tolist() == [GREY, *[255] * 3, *[0] * 3, *[255] * 3, 0, 0, 255, GREY]
    assert image[4, 3:13, 0].tolist() == [GREY] * 10


def test_truth_beyond_the_frame_is_cut() -> None:
    """Boxes partly or wholly outside raise nothing; non-finite ones are dropped."""
    truth = Truth.of([[-9, -9, 50, 50], [600, 600, 900, 900], [9, np.nan, 90, 90]], [1, 1, 1])
    image = Annotator(STREET_LABELS, draw_truth=True).annotate(scene(), Detections.empty(), truth)
    assert image[0, 0].tolist() == [255] * 3
    assert (image[60:590, 60:590] == GREY).all()


def test_annotator_travels_by_pickle_and_draws_the_same() -> None:
    """Workers get small bytes and make the same pixels."""
    annotator = Annotator(STREET_LABELS, score_min=0.2)
    travelled = pickle.dumps(annotator)
    detections = Detections.of([[9, 99, 90, 190], [50, 99, 390, 190]], [0.5, 0.49], [1, 2])
    assert len(travelled) < 1000
    again = pickle.loads(travelled).annotate(scene(), detections)
    assert np.array_equal(again, annotator.annotate(scene(), detections))


def test_read_only_scene_is_refused() -> None:
    """A decoded frame that is shared must be copied by the caller."""
    image = scene()
    image.flags.writeable = False
    with pytest.raises(ValueError, match=r"read-only image: pass scene\.copy\(\)"):
        Annotator(STREET_LABELS).annotate(image, Detections.empty())


def test_one_pixel_image() -> None:
    """The smallest image can be drawn on."""
    image = np.zeros((1, 1, 3), np.uint8)
    Annotator(STREET_LABELS).annotate(image, Detections.of([[0, 0, 1, 1]], [0.5], [1]))
    assert image[0, 0].tolist() == list(class_colour(1))


def test_annotate_costs_no_font_work_after_the_first_frame() -> None:
    """15 boxes on 640x640 take well under 2 ms of CPU, even on a busy machine."""
    rng = np.random.default_rng(3)
    low = rng.uniform(0, 500, (15, 2))
    detections = Detections.of(
        np.concatenate([low, low + rng.uniform(20, 140, (15, 2))], axis=1),
        rng.uniform(0.3, 1, 15),
        rng.choice([1, 2, 4], 15),
    )
    annotator, image = Annotator(STREET_LABELS), scene()
    annotator.annotate(image, detections)
    took = []
    for _ in range(20):
        start = time.process_time()
        annotator.annotate(image, detections)
        took.append(time.process_time() - start)
    assert min(took) < 0.002
