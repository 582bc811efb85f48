"""One small drive for all end-to-end tests."""

from pathlib import Path

import pytest

SHARD = {"frames": 4}


@pytest.fixture(scope="session")
def drives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two synthetic drives of ten frames each, as TFRecords."""
    from urbandet_ray.streets import write_drives

    folder = tmp_path_factory.mktemp("drives")
    write_drives(folder, seeds=[7, 12], frame_count=10, size_wh=(480, 320))
    (folder / "label_map.pbtxt").unlink(missing_ok=True)
    return folder
