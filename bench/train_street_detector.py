"""Trains the detector the package ships: synthetic streets in, street-ssd-320.tflite out.

    python bench/train_street_detector.py --work runs/street --install

Seeds fix the drives and the order of the frames; TensorFlow's sums vary, so a second run does not
give quite the same weights. Times and figures are in models/shipped/CARD.md.

Each stage leaves its files under --work and is skipped or resumed when they are there: render
(a TFRecord a drive), train (`urbandet train` with configs/runs/train-street.yaml), export, evaluate
(through the package's own detector, on drives of other seeds). `--install` copies the result into
the package and its figures into CARD.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from urbandet_ray.commands.display import train_progress
from urbandet_ray.commands.export import export
from urbandet_ray.commands.train import TrainReport
from urbandet_ray.commands.train import train as train_run
from urbandet_ray.config import ModelConfig, TrainConfig, load_config
from urbandet_ray.errors import RunError
from urbandet_ray.evaluation import Metrics, evaluate
from urbandet_ray.frames import Frame, Image, Truth
from urbandet_ray.label_files import read_labels
from urbandet_ray.labels import STREET_LABELS, ClassMapping
from urbandet_ray.models.loader import load_detector
from urbandet_ray.models.shipped import SHIPPED_FOLDER
from urbandet_ray.records.images import decode_frame, encode_jpeg
from urbandet_ray.records.sources import list_sources, read_source
from urbandet_ray.records.writer import write_frames
from urbandet_ray.runs.detections_table import DetectionRow
from urbandet_ray.storage import Storage
from urbandet_ray.streets import render_drive

TRAIN_SEED, VALIDATION_SEED = 10_000, 20_000
"""First seeds; drives of the demo and the tests have smaller ones."""

TRAIN_DRIVES, VALIDATION_DRIVES = 150, 12

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "runs" / "train-street.yaml"

FRAMES_A_DRIVE, FPS = 12, 1.5
"""Frames of a drive and their rate: neighbours 0.67 s apart differ enough to be worth learning."""

TRAIN_SIDE_PX = 400
"""Frames are stored smaller than rendered: enough for crops of 0.8, and faster to decode."""

STAGES = ("render", "train", "export", "evaluate")

FIGURES_BEGIN, FIGURES_END = "<!-- figures -->", "<!-- end of figures -->"

MODEL_LABELS = read_labels(str(SHIPPED_FOLDER / "label_map.pbtxt"), Storage())
"""The model's ids are contiguous: the OD API's one-hot has no gaps. Names decide afterwards."""


def render(work: Path, train_drives: int, validation_drives: int, workers: int) -> None:
    """Write the drives that are missing: small frames to learn from, full-size ones to judge on."""
    jobs: list[tuple[Path, int, int | None]] = [
        (work / "val", VALIDATION_SEED + i, None) for i in range(validation_drives)
    ]
    jobs += [(work / "train", TRAIN_SEED + i, TRAIN_SIDE_PX) for i in range(train_drives)]
    jobs = [job for job in jobs if not _drive_path(job[0], job[1]).exists()]
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        for done, path in enumerate(pool.map(_render_one, jobs), start=1):
            if done % 10 == 0 or done == len(jobs):
                print(f"rendered {done} of {len(jobs)} drives, the last {path.name}", flush=True)


def _drive_path(folder: Path, seed: int) -> Path:
    return folder / f"street-{seed}.tfrecord"


def _render_one(job: tuple[Path, int, int | None]) -> Path:
    import cv2

    cv2.setNumThreads(1)
    folder, seed, learn_side = job
    path = _drive_path(folder, seed)

    def frames() -> Iterator[Frame]:
        for index, (image, truth) in enumerate(render_drive(seed, FRAMES_A_DRIVE, fps=FPS)):
            key = f"street-{seed}-{index:03d}"
            stored, labels = _as_learnt(image, truth, learn_side or image.shape[0])
            size_wh = (stored.shape[1], stored.shape[0])
            yield Frame(key, path.stem, encode_jpeg(stored, 92), "jpeg", size_wh, labels)

    write_frames(frames(), path)
    return path


def _as_learnt(image: Image, truth: Truth, side: int) -> tuple[Image, Truth]:
    """The frame at side x side px, with the model's class ids."""
    import cv2

    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    to_model = ClassMapping.by_name(STREET_LABELS, MODEL_LABELS).ids
    ids = [to_model[int(class_id)] for class_id in truth.class_ids]
    boxes = truth.boxes_xyxy * np.float32(side / image.shape[0])
    return small.astype(np.uint8), Truth.of(boxes, ids, truth.class_texts)


def train(work: Path, steps: int | None) -> TrainReport:
    """Train as CONFIG says; an unfinished run goes on."""
    shutil.copy(SHIPPED_FOLDER / "label_map.pbtxt", work)
    settings = {
        "pipeline": str(SHIPPED_FOLDER / "pipeline.config"),
        "data": str(work),
        "output": str(work / "run"),
    }
    if steps is not None:
        settings["steps"] = str(steps)
    with train_progress() as on_notice:
        return train_run(load_config(TrainConfig, CONFIG, settings), on_notice=on_notice)


def judge(model: Path, work: Path, score_min: float = 0.02) -> tuple[Metrics, float]:
    """COCO metrics on the validation drives through the package's detector, and ms a frame."""
    detector = load_detector(
        ModelConfig(uri=str(model), score_min=score_min), Storage(), MODEL_LABELS
    )
    results, seconds = [], 0.0
    for path in sorted((work / "val").glob("street-*.tfrecord")):
        for frame, truth, image in _labelled(path):
            started = time.perf_counter()
            (found,) = detector.detect([image])
            seconds += time.perf_counter() - started
            size_wh = (image.shape[1], image.shape[0])
            key, index = frame.frame_key, len(results)
            results.append(DetectionRow("", index, key, frame.segment, size_wh, found, truth))
    return evaluate(results, MODEL_LABELS), 1000 * seconds / len(results)


def _labelled(path: Path) -> Iterator[tuple[Frame, Truth, Image]]:
    storage = Storage()
    for source in list_sources(str(path), storage):
        for record in read_source(source, storage):
            if record.frame is None or record.frame.truth is None:
                raise RunError(f"{path}: record {record.index} is no labelled frame; render again")
            yield record.frame, record.frame.truth, decode_frame(record.frame)


def install(model: Path, figures: str) -> None:
    """Put the model into the package, and its figures between the marks in CARD.md."""
    shutil.copy(model, SHIPPED_FOLDER / "street-ssd-320.tflite")
    card = SHIPPED_FOLDER / "CARD.md"
    head, _, rest = card.read_text("utf-8").partition(FIGURES_BEGIN)
    _, _, tail = rest.partition(FIGURES_END)
    card.write_text(f"{head}{FIGURES_BEGIN}\n{figures}\n{FIGURES_END}{tail}", "utf-8")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of records and results")
    parser.add_argument(
        "--stages", nargs="+", choices=STAGES, default=STAGES, metavar="STAGE",
        help=f"of {', '.join(STAGES)}; all of them by default",
    )  # fmt: skip
    parser.add_argument("--train-drives", type=int, default=TRAIN_DRIVES)
    parser.add_argument("--validation-drives", type=int, default=VALIDATION_DRIVES)
    parser.add_argument("--steps", type=int, help="instead of the config's num_steps")
    parser.add_argument("--workers", type=int, default=2, help="processes that render")
    parser.add_argument("--install", action="store_true", help="into the package, with the card")
    return parser.parse_args()


def main() -> None:
    """Run the stages in order."""
    asked = _parse()
    work: Path = asked.work.resolve()
    model = work / "run" / "exports" / "best-stock-tflite-fp16" / "model.tflite"
    if "render" in asked.stages:
        render(work, asked.train_drives, asked.validation_drives, asked.workers)
    if "train" in asked.stages:
        started = time.monotonic()
        print(train(work, asked.steps).to_text())
        print(f"{(time.monotonic() - started) / 60:.0f} minutes", flush=True)
    if "export" in asked.stages:
        made = export(str(work / "run"), storage=Storage(), format="stock-tflite", precision="fp16")
        print(made.to_text(), flush=True)
    if "evaluate" in asked.stages:
        metrics, frame_ms = judge(model, work)
        figures = f"{metrics.to_text()}\n\n{frame_ms:.1f} ms a frame (1 thread, decode not counted)"
        digest = hashlib.sha256(model.read_bytes()).hexdigest()
        figures += f"\n{model.stat().st_size:,} bytes, SHA-256 {digest}"
        print(figures)
        (work / "metrics.json").write_text(json.dumps(metrics.to_dict(), indent=2), "utf-8")
        if asked.install:
            install(model, f"```\n{figures}\n```")


if __name__ == "__main__":
    main()
