"""What an OpenVINO network takes for batches of each number, compiled for that number or for any.

    python bench/openvino_batches.py RUN/exports/best-openvino-bf16... --data data/waymo/val

CPU milliseconds an image on one thread, the median of calls in turn. Half a minute each.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from urbandet_ray.models.network.facts import read_facts
from urbandet_ray.models.network.runtimes import OpenVinoRuntime
from urbandet_ray.records.images import decode_frame
from urbandet_ray.records.sources import list_sources, read_source
from urbandet_ray.storage import Storage

COUNTS = (1, 2, 4, 8)


def first_images(data: str, count: int) -> np.ndarray:
    """[count, height, width, 3], decoded."""
    storage = Storage()
    images = []
    for source in list_sources(data, storage):
        for record in read_source(source, storage):
            if record.frame is not None:
                images.append(decode_frame(record.frame))
            if len(images) == count:
                return np.stack(images)
    raise SystemExit(f"{data} has {len(images)} good frames: {count} are needed")


class OpenRuntime(OpenVinoRuntime):
    """Compiled once, for batches of any number."""

    def _compile(self, count: int, height: int, width: int) -> Any:
        del count
        return super()._compile(-1, height, width)


def measure(export: Path, images: np.ndarray, calls: int) -> dict[str, float]:
    """Milliseconds an image, by what it was compiled for and called with."""
    facts = read_facts(export, str(export))
    if facts.runtime != "openvino":
        raise SystemExit(f"{export} is a network for {facts.runtime}: give one for openvino")
    images = np.stack([facts.resizing.sample(image) for image in images])
    works: dict[str, tuple[int, Callable[[], object]]] = {}
    for kind, made in (("fixed", OpenVinoRuntime), ("any", OpenRuntime)):
        for count in COUNTS:
            runtime = made(facts.model_path(export), facts, 1, "cpu")
            works[f"{kind} {count}"] = count, lambda r=runtime, n=count: r.run(images[:n])
            works[f"{kind} {count}"][1]()
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(calls):
        for name, (count, work) in works.items():
            begin = time.process_time()
            work()
            times[name].append(1000 * (time.process_time() - begin) / count)
    return {name: median(times[name]) for name in works}


def main() -> None:
    """Parse and measure."""
    as_written = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("exports", nargs="+", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--calls", type=int, default=12)
    options = parser.parse_args()
    images = first_images(options.data, max(COUNTS))
    print("| network | compiled for | " + " | ".join(f"{one} a call" for one in COUNTS) + " |")
    print("|---|---|" + "---|" * len(COUNTS))
    for export in options.exports:
        found = measure(export, images, options.calls)
        for kind in ("any", "fixed"):
            cells = [f"{found[f'{kind} {count}']:.1f} ms" for count in COUNTS]
            print(f"| {export} | {kind} number | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
