"""How long a person waits for `urbandet --help` and for a run's refusal.

    python bench/startup.py

Each command line in a process of its own, --rounds times; the table has the best and the median of
the wall time, and the CPU time. Aim: --help within half a second on a quiet Xeon with 2 cores.
What is imported on the way is a test (tests/test_imports.py): a time says as much of the machine.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time

COMMANDS = (("--help",), ("infer", "--help"), ("infer", "/no/such/folder"))


def measure(command: tuple[str, ...]) -> tuple[float, float]:
    """Seconds of one run: wall, CPU."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "urbandet_ray.cli", *command], capture_output=True, check=False
    )
    wall_s = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print(f"{'urbandet ...':28} {'best':>8} {'median':>8} {'CPU':>8}")
    for command in COMMANDS:
        spent = [measure(command) for _ in range(rounds)]
        walls = [wall_s for wall_s, _ in spent]
        cpu_s = statistics.median(cpu_s for _, cpu_s in spent)
        times = f"{min(walls):7.2f}s {statistics.median(walls):7.2f}s {cpu_s:7.2f}s"
        print(f"{' '.join(command):28} {times}")


if __name__ == "__main__":
    main()
