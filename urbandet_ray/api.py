"""The public Python API: the same work as the command line, five lines in a notebook."""

from __future__ import annotations

from typing import Any

from urbandet_ray.commands import evaluate as _evaluate
from urbandet_ray.commands import export as _export
from urbandet_ray.commands import infer as _infer
from urbandet_ray.commands import train as _train
from urbandet_ray.commands import video as _video
from urbandet_ray.config import EvalConfig, InferConfig, TrainConfig, VideoConfig, load_config
from urbandet_ray.storage import Storage


def infer(input: str, output: str, **settings: Any) -> _infer.InferReport:
    """Detect on every frame of `input` and commit to the run folder `output`; resumes.

    Args:
        input: TFRecords, a folder of images or a video; local or s3://.
        output: run folder; local or s3://.
        settings: sections and keys of InferConfig, e.g. model={"uri": ...}, batch_size=8.

    Raises:
        UrbandetError: what is wrong, and what to do.
    """
    return _infer.infer(
        load_config(InferConfig, None, {"input": input, "output": output, **settings})
    )


def evaluate(run: str, truth: str, **settings: Any) -> _evaluate.EvalReport:
    """COCO metrics of a run folder against the labels in `truth`.

    Raises:
        UrbandetError: the truth does not belong to the run, or carries no labels.
    """
    return _evaluate.evaluate(
        load_config(EvalConfig, None, {"run": run, "truth": truth, **settings})
    )


def make_video(run: str, output: str, **settings: Any) -> _video.VideoReport:
    """Write the run's frames in drive order as .mp4, .webm or .gif.

    Raises:
        UrbandetError: the run has no frames, or its input is not where it was.
    """
    return _video.make_video(
        load_config(VideoConfig, None, {"run": run, "output": output, **settings})
    )


def train(data: str, output: str, **settings: Any) -> _train.TrainReport:
    """Train on `data` (train/, val/ and label_map.pbtxt) into the run folder `output`; resumes.

    Args:
        data: local or s3://.
        output: run folder; local or s3://.
        settings: sections and keys of TrainConfig, e.g. pipeline="efficientdet_d1_640", steps=2000.

    Raises:
        UrbandetError: what is wrong, and what to do.
    """
    return _train.train(
        load_config(TrainConfig, None, {"data": data, "output": output, **settings})
    )


def export(run: str, out: str | None = None, **settings: Any) -> _export.ExportReport:
    """Export a training run's best checkpoint as the OD API's SavedModel, or as TFLite.

    Args:
        run: run folder of a training; local or s3://.
        out: folder; None is exports/ in the run folder.
        settings: `format` (savedmodel, tflite), `checkpoint` (best, last), `weights` (float32,
            bfloat16), `storage`.

    Raises:
        UrbandetError: no such run, no checkpoint yet, or a setting that does not fit.
    """
    return _export.export(run, out=out, **{"storage": Storage(), **settings})
