"""Decoding of sound images, this tree against another commit's, in pairs within one run.

    python bench/decoding.py --against c428e40

The other commit is unpacked for as long as the run takes. Both decode the same
images in turn, in processes of their own that wait for each other, and the order of each pair
changes: so a busy machine slows both. Prints the ratio of speeds, this tree's over the other's, as
the median of the pairs; 1 is equal, 0.98 is the least that is accepted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]

WORKER = """
import sys, time
import numpy as np
from urbandet_ray.frames import Frame
from urbandet_ray.records.images import decode_frame, encode_jpeg, encode_png
import cv2
cv2.setNumThreads(1)
width, height, kind = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
small = np.random.default_rng(7).integers(0, 256, (height // 16, width // 16, 3), np.uint8)
image = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
encoded = encode_jpeg(image) if kind == "jpeg" else encode_png(image)
frame = Frame("a", "b", encoded, kind)
for line in sys.stdin:
    begun = time.process_time()
    for _ in range(int(line)):
        decode_frame(frame)
    print(time.process_time() - begun, flush=True)
"""


def main() -> None:
    """Measure each size and format."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--against", default="c428e40", help="commit")
    parser.add_argument("--pairs", type=int, default=60)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        other = Path(scratch)
        archive = ["git", "-C", str(HOME), "archive", given.against, "urbandet_ray"]
        tree = subprocess.run(archive, check=True, stdout=subprocess.PIPE).stdout
        subprocess.run(["tar", "-x", "-C", scratch], check=True, input=tree)
        for kind, width, height in [("jpeg", 640, 480), ("jpeg", 1920, 1280), ("png", 640, 480)]:
            ratio, each_ms = compare(other, (width, height), kind, given.pairs)
            print(f"{kind} {width} x {height}: {each_ms:.2f} ms, ratio {ratio:.3f}", flush=True)


def compare(other: Path, size_wh: tuple[int, int], kind: str, pairs: int) -> tuple[float, float]:
    """Median ratio of the pairs' speeds, and this tree's milliseconds an image."""
    workers = [start(home, size_wh, kind) for home in (HOME, other)]
    count = max(1, round(0.15 / ask(workers[0], 3) * 3))
    ratios, seconds = [], []
    for number in range(pairs + 2):
        order = workers if number % 2 else workers[::-1]
        times = {id(one): ask(one, count) for one in order}
        ours, theirs = (times[id(one)] for one in workers)
        if number >= 2:  # the first pair warms up
            ratios.append(theirs / ours)
            seconds.append(ours / count)
    for one in workers:
        one.communicate()
    return statistics.median(ratios), 1000 * statistics.median(seconds)


def start(home: Path, size_wh: tuple[int, int], kind: str) -> subprocess.Popen[str]:
    """A process that decodes with the package of a checkout."""
    command = [sys.executable, "-c", WORKER, *map(str, size_wh), kind]
    where = os.environ | {"PYTHONPATH": str(home)}
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=where, cwd=home
    )


def ask(worker: subprocess.Popen[str], count: int) -> float:
    """CPU seconds that a process takes to decode `count` images."""
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.write(f"{count}\n")
    worker.stdin.flush()
    return float(worker.stdout.readline())


if __name__ == "__main__":
    main()
