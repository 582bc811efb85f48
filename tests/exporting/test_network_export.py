"""A network's export around the conversion: what it is calibrated on and compared with."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from drives import frame_image, make_frame, write_drive

from urbandet_ray.errors import ConfigError, NotFoundError
from urbandet_ray.exporting import network_export as module
from urbandet_ray.exporting.network_export import export_network
from urbandet_ray.frames import Truth
from urbandet_ray.models.network.facts import (
    Accuracy,
    NetworkFacts,
    Resizing,
    read_facts,
    write_facts,
)
from urbandet_ray.models.shipped import SHIPPED_FOLDER
from urbandet_ray.records.images import encode_jpeg
from urbandet_ray.records.writer import write_frames
from urbandet_ray.storage import Storage

MAP_OF = {"f32": 0.3, "fp16": 0.2}
"""What the stand-in measures of a network at a precision."""


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[list[np.ndarray]]:
    """Stands in for TensorFlow and the runtimes; the frames that each network was written with."""
    calibrated: list[list[np.ndarray]] = []

    def write(network: object, folder: Path, **given) -> NetworkFacts:
        calibrated.append(list(given.pop("frames", ())))
        facts = NetworkFacts(answers="raw", resizing=Resizing(64, 64), rules=None, **given)
        for name in ("model.tflite", "saved_model"):
            (folder / name).write_bytes(b"")
        write_facts(facts, folder)
        return facts

    def measure(precision: str, data: str, storage: Storage) -> SimpleNamespace:
        return SimpleNamespace(map=MAP_OF.get(precision), frames=6)

    monkeypatch.setattr(module, "last_checkpoint", lambda _: "ckpt-1")
    monkeypatch.setattr(module, "trace_network", lambda *_: None)
    monkeypatch.setattr(module, "write_network", write)
    monkeypatch.setattr(
        module, "load_detector", lambda spec, *_: read_facts(Path(spec.uri), "it").precision
    )
    monkeypatch.setattr(module, "measure_accuracy", measure)
    return calibrated


def exported(made: Path, **asked: str | None) -> Accuracy | None:
    """The export of a run that is not looked at."""
    made.mkdir()
    (made / "label_map.pbtxt").write_bytes((SHIPPED_FOLDER / "label_map.pbtxt").read_bytes())
    settings = {"format": "tflite", "precision": "fp16", "calibrate": None, "check": None, **asked}
    return export_network(None, Path("run"), made, storage=Storage(), **settings)


def test_each_map_is_its_own_networks(traced: list, tmp_path: Path) -> None:
    """The export's beside that of the same weights in f32, in its network.json too."""
    data = str(write_drive(tmp_path / "data" / "drive.tfrecord", 6).parent)
    accuracy = exported(tmp_path / "made", check=data)
    assert accuracy == Accuracy(map=0.2, reference_map=0.3, frames=6, data=data)
    assert read_facts(tmp_path / "made", "it").accuracy == accuracy


def test_calibration_passes_over_what_is_no_image(traced: list, tmp_path: Path) -> None:
    """A broken JPEG and one of another size are left out of all."""
    frames = [make_frame(index) for index in range(5)]
    frames[1] = replace(frames[1], encoded=frames[1].encoded[:-300])
    frames[3] = replace(frames[3], encoded=encode_jpeg(frame_image(3, (80, 40))), size_wh=(80, 40))
    write_frames(frames, tmp_path / "data" / "drive.tfrecord")
    exported(tmp_path / "made", precision="int8", calibrate=str(tmp_path / "data"))
    assert [image.shape for image in traced[0]] == [(48, 64, 3)] * 3


def unlabelled(folder: Path) -> None:
    (folder / "a.jpg").write_bytes(encode_jpeg(frame_image(0)))


def broken(folder: Path) -> None:
    (folder / "a.jpg").write_bytes(b"\xff\xd8 no image")


def boxless(folder: Path) -> None:
    write_frames([replace(make_frame(0), truth=Truth.empty())], folder / "a.tfrecord")


@pytest.mark.parametrize(
    ("write", "asked", "written", "message"),
    [
        (broken, "calibrate", 0, "no frame in .*data to calibrate int8 on: name records"),
        (unlabelled, "check", 0, r"data carries no labels: name records .*\(--check\)"),
        (boxless, "check", 2, r"data has no labelled box: name records .*\(--check\)"),
    ],
)
def test_data_that_does_not_serve_is_refused(
    traced: list,
    tmp_path: Path,
    write,
    asked: str,
    written: int,
    message: str,
) -> None:
    """Before a network is written, wherever a look at the first record tells."""
    (tmp_path / "data").mkdir()
    write(tmp_path / "data")
    with pytest.raises(ConfigError, match=message):
        exported(tmp_path / "made", precision="int8", **{asked: str(tmp_path / "data")})
    assert len(traced) == written


def test_data_that_is_not_there_is_named_at_once(traced: list, tmp_path: Path) -> None:
    """Before the network is traced, which takes minutes."""
    with pytest.raises(NotFoundError, match="nowhere"):
        exported(tmp_path / "made", check=str(tmp_path / "nowhere"))
    assert not traced


def test_a_precision_that_the_processor_lacks_is_refused_at_once(
    traced: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No network is written that could not be compared."""
    monkeypatch.setattr(module, "computes_in", lambda _: "f32")
    with pytest.raises(ConfigError, match="computes in f32 instead of fp16, so --check would"):
        exported(tmp_path / "made", check=str(write_drive(tmp_path / "a.tfrecord", 1)))
    assert not traced
