"""What a data folder holds: its parts, its label map, and what a pipeline.config is told of it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import S3Server
from pytest import LogCaptureFixture

from urbandet_ray.errors import InputError, NotFoundError
from urbandet_ray.records.data_folder import DataFolder, SplitFolder, read_data_folder
from urbandet_ray.records.source import Source
from urbandet_ray.storage import Storage

MAP = b"item { id: 1 name: 'car' } item { id: 2 name: 'bus' }"
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A folder with files of the names given; label maps name a car and a bus."""

    def made(*names: str) -> Path:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(MAP if name.lower().endswith("map.pbtxt") else b"")
        return tmp_path

    return made


def split(uri: str, *names: str) -> SplitFolder:
    """A part with records of those names."""
    sources = [Source("tfrecord", f"{uri}/{name}", name, name, 0, "") for name in names]
    return SplitFolder(uri, tuple(sources))


@pytest.mark.parametrize(
    ("names", "patterns"),
    [
        (("a.tfrecord", "b.tfrecord"), ("/d/train/*.tfrecord",)),
        (
            ("a.tfrecord", "b.record", "c.tfrecord.gz"),
            ("/d/train/*.record", "/d/train/*.tfrecord", "/d/train/*.tfrecord.gz"),
        ),
        (("a.tfrecord", "day/b.tfrecord"), ("/d/train",)),
        (("a.record-00000-of-00002", "a.record-00001-of-00002"), ("/d/train",)),
    ],
)
def test_patterns_for_a_pipeline_config(names: tuple[str, ...], patterns: tuple[str, ...]) -> None:
    """One for each ending; the folder where patterns would miss a file."""
    assert split("/d/train", *names).patterns == patterns


def test_a_test_folder_alone_makes_no_parts(make: Make) -> None:
    """A camera may be called test: everything is read then."""
    data = read_data_folder(str(make("test/a.tfrecord", "front/b.tfrecord")), Storage())
    assert (data.parts, [one.name for one in data.sources]) == ({}, ["front--b", "test--a"])


def test_sources_are_named_as_if_the_folder_had_been_listed(make: Make) -> None:
    """Files of one name in two parts stay apart."""
    data = read_data_folder(str(make("train/a.tfrecord", "val/a.tfrecord")), Storage())
    assert [one.name for one in data.sources] == ["train--a", "val--a"]


def test_what_lies_beside_the_parts_is_told(make: Make) -> None:
    """It is read by nobody, so the line about the folder names it."""
    data = read_data_folder(
        str(make("train/a.tfrecord", "val/b.tfrecord", "c.tfrecord", "x/d.png")), Storage()
    )
    assert data.to_text().endswith("no label map; left out, in no part: c.tfrecord, x")
    assert data.labels is None
    assert [one.name for one in data.sources] == ["train--a", "val--b"]


@pytest.mark.parametrize(
    ("names", "below", "found"),
    [
        (("train/a.tfrecord", "label_map.pbtxt", "train/x_label_map.pbtxt"), "", "label_map.pbtxt"),
        (("train/a.tfrecord", "x_label_map.pbtxt"), "", "x_label_map.pbtxt"),
        (("train/a.tfrecord", "val/x_label_map.pbtxt"), "", "val/x_label_map.pbtxt"),
        (("a.tfrecord", "label_map.pbtxt"), "", "label_map.pbtxt"),
        (("train/a.tfrecord", "label_map.pbtxt"), "train", "label_map.pbtxt"),
        (("train/a.tfrecord", "label_map.pbtxt"), "train/a.tfrecord", "label_map.pbtxt"),
        (("train/a.tfrecord", "train/a_label_map.pbtxt"), "train/a.tfrecord",
         "train/a_label_map.pbtxt"),
        (("a.tfrecord", "x_label_map.pbtxt"), "a.tfrecord", "x_label_map.pbtxt"),
        (("a.tfrecord", "LABELMAP.pbtxt"), "a.tfrecord", "LABELMAP.pbtxt"),
        (("train/a.tfrecord", "Cars_label_map.pbtxt"), "train", "Cars_label_map.pbtxt"),
        (("train/a.tfrecord", "x_label_map.pbtxt"), "train/a.tfrecord", "x_label_map.pbtxt"),
        (("a.tfrecord", "b.tfrecord", "label_map.pbtxt"), "*.tfrecord", "label_map.pbtxt"),
        (("a.tfrecord", "b.tfrecord", "x_label_map.pbtxt"), "[ab].tfrecord", "x_label_map.pbtxt"),
        (("x/a.tfrecord", "x/label_map.pbtxt"), "*/*.tfrecord", "x/label_map.pbtxt"),
        (("day/a.tfrecord", "label_map.pbtxt"), "day", "label_map.pbtxt"),
        (("train/day/a.tfrecord", "label_map.pbtxt"), "train/day", "label_map.pbtxt"),
        (("train/day/a.tfrecord", "label_map.pbtxt"), "train/day/a.tfrecord", "label_map.pbtxt"),
        (("w/x/y/z/a.tfrecord", "label_map.pbtxt"), "w/x/y", None),
        (("d/a.tfrecord", "d/label_map.pbtxt"), "", "d/label_map.pbtxt"),
        (("train/day/a.tfrecord", "train/label_map.pbtxt"), "", "train/label_map.pbtxt"),
        (("train/a.tfrecord", "val/b.tfrecord", "model/label_map.pbtxt"), "", None),
        (("a.record-00000-of-00002", "a.record-00001-of-00002", "a_label_map.pbtxt"),
         "a.record-00001-of-00002", "a_label_map.pbtxt"),
        (("a-00000-of-00002.tfrecord.gz", "a_label_map.pbtxt"),
         "a-00000-of-00002.tfrecord.gz", "a_label_map.pbtxt"),
        (("a.record-00000-of-00001", "A_label_map.pbtxt", "label_map.pbtxt"),
         "a.record-*", "A_label_map.pbtxt"),
        (("train/a.tfrecord", "plain_map.pbtxt", "labels.pbtxt"), "", None),
        (("a.tfrecord", "LABELMAP.pbtxt", "x-labelmap.pbtxt"), "", "LABELMAP.pbtxt"),
    ],
)  # fmt: skip
def test_label_map_of_the_data(
    make: Make, names: tuple[str, ...], below: str, found: str | None
) -> None:
    """At the top, else beside or above the records; of a file or a folder also up to two above."""
    folder = make(*names)
    data = read_data_folder(str(folder / below), Storage())
    assert data.labels_uri == (None if found is None else str(folder / found))
    assert (data.labels is not None and dict(data.labels.names) == {1: "car", 2: "bus"}) == bool(
        found
    )


def test_several_label_maps_that_differ_are_no_guess(make: Make, caplog: LogCaptureFixture) -> None:
    """Beside the records it is refused; further up, where it may be somebody else's, it is said."""
    folder = make("d/a.tfrecord", "d/b.tfrecord", "d/a_label_map.pbtxt")
    (folder / "d/b_label_map.pbtxt").write_text("item { id: 1 name: 'tram' }")
    with pytest.raises(InputError, match=r"label maps that differ, .*a_label.* and .*b_label"):
        read_data_folder(str(folder / "d"), Storage())
    found = read_data_folder(str(folder / "d/b.tfrecord"), Storage()).labels
    assert found is not None
    assert dict(found.names) == {1: "tram"}
    make("d/e/c.tfrecord")
    assert read_data_folder(str(folder / "d/e"), Storage()).labels is None
    assert "2 label maps that differ, so none is taken" in caplog.text


def test_a_label_map_that_is_given_replaces_the_data_s_own(make: Make) -> None:
    """Even where those of the data differ."""
    folder = make("train/a.tfrecord", "train/label_map.pbtxt", "val/b.tfrecord")
    (folder / "val/label_map.pbtxt").write_text("item { id: 1 name: 'tram' }")
    with pytest.raises(InputError, match="label maps that differ"):
        read_data_folder(str(folder), Storage())
    given = str(folder / "val/label_map.pbtxt")
    data = read_data_folder(str(folder), Storage(), given)
    assert data.labels is not None
    assert (data.labels_uri, dict(data.labels.names)) == (given, {1: "tram"})


def test_an_empty_folder_is_no_data(tmp_path: Path) -> None:
    """The message says what a data folder is."""
    with pytest.raises(InputError, match=r"is an empty folder: expected train/ and val/ with TFR"):
        read_data_folder(str(tmp_path), Storage())


def test_pictures_are_no_training_records(make: Make) -> None:
    """They can be looked at, not trained on."""
    data = read_data_folder(str(make("train/a.png", "val/b.tfrecord")), Storage())
    assert [one.kind for one in data.sources] == ["images", "tfrecord"]
    with pytest.raises(
        NotFoundError, match=r"no train/ .* it holds train 1 folder of images \(1 .png\), val"
    ):
        data.for_training()


@pytest.mark.s3
def test_a_folder_on_s3_reads_as_its_copy_here(make: Make, s3_server: S3Server) -> None:
    """Parts, label map and names are those of the local folder."""
    names = ("train/a.tfrecord", "train/b.record", "valid/c.tfrecord", "x_label_map.pbtxt")
    bucket = s3_server.make_bucket("data-folders")
    folder, remote = make(*names), f"{bucket}/data"
    storage = Storage(s3_server.options)
    for name in names:
        storage.upload_file(folder / name, f"{remote}/{name}")
    here = read_data_folder(str(folder), Storage())
    there = read_data_folder(remote, storage)
    assert there.labels == here.labels
    for below in ("train", "train/a.tfrecord", "train/*.tfrecord"):
        found = read_data_folder(f"{remote}/{below}", storage).labels_uri
        assert found == f"{remote}/x_label_map.pbtxt"
    assert [one.name for one in there.sources] == [one.name for one in here.sources]
    storage.upload_file(folder / "train/a.tfrecord", f"{bucket}/bare/a.tfrecord")
    assert read_data_folder(f"{bucket}/bare", storage).labels_uri is None  # nothing above a bucket

    def patterns(data: DataFolder) -> dict[str, list[str]]:
        return {
            name: [one.removeprefix(data.uri) for one in part.patterns]
            for name, part in data.parts.items()
        }

    assert patterns(there) == patterns(here)
