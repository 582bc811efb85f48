"""What a run tells: metrics.jsonl, TensorBoard, and notices to whoever started it.

Written by the first worker only. On s3:// both are kept on the local disk and brought along with
each checkpoint, so that they never speak of more steps than the checkpoint beside them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.boxes import box_areas, iou_matrix
from urbandet_ray.errors import NotFoundError
from urbandet_ray.evaluation import Metrics
from urbandet_ray.runs.detections_table import DetectionRow
from urbandet_ray.storage import Storage, is_remote, join_uri

METRICS_NAME, BOARD_NAME = "metrics.jsonl", "tensorboard"

Notice = Callable[[dict[str, Any]], None]

_FOUND_IOU, _FOUND_SCORE = 0.5, 0.3


class Board:
    """The run's log.

    Args:
        run_uri: the run folder.
        scratch: a local folder, used where the run folder is remote.
        first_step: steps that the run has done already; lines of a try that went further are
            taken back.
        notice: passes a dict on to whoever watches the run.
    """

    def __init__(
        self, run_uri: str, storage: Storage, scratch: Path, first_step: int, notice: Notice
    ) -> None:
        from urbandet_ray.models.odapi import open_odapi

        self._run_uri = run_uri
        self._storage = storage
        self._notice = notice
        self._remote = is_remote(run_uri)
        self._folder = scratch if self._remote else Path(run_uri)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._tf = open_odapi().tf
        self._keep_lines(first_step)
        self._writer = self._tf.summary.create_file_writer(str(self._folder / BOARD_NAME))

    def steps(self, step: int, figures: Mapping[str, float]) -> None:
        """Means over the last steps: losses, rate, images/s, share of the time spent waiting."""
        with self._writer.as_default(step):
            for name, value in figures.items():
                self._tf.summary.scalar(name, value)
        self._line({"kind": "steps", "step": step, **figures})

    def evaluation(
        self, step: int, metrics: Metrics, results: Sequence[DetectionRow], best: bool
    ) -> None:
        """A validation; the box sizes that were found and missed are drawn as histograms."""
        by_class = {name: one.ap for name, one in metrics.by_class.items()}
        figures = {"mAP": metrics.map, "AP50": metrics.ap50, "AR100": metrics.ar100}
        with self._writer.as_default(step):
            for name, value in [*figures.items(), *((f"AP/{k}", v) for k, v in by_class.items())]:
                if value is not None:
                    self._tf.summary.scalar(f"validation/{name}", value)
            for name, sides in zip(("found", "missed"), sides_found(results), strict=True):
                self._tf.summary.histogram(f"validation/box_side_px/{name}", sides, buckets=20)
            self._writer.flush()
        self._line({"kind": "evaluation", "step": step, "best": best, "metrics": metrics.to_dict()})

    def images(self, step: int, images: NDArray[np.uint8]) -> None:
        """Validation frames with their boxes drawn, [n, h, w, 3]."""
        with self._writer.as_default(step):
            self._tf.summary.image("validation/frames", images, max_outputs=len(images))

    def event(self, step: int, text: str) -> None:
        """Something a person should know."""
        with self._writer.as_default(step):
            self._tf.summary.text("events", text)
        self._line({"kind": "event", "step": step, "text": text})

    def bring(self) -> None:
        """Copy the log to a remote run folder; a local one has it already."""
        self._writer.flush()
        if not self._remote:
            return
        for path in [self._folder / METRICS_NAME, *(self._folder / BOARD_NAME).glob("events*")]:
            if path.is_file():
                relative = path.relative_to(self._folder).as_posix()
                self._storage.upload_file(path, join_uri(self._run_uri, *relative.split("/")))

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
        self.bring()

    def _line(self, entry: dict[str, Any]) -> None:
        entry = {**entry, "time": round(time.time(), 3)}
        with (self._folder / METRICS_NAME).open("a", encoding="utf-8") as out:
            out.write(json.dumps(entry, sort_keys=True) + "\n")
        self._notice(entry)

    def _keep_lines(self, first_step: int) -> None:
        """Leave the lines up to the step that the run goes on from."""
        path = self._folder / METRICS_NAME
        try:
            text = self._storage.read_bytes(join_uri(self._run_uri, METRICS_NAME)).decode()
        except NotFoundError:
            return
        kept = [entry for entry in read_lines(text) if entry["step"] <= first_step]
        path.write_text("".join(json.dumps(one, sort_keys=True) + "\n" for one in kept), "utf-8")


def read_lines(text: str) -> list[dict[str, Any]]:
    """The entries of a metrics.jsonl; a last line that a crash cut short is left out."""
    entries = []
    for line in text.splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:
            continue
    return entries


def sides_found(
    results: Sequence[DetectionRow],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Sides (root of the area, px) of truth boxes that a detection of their class meets, and not.

    Met is an IoU of 0.5 at a score of 0.3; one detection may meet several boxes here.
    """
    found, missed = [np.zeros(0, np.float32)], [np.zeros(0, np.float32)]
    for result in results:
        truth, seen = result.truth, result.detections.above(_FOUND_SCORE)
        if truth is None or not len(truth):
            continue
        sides = np.sqrt(box_areas(truth.boxes_xyxy))
        same = truth.class_ids[:, None] == seen.class_ids[None]
        overlaps = iou_matrix(truth.boxes_xyxy, seen.boxes_xyxy) * same
        met = (overlaps >= _FOUND_IOU).any(axis=1)
        found.append(sides[met])
        missed.append(sides[~met])
    return np.concatenate(found), np.concatenate(missed)
