"""The driver of bench/elastic.py's scaling: an inference whose accelerator only waits.

    python bench/elastic_job.py backlog|command RECORDS RUN TIMELINE.json

Each actor holds one (fake) GPU and answers 20 frames/s. Files named `backlog` pile up; each of the
many small ones named `trickle` takes seconds to open, so that they keep less than one actor busy
when the others are done. By command the run itself asks the cluster for no more than it has.
"""

from __future__ import annotations

import json
import os
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from urbandet_ray.config import ActorConfig, DrawConfig, InferConfig, RayConfig
from urbandet_ray.detections import Detections
from urbandet_ray.frames import Image
from urbandet_ray.inference.job import InferJob
from urbandet_ray.inference.pipeline import run_inference
from urbandet_ray.inference.session import ray_session
from urbandet_ray.inference.shards import CutRule
from urbandet_ray.labels import STREET_LABELS
from urbandet_ray.records.sources import list_sources
from urbandet_ray.storage import Storage

FRAMES_PER_S, SHARD_FRAMES = 20.0, 16
TRICKLE_S = 16.0
LEAST, MOST = 1, 4


class Accelerator:
    """No boxes, after a fixed time; waits as a driver waits for its GPU."""

    labels = STREET_LABELS
    batch_size = SHARD_FRAMES

    def detect(self, images: Sequence[Image]) -> list[Detections]:
        """Nothing found, in its own time."""
        time.sleep(len(images) / FRAMES_PER_S)
        return [Detections.empty()] * len(images)


class PacedStorage(Storage):
    """Opens records named trickle only after a while."""

    def open_read(self, uri: str, offset: int = 0, expect_version: str | None = None) -> BinaryIO:
        """As the storage's, later."""
        if "trickle" in uri and uri.endswith(".tfrecord"):
            time.sleep(TRICKLE_S * (0.5 + zlib.crc32(uri.encode()) / (1 << 32)))
        return super().open_read(uri, offset, expect_version)


def main(by: str, records: str, run: str, timeline: str) -> None:
    """Infer, and write when each shard was done, by which actor."""
    if by == "command":
        for resource in ("CPU", "GPU", "MEMORY", "OBJECT_STORE_MEMORY"):  # a share never reached
            os.environ[f"RAY_DATA_DEFAULT_CLUSTER_SCALING_UP_{resource}_UTIL_THRESHOLD"] = "9"
    storage = PacedStorage()
    config = InferConfig(
        input=records,
        output=run,
        draw=DrawConfig(enabled=False),
        actors=ActorConfig(
            min=LEAST, max=MOST, gpus=1, shards_in_flight=1, decode_threads=0, draw_threads=0
        ),
    )
    job = InferJob(config, storage, Accelerator, STREET_LABELS)
    begun = time.time()
    with ray_session(RayConfig(address="auto")):
        rule = CutRule(SHARD_FRAMES, 1 << 20)
        result = run_inference(job, list_sources(records, storage), rule)
        ended = time.time()
    shards = [[one.started, one.ended, one.frames, one.actor] for one in result.summaries]
    told = {"begun": begun, "ended": ended, "frames": result.frames, "shards": shards}
    Path(timeline).write_text(json.dumps(told))
    print(f"{result.frames} frames in {ended - begun:.0f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
