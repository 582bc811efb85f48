"""From a ModelConfig to a detector: where files and labels are found, and what is refused."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

from urbandet_ray.config import ModelConfig
from urbandet_ray.errors import ConfigError, LabelError, MissingExtraError, ModelError
from urbandet_ray.labels import STREET_LABELS, LabelMap
from urbandet_ray.models.loader import find_model, load_detector
from urbandet_ray.models.model_cache import cache_folder
from urbandet_ray.models.model_files import find_model_files
from urbandet_ray.models.shipped import SHIPPED_FOLDER
from urbandet_ray.storage import Storage

LIST = "vehicle\npedestrian\ncyclist\n"
SHUFFLED = "cyclist\nvehicle\npedestrian\n"


def class_of_red(grid, model, target=STREET_LABELS):
    """Name of the class the loaded model gives to a red cell (its index 0)."""
    (found,) = load_detector(model, Storage(), target).detect(
        [grid.paint({(0, 0): (255, 0, 0)}, (64, 64))]
    )
    return [target.name_of(int(class_id)) for class_id in found.class_ids]


def test_labels_are_found_beside_the_model(grid, grid_file, tmp_path):
    """label_map.pbtxt in the model's folder is enough."""
    path = grid_file(beside=None)
    (tmp_path / "label_map.pbtxt").write_text(
        LabelMap({1: "pedestrian", 2: "vehicle", 3: "cyclist"}).to_pbtxt()
    )
    assert class_of_red(grid, ModelConfig(uri=path)) == ["pedestrian"]


def test_embedded_labels_beat_a_general_file(grid, grid_file, tmp_path):
    """The list inside the .tflite belongs to the model; labels.txt may belong to another."""
    path = grid_file(beside=None, labels=("labelmap.txt", SHUFFLED))
    (tmp_path / "labels.txt").write_text(LIST)
    assert class_of_red(grid, ModelConfig(uri=path)) == ["cyclist"]


def test_a_file_named_for_the_model_beats_embedded_labels(grid, grid_file):
    """<stem>_labels.txt is somebody's correction."""
    path = grid_file(beside=LIST, labels=("labelmap.txt", SHUFFLED))
    assert class_of_red(grid, ModelConfig(uri=path)) == ["vehicle"]


def test_labels_uri_beats_all(grid, grid_file, tmp_path):
    """What the user names is used."""
    (tmp_path / "mine.txt").write_text(SHUFFLED)
    model = ModelConfig(uri=grid_file(), labels=str(tmp_path / "mine.txt"))
    assert class_of_red(grid, model) == ["cyclist"]


def test_no_labels_at_all_names_the_places(grid_file, tmp_path):
    """The error says where it looked."""
    with pytest.raises(LabelError, match=r"looked for .*grid_labels.txt.*label_map.pbtxt.*inside"):
        load_detector(ModelConfig(uri=grid_file(beside=None)), Storage())


def test_a_missing_labels_uri_is_a_label_error(grid_file, tmp_path):
    """A path that does not exist is named."""
    with pytest.raises(LabelError, match=r"no label map at .*absent\.txt"):
        load_detector(ModelConfig(uri=grid_file(), labels=str(tmp_path / "absent.txt")), Storage())


def test_labels_that_are_no_text_are_refused(grid_file, tmp_path):
    """A binary file named as label map is named."""
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x80\x81")
    with pytest.raises(LabelError, match=r"binary.txt is not UTF-8 text"):
        load_detector(ModelConfig(uri=grid_file(), labels=str(tmp_path / "binary.txt")), Storage())


def test_a_mapping_renames_classes(grid, grid_file, tmp_path):
    """Built-in by name, one's own by path."""
    path = grid_file(beside="truck\nperson\nbench\n")
    assert class_of_red(grid, ModelConfig(uri=path, mapping="coco-to-street")) == ["vehicle"]
    (tmp_path / "m.yaml").write_text("truck: cyclist\n")
    assert class_of_red(grid, ModelConfig(uri=path, mapping=str(tmp_path / "m.yaml"))) == [
        "cyclist"
    ]


def test_a_mapping_to_an_unknown_class_is_refused(grid_file, tmp_path):
    """The run's label map has no such class, and the message lists what it has."""
    (tmp_path / "m.yaml").write_text("truck: lorry\n")
    model = ModelConfig(uri=grid_file(beside="truck\na\nb\n"), mapping=str(tmp_path / "m.yaml"))
    with pytest.raises(LabelError, match="no class 'lorry' in the label map; it has: vehicle"):
        load_detector(model, Storage())


def test_an_unknown_mapping_lists_the_known(grid_file):
    """Neither a file nor a built-in name."""
    with pytest.raises(LabelError, match=r"no class mapping 'coco'.*one of coco-to-street"):
        load_detector(ModelConfig(uri=grid_file(), mapping="coco"), Storage())


def test_no_common_class_asks_for_a_mapping(grid_file):
    """A COCO model without a mapping can give no vehicle at all."""
    with pytest.raises(LabelError, match="give a class mapping"):
        load_detector(ModelConfig(uri=grid_file(beside="car\nperson\nbicycle\n")), Storage())


def test_a_label_map_that_is_too_short_is_refused(grid_file):
    """Three classes in the model, two in the list."""
    with pytest.raises(LabelError, match=r"has 3 classes .*ends at id 2 \(index 1\)"):
        load_detector(ModelConfig(uri=grid_file(beside="vehicle\npedestrian\n")), Storage())


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("model.onnx", b"\x08\x07\x12\x07pytorch", "an ONNX model"),
        ("model.tflite", b"hello, I am a text", "a text file"),
        ("model.tflite", b"", "an empty file"),
        ("model.tflite", bytes(range(200, 256)) * 9, "no TFLite file in spite of its name"),
        ("model.keras", b"PK\x03\x04aaaa", "a Keras model"),
        ("model.zip", b"PK\x03\x04aaaa", "a zip archive"),
        ("model.h5", b"\x89HDF\r\n\x1a\n", "an HDF5 file, probably Keras weights"),
        ("model.tar.gz", b"\x1f\x8b\x08aaaa", "a gzip archive"),
        ("saved_model.pb", b"\x08\x01\x12aaaa", "the graph of a SavedModel"),
        ("frozen.pb", b"\x0a\xff\xfe\x00aaaa", "a frozen TensorFlow 1 graph"),
        ("model.bin", b"\x0a\xff\xfe\x00aaaa", "a file of an unknown kind"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path, name, content, found):
    """The error names what was found and what is expected."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=rf"{name} is {found}.*expected a \.tflite detector"):
        load_detector(ModelConfig(uri=str(tmp_path / name)), Storage())


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["config.json", "model.weights.h5"], "a Keras model"),
        (["checkpoint", "ckpt-3.index"], "a training checkpoint, not exported yet"),
        (["notes.txt"], "a folder with notes.txt"),
        ([], "an empty folder"),
    ],
)
def test_a_folder_of_another_kind_is_named(tmp_path, files, found):
    """A Keras folder, a checkpoint and others are told apart."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in files:
        (folder / file).write_bytes(b"x")
    with pytest.raises(ModelError, match=f"model is {found}: expected a .tflite detector"):
        load_detector(ModelConfig(uri=str(folder)), Storage())


def test_a_missing_model_is_a_model_error(tmp_path):
    """Path and expectation are named."""
    with pytest.raises(ModelError, match=r"no model at .*absent.tflite: expected a \.tflite"):
        load_detector(ModelConfig(uri=str(tmp_path / "absent.tflite")), Storage())


def test_a_saved_model_without_tensorflow_names_the_extra(tmp_path, monkeypatch):
    """The message is the command that installs it."""
    (tmp_path / "saved_model").mkdir()
    (tmp_path / "saved_model" / "saved_model.pb").write_bytes(b"x")
    (tmp_path / "label_map.pbtxt").write_text(STREET_LABELS.to_pbtxt())
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'urbandet-ray\[train\]'"):
        load_detector(ModelConfig(uri=str(tmp_path)), Storage())


def test_shipped_is_a_name_for_the_file_in_the_package(monkeypatch, tmp_path):
    """Its label map lies beside it; an installation without it says so."""
    monkeypatch.setattr("urbandet_ray.models.shipped.SHIPPED_FOLDER", tmp_path)
    with pytest.raises(ModelError, match=r"own detector is missing: expected .*street-ssd-320"):
        find_model_files("shipped", Storage())
    (tmp_path / "street-ssd-320.tflite").write_bytes(b"\0\0\0\0TFL3")
    assert find_model_files("shipped", Storage()).place == str(tmp_path / "street-ssd-320.tflite")
    assert SHIPPED_FOLDER.parent.name == "models"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"score_min": 1.5}, "score_min: Input should be less than or equal to 1, got 1.5"),
        ({"score_min": float("nan")}, "score_min: Input should be a finite number, got nan"),
        (
            {"max_detections": 0},
            "max_detections: Input should be greater than or equal to 1, got 0",
        ),
        ({"threads": 0}, "threads: Input should be greater than or equal to 1, got 0"),
        ({"std": 0.0}, "std: Input should be greater than 0, got 0.0"),
    ],
)
def test_numbers_out_of_range_are_refused(wrong, message):
    """A section is checked when it is made, in Python too."""
    with pytest.raises(ConfigError, match=rf"^this ModelConfig cannot be used:\n  {message}$"):
        ModelConfig(uri="model.tflite", **wrong)


def test_a_section_travels_by_pickle():
    """Actors get it from the driver."""
    model = ModelConfig(uri="s3://bucket/model.tflite", mapping="coco-to-street", threads=2)
    assert pickle.loads(pickle.dumps(model)) == model


def fingerprint(model):
    return find_model(model, Storage()).fingerprint(Storage())


def test_the_fingerprint_sees_what_changes_results(grid, grid_file, tmp_path):
    """Model bytes, labels, mapping and thresholds count; threads and place do not."""
    path = grid_file()
    base = fingerprint(ModelConfig(uri=path))
    assert base == fingerprint(ModelConfig(uri=path, threads=2))
    seen = {
        base,
        fingerprint(ModelConfig(uri=path, score_min=0.5)),
        fingerprint(ModelConfig(uri=path, max_detections=5)),
        fingerprint(ModelConfig(uri=path, mean=0.0)),
        fingerprint(ModelConfig(uri=path, mapping="coco-to-street")),
    }
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "moved.tflite").write_bytes(grid.detector())
    (tmp_path / "other" / "labels.txt").write_text(LIST)
    moved = ModelConfig(uri=str(tmp_path / "other" / "moved.tflite"))
    assert fingerprint(moved) == base
    (tmp_path / "grid_labels.txt").write_text(SHUFFLED)
    seen.add(fingerprint(ModelConfig(uri=path)))
    (tmp_path / "grid_labels.txt").write_text(LIST)
    grid_file("UINT8")
    seen.add(fingerprint(ModelConfig(uri=path)))
    assert len(seen) == 7


def test_the_cache_is_the_user_s(monkeypatch, tmp_path):
    """XDG_CACHE_HOME moves it; without it, it is in the home folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "urbandet" / "models"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "urbandet" / "models"


def test_importing_models_is_light():
    """The package's models load no TensorFlow, OpenCV or LiteRT until one is opened."""
    code = (
        "import sys, urbandet_ray.models.loader; "
        "print([m for m in ('tensorflow', 'cv2', 'ai_edge_litert', 'ray', 'boto3') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_detector_says_its_labels(grid_file):
    """Detections carry the ids of the run's label map."""
    detector = load_detector(ModelConfig(uri=grid_file()), Storage())
    assert detector.labels is STREET_LABELS
    assert detector.detect([]) == []
    assert len(detector.detect([np.zeros((8, 8, 3), np.uint8)])[0]) == 0
