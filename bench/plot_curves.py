"""Validation mAP of some training runs over their steps, as one picture.

    python bench/plot_curves.py runs/1280 runs/course --names "heads by name" "the course's" \
        --zero-shot 0.105 --out docs/finetune.png

Reads each run's metrics.jsonl, local or s3://.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from urbandet_ray.storage import Storage, join_uri
from urbandet_ray.training.board import METRICS_NAME, read_lines

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9")
"""Okabe and Ito's, which colour-blind people can tell apart."""


def curve(run: str, storage: Storage) -> tuple[list[int], list[float]]:
    """Steps and mAP of a run's evaluations."""
    text = storage.read_bytes(join_uri(run, METRICS_NAME)).decode()
    found = [one for one in read_lines(text) if one["kind"] == "evaluation"]
    points = [(one["step"], one["metrics"]["map"]) for one in found]
    return [step for step, figure in points if figure is not None], [
        figure for _, figure in points if figure is not None
    ]


def main() -> None:
    """Parse and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--names", nargs="+")
    parser.add_argument("--zero-shot", type=float, help="mAP of the checkpoint they start from")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), dpi=120)
    for number, run in enumerate(options.runs):
        name = options.names[number] if options.names else run
        steps, figures = curve(run, Storage())
        axes.plot(steps, figures, marker="o", color=COLOURS[number % len(COLOURS)], label=name)
    if options.zero_shot is not None:
        axes.axhline(options.zero_shot, color="0.5", linestyle="--", label="zero-shot")
    axes.set(xlabel="optimizer steps", ylabel="validation mAP", ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(options.out)
    print(options.out)


if __name__ == "__main__":
    main()
