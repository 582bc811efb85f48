"""What the doctor finds in the records beside a config: classes, sizes, paths."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from urbandet_ray.commands.doctor import Diagnosis
from urbandet_ray.errors import InputError
from urbandet_ray.frames import Frame, Truth
from urbandet_ray.records.images import encode_jpeg
from urbandet_ray.records.writer import write_frames
from urbandet_ray.training.doctor.correction import correct
from urbandet_ray.training.doctor.findings import Finding

pytestmark = pytest.mark.train

Doctor = Callable[..., Diagnosis]
Write = Callable[..., None]
FIXED_SIZE = "fixed_shape_resizer { height: 320 width: 320 }"
ANY_SIZE = "keep_aspect_ratio_resizer { min_dimension: 320 max_dimension: 320 }"


def codes(found: Diagnosis) -> list[str]:
    """Codes of the findings, in their order."""
    return [finding.code for finding in found.findings]


def only(found: Diagnosis, code: str) -> Finding:
    """The one finding with a code."""
    (finding,) = [finding for finding in found.findings if finding.code == code]
    return finding


def test_ids_beyond_num_classes(doctor: Doctor, data: Path, write_segment: Write) -> None:
    """A gap pushes a class out of the one-hot vector: its boxes are counted, the remap offered."""
    (data / "label_map.pbtxt").write_text(
        "item { id: 1 name: 'vehicle' } item { id: 2 name: 'pedestrian' } "
        "item { id: 4 name: 'cyclist' }"
    )
    for name in ("train/one", "train/two", "val/three"):
        write_segment(data / f"{name}.tfrecord", class_ids=(1, 2, 4))
    found = doctor()
    finding = only(found, "id-beyond-num-classes")
    assert finding.severity == "error"
    assert "ids 1, 2, 4: cyclist (8 boxes) becomes a one-hot vector of zeros" in finding.what
    assert "counts it as vehicle" in finding.what
    assert "num_classes: 4, or renumber without gaps (4 to 3)" in finding.fix
    assert correct(found.examination).pipeline.message.model.ssd.num_classes == 4
    assert "id-beyond-num-classes" not in codes(doctor(("num_classes: 3", "num_classes: 4")))
    assert "label-map-gap" in codes(doctor(("num_classes: 3", "num_classes: 4")))


def test_ids_the_label_map_does_not_know(doctor: Doctor, data: Path) -> None:
    """Boxes whose text is no class of it."""
    (data / "label_map.pbtxt").write_text(
        "item { id: 1 name: 'vehicle' } item { id: 2 name: 'pedestrian' }"
    )
    errors = [one for one in doctor().findings if one.code == "class-text"]
    assert {one.severity for one in errors} == {"warning"}
    assert [one.place for one in errors] == [
        "train_input_reader.label_map_path",
        "eval_input_reader.label_map_path",
    ]
    assert "8 boxes have a class text that the label map does not have" in errors[0].what
    assert "a 'cyclist', which the label map does not have; it has vehicle" in errors[0].what
    assert errors[0].fix.startswith("to use them, add the class to the label map")


def test_a_label_map_of_other_classes_is_an_error(doctor: Doctor, data: Path) -> None:
    """Nothing is left to learn."""
    (data / "label_map.pbtxt").write_text("item { id: 1 name: 'tram' }")
    texts = [one for one in doctor().findings if one.code == "class-text"]
    assert {one.severity for one in texts} == {"error"}


def test_what_a_label_map_loses_is_a_finding(doctor: Doctor, data: Path) -> None:
    """Two ids in one item are one class."""
    with (data / "label_map.pbtxt").open("a") as file:
        file.write("item { id: 7 id: 3 }")
    findings = [one for one in doctor().findings if one.code == "label-map"]
    assert {one.severity for one in findings} == {"warning"}
    assert "item 4 has 2 values of id (7, 3): the last one counts" in findings[0].what
    assert "id 3 is 'cyclist' and again 'class 3' (item 4)" in findings[1].what


def test_a_leak_under_another_name_is_found(doctor: Doctor, data: Path) -> None:
    """A training frame encoded anew, in a validation file of its own."""
    noise = np.random.default_rng(1).integers(0, 256, (12, 16, 3), np.uint8)
    image = cv2.resize(noise, (320, 240), interpolation=cv2.INTER_CUBIC)
    for part, quality in (("train", 95), ("val", 40)):
        encoded = encode_jpeg(image, quality)
        truth = Truth.of([[20, 20, 80, 80]], [1], ("vehicle",))
        frame = Frame(f"{part}-only", part, encoded, "jpeg", (320, 240), truth)
        write_frames([frame], data / part / f"{part}-file.tfrecord")
    (finding,) = [one for one in doctor().findings if "encoded anew" in one.what]
    assert "1 of 5 validation pictures are training's, encoded anew" in finding.what
    assert "val-file/val-file-000000 = train-file/train-file-000000" in finding.what


def test_rare_and_absent_classes(doctor: Doctor, data: Path, write_segment: Write) -> None:
    """A class of 1 in 81 boxes, one without any, and one that validation never shows."""
    write_segment(data / "train/one.tfrecord", frames=40, class_ids=(1, 1))
    write_segment(data / "train/two.tfrecord", frames=1, class_ids=(2,))
    write_segment(data / "val/three.tfrecord", class_ids=(1,))
    found = doctor()
    assert "pedestrian has 1 of 81 training boxes (1.23%)" in only(found, "rare-class").what
    assert "cyclist is in the label map" in only(found, "class-without-boxes").what
    assert "no validation box is a pedestrian" in only(found, "class-not-in-val").what


def test_data_folder_takes_the_place_of_the_paths(doctor: Doctor, data: Path) -> None:
    """What the file names is then only noted, and the fix writes the folder's paths."""
    elsewhere = [("{data}", "/nowhere")] * 4
    assert codes(doctor(*elsewhere)).count("path-missing") == 4
    found = doctor(*elsewhere, data=str(data))
    assert codes(found).count("path-replaced") == 4
    assert not found.has_errors
    reader = correct(found.examination).pipeline.message.eval_input_reader[0]
    assert reader.tf_record_input_reader.input_path[0] == f"{data}/val/*.tfrecord"
    assert reader.label_map_path == f"{data}/label_map.pbtxt"


def test_empty_data_folder(doctor: Doctor, tmp_path: Path) -> None:
    """A mistake in the command is not a finding."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty folder: expected train/ and val/"):
        doctor(data=str(tmp_path / "empty"))


def test_records_without_boxes(doctor: Doctor, data: Path, write_segment: Write) -> None:
    """There is nothing to learn from them."""
    for name in ("train/one", "train/two"):
        write_segment(data / f"{name}.tfrecord", class_ids=())
    finding = only(doctor(), "no-boxes")
    assert finding.severity == "error"
    assert finding.place.startswith("train_input_reader")


def test_images_of_several_sizes_in_one_batch(doctor: Doctor, data: Path) -> None:
    """A resizer that does not pad makes tensors that cannot be stacked."""
    image = encode_jpeg(np.full((200, 320, 3), 90, np.uint8), 90)
    truth = Truth.of([[20, 20, 80, 80]], [1], ("vehicle",))
    frames = [Frame(f"flat-{n}", "flat", image, "jpeg", (320, 200), truth) for n in range(2)]
    assert "unequal-images-in-batch" not in codes(doctor((FIXED_SIZE, ANY_SIZE)))
    write_frames(frames, data / "train/flat.tfrecord")
    assert "unequal-images-in-batch" not in codes(doctor())
    found = doctor((FIXED_SIZE, ANY_SIZE))
    finding = only(found, "unequal-images-in-batch")
    assert finding.severity == "error"
    assert finding.place.endswith("keep_aspect_ratio_resizer.pad_to_max_dimension")
    model = correct(found.examination).pipeline.message.model
    resizer = model.ssd.image_resizer.keep_aspect_ratio_resizer
    assert resizer.pad_to_max_dimension
