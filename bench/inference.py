"""Inference against what people do without us, and against what the machine could do.

    for each RUN:
        urbandet export RUN                                      # stock: the course's model
        urbandet export RUN --format savedmodel                  # its arithmetic is counted
        urbandet export RUN --format openvino
        urbandet export RUN --format openvino --precision bf16
        urbandet export RUN --format openvino --precision int8 --calibrate data/waymo/train
    python bench/inference.py RUN... --data data/waymo/val

For each training run, in turn and as often as --rounds says, each side in a process of its own:

course    a frame as list -> JSON -> HTTP on loopback -> stock SavedModel, an image a call -> JSON
          (all outputs, raw anchors too, as the course's endpoint answers) -> draw -> MJPG video
loop      decode, stock SavedModel, draw, encode, write: one process, TensorFlow's own threads
raydata   Ray Data as its docs show it: read_binary_files, map_batches with the same loop in an
          actor a core; from when each has done its first batch
pipeline  `urbandet bench` on the network: the whole pipeline, warm actors
limit     cores / (CPU seconds a frame of decode + network + post-processing + draw + encode +
          write), each alone in one process with one thread; before and after the pipeline

Ratios are of the same round; the table has their medians. Also: what the network computes a second
against a matrix product at the same precision (OpenVINO, int8 by ONNX Runtime), on one thread.
About 90 seconds a round for each run and precision on 2 cores.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from urbandet_ray.config import ModelConfig
from urbandet_ray.detections import Detections
from urbandet_ray.frames import Frame
from urbandet_ray.label_files import read_labels
from urbandet_ray.labels import LabelMap
from urbandet_ray.models.loader import load_detector
from urbandet_ray.records.images import decode_frame, encode_jpeg, encode_png
from urbandet_ray.records.sources import list_sources, read_source
from urbandet_ray.rendering.annotate import Annotator
from urbandet_ray.storage import Storage

CORES = os.cpu_count() or 1
DRAWN_FROM, KEPT_FROM = 0.3, 0.01
SIDES = ("course", "loop", "raydata")
MATRIX = 2048


def read_frames(data: str, count: int) -> list[Frame]:
    """Frames from all over the records, as the pipeline sees them; encoded."""
    storage = Storage()
    frames = [
        record.frame
        for source in list_sources(data, storage)
        for record in read_source(source, storage)
        if record.frame is not None
    ]
    return [frames[i * len(frames) // count] for i in range(count)]


def labels_of(export: Path) -> LabelMap:
    """The label map beside an export."""
    return read_labels(str(export / "label_map.pbtxt"), Storage())


# the course's way


def serve(saved_model: Path) -> ThreadingHTTPServer:
    """An endpoint like TensorFlow Serving's REST: JSON in, all outputs as JSON out."""
    import tensorflow as tf

    model = tf.saved_model.load(str(saved_model))
    signature = model.signatures["serving_default"]
    (name,) = signature.structured_input_signature[1]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            instances = np.asarray(json.loads(body)["instances"], np.uint8)
            found = signature(**{name: tf.constant(instances)})
            outputs = {key: value.numpy()[0].tolist() for key, value in found.items()}
            answer = json.dumps({"predictions": [outputs]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.model = model  # type: ignore[attr-defined]  # its variables go with it
    return server


def side_course(export: Path, frames: Sequence[Frame], scratch: Path) -> float:
    """Frames/s of the notebook's loop against an endpoint in a process of its own."""
    import cv2

    command = [sys.executable, __file__, "--serve", str(export / "saved_model")]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}/"  # type: ignore[union-attr]
        annotator = Annotator(labels_of(export))
        images = [decode_frame(frame) for frame in frames]
        height, width = images[0].shape[:2]
        motion = cv2.VideoWriter_fourcc(*"MJPG")  # type: ignore[attr-defined]
        video = cv2.VideoWriter(str(scratch / "course.avi"), motion, 10, (width, height))

        def one(image: np.ndarray) -> None:
            body = json.dumps({"instances": [image.tolist()]}).encode()
            request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request) as answer:
                found = json.loads(answer.read())["predictions"][0]
            count = int(found["num_detections"])
            boxes = np.asarray(found["detection_boxes"])[:count, [1, 0, 3, 2]]
            boxes *= [width, height, width, height]
            scores = found["detection_scores"][:count]
            detections = Detections.of(
                boxes, scores, np.asarray(found["detection_classes"][:count])
            )
            drawn = annotator.annotate(image, detections.above(DRAWN_FROM), None)
            video.write(cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))

        one(images[0].copy())
        begin = time.perf_counter()
        for image in images:
            one(image)
        return len(images) / (time.perf_counter() - begin)
    finally:
        server.terminate()
        server.wait()


# a plain loop, and Ray Data's docs


class Loop:
    """What a person writes: decode, stock SavedModel, draw, encode, write."""

    def __init__(self, export: Path, out: Path) -> None:
        import tensorflow as tf

        model = tf.saved_model.load(str(export / "saved_model"))
        self._tf, self._model = tf, model
        self._signature = model.signatures["serving_default"]
        (self._name,) = self._signature.structured_input_signature[1]
        self._annotator = Annotator(labels_of(export))
        self._out = out
        out.mkdir(parents=True, exist_ok=True)

    def one(self, encoded: bytes, name: str) -> int:
        """How many detections were drawn."""
        image = decode_frame(Frame(name, "loop", encoded, "jpeg", None)).copy()
        found = self._signature(**{self._name: self._tf.constant(image[None])})
        height, width = image.shape[:2]
        boxes = found["detection_boxes"][0].numpy()[:, [1, 0, 3, 2]]
        boxes = boxes * [width, height, width, height]
        scores = found["detection_scores"][0].numpy()
        classes = np.rint(found["detection_classes"][0].numpy()).astype(int)
        shown = Detections.of(boxes, scores, classes).above(DRAWN_FROM)
        drawn = self._annotator.annotate(image, shown, None)
        (self._out / f"{name}.jpg").write_bytes(encode_jpeg(drawn, 90))
        return len(shown)


def side_loop(export: Path, frames: Sequence[Frame], scratch: Path) -> float:
    """Frames/s of one process."""
    loop = Loop(export, scratch / "loop")
    for frame in frames[:2]:
        loop.one(frame.encoded, "warm")
    begin = time.perf_counter()
    for i, frame in enumerate(frames):
        loop.one(frame.encoded, f"{i:06d}")
    return len(frames) / (time.perf_counter() - begin)


class LoopActor:
    """For map_batches."""

    def __init__(self, export: str, out: str) -> None:
        self._loop = Loop(Path(export), Path(out))
        self._warm = False

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        if not self._warm:
            self._loop.one(batch["bytes"][0], "warm")
            self._warm = True
        found = [
            self._loop.one(encoded, Path(path).stem)
            for encoded, path in zip(batch["bytes"], batch["path"], strict=True)
        ]
        count = len(found)
        return {"found": found, "actor": [os.getpid()] * count, "end": [time.time()] * count}


def side_raydata(export: Path, frames: Sequence[Frame], scratch: Path) -> float:
    """Frames/s of warm actors: from when the last of them has done its first batch."""
    import ray

    images = scratch / "images"
    images.mkdir()
    for i, frame in enumerate(frames):
        (images / f"{i:06d}.jpg").write_bytes(frame.encoded)
    # a core more than there is: with an actor on each, the read task would wait for ever
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    ray.init(address="local", num_cpus=CORES + 1, **quiet)
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        rows = (
            ray.data.read_binary_files(str(images), include_paths=True)
            .map_batches(
                LoopActor,
                fn_constructor_args=(str(export), str(scratch / "out")),
                concurrency=CORES,
                batch_size=4,
            )
            .take_all()
        )
    finally:
        ray.shutdown()
    assert len(rows) == len(frames)
    firsts: dict[int, float] = {}
    for row in rows:
        firsts[row["actor"]] = min(row["end"], firsts.get(row["actor"], row["end"]))
    if len(firsts) < CORES:
        raise SystemExit(f"{len(firsts)} of {CORES} actors had work: give more --frames")
    warm = max(firsts.values())
    late = [row["end"] for row in rows if row["end"] > warm]
    return len(late) / (max(late) - warm)


# ours, and the limit


def side_pipeline(export: Path, data: str, seconds: float, scratch: Path) -> dict[str, Any]:
    """`urbandet bench` of the network."""
    from urbandet_ray.commands.bench import bench
    from urbandet_ray.config import InferConfig, load_config

    labels = str(export / "label_map.pbtxt")
    given = {"input": data, "output": "-", "labels": labels}
    config = load_config(InferConfig, None, given)
    report = bench(config, [str(export)], rounds=1, seconds=seconds, scratch=scratch)
    return report.to_dict()["rows"][0]


def side_limit(export: Path, frames: Sequence[Frame], scratch: Path) -> dict[str, float]:
    """CPU milliseconds a frame of each stage alone, on one thread."""
    import cv2

    cv2.setNumThreads(1)
    labels, storage = labels_of(export), Storage()
    detector: Any = load_detector(
        ModelConfig(uri=str(export), score_min=KEPT_FROM), storage, labels
    )
    annotator, batch = Annotator(labels), detector.batch_size
    images = [decode_frame(frame).copy() for frame in frames]
    size_wh = images[0].shape[1], images[0].shape[0]
    batches = [images[i : i + batch] for i in range(0, len(images), batch)]
    answers = [detector._answer(detector._batch(one)) for one in batches]
    found = [one for answer in answers for one in detector._read(answer, size_wh)]
    shown = [one.above(DRAWN_FROM) for one in found]
    encoded = [encode_jpeg(image, 90) for image in images]
    out = scratch / "written"
    out.mkdir()

    def ms(work: Callable[[int], object], times: int, warm: int = 1) -> float:
        for i in range(warm * times):  # an actor has drawn each label, and asked for memory, before
            work(i % times)
        begin = time.process_time()
        for i in range(times):
            work(i)
        return 1000 * (time.process_time() - begin) / len(frames)

    names = itertools.count()

    def write(i: int) -> None:  # the first files take pages that the system has at hand
        storage.write_provisional(str(out / f"{next(names):06d}.jpg"), encoded[i])

    count = len(frames)
    return {
        "decode": ms(lambda i: decode_frame(frames[i]), count),
        "network": ms(lambda i: detector._answer(detector._batch(batches[i])), len(batches)),
        "post-processing": ms(lambda i: detector._read(answers[i], size_wh), len(batches)),
        "draw": ms(lambda i: annotator.annotate(images[i], shown[i], None), count),
        "encode": ms(lambda i: encode_jpeg(images[i], 90), count),
        "write": ms(write, count, warm=20),
    }


# arithmetic


def side_flops(network: Path) -> float:
    """Floating point operations a frame of a `savedmodel` network, by TensorFlow's profiler."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    facts = json.loads((network / "network.json").read_text())["resizing"]
    model = tf.saved_model.load(str(network / "saved_model"))
    shape = [1, facts["height"], facts["width"], 3]
    traced = tf.function(lambda images: model.signatures["serving_default"](images=images))
    frozen = convert_variables_to_constants_v2(
        traced.get_concrete_function(tf.TensorSpec(shape, tf.uint8))
    )
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    options["output"] = "none"
    found = tf.compat.v1.profiler.profile(frozen.graph, options=options)
    return float(found.total_float_ops)


def side_peak(precision: str) -> float:
    """Operations a second of a large matrix product on one thread."""
    run = _int8_product() if precision == "int8" else _product(precision)
    run()
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return 2 * MATRIX**3 / min(times)


def _product(precision: str) -> Callable[[], object]:
    os.environ.setdefault("CI", "true")  # openvino-telemetry sends nothing then
    import openvino
    from openvino import opset13 as ops

    draw = np.random.default_rng(0)
    left = ops.parameter([MATRIX, MATRIX], np.float32)
    right = ops.constant(draw.normal(size=(MATRIX, MATRIX)).astype(np.float32))
    model = openvino.Model([ops.matmul(left, right, False, False)], [left])
    hints = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    request = openvino.Core().compile_model(model, "CPU", hints).create_infer_request()
    given = draw.normal(size=(MATRIX, MATRIX)).astype(np.float32)
    return lambda: request.infer({0: given}, share_inputs=True, share_outputs=True)


def _int8_product() -> Callable[[], object]:
    import onnxruntime
    from onnx import TensorProto, helper

    draw = np.random.default_rng(0)
    right = draw.integers(-127, 127, (MATRIX, MATRIX)).astype(np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["left", "right"], ["out"])],
        "product",
        [helper.make_tensor_value_info("left", TensorProto.UINT8, [MATRIX, MATRIX])],
        [helper.make_tensor_value_info("out", TensorProto.INT32, [MATRIX, MATRIX])],
        [helper.make_tensor("right", TensorProto.INT8, right.shape, right.tobytes(), raw=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    given = draw.integers(0, 255, (MATRIX, MATRIX)).astype(np.uint8)
    return lambda: session.run(None, {"left": given})


# all of it


def in_own_process(side: str, *arguments: object) -> Any:
    """What `--side` prints, in a fresh interpreter."""
    command = [sys.executable, __file__, "--side", side, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{side}: {done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def run_side(side: str, arguments: list[str]) -> Any:
    """One side, in this process."""
    if side == "pipeline":
        export, data, seconds, scratch = arguments
        return side_pipeline(Path(export), data, float(seconds), Path(scratch))
    if side == "flops":
        return side_flops(Path(arguments[0]))
    if side == "peak":
        return side_peak(arguments[0])
    export, frames = Path(arguments[0]), read_frames(arguments[1], int(arguments[2]))
    sides = {
        "course": side_course,
        "loop": side_loop,
        "raydata": side_raydata,
        "limit": side_limit,
    }
    with tempfile.TemporaryDirectory(prefix="urbandet-bench-") as scratch:
        return sides[side](export, frames, Path(scratch))


def measure(run: Path, options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """All rounds of one training run; what the pipeline writes stays until all is measured, for
    ext4 makes new files more slowly after others were deleted."""
    stock = run / "exports" / "best-stock"
    networks = {name: run / "exports" / f"best-{name}" for name in options.networks}
    plain = run / "exports" / "best-savedmodel"
    if missing := [str(one) for one in (stock, plain, *networks.values()) if not one.is_dir()]:
        raise SystemExit(f"export first: {', '.join(missing)}")
    rounds: list[dict[str, Any]] = []
    counts = {"course": options.frames // 4, "loop": options.frames, "raydata": 2 * options.frames}
    for number in range(options.rounds):
        one: dict[str, Any] = {}
        for side in SIDES:
            one[side] = in_own_process(side, stock, options.data, counts[side])
        for name, folder in networks.items():
            before = in_own_process("limit", folder, options.data, options.frames)
            kept = scratch / f"{run.name}-{number}-{name}"
            row = in_own_process("pipeline", folder, options.data, options.seconds, kept)
            row["model"] = row["chosen"] = f"{run.name}/exports/{folder.name}"  # wherever it lies
            after = in_own_process("limit", folder, options.data, options.frames)
            costs = {stage: (before[stage] + after[stage]) / 2 for stage in before}
            limit = 1000 * CORES / sum(costs.values())
            one[name] = {"cpu_ms": costs, "limit": limit, "row": row, "pace": row["rounds"][0]}
        print(f"{run.name}, round {number + 1}: {_told(one, list(networks))}", flush=True)
        rounds.append(one)
    flops = in_own_process("flops", plain)
    return {"rounds": rounds, "networks": list(networks), "flops": flops}


def _told(one: dict[str, Any], networks: Sequence[str]) -> str:
    parts = [f"{side} {one[side]:.2f}" for side in SIDES]
    parts += [f"{name} {one[name]['pace']:.2f} of {one[name]['limit']:.2f}" for name in networks]
    return ", ".join(parts) + " frames/s"


def summary(found: dict[str, Any], name: str, peaks: dict[str, float]) -> dict[str, Any]:
    """Medians over the rounds, of one network."""
    rounds = found["rounds"]
    costs = {
        stage: median([one[name]["cpu_ms"][stage] for one in rounds])
        for stage in rounds[0][name]["cpu_ms"]
    }
    precision = rounds[0][name]["row"]["precision"]
    speed = found["flops"] / (costs["network"] / 1000)
    return {
        "frames_per_s": median([one[name]["pace"] for one in rounds]),
        **{side: median([one[name]["pace"] / one[side] for one in rounds]) for side in SIDES},
        "limit": median([one[name]["pace"] / one[name]["limit"] for one in rounds]),
        "cpu_ms": costs,
        "map": rounds[0][name]["row"]["map"],
        "post_of_network": costs["post-processing"] / costs["network"],
        "gflops": speed / 1e9,
        "share_of_peak": speed / peaks[precision],
    }


def report(results: dict[str, Any]) -> str:
    """The table, in Markdown."""
    heads = ["run", "network", "frames/s", "x course", "x loop", "x Ray Data", "of the limit"]
    heads += ["mAP", "post-processing / network", "GFLOP/s a core", "of the matrix product"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for run, found in results["runs"].items():
        for name, one in found["summary"].items():
            cells = [run, name, f"{one['frames_per_s']:.1f}"]
            cells += [f"{one[side]:.1f}" for side in SIDES]
            cells += [f"{one['limit']:.2f}", "-" if one["map"] is None else f"{one['map']:.3f}"]
            cells += [f"{one['post_of_network']:.1%}", f"{one['gflops']:.0f}"]
            lines.append("| " + " | ".join([*cells, f"{one['share_of_peak']:.2f}"]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Parse and measure."""
    as_written = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--data", help="TFRecords; with labels, mAP too")
    parser.add_argument(
        "--networks", nargs="+", default=["openvino", "openvino-bf16", "openvino-int8"]
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=24, help="of the stock sides, each round")
    parser.add_argument("--seconds", type=float, default=15, help="of the pipeline, each round")
    parser.add_argument("--json", type=Path, default=Path("bench/results/inference.json"))
    parser.add_argument("--png", type=Path, default=Path("docs/inference-stages.png"))
    parser.add_argument("--side", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        server = serve(options.serve)
        print(server.server_address[1], flush=True)
        server.serve_forever()
    if options.side:
        print(json.dumps(run_side(options.side[0], options.side[1:])))
        return
    precisions = {name.partition("-")[2] or "f32" for name in options.networks}
    precisions |= {"f32"}  # what a processor without bf16 takes instead
    peaks = {one: in_own_process("peak", one) for one in sorted(precisions)}
    results: dict[str, Any] = {"cores": CORES, "peaks": peaks, "runs": {}}
    with tempfile.TemporaryDirectory(prefix="urbandet-bench-") as scratch:
        for run in options.runs:
            found = measure(run, options, Path(scratch))
            found["summary"] = {name: summary(found, name, peaks) for name in found["networks"]}
            results["runs"][run.name] = found
    print(report(results))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    draw_stages(results, options.png)


def draw_stages(results: dict[str, Any], file: Path) -> None:
    """Where the time of a frame goes: a sheet a run, each on its own scale, below each other."""
    from urbandet_ray.reports.stage_bars import stage_bars

    sheets = []
    for run, found in results["runs"].items():
        rows = [(name, one["cpu_ms"]) for name, one in found["summary"].items()]
        sheets.append(stage_bars(rows, f"{run}: CPU milliseconds a frame, each stage alone"))
    width = max(sheet.shape[1] for sheet in sheets)
    filled = [
        np.pad(sheet, ((0, 0), (0, width - sheet.shape[1]), (0, 0)), "edge") for sheet in sheets
    ]
    file.write_bytes(encode_png(np.concatenate(filled)))


if __name__ == "__main__":
    main()
