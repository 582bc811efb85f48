"""Which checkpoint a path means."""

from pathlib import Path

import pytest

from urbandet_ray.models.checkpoint_files import find_checkpoint_prefix, newest_checkpoint
from urbandet_ray.storage import Storage

DATA = ".data-00000-of-00001"


def fill(folder: Path, *stems: str, state: str = "") -> None:
    """Checkpoints of these names, and a state file that names one."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem in stems:
        (folder / f"{stem}.index").touch()
        (folder / f"{stem}{DATA}").touch()
    if state:
        (folder / "checkpoint").write_text(f'model_checkpoint_path: "{state}"\n')


@pytest.mark.parametrize(
    ("stems", "state", "newest"),
    [
        (("ckpt-9", "ckpt-10"), "", "ckpt-10"),
        (("ckpt-9", "ckpt-10"), "ckpt-9", "ckpt-9"),
        (("ckpt-9", "ckpt-10"), "/elsewhere/ckpt-9", "ckpt-9"),
        (("ckpt-9", "ckpt-10"), "ckpt-11", "ckpt-10"),
        (("ckpt-1", "ckpt-1_temp", "other-7"), "", "ckpt-1"),
    ],
)
@pytest.mark.parametrize("given", ["", "checkpoint"])
def test_a_folder_means_its_newest(
    tmp_path: Path, stems: tuple[str, ...], state: str, newest: str, given: str
) -> None:
    """What TensorFlow's state file names, else the highest number."""
    fill(tmp_path / "checkpoint", *stems, state=state)
    found = find_checkpoint_prefix(str(tmp_path / given), Storage())
    assert found == str(tmp_path / "checkpoint" / newest)


@pytest.mark.parametrize("ending", ["", ".index", DATA])
def test_a_file_means_its_checkpoint(tmp_path: Path, ending: str) -> None:
    """An older one too, and one of any name."""
    fill(tmp_path, "ckpt-9", "ckpt-10", "model.v2")
    for stem in ("ckpt-9", "model.v2"):
        found = find_checkpoint_prefix(f"{tmp_path}/{stem}{ending}", Storage())
        assert found == f"{tmp_path}/{stem}"


def test_half_a_checkpoint_is_none(tmp_path: Path) -> None:
    """Its index came before its data."""
    (tmp_path / "ckpt-3.index").touch()
    assert find_checkpoint_prefix(str(tmp_path), Storage()) is None
    assert find_checkpoint_prefix(str(tmp_path / "nowhere"), Storage()) is None


def test_of_several_folders_the_highest_number_counts(tmp_path: Path) -> None:
    """As a job's channel may hold them."""
    fill(tmp_path / "a", "ckpt-9", "ckpt-40", state="ckpt-9")
    fill(tmp_path / "b", "ckpt-10")
    files = [str(path) for path in tmp_path.rglob("*") if path.is_file()]
    assert newest_checkpoint(files, Storage()) == f"{tmp_path}/b/ckpt-10"
