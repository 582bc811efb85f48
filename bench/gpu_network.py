"""How fast exported networks are on this machine's GPU, and how far their answers are from a CPU's.

    python bench/gpu_network.py RUN/exports/best-onnx OTHER/exports/best-onnx --data data/waymo/val

For each network and batch size: frames/s of the runtime alone (pixels in, raw answers out, both in
main memory) and of detect(), whose post-processing is on the CPU; medians of calls after warm-up.
`first` is the first call of that size. The same frames also go through the network in a process
that sees no GPU; its boxes are paired with the GPU's by class and overlap. Without a GPU all this
runs too, and compares the CPU with itself.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from urbandet_ray.boxes import iou_matrix
from urbandet_ray.config import ModelConfig
from urbandet_ray.detections import Detections
from urbandet_ray.frames import Image
from urbandet_ray.models.loader import load_detector
from urbandet_ray.models.network.facts import read_facts
from urbandet_ray.models.network.network_detector import NetworkDetector
from urbandet_ray.records.images import decode_frame
from urbandet_ray.records.sources import list_sources, read_source
from urbandet_ray.storage import Storage

SAME_IOU = 0.5


def frames_of(data: str, count: int) -> list[Image]:
    """The first frames, decoded."""
    storage = Storage()
    records = (
        record for source in list_sources(data, storage) for record in read_source(source, storage)
    )
    return [decode_frame(one.frame) for one in islice(records, count) if one.frame is not None]


def smi(query: str) -> str | None:
    """One value of the first GPU; None where there is none."""
    try:
        command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return told.splitlines()[0].strip()


def timed(call: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Seconds of the first call, and the median of the later ones."""
    seconds = []
    for _ in range(rounds + 3):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return seconds[0], float(np.median(seconds[3:]))


def opened(network: Path, options: argparse.Namespace) -> NetworkDetector:
    """A network's detector."""
    model = ModelConfig(uri=str(network), score_min=options.score_min, threads=options.threads)
    detector = load_detector(model, Storage())
    if not isinstance(detector, NetworkDetector):
        sys.exit(f"{network} is no network: export it with --format onnx or savedmodel")
    return detector


def speeds(
    detector: NetworkDetector, frames: list[Image], options: argparse.Namespace
) -> dict[int, dict[str, float]]:
    """Figures by batch size, smallest first: a runtime may fill later batches up to the largest."""
    figures = {}
    for size in sorted(set(options.batches)):
        images = (frames * (size // len(frames) + 1))[:size]
        first, alone = timed(partial(detector._runtime.run, np.stack(images)), options.rounds)
        _, whole = timed(partial(detector.detect, images), options.rounds)
        figures[size] = {
            "first_s": first,
            "runtime_fps": size / alone,
            "detect_fps": size / whole,
            "outside_share": 1 - alone / whole,
        }
    return figures


def measured(network: Path, frames: list[Image], options: argparse.Namespace) -> dict[str, Any]:
    """Everything about one network; its answers are still to be compared."""
    facts, before = read_facts(network, network.name), smi("memory.used")
    begin = time.perf_counter()
    detector = opened(network, options)
    figures: dict[str, Any] = {
        "runtime": f"{facts.runtime} {facts.precision}",
        "provider": getattr(detector._runtime, "provider", None),
        "load_s": time.perf_counter() - begin,
        "batches": speeds(detector, frames, options),
        "answers": answers(detector, frames),
    }
    after = smi("memory.used")
    if before is not None and after is not None:
        figures["memory_mib"] = int(after) - int(before)
    return figures


def answers(detector: NetworkDetector, frames: Sequence[Image]) -> list[Detections]:
    """Detections of the frames, in batches."""
    size = detector.batch_size
    parts = [frames[at : at + size] for at in range(0, len(frames), size)]
    return [one for part in parts for one in detector.detect(part)]


def cpu_answers(options: argparse.Namespace, folder: Path) -> None:
    """Have every network answer in a process that sees no GPU."""
    again = [sys.executable, __file__, *map(str, options.networks), "--answers", str(folder)]
    for name in ("data", "frames", "score_min", "threads"):
        again += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    subprocess.run(again, check=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})


def write_answers(found: Sequence[Detections], file: Path) -> None:
    """As one .npz."""
    columns = {}
    for index, one in enumerate(found):
        columns |= {f"boxes{index}": one.boxes_xyxy, f"scores{index}": one.scores}
        columns[f"classes{index}"] = one.class_ids
    np.savez(file, **columns)


def read_answers(file: Path) -> list[Detections]:
    """What `write_answers` wrote."""
    with np.load(file) as told:
        return [
            Detections.of(told[f"boxes{index}"], told[f"scores{index}"], told[f"classes{index}"])
            for index in range(len(told.files) // 3)
        ]


def compare(ours: Sequence[Detections], theirs: Sequence[Detections]) -> dict[str, Any]:
    """Pairs of one class that overlap best, and how far their sides and scores are apart."""
    sides, scores, alone = [], [], 0
    for one, other in zip(ours, theirs, strict=True):
        ious = iou_matrix(one.boxes_xyxy, other.boxes_xyxy)
        ious[one.class_ids[:, None] != other.class_ids] = 0
        paired = 0
        while ious.size and ious.max() > SAME_IOU:
            a, b = np.unravel_index(ious.argmax(), ious.shape)
            ious[a], ious[:, b] = 0, 0
            paired += 1
            sides.append(float(np.abs(one.boxes_xyxy[a] - other.boxes_xyxy[b]).max()))
            scores.append(float(abs(one.scores[a] - other.scores[b])))
        alone += len(one) + len(other) - 2 * paired
    return {
        "detections": sum(map(len, theirs)),
        "unpaired": alone,
        "px_median": float(np.median(sides)) if sides else None,
        "px_max": max(sides, default=None),
        "score_max": max(scores, default=None),
    }


def report(results: dict[str, Any]) -> None:
    """The tables."""
    for name, one in results["networks"].items():
        print(f"\n{name}: {one['runtime']}, {one['provider'] or ''}, {one.get('memory_mib')} MiB")
        print(f"{'batch':>6}{'first s':>9}{'runtime/s':>11}{'detect/s':>10}{'outside':>9}")
        for size, row in one["batches"].items():
            print(
                f"{size:>6}{row['first_s']:>9.2f}{row['runtime_fps']:>11.1f}"
                f"{row['detect_fps']:>10.1f}{row['outside_share']:>9.0%}"
            )
        print("against the CPU:", json.dumps(one["parity"]))


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="+", type=Path, help="folders with a network.json")
    parser.add_argument("--data", required=True, help="records or images; frames of one size")
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8, 16, 32, 64])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--score-min", type=float, default=0.01)
    parser.add_argument("--json", type=Path, default=Path("bench/results/gpu_network.json"))
    parser.add_argument("--answers", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    frames = frames_of(options.data, options.frames)
    if options.answers is not None:
        for number, network in enumerate(options.networks):
            found = answers(opened(network, options), frames)
            write_answers(found, options.answers / f"{number}.npz")
        return
    results: dict[str, Any] = {"gpu": smi("name"), "frames": len(frames), "networks": {}}
    with tempfile.TemporaryDirectory() as folder:
        cpu_answers(options, Path(folder))
        for number, network in enumerate(options.networks):
            figures = measured(network, frames, options)
            theirs = read_answers(Path(folder, f"{number}.npz"))
            figures["parity"] = compare(figures.pop("answers"), theirs)
            results["networks"][str(network)] = figures
    report(results)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
