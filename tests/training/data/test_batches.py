"""From records to batches: the right records in the right order, decoded as the OD API would."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from painted import grey_example, painted_example, write_records
from pictures import odd_jpegs, odd_pngs, saved, smooth_picture
from PIL import Image as Pillow

from urbandet_ray.errors import RecordError
from urbandet_ray.frames import Frame, Truth
from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.records.example import example_from_frame
from urbandet_ray.records.example_proto import example_class
from urbandet_ray.records.images import decode_image, encode_jpeg, encode_png
from urbandet_ray.records.sources import list_sources
from urbandet_ray.storage import Storage
from urbandet_ray.training.augmentation.presets import Augmentation, augmentation
from urbandet_ray.training.data.batches import (
    augmented_images,
    decode_example,
    train_dataset,
    validation_dataset,
)
from urbandet_ray.training.data.record_index import RecordIndex, build_index, share_of_worker
from urbandet_ray.training.data.sampler import Sampler
from urbandet_ray.training.data.tensorflow_images import check_trainable

pytestmark = pytest.mark.train

NONE = Augmentation(())
PICTURE = smooth_picture()


class SmallModel:
    """The input half of a TrainableModel: 16 x 16 pixels, room for 20 boxes."""

    num_classes = 3

    def example(self, image: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Resized and padded."""
        tf = open_odapi().tf
        pixels = tf.ensure_shape(tf.image.resize(image["image"], [16, 16]), [16, 16, 3])
        boxes = image["groundtruth_boxes"][:20]
        boxes = tf.pad(boxes, [[0, 20 - tf.shape(boxes)[0]], [0, 0]])
        return {"image": pixels}, {"groundtruth_boxes": tf.ensure_shape(boxes, [20, 4])}


@pytest.fixture
def index(tmp_path: Path) -> RecordIndex:
    """Ten records, each of one grey: ten times its number; one of them without labels."""
    records = [grey_example(10 * n, None if n == 4 else [1]) for n in range(10)]
    write_records(tmp_path / "records/drive.tfrecord", records)
    storage = Storage()
    sources = list_sources(str(tmp_path / "records"), storage)
    return build_index(share_of_worker(sources, 0, 1), storage, tmp_path / "cache")


def numbers_of(features: dict[str, Any]) -> list[int]:
    """Which records a batch shows."""
    return [round(grey / 10) for grey in features["image"].numpy()[:, 8, 8, 0].tolist()]


def test_batches_are_the_samplers(index: RecordIndex) -> None:
    """In its order, over the ends of epochs."""
    sampler = Sampler(10, 4, seed=3, rank=0)
    batches = train_dataset(index, sampler, SmallModel(), NONE, 0, threads=2)
    for step, (features, _) in enumerate(batches.take(6)):
        assert numbers_of(features) == sampler.ids(step).tolist()


def test_a_run_goes_on_at_its_step(index: RecordIndex) -> None:
    """Without going through the records before it."""
    sampler = Sampler(10, 4, seed=3, rank=0)
    batches = train_dataset(index, sampler, SmallModel(), NONE, 1000, threads=2)
    features, _ = next(iter(batches))
    assert numbers_of(features) == sampler.ids(1000).tolist()


def test_strong_batches_have_fixed_shapes(index: RecordIndex) -> None:
    """Mosaic and mixup take their companions from the index."""
    augment = augmentation("strong", (32, 32))
    batches = train_dataset(index, Sampler(10, 4, 0, 0), SmallModel(), augment, 0, threads=2)
    for features, labels in batches.take(5):
        assert features["image"].shape == (4, 16, 16, 3)
        assert labels["groundtruth_boxes"].shape == (4, 20, 4)


def test_augmentations_differ_from_epoch_to_epoch(index: RecordIndex) -> None:
    """The same image is flipped in some epochs only."""
    sampler = Sampler(10, 10, 0, 0)
    flip = augmentation("flip", (32, 32))
    batches = train_dataset(index, sampler, SmallModel(), flip, 0, threads=2)
    places = set()
    for step, (_, labels) in enumerate(batches.take(12)):
        row = sampler.ids(step).tolist().index(7)
        places.add(round(float(labels["groundtruth_boxes"][row, 0, 1]), 3))
    assert places == {0.125, 0.375}


def test_workers_draw_differently(index: RecordIndex) -> None:
    """And a resumed run does not repeat its first draws; TensorFlow's own seed stays as it is."""
    tf, flip = open_odapi().tf, augmentation("flip", (32, 32))
    tf.random.set_seed(5)
    undisturbed = tf.random.uniform([3]).numpy().tolist()
    tf.random.set_seed(5)
    drawn = []
    for rank, start in ((0, 0), (0, 0), (1, 0), (0, 3)):
        sampler = Sampler(10, 10, 0, rank)
        batches = train_dataset(index, sampler, SmallModel(), flip, start, threads=1)
        lefts = [labels["groundtruth_boxes"].numpy()[:, 0, 1] for _, labels in batches.take(4)]
        drawn.append(np.concatenate(lefts).tolist())
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]
    assert drawn[0] != drawn[3]
    assert tf.random.uniform([3]).numpy().tolist() == undisturbed


def test_validation_shows_each_record_once(index: RecordIndex) -> None:
    """In the given order; the last batch is filled with copies whose id is -1."""
    ids = np.array([7, 2, 4, 9, 0])
    batches = list(validation_dataset(index, ids, SmallModel(), 3))
    assert [numbers.numpy().tolist() for _, numbers in batches] == [[7, 2, 4], [9, 0, -1]]
    assert [numbers_of(features) for features, _ in batches] == [[7, 2, 4], [9, 0, 0]]


def test_a_share_without_records_gives_no_batch(index: RecordIndex) -> None:
    """Some worker may have none to validate on."""
    assert not list(validation_dataset(index, np.zeros(0, np.int64), SmallModel(), 3))


def _jpeg_example() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    truth = Truth.of(
        [[3, 4, 30, 20], [10, 5, 60, 40]],
        [3, 1],
        is_crowd=[True, False],
        difficult=[False, True],
        weights=[0.5, 2.0],
        masks_png=tuple(encode_png(np.eye(40, 60, k, np.uint8)) for k in (0, 5)),
    )
    encoded = encode_jpeg(pixels, 90)
    return example_from_frame(Frame("frame", "drive", encoded, "jpeg", (60, 40), truth))


@pytest.mark.parametrize("record", [_jpeg_example(), painted_example(5, 4)])
def test_decoding_agrees_with_the_od_apis_decoder(record: bytes) -> None:
    """Same pixels, same columns by the same names."""
    odapi = open_odapi()
    masks = record == _jpeg_example()
    png_masks = 2  # InputReader.PNG_MASKS
    decoder = odapi.tf_example_decoder.TfExampleDecoder(
        load_instance_masks=masks, instance_mask_type=png_masks
    )
    theirs = decoder.decode(odapi.tf.constant(record))
    ours = decode_example(odapi.tf.constant(record), masks=masks)
    for name, value in ours.items():
        expected = theirs[name].numpy()
        assert value.numpy() == pytest.approx(expected.astype(value.dtype.as_numpy_dtype)), name


def test_boxes_that_cannot_be_learnt_are_left_out() -> None:
    """Inverted, empty, outside or not a number; what reaches over the edge is clipped."""
    example = example_class()()
    example.ParseFromString(grey_example(5, [1, 2, 3, 4, 5]))
    feature = example.features.feature
    for side, values in {
        "ymin": [0.1, 0.5, 0.2, float("nan"), -0.5],
        "xmin": [0.1, 0.1, 1.2, 0.1, 0.5],
        "ymax": [0.4, 0.4, 0.6, 0.4, 0.5],
        "xmax": [0.4, 0.4, 1.4, 0.4, 1.5],
    }.items():
        feature[f"image/object/bbox/{side}"].float_list.value[:] = values
    image = decode_example(open_odapi().tf.constant(example.SerializeToString()))
    assert image["groundtruth_classes"].numpy().tolist() == [1, 5]
    assert image["groundtruth_boxes"].numpy()[1].tolist() == [0, 0.5, 0.5, 1]


def test_a_record_without_labels_has_empty_columns() -> None:
    """With masks asked for, those are of the image's size too."""
    image = decode_example(open_odapi().tf.constant(grey_example(5, None)), masks=True)
    assert image["groundtruth_boxes"].shape == (0, 4)
    assert image["groundtruth_weights"].shape == (0,)
    assert image["groundtruth_instance_masks"].shape == (0, 24, 32)


def test_missing_masks_weigh_nothing() -> None:
    """Their boxes are trained all the same."""
    image = decode_example(open_odapi().tf.constant(grey_example(5, [1, 2])), masks=True)
    assert image["groundtruth_instance_masks"].shape == (2, 24, 32)
    assert image["groundtruth_instance_mask_weights"].numpy().tolist() == [0, 0]
    assert image["groundtruth_weights"].numpy().tolist() == [1, 1]


def test_pictures_to_look_at_are_the_same_for_the_same_seed() -> None:
    """And others for another."""
    records = [painted_example(n, 4) for n in range(4)]
    companions = np.array([[1, 2, 3], [2, 3, 0], [3, 0, 1], [0, 1, 2]])
    augment = augmentation("strong", (64, 64))
    shown = [
        np.stack([image for image, _, _ in augmented_images(records, augment, companions, seed)])
        for seed in (1, 1, 2)
    ]
    assert (shown[0] == shown[1]).all()
    assert (shown[0] != shown[2]).any()


@pytest.mark.parametrize("encoded", [*odd_jpegs(PICTURE).values(), *odd_pngs(PICTURE).values()])
def test_odd_images_are_those_that_tensorflow_decodes(encoded: bytes) -> None:
    """To the same pixels, up to its faster inverse transform of a JPEG."""
    tf = open_odapi().tf
    seen = tf.io.decode_image(encoded, channels=3).numpy().astype(int)
    assert np.abs(seen - decode_image(encoded)).max() <= 8


@pytest.mark.parametrize(
    ("image_format", "image", "told"),
    [
        ("bmp", PICTURE, None),
        ("webp", PICTURE, None),
        ("gif", Pillow.fromarray(PICTURE).quantize(16), None),
        ("bmp", Pillow.fromarray(PICTURE).quantize(16), "decodes this BMP to other colours"),
        ("bmp", Pillow.fromarray(PICTURE).convert("1"), "does not decode this BMP"),
        ("tiff", PICTURE, r"does not decode this TIFF \(Unknown image file format"),
        ("webp", np.dstack([PICTURE, PICTURE[..., 0]]), "does not decode this WEBP"),
    ],
)
def test_images_that_tensorflow_does_not_decode_are_told(
    image_format: str, image: Any, told: str | None
) -> None:
    """Training leaves them out with a word, where inference reads them."""
    frame = Frame("a", "s", saved(image, image_format), image_format)
    if told is None:
        check_trainable(frame)
        return
    with pytest.raises(RecordError, match=f"untrainable-image: TensorFlow {told}"):
        check_trainable(frame)
