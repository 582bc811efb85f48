"""Networks for batches: every runtime answers what the stock export answers."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drives import write_drive
from tiny_models import tiny_ssd

from urbandet_ray.commands.export import export
from urbandet_ray.config import ModelConfig, NmsConfig
from urbandet_ray.detections import Detections
from urbandet_ray.errors import ConfigError, ModelError
from urbandet_ray.exporting.accuracy import measure_accuracy
from urbandet_ray.exporting.conversion import write_network
from urbandet_ray.exporting.tracing import trace_network
from urbandet_ray.models import odapi
from urbandet_ray.models.loader import find_model, load_detector
from urbandet_ray.models.network import runtimes
from urbandet_ray.models.network.facts import (
    Accuracy,
    Precision,
    Runtime,
    read_facts,
)
from urbandet_ray.models.network.runtimes import OnnxRuntime, computes_in
from urbandet_ray.models.pipeline_config import read_pipeline
from urbandet_ray.models.shipped import SHIPPED_FOLDER
from urbandet_ray.records.images import encode_jpeg
from urbandet_ray.storage import Storage
from urbandet_ray.training.odapi_model import OdApiModel

# read while tests are collected, so before any of them imports TensorFlow into this process
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
pytestmark = pytest.mark.train


def images(*sizes_wh: tuple[int, int]) -> list[np.ndarray]:
    """Seeded images with some structure."""
    draw = np.random.default_rng(3)
    grains = [draw.integers(0, 256, (h // 8 + 1, w // 8 + 1, 3), np.uint8) for w, h in sizes_wh]
    return [
        np.ascontiguousarray(np.kron(grain, np.ones((8, 8, 1), np.uint8))[:h, :w])
        for grain, (w, h) in zip(grains, sizes_wh, strict=True)
    ]


def made_run(folder: Path, keep_aspect: bool) -> Path:
    """A training run's folder with a checkpoint of a tiny SSD that tells places apart."""
    config = tiny_ssd()
    if keep_aspect:
        resizer = config.model.ssd.image_resizer
        resizer.keep_aspect_ratio_resizer.min_dimension = 64
        resizer.keep_aspect_ratio_resizer.max_dimension = 64
        resizer.keep_aspect_ratio_resizer.pad_to_max_dimension = True
    model = OdApiModel(config)
    model.build(1)
    draw = np.random.default_rng(0)
    for one in model.trainable_variables:
        if len(one.shape) == 4:  # by He's rule, or nothing of an image would reach the heads
            inputs = np.prod(one.shape[:2]) * (1 if "depthwise" in one.name else one.shape[2])
            one.assign(draw.normal(0, np.sqrt(2 / inputs), one.shape))
    folder.mkdir()
    (folder / "pipeline.config").write_text(str(config), "utf-8")
    shutil.copy(SHIPPED_FOLDER / "label_map.pbtxt", folder)
    saved = odapi.open_odapi().tf.train.Checkpoint(model=model.trackable)
    saved.save_counter  # noqa: B018 - makes it: the OD API's exporter looks for one
    saved.write(str(folder / "best" / "ckpt-1"))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose images are padded to the network's input; the stock export lies in it."""
    folder = made_run(tmp_path_factory.mktemp("runs") / "run", keep_aspect=True)
    export(str(folder), storage=Storage())
    return folder


@pytest.fixture(scope="module")
def network(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """The run's network for a runtime at a precision; tests must not change it."""
    traced = trace_network(
        read_pipeline(run / "pipeline.config").message, str(run / "best" / "ckpt-1")
    )

    @cache
    def make(runtime: Runtime, precision: Precision = "f32") -> str:
        folder = tmp_path_factory.mktemp("networks") / f"{runtime}-{precision}"
        write_network(
            traced,
            folder,
            runtime=runtime,
            precision=precision,
            frames=images(*[(64, 64)] * 8),
            calibrated_on="eight frames",
        )
        shutil.copy(run / "label_map.pbtxt", folder)
        return str(folder)

    return make


def answers(model: str, given: list[np.ndarray], score_min: float = 0.0) -> list[Detections]:
    """Detections of an export."""
    return load_detector(ModelConfig(uri=model, score_min=score_min), Storage()).detect(given)


def assert_alike(found: list[Detections], expected: list[Detections]) -> None:
    """The same boxes, classes and scores; equal ones may have changed places."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert len(one) == len(other) > 0
        assert one.scores == pytest.approx(other.scores, abs=1e-5)
        keys = [
            sorted(map(tuple, np.column_stack([each.class_ids, each.boxes_xyxy]).round(1).tolist()))
            for each in (one, other)
        ]
        assert np.abs(np.array(keys[0]) - np.array(keys[1])).max() < 0.25


@pytest.mark.parametrize("runtime", ["savedmodel", "openvino", "onnx", "tflite"])
def test_every_runtime_answers_as_the_stock_export(
    run: Path, network: Callable[..., str], runtime: str
) -> None:
    """Batches of one size and mixed ones, wide, tall and sampled images, in the order given."""
    given = images((120, 90), (64, 64), (120, 90), (50, 130), (120, 90), (128, 64))
    stock = answers(str(run / "exports" / "best-stock" / "saved_model"), given)
    assert_alike(answers(network(runtime), given), stock)


@pytest.fixture(scope="module")
def stretched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose images are stretched to the network's input."""
    return made_run(tmp_path_factory.mktemp("stretched") / "run", keep_aspect=False)


def test_images_are_stretched_where_the_config_says_so(stretched: Path, tmp_path: Path) -> None:
    """fixed_shape_resizer, through the command: int8 on frames that it reads itself."""
    run = stretched
    frames = tmp_path / "frames"
    frames.mkdir()
    given = images((120, 90), (64, 64), (50, 130))
    for number, image in enumerate(given):
        (frames / f"{number}.jpg").write_bytes(encode_jpeg(image, 95))
    stock = export(str(run), storage=Storage())
    full = export(str(run), storage=Storage(), format="tflite")
    assert full.model == str(run / "exports" / "best-tflite")
    assert_alike(answers(full.model, given), answers(stock.model, given))
    short = export(
        str(run), storage=Storage(), format="tflite", precision="int8", calibrate=str(frames)
    )
    assert short.model == str(run / "exports" / "best-tflite-int8")
    facts = read_facts(Path(short.model), "it")
    assert (facts.precision, facts.calibrated_on) == ("int8", str(frames))


def test_what_a_precision_costs_travels_with_it(stretched: Path, tmp_path: Path) -> None:
    """--check: both mAPs on labelled frames, kept in the export and held to its gate."""
    run = stretched
    records = write_drive(tmp_path / "data" / "drive.tfrecord", 6).parent
    report = export(
        str(run), storage=Storage(), format="openvino", precision="fp16", check=str(records)
    )
    facts = read_facts(Path(report.model), "it")
    assert facts.accuracy is not None and facts.accuracy == report.accuracy
    assert (facts.accuracy.frames, facts.accuracy.data) == (6, str(records))
    model = ModelConfig(uri=report.model, score_min=0.01)
    detector = load_detector(model, Storage())
    assert facts.accuracy.map == measure_accuracy(detector, str(records), Storage()).map
    assert "at fp16" in report.to_text() and "in f32 (6 frames of" in report.to_text()
    costly = replace(facts, accuracy=Accuracy(0.1, 0.103, 6, "x"))
    assert costly.objection() == "fp16 costs 0.003 mAP, allowed are 0.002"
    assert replace(costly, precision="int8").objection() is None
    assert "was not measured" in str(replace(facts, accuracy=None).objection())
    assert replace(facts, precision="f32", accuracy=None).objection() is None


def test_only_networks_are_compared(tmp_path: Path) -> None:
    """A stock export has nothing that it could be compared with."""
    with pytest.raises(ConfigError, match="stock is none: export it, then use urbandet bench"):
        export(str(tmp_path), storage=Storage(), check="data")


def test_a_higher_score_limit_cuts_the_tail_alone(network: Callable[..., str]) -> None:
    """Scores at the limit itself stay."""
    model, given = network("tflite"), images((64, 64), (64, 64))
    whole = answers(model, given)
    limit = float(whole[0].scores[4])
    for one, all_of_it in zip(answers(model, given, limit), whole, strict=True):
        assert one.scores.tolist() == all_of_it.scores[all_of_it.scores >= limit].tolist()


@pytest.mark.parametrize(
    ("runtime", "precision", "within"),
    [
        ("savedmodel", "bf16", 0.05),
        ("savedmodel", "fp16", 0.02),
        ("openvino", "bf16", 0.05),
        ("openvino", "fp16", 0.02),
        ("tflite", "fp16", 0.02),
        ("openvino", "int8", 0.15),
        ("onnx", "int8", 0.15),
        ("tflite", "int8", 0.15),
    ],
)
def test_fewer_bits_answer_nearly_the_same(
    network: Callable[..., str], runtime: str, precision: str, within: float
) -> None:
    """Files of half the size or less, or the same one computed in fewer bits."""
    models = [network(runtime), network(runtime, precision)]
    (full,), (short,) = (answers(model, images((64, 64))) for model in models)
    assert short.scores[:20] == pytest.approx(full.scores[:20], abs=within)
    facts = read_facts(Path(models[1]), "it")
    same = computes_in(facts) == "f32"  # bf16 on a processor that has none, TensorFlow's fp16
    assert (short.scores.tolist() == full.scores.tolist()) == same
    if precision == "fp16" and runtime != "savedmodel":
        sizes = [
            sum(file.stat().st_size for file in Path(model).glob("model.*")) for model in models
        ]
        assert sizes[1] < sizes[0]


def test_xla_answers_alike(network: Callable[..., str]) -> None:
    """Compiled for the largest batch yet; what fills a smaller one up is not answered for."""
    model, given = network("savedmodel"), images((64, 64), (64, 64), (64, 64))
    compiled = load_detector(ModelConfig(uri=model, score_min=0.0, compiler="xla"), Storage())
    assert_alike(compiled.detect(given), answers(model, given))
    assert_alike(compiled.detect(given[:1]), answers(model, given[:1]))
    traced = compiled._runtime._signature  # type: ignore[attr-defined]
    assert traced.experimental_get_tracing_count() == 1


def test_a_compiler_takes_its_own_networks(network: Callable[..., str], run: Path) -> None:
    """TensorRT says what it lacks here; nothing is computed without it."""
    stock = str(run / "exports" / "best-stock" / "saved_model")
    for model, compiler, made in (
        (network("tflite"), "xla", "--format savedmodel --precision f32 or bf16 or fp16"),
        (stock, "xla", "--format savedmodel"),
        (network("onnx", "int8"), "tensorrt", "--format onnx --precision f32"),
    ):
        with pytest.raises(ModelError, match=f"{compiler} does not compile .* {made}"):
            load_detector(ModelConfig(uri=model, compiler=compiler), Storage())  # type: ignore[arg-type]
    for device, why in (("cpu", "TensorRT needs a GPU"), ("auto", "is not built for TensorRT")):
        with pytest.raises(ModelError, match=why):
            load_detector(
                ModelConfig(uri=network("onnx"), compiler="tensorrt"),
                Storage(),
                device=device,  # type: ignore[arg-type]
            )


def test_suppression_may_be_another(network: Callable[..., str], run: Path) -> None:
    """Its own answers lie between stricter and none; soft scores differ; and it is another run."""
    given = images((120, 90))

    def scores(**nms: Any) -> float:
        model = ModelConfig(uri=network("tflite"), score_min=0.0, nms=NmsConfig(**nms))
        (found,) = load_detector(model, Storage()).detect(given)
        return float(found.scores.sum())

    none, own, strict = scores(iou_max=1.0), scores(), scores(iou_max=0.05)
    assert strict < own < none
    assert scores(iou_max=0.05, class_agnostic=True) < strict
    assert scores(soft_sigma=0.5) < none
    prints = {
        find_model(model, Storage()).fingerprint(Storage())
        for iou in (None, 0.05, 1.0)
        for model in [ModelConfig(uri=network("tflite"), nms=NmsConfig(iou_max=iou))]
    }
    assert len(prints) == 3
    with pytest.raises(ModelError, match=r"inside, by its own rules: model\.nms changes"):
        load_detector(
            ModelConfig(
                uri=str(run / "exports" / "best-stock" / "saved_model"), nms=NmsConfig(iou_max=0.5)
            ),
            Storage(),
        )


def test_a_network_that_answers_for_fewer_images_is_refused(network: Callable[..., str]) -> None:
    """Whatever was done to its model file."""

    class One:
        """Answers for the first image."""

        def run(self, given: np.ndarray) -> dict[str, np.ndarray]:
            return {"deltas": np.zeros((1, 80, 4)), "logits": np.zeros((1, 80, 4))}

    detector = load_detector(ModelConfig(uri=network("tflite")), Storage())
    detector._runtime = One()  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match="was given 2 images and answered for 1: its export"):
        detector.detect(images((64, 64), (64, 64)))


def test_a_gpu_is_given_batches_of_one_size(network: Callable[..., str]) -> None:
    """cuDNN would plan anew for each other one; what fills them up is not answered for."""
    facts = read_facts(Path(network("onnx")), "it")
    runtime = OnnxRuntime(facts.model_path(Path(network("onnx"))), facts, 1, "cpu")
    given = np.stack(images((64, 64), (64, 64), (64, 64)))
    alone = runtime.run(given[:1])
    runtime.provider = "CUDAExecutionProvider"  # in name: the session computes on the CPU
    counts: list[int] = []
    session = runtime._session

    class Counting:
        def run(self, names: list[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
            counts.extend(map(len, feed.values()))
            return session.run(names, feed)

    runtime._session = Counting()
    runtime.run(given)
    again = runtime.run(given[:1])
    assert counts == [3, 3]
    for name, value in alone.items():
        assert again[name].shape == value.shape
        assert again[name] == pytest.approx(value, abs=1e-4)


@pytest.fixture
def cuda_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU in sight, and an ONNX Runtime that claims CUDA and TensorRT and cannot open them."""
    import onnxruntime

    offered = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: offered)
    monkeypatch.setattr(runtimes, "sees_gpu", lambda: True)


@pytest.mark.usefixtures("cuda_build")
def test_a_gpu_build_that_falls_back_is_refused(network: Callable[..., str]) -> None:
    """It would run on the CPU and say nothing."""
    with pytest.raises(ModelError, match="built for CUDA and does not get at the GPU here"):
        load_detector(ModelConfig(uri=network("onnx")), Storage())
    with pytest.raises(ModelError, match=r"built for TensorRT .* and TensorRT \(pip"):
        load_detector(ModelConfig(uri=network("onnx"), compiler="tensorrt"), Storage())


@pytest.mark.parametrize(("runtime", "why"), [("onnx", "is not built for"), ("savedmodel", "sees")])
def test_a_gpu_that_is_not_there_is_said(
    network: Callable[..., str], runtime: str, why: str
) -> None:
    """An actor that holds a GPU must not compute on the CPU and say nothing."""
    with pytest.raises(ModelError, match=rf"{why} .*actors\.gpus=0"):
        load_detector(ModelConfig(uri=network(runtime)), Storage(), device="gpu")


@pytest.mark.usefixtures("cuda_build")
def test_an_actor_without_a_gpu_leaves_them_alone(network: Callable[..., str]) -> None:
    """Ray hides none from it: a core's worth of actors would share one GPU's memory."""
    detector = load_detector(ModelConfig(uri=network("onnx")), Storage(), device="cpu")
    assert detector._runtime.provider == "CPUExecutionProvider"  # type: ignore[attr-defined]


@pytest.mark.parametrize("runtime", ["savedmodel", "openvino", "onnx", "tflite"])
def test_what_a_runtime_throws_is_told(network: Callable[..., str], runtime: str) -> None:
    """Each throws its own kinds: at a batch that it cannot take, and at a file that is none."""
    detector = load_detector(ModelConfig(uri=network(runtime)), Storage())
    with pytest.raises(ModelError, match=r"failed on 1 images \(.*smaller batch_size"):
        detector._answer(np.zeros((1, 64, 64, 4), np.uint8))  # type: ignore[attr-defined]


@pytest.mark.parametrize("runtime", ["savedmodel", "openvino", "onnx", "tflite"])
def test_a_damaged_model_file_is_told(
    network: Callable[..., str], tmp_path: Path, runtime: str
) -> None:
    """Half a file: the message says what to do, whatever the runtime raised."""
    model = tmp_path / "network"
    shutil.copytree(network(runtime), model)
    for file in model.rglob("*"):
        if file.suffix in (".pb", ".xml", ".onnx", ".tflite"):
            file.write_bytes(b"<net" + file.read_bytes()[: file.stat().st_size // 3])
    with pytest.raises(ModelError, match=r"does not load into \w+ \(.*copy or export it again"):
        load_detector(ModelConfig(uri=str(model)), Storage())


def test_a_damaged_folder_is_named(network: Callable[..., str], tmp_path: Path) -> None:
    """Whatever is missing or broken in it."""
    model = tmp_path / "network"
    shutil.copytree(network("tflite"), model)
    (model / "anchors.npy").unlink()
    with pytest.raises(ModelError, match=r"lacks its anchors\.npy: copy or export it again"):
        load_detector(ModelConfig(uri=str(model)), Storage())
    facts = (model / "network.json").read_text()
    (model / "network.json").write_text(
        facts.replace('"version": 1,', '"version": 1, "batch_size": 8,')
    )
    with pytest.raises(ModelError, match=r"lacks its anchors\.npy"):  # an earlier export is read
        load_detector(ModelConfig(uri=str(model)), Storage())
    (model / "network.json").write_text(facts.replace('"version": 1', '"version": 9'))
    with pytest.raises(ModelError, match="by a later urbandet"):
        load_detector(ModelConfig(uri=str(model)), Storage())
    (model / "network.json").write_text(facts[:40])
    with pytest.raises(ModelError, match=r"network\.json is damaged"):
        load_detector(ModelConfig(uri=str(model)), Storage())
    (model / "network.json").write_text(facts)
    (model / "model.tflite").unlink()
    with pytest.raises(ModelError, match=r"lacks its model\.tflite"):
        load_detector(ModelConfig(uri=str(model)), Storage())


def test_a_checkpoint_of_another_width_is_refused(run: Path) -> None:
    """Its tensors have other shapes; the first that does not fit is told."""
    config = read_pipeline(run / "pipeline.config").message
    config.model.ssd.box_predictor.weight_shared_convolutional_box_predictor.depth *= 2
    with pytest.raises(ModelError, match=r"ckpt-1 does not fit its pipeline\.config \(.*shape"):
        trace_network(config, str(run / "best" / "ckpt-1"))
