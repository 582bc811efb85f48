"""TF Example <-> Frame: every key, wire compatibility, faulty labels."""

import hashlib
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from urbandet_ray.errors import RecordError
from urbandet_ray.frames import Frame, Truth
from urbandet_ray.records.example import (
    example_from_frame,
    frame_and_problems_from_example,
    frame_from_example,
    parse_features,
    repaired_example,
)
from urbandet_ray.records.example_proto import example_class
from urbandet_ray.records.images import encode_jpeg, encode_png

WIDTH, HEIGHT = 64, 48
JPEG = encode_jpeg(np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
PNG = encode_png(np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
BOX = {"xmin": [0.25], "xmax": [0.5], "ymin": [0.0], "ymax": [1.0]}


def field(number: int, body: bytes) -> bytes:
    """A length-delimited protobuf field, written by hand."""
    size, length = len(body), b""
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + body


def feature(values: list[Any]) -> bytes:
    """A Feature as tensorflow/core/example/feature.proto lays it out."""
    if values and isinstance(values[0], bytes):
        return field(1, b"".join(field(1, value) for value in values))
    if values and isinstance(values[0], float):
        return field(2, field(1, struct.pack(f"<{len(values)}f", *values)))
    return field(3, field(1, bytes(values)))  # int64 below 128: one byte each


def example(columns: dict[str, list[Any]]) -> bytes:
    entries = (
        field(1, field(1, key.encode()) + field(2, feature(values)))
        for key, values in columns.items()
    )
    return field(1, b"".join(entries))


def labelled(label: list[int] | None = None, **sides: list[float]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {"image/encoded": [JPEG]}
    for side, values in (BOX | sides).items():
        columns[f"image/object/bbox/{side}"] = values
    if label != []:
        columns["image/object/class/label"] = label or [1] * len((BOX | sides)["xmin"])
    return columns


def parse(columns: dict[str, list[Any]]) -> tuple[Frame, tuple[str, ...]]:
    return frame_and_problems_from_example(example(columns), default_key="d-000001", segment="d")


def test_every_key_of_a_hand_written_record_is_read() -> None:
    """Bytes laid out by hand, as the OD API's decoder documents them."""
    columns = labelled([4, 1], xmin=[0.25, 0.0], xmax=[0.5, 1.0], ymin=[0.0, 0.5], ymax=[1.0, 0.75])
    columns |= {
        "image/format": [b"jpg"],
        "image/filename": [b"frame_000012.jpg"],
        "image/height": [HEIGHT],
        "image/width": [WIDTH],
        "image/object/class/text": [b"cyclist", b"vehicle"],
        "image/object/difficult": [0, 1],
        "image/object/is_crowd": [1, 0],
        "image/object/group_of": [1, 1],
        "image/object/area": [10.5, 2.0],
        "image/object/weight": [0.5, 1.0],
        "image/object/mask": [PNG, PNG],
    }
    frame, problems = parse(columns)
    assert problems == ()
    assert (frame.frame_key, frame.segment, frame.format) == ("frame_000012", "d", "jpeg")
    assert (frame.encoded, frame.size_wh) == (JPEG, (WIDTH, HEIGHT))
    truth = frame.truth
    assert truth is not None
    assert truth.boxes_xyxy.tolist() == [[16, 0, 32, 48], [0, 24, 64, 36]]
    assert truth.class_ids.tolist() == [4, 1]
    assert truth.class_texts == ("cyclist", "vehicle")
    assert truth.difficult.tolist() == [False, True]
    assert truth.is_crowd.tolist() == [True, False]
    assert truth.group_of.tolist() == [True, True]
    assert truth.masks_png == (PNG, PNG)
    assert truth.areas_px is not None
    assert truth.weights is not None
    assert (truth.areas_px.tolist(), truth.weights.tolist()) == ([10.5, 2.0], [0.5, 1.0])


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    n = draw(st.integers(0, 5))
    corners = np.array(
        [[draw(st.integers(0, WIDTH - 1)), draw(st.integers(0, HEIGHT - 1))] for _ in range(n)],
        np.float32,
    ).reshape(-1, 2)
    flags = st.lists(st.booleans(), min_size=n, max_size=n)
    numbers = st.none() | st.lists(st.floats(0, 100, width=32), min_size=n, max_size=n)
    truth = Truth.of(
        np.concatenate([corners, corners + draw(st.sampled_from([0.5, 1.0]))], axis=1),
        draw(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=n, max_size=n)),
        tuple(draw(st.lists(st.text(max_size=5), min_size=n, max_size=n))),
        difficult=draw(flags),
        is_crowd=draw(flags),
        group_of=draw(flags),
        masks_png=(draw(st.sampled_from([b"", PNG])),) * n,
        areas_px=draw(numbers) if n else None,
        weights=draw(numbers) if n else None,
        truncated=draw(numbers) if n else None,
        occluded=draw(st.none() | st.lists(st.integers(0, 3), min_size=n, max_size=n))
        if n
        else None,
    )
    image_format = draw(st.sampled_from(["jpeg", "png"]))
    return Frame(
        frame_key=f"{draw(st.text(alphabet='abc/_-é', max_size=8))}{draw(st.integers(0, 10**9))}",
        segment="d",
        encoded=JPEG if image_format == "jpeg" else PNG,
        format=image_format,
        size_wh=draw(st.sampled_from([None, (WIDTH, HEIGHT)])),
        truth=draw(st.sampled_from([truth, None])),
        camera=draw(st.sampled_from(["", "FRONT", "côté"])),
        timestamp_us=draw(st.none() | st.integers(-(2**63), 2**63 - 1)),
    )


@given(frames())
def test_round_trip(frame: Frame) -> None:
    """A frame that was written is read back, column by column."""
    back, problems = frame_and_problems_from_example(
        example_from_frame(frame), default_key="x", segment="d"
    )
    assert problems == ()
    assert (back.encoded, back.format, back.segment) == (frame.encoded, frame.format, "d")
    assert back.frame_key in (frame.frame_key, "x")
    assert back.size_wh == (WIDTH, HEIGHT)
    assert (back.camera, back.timestamp_us) == (frame.camera, frame.timestamp_us)
    assert (back.truth is None) == (frame.truth is None)
    if frame.truth is None or back.truth is None:
        return
    np.testing.assert_allclose(back.truth.boxes_xyxy, frame.truth.boxes_xyxy, atol=1e-4)
    texts = frame.truth.class_texts  # written where each box has one
    assert back.truth.class_texts == (texts if all(texts) else ("",) * len(texts))
    assert back.truth.masks_png == frame.truth.masks_png
    columns = ("class_ids", "difficult", "is_crowd", "group_of", "areas_px", "weights")
    for name in (*columns, "truncated", "occluded"):
        np.testing.assert_array_equal(getattr(back.truth, name), getattr(frame.truth, name))


@pytest.mark.parametrize(
    ("values", "read"),
    [([0, 1], [0.0, 1.0]), ([0.0, 0.25], [0.0, 0.25]), ([1], None), (None, None)],
    ids=["as VOC's converter writes", "as KITTI's converter writes", "short", "none"],
)
def test_truncation_is_read_as_the_converters_write_it(
    values: list[Any] | None, read: list[float] | None
) -> None:
    """Integers or floats; a column of another length costs nothing but itself."""
    sides = {f"image/object/bbox/{side}": [0.1, 0.2] for side in ("xmin", "ymin")}
    sides |= {f"image/object/bbox/{side}": [0.5, 0.6] for side in ("xmax", "ymax")}
    columns: dict[str, list[Any]] = {"image/encoded": [JPEG], **sides}
    columns["image/object/class/label"] = [1, 1]
    if values is not None:
        columns["image/object/truncated"] = values
    frame, problems = parse(columns)
    assert len(problems) == (values == [1])
    assert frame.truth is not None
    got = frame.truth.truncated
    assert (None if got is None else got.tolist()) == read


@pytest.mark.parametrize("name", ["a.jpg", "left/a.png", "left/000001.jpg"])
def test_a_file_name_gives_the_frame_its_key(name: str) -> None:
    """With its folder, whatever it is called."""
    frame = Frame(name.rpartition(".")[0], "d", JPEG, "jpeg", (WIDTH, HEIGHT), file_name=name)
    back, _ = frame_and_problems_from_example(
        example_from_frame(frame), default_key="x", segment="d"
    )
    assert back.frame_key == frame.frame_key


@settings(max_examples=300)
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_a_frame_or_a_record_error(data: bytes, inside: bool) -> None:
    """Arbitrary bytes, alone or behind a good record's, never raise anything else."""
    data = example(labelled()) + data if inside else data
    try:
        frame_from_example(data, default_key="d", segment="d")
    except RecordError as error:
        assert error.reason in ("not-an-example", "no-image-key")


@pytest.mark.parametrize("data", [b"", b"\xff" * 20, b"just text", example({})])
def test_what_is_no_example(data: bytes) -> None:
    """not-an-example, with the number of bytes."""
    with pytest.raises(RecordError, match=rf"^not-an-example: {len(data)} bytes"):
        parse_features(data)


@pytest.mark.parametrize("image", [None, [b""], [7], [0.5]])
def test_no_image(image: list[Any] | None) -> None:
    """no-image-key where the image is absent, empty or of another kind; the keys are named."""
    columns: dict[str, list[Any]] = {"image/height": [3]}
    if image is not None:
        columns["image/encoded"] = image
    with pytest.raises(RecordError, match=r"no-image-key: .*it has .*image/height"):
        parse(columns)


def test_unlabelled_and_empty_are_told_apart() -> None:
    """No object key at all is no truth; empty object columns are a frame with nothing in it."""
    assert parse({"image/encoded": [JPEG]})[0].truth is None
    empty = frame_from_example(
        example_from_frame(Frame("f1", "d", JPEG, "jpeg", truth=Truth.empty())),
        default_key="d",
        segment="d",
    )
    assert empty.truth is not None
    assert len(empty.truth) == 0


@pytest.mark.parametrize(
    ("sides", "reason", "kept"),
    [
        (
            {"xmin": [float("nan")]},
            "box-not-finite: box 0 has ymin 0, xmin nan, ymax 1, xmax 0.5",
            0,
        ),
        ({"xmax": [float("inf")]}, "box-not-finite: box 0", 0),
        ({"xmin": [0.75]}, "box-inverted: box 0 has ymin 0, xmin 0.75, ymax 1, xmax 0.5", 0),
        ({"xmin": [0.5]}, "box-empty: box 0", 0),
        ({"xmax": [1.5]}, "box-outside: box 0", 1),
        ({"xmin": [-0.25]}, "box-outside: box 0", 1),
    ],
)
def test_faulty_boxes_are_named_and_never_reach_the_truth(
    sides: dict[str, list[float]], reason: str, kept: int
) -> None:
    """The frame stays; its boxes are clipped, or left out where nothing of them remains."""
    frame, problems = parse(labelled(**sides))
    assert problems[0].startswith(reason)
    assert frame.truth is not None
    assert len(frame.truth) == kept
    assert (frame.truth.boxes_xyxy >= 0).all()
    assert (frame.truth.boxes_xyxy <= [WIDTH, HEIGHT, WIDTH, HEIGHT]).all()


@pytest.mark.parametrize("left", [0.0, 16.0])
def test_boxes_in_pixels_are_left_out(left: float) -> None:
    """One that begins at the corner would come to the whole image once it is clipped."""
    frame, problems = parse(labelled(xmin=[left], xmax=[32.0], ymin=[0.0], ymax=[48.0]))
    assert [problem.split(":")[0] for problem in problems] == ["box-pixels"]
    assert frame.truth is not None
    assert len(frame.truth) == 0


def test_one_faulty_box_spares_its_neighbours() -> None:
    """All columns lose the same row."""
    columns = labelled(
        [1, 2, 4],
        xmin=[0.0, float("nan"), 0.5],
        xmax=[0.5, 1.0, 1.0],
        ymin=[0.0] * 3,
        ymax=[1.0] * 3,
    )
    columns["image/object/class/text"] = [b"a", b"b", b"c"]
    columns["image/object/weight"] = [1.0, 2.0, 3.0]
    truth = parse(columns)[0].truth
    assert truth is not None
    assert (truth.class_ids.tolist(), truth.class_texts) == ([1, 4], ("a", "c"))
    assert truth.weights is not None
    assert truth.weights.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (labelled([1, 2]), "image/object/class/label has 2 values, image/object/bbox/ymin has 1"),
        (labelled(xmin=[0.1, 0.2], label=[1]), "image/object/bbox/xmin has 2 values"),
        (
            labelled() | {"image/object/bbox/xmin": [b"1"]},
            "bbox/xmin is a bytes_list, expected a float",
        ),
    ],
)
def test_labels_that_do_not_fit_leave_the_frame(
    columns: dict[str, list[Any]], message: str
) -> None:
    """bad-labels: no truth, but the frame can be inferred."""
    frame, problems = parse(columns)
    assert frame.encoded == JPEG
    assert frame.truth is None
    assert problems[0].startswith("bad-labels: ")
    assert message in problems[0]


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ({"class/text": [b"a", b"b"]}, "class/text has 2 values, image/object/bbox/ymin has 1"),
        ({"is_crowd": [1, 0]}, "is_crowd has 2 values"),
        ({"difficult": [b"no"]}, "difficult is a bytes_list, expected a int64_list"),
        ({"weight": [1]}, "weight is a int64_list, expected a float_list"),
        ({"mask": [0.0] * 16}, "mask has 16 floats, expected a PNG for each of 1 boxes or 1 x 48"),
        ({"mask": [PNG, PNG]}, "mask has 2 values"),
        ({"class/label": [1, 2], "class/text": [b"car"]}, "class/label has 2 values"),
    ],
)
def test_an_odd_column_costs_itself_alone(odd: dict[str, list[Any]], message: str) -> None:
    """The box stays, and TensorFlow gets a record that parses."""
    columns = labelled() | {f"image/object/{name}": values for name, values in odd.items()}
    frame, problems = parse(columns)
    assert frame.truth is not None
    assert frame.truth.boxes_xyxy.tolist() == [[16, 0, 32, 48]]
    assert problems[0].startswith("odd-column: image/object/")
    assert message in problems[0]
    again, problems = frame_and_problems_from_example(
        repaired_example(example(columns)), default_key="d-000001", segment="d"
    )
    assert not [one for one in problems if one.startswith("odd-column")]
    assert again.truth is not None
    assert again.truth.boxes_xyxy.tolist() == [[16, 0, 32, 48]]


def test_masks_as_numbers_are_read() -> None:
    """The OD API's numerical masks: floats of the whole frame, a box after another."""
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    pixels[:, 16:32] = 255
    values = (pixels.ravel() / 255.0).tolist()
    frame, problems = parse(labelled() | {"image/object/mask": values})
    assert (problems, frame.truth is not None) == ((), True)
    assert frame.truth is not None
    assert frame.truth.masks_png == (encode_png(pixels),)


def test_a_class_id_beyond_32_bits_is_a_bad_label() -> None:
    """It would wrap around silently."""
    message = example_class()()
    message.ParseFromString(example(labelled()))
    message.features.feature["image/object/class/label"].int64_list.value[0] = 2**40
    frame, problems = frame_and_problems_from_example(
        message.SerializeToString(), default_key="d", segment="d"
    )
    assert frame.truth is None
    assert problems == (f"bad-labels: image/object/class/label has an id beyond 32 bits: {2**40}",)


def test_texts_without_ids() -> None:
    """Boxes with a name only keep it; their id is 0 and that is said."""
    columns = labelled([]) | {"image/object/class/text": [b"vehicle"]}
    frame, problems = parse(columns)
    assert problems == ("no-class-id: 1 boxes have no image/object/class/label; their id is 0",)
    assert frame.truth is not None
    assert (frame.truth.class_ids.tolist(), frame.truth.class_texts) == ([0], ("vehicle",))


def test_the_image_decides_its_size() -> None:
    """Stale height and width keys would move every box; they are reported."""
    frame, problems = parse(labelled() | {"image/width": [100], "image/height": [100]})
    assert frame.size_wh == (WIDTH, HEIGHT)
    assert problems[0].startswith("size-mismatch: image/width, image/height say 100x100, the image")


def test_an_unreadable_image_keeps_the_stated_size() -> None:
    """The decoder will say what is wrong with it; until then the keys count."""
    columns = labelled() | {"image/encoded": [b"no image"], "image/format": [b"png"]}
    frame, _ = parse(columns | {"image/width": [100], "image/height": [50]})
    assert (frame.format, frame.size_wh) == ("png", (100, 50))
    frame, problems = parse(columns)
    assert (frame.size_wh, frame.truth) == (None, None)
    assert problems == ("bad-labels: the image's size is unknown, so boxes have no pixels",)


@pytest.mark.parametrize(
    ("source_id", "filename", "key"),
    [
        ("000123", "", "000123"),
        ("cam/000123.png", "", "cam/000123"),
        ("", "frame_7.JPG", "frame_7"),
        ("segment-10_with_camera_labels", "segment-10_with_camera_labels", "d-000001"),
        ("segment-10.tfrecord", "drive.tfrecord", "d-000001"),
        ("waymo", "", "d-000001"),
        ("", "", "d-000001"),
        ("drive-7", "d", "d-000001"),
        ("7", "", "7"),
        ("drive-71", "", "drive-71"),
    ],
)
def test_frame_key(source_id: str, filename: str, key: str) -> None:
    """A name of the frame's own is used; one that names the whole file is not."""
    columns: dict[str, list[Any]] = {
        "image/encoded": [JPEG],
        "image/source_id": [source_id.encode()],
        "image/filename": [filename.encode()],
    }
    frame = frame_from_example(example(columns), default_key="d-000001", segment="mon--drive-7")
    assert frame.frame_key == key


def test_what_is_written_beside_the_labels() -> None:
    """Format, size, names and the image's SHA-256."""
    data = example_from_frame(Frame("f1", "d", PNG, "png"), "drive 7")
    features = parse_features(data)

    def text(key: str) -> bytes:
        return bytes(features[key].bytes_list.value[0])

    assert text("image/format") == b"png"
    assert (text("image/filename"), text("image/source_id")) == (b"f1", b"drive 7")
    assert text("image/key/sha256") == hashlib.sha256(PNG).hexdigest().encode()
    assert features["image/width"].int64_list.value[0] == WIDTH
    assert features["image/height"].int64_list.value[0] == HEIGHT


def test_a_missing_mask_among_others_becomes_an_empty_picture() -> None:
    """The OD API decodes every mask, so none may be zero bytes."""
    truth = Truth.of([[0, 0, 5, 5]] * 2, [1, 1], masks_png=(PNG, b""))
    frame = frame_from_example(
        example_from_frame(Frame("f1", "d", JPEG, "jpeg", truth=truth)),
        default_key="d",
        segment="d",
    )
    assert frame.truth is not None
    assert frame.truth.masks_png == (PNG, encode_png(np.zeros((HEIGHT, WIDTH), np.uint8)))


def test_raw_frames_are_not_written() -> None:
    """A record holds encoded images only."""
    with pytest.raises(RecordError, match=r"raw-image: frame f1 is raw: encode it as JPEG or PNG"):
        example_from_frame(Frame("f1", "d", bytes(12), "raw", (2, 2)))


@pytest.mark.train
def test_messages_are_those_of_tensorflow() -> None:
    """TensorFlow parses ours to the same values, and ours parse TensorFlow's."""
    import tensorflow as tf

    truth = Truth.of([[0, 0, 32, 24]], [4], ("cyclist",), is_crowd=[True], weights=[0.5])
    data = example_from_frame(Frame("f1", "d", JPEG, "jpeg", truth=truth))
    message = tf.train.Example.FromString(data)
    values = message.features.feature
    assert values["image/encoded"].bytes_list.value[0] == JPEG
    assert values["image/object/bbox/xmax"].float_list.value[:] == [0.5]
    assert values["image/object/class/label"].int64_list.value[:] == [4]
    assert values["image/object/weight"].float_list.value[:] == [0.5]
    back = frame_from_example(message.SerializeToString(), default_key="d", segment="d")
    assert back.truth is not None
    assert back.truth.is_crowd.tolist() == [True]
