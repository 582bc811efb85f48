"""Each of configs/models learns for some steps on real records, is exported, and detects.

    python bench/families.py --data ../shared/data/waymo
    python bench/families.py --data ../shared/data/waymo --only efficientdet_d0_512

From random weights, in batches of 2. Two things are changed for that: heads that know nothing
answer .00995 at first, just below the configs' score_threshold of .01, so it is 1e-5 here; and a
Faster R-CNN's batch norm, which the configs freeze at a checkpoint's, is trained. Every stage is
the command that a person types. All eleven took 65 minutes on 2 cores that had other work too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CONFIGS = Path(__file__).parents[1] / "configs" / "models"


def urbandet(*arguments: str) -> str:
    """Output of a command; its errors where it fails."""
    command = [sys.executable, "-m", "urbandet_ray.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"urbandet {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def for_random_weights(config: str) -> str:
    """A pipeline.config that answers without having learnt."""
    return config.replace(" score_threshold: 0.01", " score_threshold: 0.00001").replace(
        "batch_norm_trainable: false", "batch_norm_trainable: true"
    )


def tried(config: Path, data: Path, work: Path, steps: int) -> dict[str, Any]:
    """Train, export, infer; what came of it."""
    pipeline, run, out = work / config.name, work / "run", work / "found"
    pipeline.write_text(for_random_weights(config.read_text("utf-8")), "utf-8")
    begin = time.perf_counter()
    urbandet(
        *("train", "--pipeline", str(pipeline), "--data", str(data), "--out", str(run)),
        *("--steps", str(steps), "--set", 'fine_tune.checkpoint=""'),
        *("--set", "batch.per_worker=2", "--set", f"evaluation.every={steps}"),
        *("--set", "evaluation.frames=4", "--set", "evaluation.batch_size=2"),
    )
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["total"] for line in lines if line["kind"] == "steps"]
    urbandet("export", str(run))
    records = sorted((data / "val").glob("*.tfrecord"))[0]
    model = str(run / "exports" / "best-stock" / "saved_model")
    urbandet(
        *("infer", str(records), "--model", model, "--out", str(out), "--score-min", "0"),
        *("--set", "shard.frames=8"),
    )
    markers = [json.loads(file.read_text()) for file in (out / "commit").glob("*.json")]
    return {
        "config": config.stem,
        "steps": steps,
        "losses": [round(losses[0], 3), round(losses[-1], 3)],
        "frames": sum(one["frames"] for one in markers),
        "detections": sum(one["detections"] for one in markers),
        "seconds": round(time.perf_counter() - begin),
    }


def main() -> None:
    """Parse, try each, print the table."""
    as_written = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("--data", type=Path, required=True, help="holds train/, val/, label map")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--only", nargs="+", help="names of configs")
    parser.add_argument("--json", type=Path, default=Path("bench/results/families.json"))
    options = parser.parse_args()
    wanted = [
        one for one in sorted(CONFIGS.glob("*.config")) if one.stem in (options.only or one.stem)
    ]
    if not wanted:
        raise SystemExit(f"no such config in {CONFIGS}")
    print("| config | steps | loss, first and last | frames | detections | seconds |")
    print("|" + "---|" * 6)
    rows = []
    for config in wanted:
        with tempfile.TemporaryDirectory(prefix="urbandet-families-") as work:
            rows.append(row := tried(config, options.data, Path(work), options.steps))
        told = ", ".join(map(str, row["losses"]))
        print(
            f"| {row['config']} | {row['steps']} | {told} | {row['frames']} | "
            f"{row['detections']:,} | {row['seconds']} |",
            flush=True,
        )
        if not row["detections"]:
            raise SystemExit(f"{row['config']} detects nothing")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
