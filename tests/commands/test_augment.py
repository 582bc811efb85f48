"""The contact sheet of an augmentation."""

from pathlib import Path

import numpy as np
import pytest
from painted import painted_example, write_records

from urbandet_ray.commands.augment import preview
from urbandet_ray.errors import ConfigError, InputError
from urbandet_ray.labels import LabelMap
from urbandet_ray.records.data_folder import DataFolder, read_data_folder
from urbandet_ray.records.images import decode_image
from urbandet_ray.storage import Storage

pytestmark = pytest.mark.train

LABELS = LabelMap({n: f"class {n}" for n in range(1, 6)})
PIPELINE = """
model { ssd { image_resizer { fixed_shape_resizer { height: 48 width: 48 } } } }
train_config { data_augmentation_options { random_vertical_flip { probability: 1.0 } } }
"""


def read(uri: str | Path) -> DataFolder:
    """What lies there."""
    return read_data_folder(str(uri), Storage())


@pytest.fixture
def records(tmp_path: Path) -> str:
    """Painted records in two files."""
    for name, seeds in (("a", (0, 1)), ("b", (2, 3))):
        examples = [painted_example(seed, 4) for seed in seeds for _ in range(5)]
        write_records(tmp_path / f"records/{name}.tfrecord", examples)
    return str(tmp_path / "records")


@pytest.mark.parametrize("choice", ["flip", "strong"])
def test_a_sheet_shows_frames_and_their_versions(tmp_path: Path, records: str, choice: str) -> None:
    """A row of frames, and a row below it for each version."""
    out = tmp_path / "sheet.png"
    assert preview(read(records), str(out), choice, LABELS, count=4, versions=2, size=64) == 4
    sheet = decode_image(out.read_bytes())
    assert sheet.shape[0] > 3 * 200
    assert sheet.shape[1] > 4 * 320


def test_config_is_the_pipelines_own_list(tmp_path: Path, records: str) -> None:
    """Here it turns frames upside down."""
    out, pipeline = tmp_path / "sheet.png", tmp_path / "pipeline.config"
    pipeline.write_text(PIPELINE)
    preview(read(records), str(out), "config", LABELS, pipeline=str(pipeline), count=1, versions=1)
    sheet = decode_image(out.read_bytes()).astype(int)
    # inner pixels of the frame's cell and of the version's below it, captions left out
    cell = (sheet.shape[0] // 2 - 60) // 2
    assert sheet[:cell].max() > 200
    assert np.abs(sheet[:cell] - sheet[cell : 2 * cell]).max() > 200


def test_config_without_a_pipeline_is_refused(tmp_path: Path, records: str) -> None:
    """There is no list to show."""
    with pytest.raises(ConfigError, match=r"own list: name the pipeline\.config"):
        preview(read(records), str(tmp_path / "sheet.png"), "config", LABELS)


def test_records_that_cannot_be_trained_on_are_refused(tmp_path: Path) -> None:
    """The message names the command that says why."""
    write_records(tmp_path / "records/a.tfrecord", [b"no example"])
    with pytest.raises(InputError, match="no record to augment: see `urbandet data validate"):
        preview(read(tmp_path / "records"), str(tmp_path / "sheet.png"), "flip", LABELS)
