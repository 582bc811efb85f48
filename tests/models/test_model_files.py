"""What is known of a model once its files are found, and what each machine finds itself."""

import pickle
import shutil
from pathlib import Path

import pytest

from urbandet_ray.errors import ModelError
from urbandet_ray.models.model_files import ModelFiles, find_model_files
from urbandet_ray.models.network.facts import (
    MODEL_NAMES,
    NetworkFacts,
    Resizing,
    Runtime,
    write_facts,
)
from urbandet_ray.storage import Storage


def network_in(folder: Path, runtime: Runtime) -> str:
    """A network's folder, as far as anybody looks at it before it is loaded."""
    folder.mkdir()
    (folder / MODEL_NAMES[runtime]).write_bytes(b"")
    size = Resizing(height=320, width=640)
    facts = NetworkFacts(
        runtime=runtime, precision="f32", answers="detections", resizing=size, rules=None
    )
    write_facts(facts, folder)
    return str(folder)


@pytest.mark.parametrize(
    ("runtime", "able"),
    [("savedmodel", True), ("onnx", True), ("openvino", False), ("tflite", False)],
)
def test_networks_of_two_runtimes_know_gpus(tmp_path: Path, runtime: Runtime, able: bool) -> None:
    """TensorFlow and ONNX Runtime."""
    assert find_model_files(network_in(tmp_path / "n", runtime), Storage()).knows_gpus is able


def test_a_stock_model_knows_gpus_as_a_saved_model(tmp_path: Path) -> None:
    """A TFLite file does not."""
    (tmp_path / "saved_model.pb").write_bytes(b"")
    assert find_model_files(str(tmp_path), Storage()).knows_gpus
    assert not find_model_files("shipped", Storage()).knows_gpus


def test_a_network_tells_its_inputs_size(tmp_path: Path) -> None:
    """Width first; other models do not tell."""
    found = find_model_files(network_in(tmp_path / "n", "onnx"), Storage())
    assert found.input_wh == (640, 320)
    with pytest.raises(ModelError, match="shipped does not tell its input's size: reduced_decode"):
        _ = find_model_files("shipped", Storage()).input_wh


def test_a_model_folder_may_hold_the_saved_model(tmp_path: Path) -> None:
    """The OD API's exporter writes saved_model/ below the folder people name."""
    (tmp_path / "saved_model").mkdir()
    (tmp_path / "saved_model" / "saved_model.pb").write_bytes(b"x")
    found = find_model_files(str(tmp_path), Storage())
    assert (found.kind, found.local(Storage())) == ("saved-model", tmp_path / "saved_model")
    assert found.contents(Storage()) == [tmp_path / "saved_model" / "saved_model.pb"]


def test_a_local_model_has_to_be_on_every_machine(tmp_path: Path) -> None:
    """A node of a cluster that does not see the folder says which, and what to do."""
    folder = tmp_path / "n"
    travelled: ModelFiles = pickle.loads(
        pickle.dumps(find_model_files(network_in(folder, "onnx"), Storage()))
    )
    assert travelled.local(Storage()) == folder
    shutil.rmtree(folder)
    with pytest.raises(ModelError, match=r"no model at .*/n on \S+: put it where all machines see"):
        travelled.local(Storage())
