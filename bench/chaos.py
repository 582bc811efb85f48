"""Inference under seeded fault plans, each held to an undisturbed run's bytes.

    python bench/chaos.py --plans 20 --seed 0
    python bench/chaos.py --only 7            # one plan again

A plan is a list of faults, each at a moment (so many shards committed, then a while). What ends the
run ends it; the same command is repeated until it ends well. Then the committed output has to be
that of the undisturbed run, names and bytes, and no try may have done a shard again that was whole
when it began. Prints a line a plan and a tally by kind, and exits with 1 where a plan failed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from urbandet_ray.streets import write_drives

HOME = Path(__file__).resolve().parents[1]
DRIVES, FRAMES, SHARD_FRAMES = 3, 24, 4
SHARDS = DRIVES * FRAMES // SHARD_FRAMES
MOST_TRIES, TRY_S = 8, 240.0

PROCESSES = {
    "driver": "urbandet_ray.cli",
    "actor": "ray::MapWorker",
    "reader": "ray::Read",
    "raylet": "raylet/raylet",
    "gcs": "gcs/gcs_server",
}
"""What the command line of each process of a run holds."""

DAMAGE = ("frame emptied", "frame removed", "detections cut", "marker cut", "stray file")


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        kind: "kill PROCESS", "freeze PROCESS", or one of DAMAGE, done between two tries.
        shards: it happens once so many are committed.
        wait_s: and so much later.
        lasts_s: of a freeze.
    """

    kind: str
    shards: int
    wait_s: float
    lasts_s: float = 0.0

    def __str__(self) -> str:
        lasting = f" {self.lasts_s:.1f} s" if self.lasts_s else ""
        return f"{self.kind}{lasting} at {self.shards}+{self.wait_s:.2f} s"


def plan_of(seed: int) -> list[Fault]:
    """One to four faults, in the order of their moments."""
    draw = random.Random(seed)
    kinds = [f"{how} {what}" for how in ("kill", "freeze") for what in PROCESSES] + list(DAMAGE)
    faults = [
        Fault(
            kind := draw.choice(kinds),
            draw.randrange(SHARDS),
            round(draw.uniform(0, 0.5), 2),
            round(draw.uniform(0.5, 4), 1) if kind.startswith("freeze") else 0.0,
        )
        for _ in range(draw.randint(1, 4))
    ]
    return sorted(faults, key=lambda one: (one.shards, one.wait_s))


class Plan:
    """One plan at work in a folder."""

    def __init__(self, seed: int, drives: Path, folder: Path) -> None:
        self.seed, self.run, self._drives = seed, folder / "run", drives
        self._draw = random.Random(seed + 1)
        self._log = folder / "log.txt"
        self.faults = plan_of(seed)
        self.tries = 0
        self.done_again: set[str] = set()
        self._spoilt: set[str] = set()

    def carry_out(self) -> str:
        """Why it failed; "" where the run ended well."""
        waiting = list(self.faults)
        while self.tries < MOST_TRIES:
            committed, known = self._committed() - self._spoilt, self._attempts()
            self._spoilt = set()
            code = self._try(waiting)
            for path in self._attempts() - known:
                done = {one["shard"] for one in json.loads(path.read_text())["shards"]}
                self.done_again |= done & committed
            if code == 0 and not waiting:
                return ""
            self._damage(waiting)
        return f"it did not end well in {MOST_TRIES} tries: {self._log.read_text()[-400:]}"

    def _try(self, waiting: list[Fault]) -> int | None:
        """Run the command once, with the faults that it meets; its exit code, None for a hang."""
        self.tries += 1
        command = [sys.executable, "-m", "urbandet_ray.cli", "infer", str(self._drives)]
        command += ["--out", str(self.run), "--actors", "2", "--coco"]
        command += ["--set", f"shard.frames={SHARD_FRAMES}", "--set", "ray.object_store_mb=80"]
        clean = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        with self._log.open("ab") as log:
            driver = subprocess.Popen(
                command,
                cwd=HOME,
                env=clean | {"RAY_ADDRESS": "local"},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        until = time.monotonic() + TRY_S
        while driver.poll() is None and time.monotonic() < until:
            harms = waiting and waiting[0].kind not in DAMAGE
            if harms and len(self._committed()) >= waiting[0].shards:
                self._harm(waiting.pop(0), driver.pid)
            time.sleep(0.02)
        code = driver.poll()
        for pid in family(driver.pid):  # of a driver that hangs, and of a Ray that outlived its own
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        driver.wait()
        return code

    def _harm(self, fault: Fault, driver: int) -> None:
        time.sleep(fault.wait_s)
        how, _, what = fault.kind.partition(" ")
        victims = [pid for pid in family(driver) if PROCESSES[what] in command_of(pid)]
        if not victims:
            return
        victim = self._draw.choice(victims)
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL if how == "kill" else signal.SIGSTOP)
            if how == "freeze":
                time.sleep(fault.lasts_s)
                os.kill(victim, signal.SIGCONT)

    def _damage(self, waiting: list[Fault]) -> None:
        """Between two tries: what a disk or a person may do to the run folder."""
        while waiting and waiting[0].kind in DAMAGE:
            kind = waiting.pop(0).kind
            patterns = {"detections cut": "detections/*", "marker cut": "commit/*"}
            found = sorted(self.run.glob(patterns.get(kind, "frames/*/*.jpg")))
            if not found:
                continue
            path = self._draw.choice(found)
            self._spoilt.add(shard_of(path))
            if kind == "frame removed":
                path.unlink()
            elif kind == "stray file":
                path.with_name(f".{path.name}.0123456789ab.tmp").write_bytes(b"half")
            else:
                data = path.read_bytes()
                path.write_bytes(b"" if kind == "frame emptied" else data[: len(data) // 2])

    def _committed(self) -> set[str]:
        """Shards that have their markers."""
        return {path.stem for path in self.run.glob("commit/*.json")}

    def _attempts(self) -> set[Path]:
        return set(self.run.glob("attempts/*.json"))


def shard_of(path: Path) -> str:
    """The shard that a file of the run folder belongs to."""
    if path.suffix != ".jpg":
        return path.stem
    first = int(path.stem) // SHARD_FRAMES * SHARD_FRAMES
    return f"{path.parent.name}-{first:08d}"


def family(pid: int) -> list[int]:
    """A process and what it started."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                status = (folder / "stat").read_text()
                parents[int(folder.name)] = int(status.rpartition(")")[2].split()[1])
    found = [pid]
    for one in found:
        found += sorted(child for child, parent in parents.items() if parent == one)
    return found


def command_of(pid: int) -> str:
    """A process' command line; "" where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def contents(run: Path) -> dict[str, str]:
    """The committed output: names and digests, without timings."""
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("*"))
        if path.is_file() and "attempts" not in path.parts
    }


def difference(got: dict[str, str], wanted: dict[str, str]) -> str:
    """What is not as in the undisturbed run; "" for nothing."""
    more, less = sorted(got.keys() - wanted.keys()), sorted(wanted.keys() - got.keys())
    other = sorted(name for name in got.keys() & wanted.keys() if got[name] != wanted[name])
    told = {"more": more, "missing": less, "other bytes": other}
    return "; ".join(f"{what}: {len(names)} ({names[0]})" for what, names in told.items() if names)


@contextlib.contextmanager
def input_drives() -> Iterator[tuple[Path, Path]]:
    """A scratch folder, and small synthetic drives in it."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch:
        folder = Path(scratch)
        drives = folder / "drives"
        write_drives(drives, seeds=range(DRIVES), frame_count=FRAMES, size_wh=(160, 120))
        yield folder, drives


def main() -> int:
    """Carry out the plans; 1 where one failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--plans", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the first plan")
    parser.add_argument("--only", type=int, help="this plan alone")
    options = parser.parse_args()
    seeds = range(options.seed, options.seed + options.plans)
    tally: Counter[str] = Counter()
    failed: list[int] = []
    with input_drives() as (folder, drives):
        whole = Plan(0, drives, folder)
        whole.faults = []
        if trouble := whole.carry_out():
            print(f"the undisturbed run failed: {trouble}")
            return 1
        wanted = contents(whole.run)
        shutil.rmtree(whole.run)
        for seed in seeds if options.only is None else [options.only]:
            place = folder / f"plan-{seed}"
            place.mkdir()
            plan = Plan(seed, drives, place)
            trouble = plan.carry_out() or difference(contents(plan.run), wanted)
            if not trouble and plan.done_again:
                trouble = f"done again though committed: {', '.join(sorted(plan.done_again))}"
            tally.update(fault.kind for fault in plan.faults)
            told = ", ".join(map(str, plan.faults))
            ending = trouble or "as undisturbed"
            print(f"plan {seed}: {plan.tries} tries, {ending} ({told})", flush=True)
            if trouble:
                failed.append(seed)
            shutil.rmtree(place)
    for kind, count in sorted(tally.items()):
        print(f"{count:6d} x {kind}")
    print(f"{sum(tally.values())} faults; plans that failed: {failed or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
