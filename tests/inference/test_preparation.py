"""From a config to what actors get: frames decoded no larger than a network needs."""

from pathlib import Path
from typing import Any

import pytest

from urbandet_ray.config import InferConfig
from urbandet_ray.errors import ModelError
from urbandet_ray.inference.job import InferJob
from urbandet_ray.inference.preparation import (
    detector_loader,
    look_at_model,
    make_job,
    make_manifest,
)
from urbandet_ray.labels import STREET_LABELS
from urbandet_ray.models.loader import FoundModel, find_model
from urbandet_ray.models.network.facts import NetworkFacts, Resizing, write_facts
from urbandet_ray.runs.manifest import InferenceManifest
from urbandet_ray.storage import Storage


@pytest.fixture
def network(tmp_path: Path) -> str:
    """A network's folder, as far as anybody looks at it before it is loaded."""
    folder = tmp_path / "network"
    folder.mkdir()
    (folder / "model.tflite").write_bytes(b"TFL3")
    facts = NetworkFacts(
        runtime="tflite",
        precision="f32",
        answers="detections",
        resizing=Resizing(height=320, width=640),
        rules=None,
    )
    write_facts(facts, folder)
    return str(folder)


def config_of(model: str, **settings: Any) -> InferConfig:
    settings = {"reduced_decode": True, "draw": {"enabled": False}, **settings}
    return InferConfig(input="data", output="run", model={"uri": model}, **settings)


def job_of(config: InferConfig) -> InferJob:
    found = find_model(config.model, Storage())
    return make_job(config, found, Storage(), STREET_LABELS)


def test_frames_are_decoded_down_to_the_networks_input(network: str) -> None:
    """Where it is asked for, and whole else."""
    assert job_of(config_of(network)).least_wh == (640, 320)
    assert job_of(config_of(network, reduced_decode=False)).least_wh is None


def test_a_model_that_does_not_tell_its_size_is_refused() -> None:
    """A reduced decode has to know how small it may be."""
    with pytest.raises(ModelError, match="shipped does not tell its input's size: reduced_decode"):
        job_of(config_of("shipped"))


def test_a_run_is_not_resumed_at_another_size() -> None:
    """run.json says it where it is on, and its fingerprint is another one."""

    def manifest(reduced: bool) -> InferenceManifest:
        config = config_of("shipped", reduced_decode=reduced)
        found = find_model(config.model, Storage())
        return make_manifest(config, found, Storage(), STREET_LABELS, [])

    off, on = manifest(False), manifest(True)
    assert "reduced_decode" not in off.settings
    assert on.settings == off.settings | {"reduced_decode": True}
    assert on.fingerprint["settings"] != off.fingerprint["settings"]


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"sample": {"every": 3}}, "settings"),
        ({"sample": {"per_second": 2.0}}, "settings"),
        ({"model": {"classes": ["vehicle"]}}, "model"),
    ],
)
def test_a_run_over_a_part_is_not_resumed_as_another(settings: dict[str, Any], part: str) -> None:
    """run.json says the sample and the classes, and its fingerprint is another one."""

    def manifest(**settings: Any) -> InferenceManifest:
        config = InferConfig(input="data", output="run", **settings)
        found = find_model(config.model, Storage())
        return make_manifest(config, found, Storage(), STREET_LABELS, [])

    whole, some = manifest(), manifest(**settings)
    assert some.fingerprint[part] != whole.fingerprint[part]
    assert some.is_sampled == (part == "settings")
    assert list(some.kept_labels.names) == ([1] if part == "model" else [1, 2, 4])
    assert "sample" not in whole.settings


def test_a_model_is_looked_at_without_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the run starts there may be no GPU; the actors, which have one, are not told so."""
    seen = []

    def load(found: FoundModel, *_: object, device: str) -> None:
        seen.append((found.config.compiler, device))

    monkeypatch.setattr(FoundModel, "load", load)
    config = InferConfig(input="a", output="b", model={"compiler": "tensorrt"}, actors={"gpus": 1})
    found = find_model(config.model, Storage())
    look_at_model(config, found, Storage(), STREET_LABELS)
    detector_loader(config, found, "gpu", Storage(), STREET_LABELS)()
    assert seen == [(None, "cpu"), ("tensorrt", "gpu")]
