"""A few frames of an input: as many as asked for, from all over it."""

from pathlib import Path

import pytest
from drives import write_drive
from pictures import saved, smooth_picture

from urbandet_ray.commands.data import write_contact_sheet
from urbandet_ray.records.data_folder import read_data_folder
from urbandet_ray.records.even_choice import evenly, sample
from urbandet_ray.records.source import Record, Source
from urbandet_ray.records.sources import list_sources
from urbandet_ray.storage import Storage

STORAGE = Storage()


def place(source: Source, record: Record) -> tuple[str, int] | None:
    return (source.name, record.index) if record.frame else None


def sampled(folder: Path, count: int) -> list[tuple[str, int]]:
    return sample(list_sources(str(folder), STORAGE), count, place, STORAGE)


@pytest.mark.parametrize("frames", [1, 4, 11, 12, 13, 40, 300])
def test_one_file_gives_what_was_asked_for_from_end_to_end(tmp_path: Path, frames: int) -> None:
    """All it has, or twelve that reach into its last sixth."""
    write_drive(tmp_path / "a.tfrecord", frames)
    indexes = [index for _, index in sampled(tmp_path, 12)]
    assert len(indexes) == min(frames, 12)
    assert indexes == sorted(set(indexes))
    assert indexes[0] == 0
    assert indexes[-1] >= frames * 5 // 6 - 1


@pytest.mark.parametrize(
    "lengths", [(1, 1, 100), (3, 3, 3, 3), (100, 1), (2,) * 30, (1, 200, 0, 5)]
)
def test_what_one_file_lacks_the_others_give(tmp_path: Path, lengths: tuple[int, ...]) -> None:
    """Twelve, wherever the frames are; as evenly as they allow."""
    for number, frames in enumerate(lengths):
        write_drive(tmp_path / f"{number:02d}.tfrecord", frames)
    found = sampled(tmp_path, 12)
    assert len(found) == len(set(found)) == min(sum(lengths), 12)
    assert found == sorted(found)
    if len(lengths) >= 12:
        assert len({name for name, _ in found}) == 12


def test_pictures_of_a_folder_are_not_all_read(tmp_path: Path) -> None:
    """Of 200, the chosen ones; damaged ones among them are replaced."""
    picture = saved(smooth_picture(), "JPEG")
    for number in range(200):
        (tmp_path / f"{number:03d}.jpg").write_bytes(b"broken" if number % 3 else picture)
    data = read_data_folder(str(tmp_path), STORAGE)
    assert write_contact_sheet(data, str(tmp_path / "sheet.png"), 12, None, STORAGE) == 12
    assert write_contact_sheet(data, str(tmp_path / "sheet.png"), 60, None, STORAGE) == 60
    assert write_contact_sheet(data, str(tmp_path / "sheet.png"), 100, None, STORAGE) == 67


def test_equal_distances() -> None:
    """The first one, and never more than there are."""
    assert list(evenly(range(10), 3)) == [0, 3, 6]
    assert list(evenly(range(2), 3)) == [0, 1]
