"""The Python API: each function opens its files by a `storage` section."""

from typing import Any

import pytest
from crowds import committed

import urbandet_ray
from urbandet_ray.errors import ConfigError
from urbandet_ray.runs.run_folder import RunFolder
from urbandet_ray.storage import Storage

OPENED = [urbandet_ray.export, urbandet_ray.track]


@pytest.mark.parametrize("work", OPENED)
def test_an_unknown_key_of_the_storage_is_named(work: Any) -> None:
    """With the nearest known one, as in a run config."""
    with pytest.raises(
        ConfigError, match=r"storage\.endpoint: unknown key; did you mean 'endpoint_"
    ):
        work("s3://bucket/run", storage={"endpoint": "http://localhost:9000"})


@pytest.mark.parametrize("work", OPENED)
def test_a_storage_is_a_section_and_nothing_else(work: Any) -> None:
    """An object of the package's own is refused, with what was expected."""
    with pytest.raises(ConfigError, match=r"storage: Input should be a valid dictionary .*Storage"):
        work("s3://bucket/run", storage=Storage())


@pytest.mark.s3
def test_a_run_on_another_server_is_tracked(s3_server: Any) -> None:
    """Its endpoint is a key of the section."""
    bucket, storage = s3_server.make_bucket("api-track"), Storage(s3_server.options)
    committed(RunFolder(f"{bucket}/run", storage))
    access = {"endpoint_url": s3_server.endpoint_url}
    report = urbandet_ray.track(f"{bucket}/run", storage=access, min_hits=2)
    assert report.tracks > 0
