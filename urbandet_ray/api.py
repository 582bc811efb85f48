"""The public Python API: the same work as the command line, five lines in a notebook."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from urbandet_ray.commands import evaluate as _evaluate
from urbandet_ray.commands import export as _export
from urbandet_ray.commands import infer as _infer
from urbandet_ray.commands import track as _track
from urbandet_ray.commands import train as _train
from urbandet_ray.commands import video as _video
from urbandet_ray.config import (
    EvalConfig,
    InferConfig,
    StorageConfig,
    TrackConfig,
    TrainConfig,
    VideoConfig,
    load_config,
)
from urbandet_ray.config.sections import Section
from urbandet_ray.inference.track_files import TrackReport
from urbandet_ray.storage import Storage


def infer(
    input: str, output: str, *, say: Callable[[str], None] = print, **settings: Any
) -> _infer.InferReport:
    """Detect on every frame of `input` and commit to the run folder `output`; resumes.

    Args:
        input: TFRecords, a folder of images or a video; local or s3://.
        output: run folder; local or s3://.
        say: told what backend="auto" measures and chooses.
        settings: sections and keys of InferConfig, e.g. model={"uri": ...}, batch_size=8,
            tiles={"rows": 3, "columns": 3}, track={"enabled": True}.

    Raises:
        UrbandetError: what is wrong, and what to do.
    """
    return _infer.infer(
        load_config(InferConfig, None, {"input": input, "output": output, **settings}), say=say
    )


def evaluate(run: str, truth: str, **settings: Any) -> _evaluate.EvalReport:
    """COCO metrics of a run folder against the labels in `truth`.

    Raises:
        UrbandetError: the truth does not belong to the run, or carries no labels.
    """
    return _evaluate.evaluate(
        load_config(EvalConfig, None, {"run": run, "truth": truth, **settings})
    )


def track(run: str, *, storage: Mapping[str, Any] | None = None, **rules: Any) -> TrackReport:
    """Number the objects of a finished run; the ids stand in its detections.

    Args:
        run: run folder; local or s3://.
        storage: keys of StorageConfig, e.g. {"region": "eu-west-1"}.
        rules: keys of TrackConfig, e.g. score_high=0.6, frames_kept=20.

    Raises:
        UrbandetError: the run is not finished, or rules that do not fit.
    """
    return _track.track(run, load_config(TrackConfig, None, rules), _open(storage))


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


def export(
    run: str,
    out: str | None = None,
    *,
    storage: Mapping[str, Any] | None = None,
    **settings: Any,
) -> _export.ExportReport:
    """Export a training run's best checkpoint: the OD API's SavedModel, or a faster network.

    Args:
        run: run folder of a training; local or s3://.
        out: folder; None is exports/ in the run folder.
        storage: keys of StorageConfig, e.g. {"region": "eu-west-1"}.
        settings: `format` (stock, stock-tflite, savedmodel, openvino, onnx, tflite), `checkpoint`
            (best, last), `precision` (f32, bf16, fp16, int8), `calibrate`, `check`.

    Raises:
        UrbandetError: no such run, no checkpoint yet, or a setting that does not fit.
    """
    return _export.export(run, out=out, storage=_open(storage), **settings)


class _Access(Section):
    storage: StorageConfig = StorageConfig()


def _open(storage: Mapping[str, Any] | None) -> Storage:
    """The files as a `storage` section says, with the messages of the run configs."""
    return Storage(load_config(_Access, None, {"storage": storage or {}}).storage)
