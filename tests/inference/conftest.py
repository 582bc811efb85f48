"""One Ray and one small drive for all end-to-end tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

SHARD = {"frames": 4}


@pytest.fixture(scope="session")
def ray_dashboard(aws_test_credentials: None) -> Iterator[str]:
    """A local Ray with a dashboard, for runs and for `ray job submit`; its address."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.pop("RAY_ADDRESS", None)
    import ray

    context = ray.init(
        address="local",
        num_cpus=2,
        num_gpus=2,  # in name only: how GPU actors are placed, not what they compute
        object_store_memory=100 << 20,
        include_dashboard=True,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield f"http://{context.dashboard_url}"
    ray.shutdown()


@pytest.fixture(scope="session")
def drives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two synthetic drives of ten frames each, as TFRecords."""
    from urbandet_ray.records.streets import write_drives

    folder = tmp_path_factory.mktemp("drives")
    write_drives(folder, seeds=[7, 12], frame_count=10, size_wh=(480, 320))
    (folder / "label_map.pbtxt").unlink(missing_ok=True)
    return folder
