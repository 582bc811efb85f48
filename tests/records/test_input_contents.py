"""Nothing in an input folder is passed over without a line: what was read, what not, and why."""

from pathlib import Path

import pytest
from drives import write_drive
from pictures import odd_jpegs, saved, smooth_picture

from urbandet_ray.errors import InputError
from urbandet_ray.records.data_folder import read_data_folder
from urbandet_ray.records.input_contents import list_input
from urbandet_ray.records.sources import list_sources, read_source
from urbandet_ray.storage import Storage

PICTURE = smooth_picture()
EVERY_KIND = {
    "a.jpg": saved(PICTURE, "JPEG"),
    "b.PNG": saved(PICTURE, "PNG"),
    "c.webp": saved(PICTURE, "WEBP"),
    "d.bmp": saved(PICTURE, "BMP"),
    "e.tiff": saved(PICTURE, "TIFF"),
    "f.gif": saved(PICTURE, "GIF"),
    "deep/g.jfif": odd_jpegs(PICTURE)["stray bytes before the scan"],
    "deep/g.txt": b"0 .5 .5 .1 .1",
    "labels/a.txt": b"0 .5 .5 .1 .1",
    "annotations/instances.json": b"{}",
    "voc.xml": b"<annotation/>",
    "data.yaml": b"names: [car]",
    "phone.HEIC": b"....ftypheic",
    "sky.hdr": b"#?RADIANCE",
    "more.zip": b"PK",
    "old_label_map.pbtxt": b"",
    "README": b"hello",
    "notes.txt": b"hello",
    "Thumbs.db": b"hello",
    ".DS_Store": b"hello",
    ".git/config": b"hello",
    "x.jpg.tmp": b"hello",
}


@pytest.fixture
def everything(tmp_path: Path) -> Path:
    """A folder with every kind of file in it."""
    folder = tmp_path / "everything"
    for name, data in EVERY_KIND.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    write_drive(folder / "drive.tfrecord", 2)
    (folder / "gone.jpg").symlink_to(tmp_path / "nowhere")
    return folder


def test_every_kind_of_file_is_told(everything: Path) -> None:
    """Each file is read, or stands in one line with a reason and what to do."""
    sources, contents = list_input(str(everything), Storage())
    kind, _, endings = contents.read.partition(", 2 folders of images (")
    assert kind == "1 TFRecord file"
    assert sorted(endings.removesuffix(")").split(", ")) == [
        f"1 .{ending}" for ending in ("bmp", "gif", "jfif", "jpg", "png", "tiff", "webp")
    ]
    assert contents.to_lines() == [
        "left out: 5 files that may hold labels: `urbandet data import` makes records of labels: "
        "annotations/instances.json, data.yaml, deep/g.txt and 2 more",
        "left out: 2 pictures of other formats: JPEG, PNG, BMP, GIF, WebP and TIFF are read: "
        "phone.HEIC, sky.hdr",
        "left out: 1 archive: unpack first: more.zip",
        "left out: 1 label map, which this does not use: old_label_map.pbtxt",
        "left out: 1 file without an ending that says what it is: README",
        "left out: 2 files that frames are not read from: Thumbs.db, notes.txt",
        "left out: 4 hidden or unfinished files (.name, .tmp), or links to nothing: .DS_Store, "
        ".git/, gone.jpg and 1 more",
    ]
    files = {info.uri for one in sources for info in one.files} | {one.uri for one in sources}
    found = {str(path) for path in everything.rglob("*") if path.is_file()}
    told = {str(everything / name) for one in contents.left_out for name in one.names}
    assert {path for path in found if path not in files | told} == {str(everything / ".git/config")}


def test_run_json_names_what_was_left_out(everything: Path) -> None:
    """Plain values, with the first twenty names of each reason."""
    for number in range(30):
        (everything / f"{number:02d}.log").touch()
    told = list_input(str(everything), Storage())[1].to_dict()
    others = next(one for one in told["left_out"] if one["reason"] == "other")
    assert (others["files"], len(others["names"])) == (32, 20)
    assert told["read"].startswith("1 TFRecord file, 2 folders of images")


def test_validate_names_the_same_files(everything: Path) -> None:
    """The label map that is used is not among them; in a data folder neither is a part's."""
    (everything / "label_map.pbtxt").write_text('item { id: 1 name: "car" }')
    lines = read_data_folder(str(everything), Storage()).to_text().splitlines()
    assert "2 folders of images" in lines[0] and lines[0].endswith("label_map.pbtxt")
    assert len(lines) == 8
    assert not any(" label_map.pbtxt" in line for line in lines[1:])


def test_a_data_folder_tells_of_its_parts_other_files(tmp_path: Path) -> None:
    """Labels beside the records of a part, and pictures in no part."""
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        write_drive(tmp_path / part / f"{part}.tfrecord", 1)
    (tmp_path / "train/a.json").touch()
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose/a.jpg").write_bytes(EVERY_KIND["a.jpg"])
    text = read_data_folder(str(tmp_path), Storage()).to_text()
    assert "left out, in no part: loose" in text
    assert text.endswith("`urbandet data import` makes records of labels: train/a.json")


def test_a_sound_folder_has_nothing_left_out(tmp_path: Path) -> None:
    """No line where there is nothing to say, and none for what a pattern does not name."""
    (tmp_path / "a.jpg").write_bytes(EVERY_KIND["a.jpg"])
    assert list_input(str(tmp_path), Storage())[1].to_lines() == []
    (tmp_path / "b.json").touch()
    (tmp_path / ".c").touch()
    assert list_input(f"{tmp_path}/*.jpg", Storage())[1].to_lines() == []


@pytest.mark.parametrize("count", [3, 20, 25])
def test_pictures_without_an_ending_are_found_by_content(tmp_path: Path, count: int) -> None:
    """All of them, also beyond the first twenty that are looked into."""
    for number in range(count):
        (tmp_path / f"frame{number}").write_bytes(EVERY_KIND["a.jpg"])
    (source,) = list_sources(str(tmp_path), Storage())
    assert len([*read_source(source, Storage())]) == count


def test_a_folder_of_labels_alone_names_the_import(tmp_path: Path) -> None:
    """Nothing to read frames from: the message lists the endings."""
    (tmp_path / "instances.json").write_text("{}")
    with pytest.raises(
        InputError, match=r"\(1 \.json\): expected .*; `urbandet data import` reads"
    ):
        list_sources(str(tmp_path), Storage())
