"""`urbandet demo`: a synthetic drive that the shipped detector has not seen, to mAP and video."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from urbandet_ray.commands.display import count_progress, infer_progress
from urbandet_ray.commands.evaluate import evaluate
from urbandet_ray.commands.infer import infer
from urbandet_ray.commands.video import make_video
from urbandet_ray.config import EvalConfig, InferConfig, VideoConfig
from urbandet_ray.streets import write_drives

SEED = 33
"""Not among the detector's training drives (models/shipped/CARD.md)."""


def run_demo(out: Path, frames: int, say: Callable[[str], None]) -> None:
    """Render a drive, detect, evaluate, and write drive.mp4 and drive.gif below `out`."""
    begin = time.monotonic()
    records, run = out / "records", out / "run"
    shutil.rmtree(run, ignore_errors=True)  # of an earlier demo
    say(f"rendering a drive of {frames} frames")
    write_drives(records, seeds=[SEED], frame_count=frames)
    say("detecting; Ray takes some 10 s to start")
    config = InferConfig(input=str(records), output=str(run))
    with infer_progress() as on_progress:
        report = infer(config, on_progress=on_progress)
    say(report.to_text())
    say(evaluate(EvalConfig(run=str(run), truth=config.input)).to_text())
    for name in ("drive.mp4", "drive.gif"):
        with count_progress("frames") as on_frame:
            video = make_video(VideoConfig(run=str(run), output=str(out / name)), on_frame=on_frame)
        say(video.to_text())
    say(f"done in {time.monotonic() - begin:.0f} s")
