"""Which class a box is of: its text through the label map, else its number."""

from pathlib import Path

import numpy as np
import pytest

from urbandet_ray.frames import Frame, Truth
from urbandet_ray.labels import LabelMap
from urbandet_ray.records.class_column import class_ids_of, labels_of_texts
from urbandet_ray.records.data_folder import read_data_folder
from urbandet_ray.records.example import example_from_frame, parse_features, repaired_example
from urbandet_ray.records.images import encode_jpeg
from urbandet_ray.records.own_labels import own_labels
from urbandet_ray.records.soundness import ValidationReport, validate
from urbandet_ray.records.stats import statistics
from urbandet_ray.records.writer import write_frames
from urbandet_ray.storage import Storage
from urbandet_ray.training.data.record_index import build_index, share_of_worker
from urbandet_ray.training.data.record_scan import Checks

MAP = LabelMap.parse("item { id: 1 name: 'bus' } item { id: 2 name: '/m/car' display_name: 'car' }")
STORAGE = Storage()
JPEG = encode_jpeg(np.full((60, 80, 3), 90, np.uint8))


@pytest.mark.parametrize(
    ("texts", "numbers", "ids", "reasons"),
    [
        (("car", "bus"), [1, 2], [2, 1], ["class-from-zero", "class-number"]),
        (("car", "bus"), [1, 0], [2, 1], ["class-from-zero", "class-from-zero"]),
        (("car", "bus"), [], [2, 1], ["class-from-text"]),
        (("/m/car", "bus"), [2, 1], [2, 1], []),
        (("", ""), [2, 1], [2, 1], []),
        (("car", ""), [2, 1], [2, 1], []),
        (("tram", "bus"), [2, 1], [0, 1], ["unknown-class-text"]),
        (("", ""), [], [0, 0], ["no-class-id"]),
        ((), [], [], []),
    ],
)
def test_the_text_decides_and_the_number_is_the_fallback(
    texts: tuple[str, ...], numbers: list[int], ids: list[int], reasons: list[str]
) -> None:
    """TfExampleDecoder's rule; where both disagree it is told, box by box."""
    problems: list[str] = []
    found = class_ids_of(texts, np.array(numbers, np.int32), MAP, problems)
    assert found.tolist() == ids
    assert [one.partition(":")[0] for one in problems] == reasons


@pytest.mark.train
@pytest.mark.parametrize("numbers", [[1, 2], [0, 0], []])
def test_the_ids_are_the_od_api_s(tmp_path: Path, numbers: list[int]) -> None:
    """Its own decoder, with the same label map."""
    from urbandet_ray.models.odapi import open_odapi

    (tmp_path / "map.pbtxt").write_text(MAP.to_pbtxt())
    decoder = open_odapi().tf_example_decoder.TfExampleDecoder(
        label_map_proto_file=str(tmp_path / "map.pbtxt")
    )
    record = example_from_frame(frame(("car", "bus"), numbers or [0, 0]))
    decoded = decoder.decode(open_odapi().tf.constant(record))
    plain = LabelMap.parse(MAP.to_pbtxt())
    found = class_ids_of(("car", "bus"), np.array(numbers, np.int32), plain, [])
    assert decoded["groundtruth_classes"].numpy().tolist() == found.tolist()


@pytest.mark.parametrize(
    ("texts", "kept"),
    [(("car", ""), False), (("", ""), False), (("car", "bus"), True), ((), True)],
)
def test_texts_are_written_where_each_box_has_one(texts: tuple[str, ...], kept: bool) -> None:
    """The OD API would look "" up among the classes, and leave the numbers alone."""
    record = example_from_frame(frame(texts, [2, 1][: len(texts)]))
    assert ("image/object/class/text" in parse_features(record)) == kept
    assert ("image/object/class/text" in parse_features(repaired_example(record))) == kept


def test_without_a_label_map_the_numbers_stay() -> None:
    """There is nothing to look texts up in."""
    found = class_ids_of(("car", "bus"), np.array([7, 8], np.int32), None, [])
    assert found.tolist() == [7, 8]


@pytest.mark.parametrize(
    ("pairs", "names"),
    [
        ([(3, "car"), (1, "bus"), (3, "car")], {1: "bus", 3: "car"}),
        ([(0, "car"), (1, "bus")], {1: "bus", 2: "car"}),
        ([(0, "car"), (0, "bus")], {1: "bus", 2: "car"}),
        ([(1, "car"), (2, "car")], {1: "car"}),
        ([(5, ""), (6, "")], None),
        ([(1, "car"), (1, "bus"), (1, "")], {1: "class 1", 2: "bus", 3: "car"}),
        ([(0, "car"), (0, "bus"), (2, ""), (0, "")], {1: "bus", 2: "class 2", 3: "car"}),
        ([(2, "car"), (2, ""), (5, "")], {2: "car", 5: "class 5"}),
        ([], None),
    ],
)
def test_records_without_a_label_map_name_their_classes(
    pairs: list[tuple[int, str]], names: dict[int, str] | None
) -> None:
    """With their own numbers where each name has one, from 1."""
    labels = labels_of_texts(pairs)
    assert (labels.names if labels else None) == names


def frame(texts: tuple[str, ...], numbers: list[int], key: str = "f1") -> Frame:
    boxes = [[5 * n, 5, 5 * n + 20, 30] for n in range(len(texts))]
    return Frame(key, "s", JPEG, "jpeg", (80, 60), Truth.of(boxes, numbers, texts))


def written(folder: Path, texts: tuple[str, ...], numbers: list[int], labels: bool = True) -> str:
    """A data folder of two frames."""
    write_frames([frame(texts, numbers, key) for key in ("f1", "f2")], folder / "a.tfrecord")
    if labels:
        (folder / "label_map.pbtxt").write_text(
            "item { id: 1 name: 'bus' } item { id: 2 name: 'car' }"
        )
    return str(folder)


def checked(uri: str) -> ValidationReport:
    data = read_data_folder(uri, STORAGE)
    return validate(data, STORAGE, data.labels)


def test_a_disagreement_is_told_and_harms_nothing(tmp_path: Path) -> None:
    """With an example, how many, and which of the two counts."""
    report = checked(written(tmp_path, ("car", "bus"), [1, 2]))
    assert report.is_clean
    (number,) = report.notes
    assert number.startswith("4 boxes have a class/label that is another class's number")
    assert "record 0: box 1 is a 'bus', id 1 in the label map, and its class/label is 2" in number
    assert "the text decides, as in the OD API" in number


def test_numbers_from_zero_are_told_as_such(tmp_path: Path) -> None:
    """They are sound: nothing has to be done."""
    report = checked(written(tmp_path, ("car", "bus"), [1, 0]))
    assert report.is_clean
    (note,) = report.notes
    assert note.startswith("4 boxes have a class/label that is one less than the label map's")
    assert note.endswith("the text decides, as in the OD API, so nothing has to be done")


def test_a_text_that_is_no_class_is_a_problem(tmp_path: Path) -> None:
    """The OD API would take its boxes for background."""
    report = checked(written(tmp_path, ("tram", "bus"), [2, 1]))
    assert {one.reason for one in report.problems} == {"unknown-class-text"}
    assert "a 'tram', which the label map does not have; it has bus, car" in report.to_text()


def test_statistics_count_by_text(tmp_path: Path) -> None:
    """Not by the numbers, which say the opposite here."""
    data = read_data_folder(written(tmp_path, ("car", "car", "bus"), [1, 1, 2]), STORAGE)
    found = statistics(data, STORAGE, data.labels)
    assert [(one.name, one.boxes) for one in found.classes] == [("bus", 2), ("car", 4)]


def test_without_a_label_map_texts_name_the_classes(tmp_path: Path) -> None:
    """Nobody else's names stand for their numbers."""
    data = read_data_folder(written(tmp_path, ("car", "bus"), [0, 0], labels=False), STORAGE)
    found = statistics(data, STORAGE, data.labels)
    assert [(one.class_id, one.name) for one in found.classes] == [(1, "bus"), (2, "car")]
    assert own_labels(data, STORAGE).names == {1: "bus", 2: "car"}


def test_numbers_alone_have_no_names(tmp_path: Path) -> None:
    """Class 1 is class 1, and no vehicle."""
    data = read_data_folder(written(tmp_path, ("", ""), [1, 2], labels=False), STORAGE)
    found = statistics(data, STORAGE, data.labels)
    assert [one.name for one in found.classes] == ["class 1", "class 2"]
    assert own_labels(data, STORAGE).names == {1: "class 1", 2: "class 2"}


@pytest.mark.parametrize("numbers", [[1, 2], [1, 0], [0, 0]])
def test_training_gets_the_ids_of_the_texts(tmp_path: Path, numbers: list[int]) -> None:
    """The records that TensorFlow parses have them in class/label."""
    data = read_data_folder(written(tmp_path / "data", ("car", "bus"), numbers), STORAGE)
    slices = share_of_worker(data.sources, 0, 1)
    checks = Checks(labels=data.labels)
    index = build_index(slices, STORAGE, tmp_path / "cache", num_classes=2, checks=checks)
    assert index.class_presence.tolist() == [[False, True, True]] * 2
    expected = repaired_example(example_from_frame(frame(("car", "bus"), [2, 1])))
    assert repaired_example(index.read(0)) == expected
