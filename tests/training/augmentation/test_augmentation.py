"""Boxes follow their pixels and columns stay together, whatever is done to an image."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from painted import CLASSES, COLOURS, paint, random_boxes

from urbandet_ray.boxes import boxes_from_yxyx_norm, boxes_to_yxyx_norm
from urbandet_ray.errors import ConfigError
from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.training.augmentation.cut_out import FILL
from urbandet_ray.training.augmentation.presets import (
    Augmentation,
    CutOut,
    Mixup,
    Mosaic,
    augmentation,
)

pytestmark = pytest.mark.train

Columns = dict[str, NDArray[Any]]
SIZE_WH = (96, 64)
MASKS = "groundtruth_instance_masks"
FEW = settings(max_examples=15)
SEEDS = st.integers(0, 2**20)
COUNTS = st.integers(0, 6)

CROP = """data_augmentation_options { random_crop_image { min_object_covered: 0.0
  min_aspect_ratio: 0.75 max_aspect_ratio: 3.0 min_area: 0.3 max_area: 1.0 overlap_thresh: 0.0 } }
"""
SCALED = """data_augmentation_options {
  random_scale_crop_and_pad_to_square { output_size: 96 scale_min: 0.5 scale_max: 2.0 } }
"""
FLIPPED = "data_augmentation_options { random_horizontal_flip { probability: 1.0 } }"
MOVES = ("flip", "course", CROP, SCALED, FLIPPED, "mosaic of all")
EVERYTHING = (*MOVES, "mosaic", "none", "strong", "mixup", "cut-out")


def make(choice: str) -> Augmentation:
    """A preset, options, or one of our own steps on every image."""
    own = {
        "mosaic": Mosaic(1.0),
        "mosaic of all": Mosaic(1.0, keep_share=0.0),
        "mixup": Mixup(1.0),
        "cut-out": CutOut(1.0),
    }
    return Augmentation((own[choice],)) if choice in own else augmentation(choice, (96, 96))


def painted(seed: int, count: int, size_wh: tuple[int, int] = SIZE_WH) -> Columns:
    """An image's columns with masks; crowds are the odd classes."""
    boxes, ids = random_boxes(seed, count, size_wh)
    masks = np.zeros((len(ids), size_wh[1], size_wh[0]), np.float32)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.astype(int), strict=True):
        mask[y0:y1, x0:x1] = 1
    return {
        "image": paint(boxes, ids, size_wh).astype(np.float32),
        "groundtruth_boxes": boxes_to_yxyx_norm(boxes, size_wh),
        "groundtruth_classes": ids,
        "groundtruth_weights": np.ones(len(ids), np.float32),
        "groundtruth_is_crowd": ids % 2 == 1,
        "groundtruth_difficult": ids > 2,
        "groundtruth_group_of": ids < 2,
        MASKS: masks,
        "groundtruth_instance_mask_weights": ids.astype(np.float32),
    }


@cache
def compiled(choice: str) -> Callable[..., Any]:
    """The augmentation as a graph, traced once as a dataset would."""
    tf, step = open_odapi().tf, make(choice)
    tf.random.set_seed(1)  # before tracing: it decides all the draws of the graph's later calls

    def spec(column: NDArray[Any]) -> Any:
        free = [3 if size == 3 and column.ndim == 3 else None for size in column.shape]
        if column.ndim == 2:
            free = [None, 4]
        return tf.TensorSpec(free, column.dtype)

    one = {name: spec(column) for name, column in painted(0, 2).items()}

    @tf.function(input_signature=[one, [one] * 3])
    def run(image: Any, others: Any) -> Any:
        return step(image, lambda number: others[number])

    return run


def augment(choice: str, image: Columns, others: Sequence[Columns]) -> Columns:
    """The image augmented, as arrays; each call draws anew."""
    done = compiled(choice)(image, list(others))
    return {name: value.numpy() for name, value in done.items()}


def augmented(choice: str, seed: int, count: int) -> Columns:
    """A painted image augmented; its companions are of another size."""
    others = [painted(seed + n, 4, (60, 80)) for n in (1, 2, 3)]
    return augment(choice, painted(seed, count), others)


def pixel_boxes(done: Columns) -> NDArray[np.float32]:
    """[n, 4] xyxy."""
    height, width = done["image"].shape[:2]
    return boxes_from_yxyx_norm(done["groundtruth_boxes"], (width, height))


def interior(box: NDArray[np.float32]) -> tuple[slice, slice]:
    """The pixels of a box that interpolation at its edge does not reach."""
    x0, y0 = np.ceil(box[:2] + 2).astype(int)
    x1, y1 = np.floor(box[2:] - 2).astype(int)
    return slice(y0, max(y1, y0)), slice(x0, max(x1, x0))


@pytest.mark.parametrize("choice", EVERYTHING)
@FEW
@given(seed=SEEDS, count=COUNTS)
def test_columns_stay_together(choice: str, seed: int, count: int) -> None:
    """One length, boxes in [0, 1] with some area, and each row keeps its own values."""
    done = augmented(choice, seed, count)
    boxes, ids = done["groundtruth_boxes"], done["groundtruth_classes"]
    assert {len(column) for name, column in done.items() if name != "image"} == {len(ids)}
    assert boxes.shape == (len(ids), 4)
    assert (boxes >= 0).all()
    assert (boxes <= 1).all()
    assert (boxes[:, :2] < boxes[:, 2:]).all()
    assert (done["groundtruth_is_crowd"] == (ids % 2 == 1)).all()
    assert (done["groundtruth_difficult"] == (ids > 2)).all()
    assert (done["groundtruth_group_of"] == (ids < 2)).all()
    assert (done["groundtruth_instance_mask_weights"] == ids).all()
    assert done[MASKS].shape[1:] == done["image"].shape[:2]
    assert done["image"].dtype == np.float32
    assert ids.dtype == np.int64


@pytest.mark.parametrize("choice", MOVES)
@FEW
@given(seed=SEEDS, count=COUNTS)
def test_boxes_follow_their_pixels(choice: str, seed: int, count: int) -> None:
    """What is inside a box has the colour of its class, in the image and in its mask."""
    done = augmented(choice, seed, count)
    for box, class_id, mask in zip(
        pixel_boxes(done), done["groundtruth_classes"], done[MASKS], strict=True
    ):
        inside = interior(box)
        assert np.abs(done["image"][inside] - COLOURS[class_id]).max(initial=0) < 1
        assert (mask[inside] > 0.99).all()
        outside = mask.copy()
        outside[
            max(0, int(box[1]) - 1) : int(box[3]) + 2, max(0, int(box[0]) - 1) : int(box[2]) + 2
        ] = 0
        assert not outside.any()


@pytest.mark.parametrize("choice", MOVES)
@FEW
@given(seed=SEEDS)
def test_boxes_hold_all_pixels_of_their_objects(choice: str, seed: int) -> None:
    """No piece of an object is without its box."""
    done = augmented(choice, seed, 5)
    lonely = done["image"].max(axis=2) > 200
    for x0, y0, x1, y1 in pixel_boxes(done):
        lonely[max(0, int(y0) - 1) : int(y1) + 2, max(0, int(x0) - 1) : int(x1) + 2] = False
    assert not lonely.any()


@FEW
@given(seed=SEEDS)
def test_flipping_mirrors_boxes(seed: int) -> None:
    """By hand: the box from 1 - xmax to 1 - xmin."""
    image = painted(seed, 4)
    done = augment(FLIPPED, image, [image] * 3)
    ymin, xmin, ymax, xmax = image["groundtruth_boxes"].T
    mirrored = np.stack([ymin, 1 - xmax, ymax, 1 - xmin], axis=1)
    assert done["groundtruth_boxes"] == pytest.approx(mirrored, abs=1e-5)
    assert (done["image"] == image["image"][:, ::-1]).all()


@FEW
@given(seed=SEEDS)
def test_mosaic_shows_four_images(seed: int) -> None:
    """Each corner comes from another one."""
    images = []
    for n in range(4):
        image = painted(seed, 0)
        image["image"] = np.full((64, 96, 3), 40.0 * (n + 1), np.float32)
        images.append(image)
    shown = augment("mosaic", images[0], images[1:])["image"]
    corners = shown[[0, 0, -1, -1], [0, -1, 0, -1], 0]
    assert corners.tolist() == [40, 80, 120, 160]
    assert shown.shape == (64, 96, 3)


def test_mosaic_drops_what_little_is_left() -> None:
    """A box of which the window shows less than 30 % goes with all its columns."""
    image = painted(0, 0)
    whole = np.array([[0, 0, 1, 1]], np.float32)
    big = {**painted(3, 1), "groundtruth_boxes": whole}
    for _ in range(20):
        done = augment("mosaic", big, [image] * 3)
        share = (done["groundtruth_boxes"][:, 2] * done["groundtruth_boxes"][:, 3]).tolist()
        assert len(share) <= 1
        # at scale 0.5 to 1 the quarter shows `share / scale**2` of the box
        assert all(one / 0.25 >= 0.29 for one in share)


@FEW
@given(seed=SEEDS, counts=st.tuples(COUNTS, COUNTS))
def test_mixup_blends_by_the_weights_of_the_boxes(seed: int, counts: tuple[int, int]) -> None:
    """Boxes of both images, each weighted by how much of its image is seen."""
    one, two = painted(seed, counts[0]), painted(seed + 1, max(counts[1], 1))
    done = augment("mixup", one, [two] * 3)
    n = len(one["groundtruth_classes"])
    weights = done["groundtruth_weights"]
    share = 1 - weights[-1]
    assert 0 <= share <= 1
    assert weights[:n] == pytest.approx(share, abs=1e-5)
    blend = one["image"] * share + two["image"] * (1 - share)
    assert np.abs(done["image"] - blend).max() < 0.1
    both = np.concatenate([one["groundtruth_boxes"], two["groundtruth_boxes"]])
    assert (done["groundtruth_boxes"] == both).all()


@FEW
@given(seed=SEEDS)
def test_cut_out_drops_what_is_hidden(seed: int) -> None:
    """Boxes with more than 70 % hidden go, the others stay where they were."""
    image = painted(seed, 6)
    done = augment("cut-out", image, [image] * 3)
    hidden = (done["image"] == FILL).all(axis=2)
    boxes = pixel_boxes(image).astype(int)
    shares = np.array([hidden[y0:y1, x0:x1].mean() for x0, y0, x1, y1 in boxes])
    expected = image["groundtruth_boxes"][shares <= 0.7]
    assert (done["groundtruth_boxes"] == expected).all()
    assert hidden.any()
    assert not (done[MASKS] * hidden).any()
    assert (done["image"][~hidden] == image["image"][~hidden]).all()


def test_cut_out_hides_whole_boxes_somewhere() -> None:
    """Small boxes do get dropped, or the test above could not fail."""
    image = painted(0, 6)
    tiny = image["groundtruth_boxes"].copy()
    tiny[:, 2:] = tiny[:, :2] + 0.02
    image["groundtruth_boxes"] = tiny
    left = [len(augment("cut-out", image, [image] * 3)["groundtruth_boxes"]) for _ in range(20)]
    assert min(left) < 6


@pytest.mark.parametrize(("choice", "size"), [("strong", (96, 96)), (SCALED, (96, 96))])
def test_presets_that_scale_give_the_output_size(choice: str, size: tuple[int, int]) -> None:
    """A square of the model's longer side."""
    assert augmented(choice, 1, 3)["image"].shape[:2] == size


def test_strong_keeps_colours_in_range() -> None:
    """The model's preprocessing expects 0 to 255."""
    for seed in range(8):
        shown = augmented("strong", seed, 4)["image"]
        assert shown.min() >= 0
        assert shown.max() <= 255.01


def test_config_takes_the_pipelines_own_list() -> None:
    """The messages of train_config.data_augmentation_options."""
    config = open_odapi().pipeline_pb2.TrainEvalPipelineConfig()
    config.train_config.data_augmentation_options.add().random_horizontal_flip.probability = 1.0
    options = config.train_config.data_augmentation_options
    [step] = augmentation("config", (96, 96), options).steps
    assert getattr(step, "names") == ("random_horizontal_flip",)  # noqa: B009


@pytest.mark.parametrize(
    ("choice", "companions"), [("none", 0), ("flip", 0), ("course", 0), ("strong", 3)]
)
def test_companions_are_asked_for_only_where_needed(choice: str, companions: int) -> None:
    """Reading three more records an image is not free."""
    assert augmentation(choice, (96, 96)).companions == companions


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("stronger", "augmentation 'stronger' is not known: choose one of config, none, flip"),
        (
            "data_augmentation_options { random_flop { } }",
            "options do not parse: .*random_flop.*expected data_augmentation_options",
        ),
        ("data_augmentation_options { }", "is empty: name an augmentation in it"),
    ],
)
def test_unusable_choices_are_refused(choice: str, message: str) -> None:
    """Before the run begins."""
    with pytest.raises(ConfigError, match=message):
        augmentation(choice, (96, 96))


def test_options_that_lose_masks_are_refused_where_masks_are_trained() -> None:
    """The OD API would leave masks behind while boxes move."""
    choice = "data_augmentation_options { random_crop_pad_image { } }"
    with pytest.raises(ConfigError, match="random_crop_pad_image does not move masks"):
        augmented(choice, 0, 2)


def test_every_class_has_a_colour() -> None:
    """Or painted boxes could not be told from the background."""
    assert len({tuple(colour) for colour in COLOURS.tolist()}) == CLASSES + 1
