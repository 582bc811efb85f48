"""Batch inference as a SageMaker Processing job: the pipeline of `urbandet infer` on one instance.

    /opt/ml/processing/input/records    the records
    /opt/ml/processing/input/model      a model.tar.gz, unpacked here, or a model's folder; optional
    /opt/ml/processing/output           the run folder, which SageMaker copies to S3
    /opt/ml/output/message              why it failed: SageMaker shows the beginning

Its arguments are `key=value` overrides of the run config (config/inference_config.py).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from urbandet_ray.commands.display import infer_progress
from urbandet_ray.commands.infer import infer
from urbandet_ray.config import InferConfig
from urbandet_ray.entrypoints.script import run_job
from urbandet_ray.entrypoints.serve import model_to_serve
from urbandet_ray.launch.sagemaker.container import FAILURE_CHARACTERS
from urbandet_ray.launch.sagemaker.hosting import PROCESSING_ROOT
from urbandet_ray.models.archives import unpack

ROOT_VARIABLE = "PROCESSING_BASE_DIR"


def main(arguments: Sequence[str]) -> int:
    """Infer; 0 done, also with dead letters (the run folder has them), 1 failed."""
    root = Path(os.environ.get(ROOT_VARIABLE) or PROCESSING_ROOT)
    given = [f"input={root / 'input' / 'records'}", f"output={root / 'output'}"]

    def leave(reason: str) -> None:
        message = root.parent / "output" / "message"
        message.parent.mkdir(parents=True, exist_ok=True)
        message.write_text(reason[:FAILURE_CHARACTERS], "utf-8")

    settings = [*given, *arguments]
    code = run_job(InferConfig, settings, lambda config: _work(config, root), on_error=leave)
    return 0 if code == 3 else code


def _work(config: InferConfig, root: Path) -> tuple[str, int]:
    uri, labels = _model(root / "input" / "model")
    update: dict[str, Any] = {}
    if config.model.uri == "shipped" and uri != "shipped":
        update["model"] = config.model.model_copy(update={"uri": uri, "labels": labels})
        update["labels"] = config.labels or labels
    with infer_progress() as on_progress:
        report = infer(config.model_copy(update=update), on_progress=on_progress, say=_say)
    return report.to_text(), report.exit_code


def _model(folder: Path) -> tuple[str, str | None]:
    """The model that came as an input; the shipped one where none did."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return "shipped", None
    archives = sorted(folder.glob("*.tar.gz"))
    if archives:
        unpacked = folder.parent / "unpacked"
        unpacked.mkdir(exist_ok=True)
        unpack(archives[0], unpacked, archives[0].name)
        return model_to_serve(str(unpacked))
    tflite = sorted(folder.glob("*.tflite"))
    return (str(tflite[0]), None) if tflite else model_to_serve(str(folder))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
