"""How far the pipeline scales: 1 to 32 actors on real Ray nodes, with accelerators that only wait.

    python bench/scaling.py                      # accelerators of 5 and of 100 frames/s
    python bench/scaling.py --pace 5 --actors 1 8 32

A simulated accelerator answers a batch of 8 after a fixed time, as a GPU would, and takes no CPU.
Four Ray nodes on this machine have eight GPUs each in name; reading, decoding, the object store,
the driver and the commits are real and share this machine's cores; drawing is off. Frames/s count
from when every actor is warm. `of linear` is frames/s / (actors x the accelerator's own); `cores`
is how many of the machine's were busy, `driver` and `raylets` (the object stores are theirs) what
those took of it. Where all cores are busy, decoding is the limit, and more actors are not tried.
Idle readers are kept, as on nodes with as many real cores as a machine with eight GPUs has. About
10 minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from pipeline import write_records

from urbandet_ray.commands.bench import warm_pace
from urbandet_ray.config import ActorConfig, DrawConfig, InferConfig
from urbandet_ray.detections import Detections
from urbandet_ray.frames import Image
from urbandet_ray.inference.job import InferJob
from urbandet_ray.inference.pipeline import run_inference
from urbandet_ray.inference.shards import CutRule
from urbandet_ray.labels import STREET_LABELS
from urbandet_ray.records.sources import list_sources
from urbandet_ray.storage import Storage

BATCH, NODES, GPUS_A_NODE = 8, 4, 8
SHARD_FRAMES = 16
ALL_BUSY = 0.95
TICKS = os.sysconf("SC_CLK_TCK")


class Accelerator:
    """Fifteen boxes a frame after a fixed time a batch; waits as a driver waits for its GPU."""

    labels = STREET_LABELS
    batch_size = BATCH

    def __init__(self, frames_per_s: float) -> None:
        self._frame_s = 1 / frames_per_s
        rng = np.random.default_rng(5)
        corner, size = rng.uniform(0, 500, (15, 2)), rng.uniform(20, 140, (15, 2))
        boxes = np.concatenate([corner, corner + size], axis=1)
        self._answer = Detections.of(boxes, rng.uniform(0.3, 1, 15), rng.choice([1, 2, 4], 15))

    def detect(self, images: Sequence[Image]) -> list[Detections]:
        """The same boxes, once an image."""
        time.sleep(self._frame_s * len(images))
        return [self._answer] * len(images)


class Load:
    """CPU seconds between two moments: of the machine, of this process, of raylets."""

    def __init__(self) -> None:
        self._begin, self._busy = self._read(), self._machine()
        self._since = time.perf_counter()

    def cores(self) -> dict[str, float]:
        """Cores busy since: all, with this process, with raylets."""
        span = time.perf_counter() - self._since
        now = self._read()
        spent = {
            pid: (name, used - self._begin.get(pid, (name, 0))[1])
            for pid, (name, used) in now.items()
        }
        own = spent[os.getpid()][1]
        raylets = sum(used for name, used in spent.values() if name == "raylet")
        every = self._machine() - self._busy  # processes that are gone by now included
        return {"all": every / span, "driver": own / span, "raylets": raylets / span}

    @staticmethod
    def _machine() -> float:
        user, nice, system, _, _, irq, softirq = map(
            int, Path("/proc/stat").read_text().split()[1:8]
        )
        return (user + nice + system + irq + softirq) / TICKS

    @staticmethod
    def _read() -> dict[int, tuple[str, float]]:
        found = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                text = stat.read_text()
            except OSError:
                continue
            name = text[text.index("(") + 1 : text.rindex(")")]
            fields = text[text.rindex(")") + 2 :].split()
            found[int(stat.parent.name)] = name, (int(fields[11]) + int(fields[12])) / TICKS
        return found


def run(records: Path, out: Path, pace: float, actors: int, times: int) -> dict[str, Any]:
    """One run with so many actors."""
    from dataclasses import replace

    storage = Storage()
    config = InferConfig(
        input=str(records),
        output=str(out),
        draw=DrawConfig(enabled=False),
        actors=ActorConfig(min=actors, gpus=1, decode_threads=2, draw_threads=0),
    )
    job = InferJob(config, storage, partial(Accelerator, pace), STREET_LABELS)
    sources = [
        replace(source, name=f"{source.name}.{turn}")
        for turn in range(times)
        for source in list_sources(str(records), storage)
    ]
    load: list[Load] = []
    begins = threading.Timer(15 + actors, lambda: load.append(Load()))  # all have started
    begins.start()
    result = run_inference(job, sources, CutRule(SHARD_FRAMES, 32 << 20))
    begins.cancel()
    cores = load[0].cores() if load else {}
    speed, counted = warm_pace(result.summaries)
    used = len({one.actor for one in result.summaries})
    return {
        "pace": pace,
        "actors": actors,
        "used": used,
        "frames": result.frames,
        "shards": len(counted),
        "frames_per_s": speed,
        "of_linear": speed / (actors * pace),
        "cores": cores,
    }


def draw(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Frames/s over actors, and what linear would be."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for pace, colour in zip(
        sorted({row["pace"] for row in rows}), ("#0072b2", "#d55e00"), strict=False
    ):
        mine = [row for row in rows if row["pace"] == pace]
        actors = [row["actors"] for row in mine]
        axes.plot(actors, [pace * one for one in actors], "--", color=colour, alpha=0.5)
        label = f"accelerators of {pace:g} frames/s (dashed: linear)"
        axes.plot(actors, [row["frames_per_s"] for row in mine], "o-", color=colour, label=label)
    axes.set(xscale="log", yscale="log", xlabel="actors", ylabel="frames/s")
    ticks = sorted({row["actors"] for row in rows})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=110)


def report(rows: Sequence[dict[str, Any]]) -> str:
    """The table, in Markdown."""
    lines = ["| accelerator | actors | frames/s | of linear | cores | driver | raylets |"]
    lines.append("|" + "---|" * 7)
    for row in rows:
        cores = row["cores"]
        told = [f"{cores[key]:.2f}" if cores else "-" for key in ("all", "driver", "raylets")]
        lines.append(
            f"| {row['pace']:g} frames/s | {row['actors']} | {row['frames_per_s']:.1f} | "
            f"{row['of_linear']:.2f} | {' | '.join(told)} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Parse, start the nodes, measure."""
    as_written = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("--pace", type=float, nargs="+", default=[5, 100], help="frames/s of one")
    parser.add_argument("--actors", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--json", type=Path, default=Path("bench/results/scaling.json"))
    parser.add_argument("--png", type=Path, default=Path("docs/scaling.png"))
    options = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 4, "object_store_memory": 512 << 20}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 4,
            "num_gpus": 0,
            "include_dashboard": False,
            "_system_config": {"idle_worker_killing_time_threshold_ms": 60_000},
            "object_store_memory": 512 << 20,
        },
    )
    rows = []
    try:
        for _ in range(NODES):
            cluster.add_node(**node, num_gpus=GPUS_A_NODE)
        ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
        with tempfile.TemporaryDirectory(prefix="urbandet-bench-") as folder:
            records = write_records(Path(folder) / "records", 640, per_file=80)
            for pace in options.pace:
                for actors in options.actors:
                    wanted = pace * actors * options.seconds
                    times = max(1, round(min(wanted, 60_000) / 640))
                    out = Path(folder) / f"run-{pace:g}-{actors}"
                    rows.append(run(records, out, pace, actors, times))
                    print(report(rows[-1:]).splitlines()[-1], flush=True)
                    if rows[-1]["cores"].get("all", 0) > ALL_BUSY * (os.cpu_count() or 1):
                        break
    finally:
        ray.shutdown()
        cluster.shutdown()
    print(report(rows))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"cores": os.cpu_count(), "rows": rows}, indent=1) + "\n")
    draw(rows, options.png)


if __name__ == "__main__":
    main()
