"""How close the whole pipeline comes to what the machine can do.

    python bench/pipeline.py                       # everything: about 10 minutes on 2 cores
    python bench/pipeline.py --model M.tflite --labels L.txt --mapping coco-to-street

Four questions, all answered in one run, since timings on shared machines only compare as ratios:

1. overhead: frames/s of the pipeline with a detector that returns fixed boxes, divided by
   cores x frames/s of a plain single-process loop doing the same decode, draw and encode.
2. limit: frames/s of the pipeline with the real model, divided by cores / (CPU seconds a frame of
   decode + model + draw + encode + write, each measured alone). Also against the same stages on
   all cores at once: what they take from each other then (caches, memory, a busy host) no pipeline
   gives back.
3. memory: peak of the driver and of each actor at 200 and at 4,000 frames; an actor's without
   what it maps of Ray's object store, which has its own bound (ray.object_store_mb).
4. threads: question 1's pipeline with threads inside its CPU actors, and two shards at a time in
   each, against the same without.

The pipeline's frames/s run from the first shard's start to the last one's commit; Ray's own start
and stop are printed beside them. Every pipeline run is a process of its own.

A virtual machine may have lent its free memory back to its host, which then takes 10 microseconds
to return each page: the 2 GB that a run writes and maps would cost it up to a fifth of its time,
and the plain loop, which reuses one image, nothing. So memory is touched before each run, and what
that cost is printed as page_us (a quarter of a microsecond where there is no such host).

Nothing is deleted between runs, which takes some 20 GB of disk: where thousands of files have just
gone, ext4 passes over each one's inode for half a minute, and every new file costs 0.3 ms more.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from urbandet_ray.config import ActorConfig, InferConfig, ModelConfig
from urbandet_ray.detections import Detections
from urbandet_ray.frames import Frame, Image
from urbandet_ray.labels import STREET_LABELS, LabelMap
from urbandet_ray.models.detector import Detector
from urbandet_ray.models.loader import load_detector
from urbandet_ray.records.images import decode_frame, encode_jpeg
from urbandet_ray.records.sources import list_sources, read_source
from urbandet_ray.records.writer import write_frames
from urbandet_ray.rendering.annotate import Annotator
from urbandet_ray.storage import Storage
from urbandet_ray.streets import drive_frames

CORES = os.cpu_count() or 1

TOUCHED_BYTES = 2 << 30


class FixedDetector:
    """The same fifteen boxes for every frame, at no cost."""

    labels: LabelMap = STREET_LABELS
    batch_size = 1

    def __init__(self) -> None:
        rng = np.random.default_rng(5)
        corner, size = rng.uniform(0, 500, (15, 2)), rng.uniform(20, 140, (15, 2))
        boxes = np.concatenate([corner, corner + size], axis=1)
        self._answer = Detections.of(boxes, rng.uniform(0.3, 1, 15), rng.choice([1, 2, 4], 15))

    def detect(self, images: Sequence[Image]) -> list[Detections]:
        """The fixed boxes, once an image."""
        return [self._answer] * len(images)


def write_records(folder: Path, count: int, per_file: int = 500) -> Path:
    """Rendered frames in TFRecords, repeated to `count`; the unique ones are rendered once."""
    unique = [frame for seed in (11, 12) for frame in drive_frames(seed, 20)]
    for number, begin in enumerate(range(0, count, per_file)):
        frames = (
            Frame(f"f-{i:06d}", "bench", unique[i % 40].encoded, "jpeg", (640, 640))
            for i in range(begin, min(begin + per_file, count))
        )
        write_frames(frames, folder / f"bench-{number:03d}.tfrecord")
    return folder


def read_frames(folder: Path, count: int) -> list[Frame]:
    """The first frames of the records, encoded, in memory."""
    storage = Storage()
    frames: list[Frame] = []
    for source in list_sources(str(folder), storage):
        for record in read_source(source, storage):
            if len(frames) == count:
                return frames
            assert record.frame is not None
            frames.append(record.frame)
    return frames


def plain_loop(frames: Sequence[Frame], detector: Detector) -> float:
    """Frames/s of one process: decode, detect, draw, encode, one frame after the other."""
    annotator = Annotator(STREET_LABELS)
    begin = time.perf_counter()
    for frame in frames:
        image = decode_frame(frame)
        (detections,) = detector.detect([image])
        encode_jpeg(annotator.annotate(image, detections, None), 90)
    return len(frames) / (time.perf_counter() - begin)


def stage_costs(frames: Sequence[Frame], detector: Detector, out: Path) -> dict[str, float]:
    """CPU seconds a frame of each stage, measured alone."""
    annotator, storage = Annotator(STREET_LABELS), Storage()
    out.mkdir(parents=True, exist_ok=True)

    def cost(work: Callable[[int], object]) -> float:
        work(0)
        begin = time.process_time()
        for i in range(len(frames)):
            work(i)
        return (time.process_time() - begin) / len(frames)

    images = [decode_frame(frame) for frame in frames]
    answers = [a.above(0.3) for image in images for a in detector.detect([image])]
    encoded = encode_jpeg(images[0], 90)
    return {
        "decode": cost(lambda i: decode_frame(frames[i])),
        "model": cost(lambda i: detector.detect([images[i]])),
        "draw": cost(lambda i: annotator.annotate(images[i], answers[i], None)),
        "encode": cost(lambda i: encode_jpeg(images[i], 90)),
        "write": cost(lambda i: storage.write_provisional(str(out / f"{i:06d}.jpg"), encoded)),
    }


def run_pipeline(
    records: Path, run: Path, make_detector: Callable[[], Detector], threads: int
) -> dict:
    """One pipeline run in this process; what it measured."""
    from urbandet_ray.commands.infer import pace
    from urbandet_ray.config import RayConfig
    from urbandet_ray.inference.job import InferJob
    from urbandet_ray.inference.pipeline import run_inference
    from urbandet_ray.inference.session import ray_session
    from urbandet_ray.inference.shards import fitting_rule

    storage = Storage()
    actors = ActorConfig(
        decode_threads=threads, draw_threads=threads, shards_in_flight=2 if threads else 1
    )
    config = InferConfig(input=str(records), output=str(run), actors=actors)
    job = InferJob(config, storage, make_detector, STREET_LABELS)
    begin = time.time()
    with ray_session(RayConfig()):
        sources = list_sources(str(records), storage)
        result = run_inference(job, sources, fitting_rule(sources, config.shard))
    wall = time.time() - begin
    actors: dict[int, float] = {}
    for summary in result.summaries:
        actors[summary.actor] = max(actors.get(summary.actor, 0), summary.memory_mb)
    return {
        "frames": result.frames,
        "frames_per_s": pace(result.summaries),
        "wall_s": wall,
        "driver_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "actor_peak_mb": sorted(actors.values()),
    }


def touch_memory() -> float:
    """Have the machine own the memory that a run will need; microseconds a page."""
    pages = TOUCHED_BYTES // mmap.PAGESIZE
    begin = time.perf_counter()
    with mmap.mmap(-1, TOUCHED_BYTES) as memory:
        for page in range(pages):
            memory[page * mmap.PAGESIZE] = 1
    return (time.perf_counter() - begin) / pages * 1e6


def in_own_process(records: Path, run: Path, model: Sequence[str]) -> dict:
    """Run `run_pipeline` in a fresh interpreter."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # a child inherits its peak memory
        page_us = pool.submit(touch_memory).result()
    command = [sys.executable, __file__, "--run", str(records), str(run), *model]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return {**json.loads(done.stdout.splitlines()[-1]), "page_us": page_us}


def costs_together(records: Path, out: Path, model: Sequence[str]) -> dict[str, float]:
    """`stage_costs` while every core does the same; the mean over the cores."""
    command = [sys.executable, __file__, *model, "--stages", str(records)]
    running = [
        subprocess.Popen([*command, str(out / str(core))], stdout=subprocess.PIPE, text=True)
        for core in range(CORES)
    ]
    told = [json.loads(one.communicate()[0].splitlines()[-1]) for one in running]
    return {stage: sum(one[stage] for one in told) / CORES for stage in told[0]}


def detector_maker(options: argparse.Namespace) -> Callable[[], Detector]:
    """The detector the options ask for; the fixed one without --model."""
    if not options.model:
        return FixedDetector
    model = ModelConfig(
        uri=options.model, labels=options.labels, mapping=options.mapping, score_min=0.01
    )
    return partial(load_detector, model, Storage())


def median(values: Sequence[float]) -> float:
    """Middle value."""
    return float(np.median(values))


def measure_overhead(scratch: Path, frames: int, rounds: int) -> dict:
    """Question 1: pipeline and plain loop in turn."""
    records = write_records(scratch / "overhead", frames)
    sample = read_frames(records, 300)
    plain_loop(sample[:50], FixedDetector())
    loops, pipelines, threaded = [], [], []
    for number in range(rounds):
        loops.append(plain_loop(sample, FixedDetector()))
        pipelines.append(in_own_process(records, scratch / f"o{number}", []))
        threaded.append(in_own_process(records, scratch / f"t{number}", ["--threads", "1"]))
    loops.append(plain_loop(sample, FixedDetector()))
    threads = [
        t["frames_per_s"] / p["frames_per_s"] for t, p in zip(threaded, pipelines, strict=True)
    ]
    speed = median([p["frames_per_s"] for p in pipelines])
    ratios = [
        p["frames_per_s"] / (CORES * (loops[i] + loops[i + 1]) / 2) for i, p in enumerate(pipelines)
    ]
    return {
        "plain_loop_frames_per_s": median(loops),
        "pipeline_frames_per_s": speed,
        "ratios": ratios,
        "ratio": median(ratios),
        "wall_s": [p["wall_s"] for p in pipelines],
        "page_us": [p["page_us"] for p in pipelines],
        "threads_ratio": median(threads),
    }


def measure_limit(scratch: Path, options: argparse.Namespace, frames: int, rounds: int) -> dict:
    """Question 2: pipeline with the model against the sum of its stages."""
    records = write_records(scratch / "limit", frames)
    sample = read_frames(records, 60)
    detector = detector_maker(options)()
    model = ["--model", options.model]
    model += ["--labels", options.labels] if options.labels else []
    model += ["--mapping", options.mapping] if options.mapping else []
    costs, speeds, together = [], [], []
    for number in range(rounds):
        costs.append(stage_costs(sample, detector, scratch / "stages"))
        speeds.append(in_own_process(records, scratch / f"l{number}", model)["frames_per_s"])
        together.append(costs_together(records, scratch / f"s{number}", model))
    costs.append(stage_costs(sample, detector, scratch / "stages"))
    totals = [sum(cost.values()) for cost in costs]
    ratios = [speed * (totals[i] + totals[i + 1]) / 2 / CORES for i, speed in enumerate(speeds)]
    busy = [sum(cost.values()) for cost in together]
    return {
        "together_ms": {stage: 1000 * median([c[stage] for c in together]) for stage in costs[0]},
        "together": median([both / total for both, total in zip(busy, totals, strict=False)]),
        "ratio_together": median([s * b / CORES for s, b in zip(speeds, busy, strict=True)]),
        "cpu_ms": {stage: 1000 * median([c[stage] for c in costs]) for stage in costs[0]},
        "limit_frames_per_s": CORES / median(totals),
        "pipeline_frames_per_s": median(speeds),
        "ratios": ratios,
        "ratio": median(ratios),
    }


def measure_memory(scratch: Path) -> dict:
    """Question 3: a small run and one twenty times as long."""
    peaks = {}
    for count in (200, 4000):
        records = write_records(scratch / f"memory-{count}", count)
        peaks[count] = in_own_process(records, scratch / f"m{count}", [])
    small, large = peaks[200], peaks[4000]
    return {
        "driver_peak_mb": [small["driver_peak_mb"], large["driver_peak_mb"]],
        "actor_peak_mb": [small["actor_peak_mb"], large["actor_peak_mb"]],
        "driver_growth": large["driver_peak_mb"] / small["driver_peak_mb"] - 1,
        "actor_growth": max(large["actor_peak_mb"]) / max(small["actor_peak_mb"]) - 1,
    }


def report(results: dict) -> None:
    """The table."""
    overhead, limit, memory = results["overhead"], results["limit"], results["memory"]
    print(f"\n{'figure':44} {'measured':>10} {'bar':>8}")
    print(f"{'pipeline / (cores x plain loop)':44} {overhead['ratio']:10.2f} {'>= 0.70':>8}")
    print(f"{'threads in CPU actors / none':44} {overhead['threads_ratio']:10.2f} {'':>8}")
    print(f"{'pipeline with the model / limit':44} {limit['ratio']:10.2f} {'>= 0.90':>8}")
    print(f"{'the same, stages on all cores at once':44} {limit['ratio_together']:10.2f} {'':>8}")
    print(f"{'a frame with all cores at work / alone':44} {limit['together']:10.2f} {'':>8}")
    print(f"{'driver peak, 200 -> 4,000 frames':44} {memory['driver_growth']:+10.1%} {'10%':>8}")
    print(f"{'actor peak, 200 -> 4,000 frames':44} {memory['actor_growth']:+10.1%} {'10%':>8}")


def main() -> None:
    """Parse and measure."""
    as_written = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("--model", default="shipped")
    parser.add_argument("--labels")
    parser.add_argument("--mapping")
    parser.add_argument("--frames", type=int, default=16_000, help="frames of the overhead runs")
    parser.add_argument("--model-frames", type=int, default=2000, help="frames of the limit runs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("bench/results/pipeline.json"))
    parser.add_argument("--threads", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--run", nargs=2, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--stages", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stages:
        sample = read_frames(options.stages[0], 60)
        print(json.dumps(stage_costs(sample, detector_maker(options)(), options.stages[1])))
        return
    if options.run:
        if "--model" not in sys.argv:
            options.model = None
        print(json.dumps(run_pipeline(*options.run, detector_maker(options), options.threads)))
        return
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        results = {
            "cores": CORES,
            "overhead": measure_overhead(scratch, options.frames, options.rounds),
            "limit": measure_limit(scratch, options, options.model_frames, options.rounds),
            "memory": measure_memory(scratch),
        }
    print(json.dumps(results, indent=1))
    report(results)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
