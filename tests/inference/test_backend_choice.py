"""`backend: auto`: what may be chosen, and that the choice stays."""

import json
from pathlib import Path

import pytest
from drives import write_drive

import urbandet_ray
from urbandet_ray.config import InferConfig, ModelConfig
from urbandet_ray.errors import ConfigError, ModelError, RunError
from urbandet_ray.exporting.export_folder import Export
from urbandet_ray.inference import backend_choice as backend
from urbandet_ray.inference.backend_choice import Candidates, Choice, candidates
from urbandet_ray.models.network.facts import (
    Accuracy,
    NetworkFacts,
    Precision,
    Resizing,
    Runtime,
    write_facts,
)
from urbandet_ray.models.shipped import shipped_model_path
from urbandet_ray.storage import Storage


def add_export(
    run: Path,
    name: str,
    runtime: Runtime,
    precision: Precision = "f32",
    lost: float | None = None,
    checkpoint: str = "best/ckpt-9",
) -> Path:
    """A network's folder, as far as anybody looks at it before it is loaded."""
    folder = run / "exports" / name
    folder.mkdir(parents=True)
    accuracy = None if lost is None else Accuracy(0.2 - lost, 0.2, 100, "val")
    facts = NetworkFacts(
        runtime=runtime,
        precision=precision,
        answers="detections",
        resizing=Resizing(64, 64),
        rules=None,
        accuracy=accuracy,
    )
    (folder / "model.tflite").write_bytes(b"TFL3")
    (folder / "model.xml").write_bytes(b"<net/>")
    write_facts(facts, folder)
    export = Export(str(folder), "", str(run), checkpoint, precision, {})
    (folder / "export.json").write_bytes(export.to_json())
    return folder


def add_stock(run: Path, name: str, precision: Precision) -> str:
    """A stock TFLite export: the shipped detector."""
    folder = run / "exports" / name
    folder.mkdir(parents=True)
    (folder / "model.tflite").write_bytes(shipped_model_path().read_bytes())
    label_map = shipped_model_path().parent / "label_map.pbtxt"
    (folder / "label_map.pbtxt").write_bytes(label_map.read_bytes())
    export = Export(str(folder), "model.tflite", str(run), "best/ckpt-9", precision, {})
    (folder / "export.json").write_bytes(export.to_json())
    return export.model


def offered(place: Path | str) -> Candidates:
    return candidates(ModelConfig(uri=str(place)), Storage())


def test_what_costs_accuracy_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """bf16 within .002, int8 within .01, neither unmeasured, and the best checkpoint alone."""
    monkeypatch.setattr(backend, "computes_in", lambda facts: facts.precision)
    add_export(tmp_path, "best-tflite", "tflite")
    add_export(tmp_path, "best-openvino-bf16", "openvino", "bf16", lost=0.0019)
    add_export(tmp_path, "best-openvino-fp16", "openvino", "fp16", lost=0.0031)
    add_export(tmp_path, "best-openvino-int8", "openvino", "int8", lost=0.012)
    add_export(tmp_path, "best-tflite-int8", "tflite", "int8")
    add_export(tmp_path, "last-openvino", "openvino", checkpoint="last/ckpt-12")
    add_stock(tmp_path, "best-stock-tflite-bf16", "bf16")
    found = offered(tmp_path)
    assert sorted(found.models) == ["best-openvino-bf16", "best-tflite"]
    assert found.left_out == {
        "best-openvino-fp16": "fp16 costs 0.003 mAP, allowed are 0.002",
        "best-openvino-int8": "int8 costs 0.012 mAP, allowed are 0.01",
        "best-stock-tflite-bf16": "rounded weights are not faster",
        "best-tflite-int8": "what int8 costs was not measured (urbandet export --check DATA)",
        "last-openvino": "of the last checkpoint, not the best",
    }
    assert offered(tmp_path / "exports") == found
    alone = str(tmp_path / "exports" / "best-openvino-int8")
    (asked,) = offered(alone).models.items()  # by name
    assert (asked[0], asked[1].config.uri) == ("best-openvino-int8", alone)


def test_a_precision_that_the_processor_lacks_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be as slow as f32."""
    monkeypatch.setattr(backend, "computes_in", lambda _: "f32")
    add_export(tmp_path, "best-openvino", "openvino")
    add_export(tmp_path, "best-openvino-bf16", "openvino", "bf16", lost=0.0)
    found = offered(tmp_path)
    assert list(found.models) == ["best-openvino"]
    assert found.left_out == {"best-openvino-bf16": "this processor does not compute in bf16"}


def test_a_damaged_export_is_left_out(tmp_path: Path) -> None:
    """The others still compete; a marker that nobody can read says which."""
    add_export(tmp_path, "best-tflite", "tflite")
    add_export(tmp_path, "best-openvino", "openvino")
    (tmp_path / "exports" / "best-openvino" / "network.json").write_text("{")
    found = offered(tmp_path)
    assert list(found.models) == ["best-tflite"]
    assert "network.json is damaged" in found.left_out["best-openvino"]
    (tmp_path / "exports" / "best-openvino" / "export.json").write_text("{}")
    with pytest.raises(
        RunError, match=r"best-openvino/export\.json is damaged: it lacks .*Export it again"
    ):
        offered(tmp_path)


def test_a_run_without_exports_says_what_to_do(tmp_path: Path) -> None:
    """And so does one whose exports all cost too much."""
    (tmp_path / "checkpoint").write_text("")
    with pytest.raises(ModelError, match="a training checkpoint, not exported yet"):
        offered(tmp_path)
    add_export(tmp_path, "best-tflite-int8", "tflite", "int8")
    with pytest.raises(ModelError, match=r"can be chosen \(best-tflite-int8: what int8 costs"):
        offered(tmp_path)


@pytest.mark.ray
def test_the_choice_is_kept(
    ray_dashboard: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured once; a repeated run takes it from the folder, another one is refused."""
    records = write_drive(tmp_path / "data" / "drive.tfrecord", 6).parent
    trained, run = tmp_path / "trained", tmp_path / "run"
    model = add_stock(trained, "best-stock-tflite", "f32")
    add_export(trained, "best-openvino", "openvino")  # does not load: left out
    settings = {"backend": "auto", "model": {"uri": str(trained)}}
    report = urbandet_ray.infer(str(records), str(run), **settings)
    assert (report.frames, report.exit_code) == (6, 0)
    kept = json.loads((run / "backend.json").read_text())
    assert kept["uri"] == model
    assert kept["node"] == {"cpus": 2.0, "gpus": 2.0}
    assert {trial["model"] for trial in kept["trials"]} == {"best-stock-tflite"}
    assert list(kept["left_out"]) == ["best-openvino"]
    fastest = max(kept["trials"], key=lambda trial: trial["frames_per_s"])
    chosen = ("threads", "batch_size", "gpus")
    assert [kept[key] for key in chosen] == [fastest[key] for key in chosen]
    assert json.loads((run / "run.json").read_text())["model"]["uri"] == model

    def measured_again(*_: object, **__: object) -> None:
        raise AssertionError("the choice stands in the folder")

    monkeypatch.setattr(backend, "tune", measured_again)
    assert urbandet_ray.infer(str(records), str(run), **settings).resumed
    with pytest.raises(ConfigError, match="chose its backend for batch_size None, not 2: repeat"):
        urbandet_ray.infer(str(records), str(run), **settings, batch_size=2)


@pytest.mark.ray
def test_a_run_without_a_choice_is_not_given_one(ray_dashboard: str, tmp_path: Path) -> None:
    """Its results would be of two backends."""
    records = write_drive(tmp_path / "data" / "drive.tfrecord", 4).parent
    run = tmp_path / "run"
    urbandet_ray.infer(str(records), str(run))
    with pytest.raises(ConfigError, match="was started without backend=auto: leave it out"):
        urbandet_ray.infer(str(records), str(run), backend="auto")


@pytest.mark.parametrize(("chosen", "expected"), [(0.25, 0.25), (None, 1.0)])
def test_actors_get_the_share_of_a_gpu_that_won(chosen: float | None, expected: float) -> None:
    """A choice of before shares were tried leaves what was asked for."""
    config = InferConfig(input="a", output="b", backend="auto", actors={"gpus": 1})  # type: ignore[arg-type]
    choice = Choice({}, "m", threads=1, batch_size=16, trials=[], left_out={}, node={}, gpus=chosen)
    applied = choice.applied(config)
    assert (applied.actors.gpus, applied.batch_size, applied.model.uri) == (expected, 16, "m")


def test_only_two_ways_are_known() -> None:
    """`backend` is one of two words."""
    with pytest.raises(ConfigError, match="'given' or 'auto'"):
        InferConfig(input="a", output="b", backend="fast")  # type: ignore[arg-type]
