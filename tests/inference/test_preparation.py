"""From a config to what actors get: frames decoded no larger than a network needs."""

from pathlib import Path
from typing import Any

import pytest

from urbandet_ray.config import InferConfig
from urbandet_ray.errors import ConfigError, ModelError
from urbandet_ray.inference.job import InferJob
from urbandet_ray.inference.preparation import detector_loader, device_of, make_job, make_manifest
from urbandet_ray.labels import STREET_LABELS
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
    load = detector_loader(config, device_of(config, Storage()), Storage(), STREET_LABELS)
    return make_job(config, Storage(), STREET_LABELS, load)


def test_frames_are_decoded_down_to_the_networks_input(network: str) -> None:
    """Where it is asked for, and whole else."""
    assert job_of(config_of(network)).least_wh == (640, 320)
    assert job_of(config_of(network, reduced_decode=False)).least_wh is None


@pytest.mark.parametrize(
    "settings", [{"draw": {"enabled": True}}, {"tiles": {"rows": 2, "columns": 2}}], ids=str
)
def test_what_needs_whole_frames_is_refused(network: str, settings: dict[str, Any]) -> None:
    """Drawing and tiles need the pixels that a reduced decode leaves out."""
    with pytest.raises(ConfigError, match="reduced_decode goes with neither drawing nor tiles"):
        job_of(config_of(network, **settings))


def test_a_model_that_does_not_tell_its_size_is_refused() -> None:
    """A reduced decode has to know how small it may be."""
    with pytest.raises(ModelError, match="shipped does not tell its input's size: reduced_decode"):
        job_of(config_of("shipped"))


def test_a_run_is_not_resumed_at_another_size() -> None:
    """run.json says it where it is on, and its fingerprint is another one."""

    def manifest(reduced: bool) -> InferenceManifest:
        config = config_of("shipped", reduced_decode=reduced)
        return make_manifest(config, Storage(), STREET_LABELS, [])

    off, on = manifest(False), manifest(True)
    assert "reduced_decode" not in off.settings
    assert on.settings == off.settings | {"reduced_decode": True}
    assert on.fingerprint["settings"] != off.fingerprint["settings"]
