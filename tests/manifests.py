"""Manifests of runs, for tests that need a run folder and no run."""

from typing import Any

from urbandet_ray.labels import STREET_LABELS
from urbandet_ray.runs.manifest import InferenceManifest, TrainingManifest

FINGERPRINT = {"model": "m", "settings": "s", "input": "i"}


def inference_manifest(**changes: Any) -> InferenceManifest:
    """Of a run over one file, drawn from a score of 0.3."""
    fields: dict[str, Any] = {
        "version": "0.1.0",
        "input": "drives",
        "model": {"uri": "shipped", "score_min": 0.01},
        "labels": STREET_LABELS,
        "settings": {"draw": {"enabled": True, "score_min": 0.3, "truth": False}},
        "sources": 1,
        "size_bytes": 100,
        "fingerprint": FINGERPRINT,
    }
    return InferenceManifest(**fields | changes)


def training_manifest(**changes: Any) -> TrainingManifest:
    """Of a training of 20 steps."""
    fields: dict[str, Any] = {
        "version": "0.1.0",
        "labels": STREET_LABELS,
        "steps": 20,
        "settings": {"seed": 1},
        "fingerprint": {"settings": "s", "records": "r"},
    }
    return TrainingManifest(**fields | changes)
