"""What is found at a URI, in which order and under which names; and reading it."""

import os
from pathlib import Path

import av
import numpy as np
import pytest

from urbandet_ray.errors import InputError, NotFoundError, StorageError
from urbandet_ray.frames import Frame, Truth
from urbandet_ray.records import readers
from urbandet_ray.records.images import decode_frame, encode_jpeg, encode_png
from urbandet_ray.records.source import Record
from urbandet_ray.records.sources import Source, list_sources, natural_key, read_source
from urbandet_ray.records.writer import write_frames
from urbandet_ray.storage import Storage

STORAGE = Storage()
JPEG = encode_jpeg(np.full((24, 32, 3), 90, np.uint8))


def frames(n: int) -> list[Frame]:
    truth = Truth.of([[1, 2, 10, 12]], [1], ("vehicle",))
    return [Frame(f"frame_{i:03d}", "s", JPEG, "jpeg", (32, 24), truth) for i in range(n)]


def put(path: Path, data: bytes = JPEG) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def make_video(path: Path, count: int = 12) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(count):
            image = np.full((48, 64, 3), i * 20 % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def named(uri: Path | str) -> list[tuple[str, str]]:
    return [(source.kind, source.name) for source in list_sources(str(uri), STORAGE)]


def read_all(uri: Path) -> list[Record]:
    return [
        record
        for source in list_sources(str(uri), STORAGE)
        for record in read_source(source, STORAGE)
    ]


def test_a_folder_of_everything(tmp_path: Path) -> None:
    """TFRecords, image folders and videos in natural order, named from their relative paths."""
    write_frames(frames(1), tmp_path / "segment-10.tfrecord")
    write_frames(frames(1), tmp_path / "segment-9.tfrecord")
    write_frames(frames(1), tmp_path / "old" / "coco_val.record-00000-of-00002")
    for i in (1, 10, 2):
        put(tmp_path / "clip_a" / "front" / f"frame_{i}.jpg")
    make_video(tmp_path / "drive.mp4", 2)
    put(tmp_path / "label_map.pbtxt", b"item {}")
    put(tmp_path / "tfrecord_notes.txt", b"text")
    assert named(tmp_path) == [
        ("images", "clip_a--front"),
        ("video", "drive"),
        ("tfrecord", "old--coco_val.record-00000-of-00002"),
        ("tfrecord", "segment-9"),
        ("tfrecord", "segment-10"),
    ]


def test_images_come_in_natural_order(tmp_path: Path) -> None:
    """frame_2 before frame_10; index is the position, the key the name."""
    for i in (10, 2, 1):
        put(tmp_path / "clip" / f"frame_{i}.jpg")
    records = read_all(tmp_path / "clip")
    assert [r.frame.frame_key for r in records if r.frame] == ["frame_1", "frame_2", "frame_10"]
    assert [(r.index, r.offset, r.next_offset) for r in records] == [
        (0, 0, 1),
        (1, 1, 2),
        (2, 2, 3),
    ]
    assert {r.frame.segment for r in records if r.frame} == {"clip"}
    assert records[2].uri == str(tmp_path / "clip" / "frame_10.jpg")
    assert records[2].raw == JPEG


@pytest.mark.parametrize(
    ("low", "high"),
    [
        ("frame_2", "frame_10"),
        ("a/2/x", "a/10/x"),
        ("A1", "a2"),
        ("1", "01"),
        ("a", "a/b"),
        ("1", "x"),
    ],
)
def test_natural_order(low: str, high: str) -> None:
    """Numbers by value, folders before their content, capitals alike; never a tie."""
    assert sorted([high, low], key=natural_key) in ([low, high], ["01", "1"])
    assert natural_key(low) != natural_key(high)


def test_same_stems_get_their_suffix(tmp_path: Path) -> None:
    """frame_1.jpg and frame_1.png are two frames with two keys."""
    put(tmp_path / "frame_1.jpg")
    put(tmp_path / "frame_1.png", encode_png(np.zeros((4, 4, 3), np.uint8)))
    records = read_all(tmp_path)
    assert [(r.frame.frame_key, r.frame.format) for r in records if r.frame] == [
        ("frame_1.jpg", "jpeg"),
        ("frame_1.png", "png"),
    ]


def test_one_image_is_a_source(tmp_path: Path) -> None:
    """A single picture can be given too."""
    put(tmp_path / "photo.jpg")
    put(tmp_path / "other.jpg")
    assert named(tmp_path / "photo.jpg") == [("images", "photo")]
    assert len(read_all(tmp_path / "photo.jpg")) == 1


def test_names_stay_unique(tmp_path: Path) -> None:
    """Files that differ in suffix, capitals or folder separator get different names."""
    for name in ("a.tfrecord", "a.tfrecord.gz", "A.tfrecords", "b--c.tfrecord", "b/c.tfrecord"):
        write_frames(frames(1), tmp_path / name)
    names = [name for _, name in named(tmp_path)]
    assert len({name.casefold() for name in names}) == 5
    assert all(name.casefold().startswith(("a-", "b--c-")) for name in names)


def test_names_are_safe(tmp_path: Path) -> None:
    """No spaces or umlauts, not hidden, of bounded length; and no two alike."""
    for name in ("drive ö.tfrecord", "drive ü.tfrecord", "_x.tfrecord", "y" * 180 + ".tfrecord"):
        write_frames(frames(1), tmp_path / name)
    names = [name for _, name in named(tmp_path)]
    assert len(set(names)) == 4
    for name in names:
        assert len(name) < 140
        assert name[0].isalnum()
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-")


def test_names_do_not_depend_on_the_place(tmp_path: Path) -> None:
    """A copy of a folder elsewhere has the same names and segments."""
    for place in ("here", "there"):
        write_frames(frames(1), tmp_path / place / "val" / "s-1.tfrecord")
        put(tmp_path / place / "clip" / "1.jpg")
    here, there = (
        [(s.name, s.segment) for s in list_sources(str(tmp_path / place), STORAGE)]
        for place in ("here", "there")
    )
    assert here == there == [("clip", "clip"), ("val--s-1", "s-1")]


def test_the_segment_does_not_depend_on_the_listed_folder(tmp_path: Path) -> None:
    """Frames keep their keys whether their folder or its parent is read."""
    write_frames(frames(1), tmp_path / "data" / "val" / "s-1.tfrecord")
    for uri in (tmp_path, tmp_path / "data", tmp_path / "data" / "val" / "s-1.tfrecord"):
        (source,) = list_sources(str(uri), STORAGE)
        assert source.segment == "s-1"


def test_two_drives_of_one_name_are_two_segments(tmp_path: Path) -> None:
    """Where the last part is ambiguous, the whole path tells drives apart."""
    for folder in ("mon", "tue"):
        write_frames(frames(1), tmp_path / folder / "drive.tfrecord")
    assert [s.segment for s in list_sources(str(tmp_path), STORAGE)] == ["mon--drive", "tue--drive"]


def test_patterns(tmp_path: Path) -> None:
    """Names under a pattern count from the folder before its first wildcard."""
    for i in (1, 2, 10):
        write_frames(frames(1), tmp_path / "waymo" / f"seg-{i}.tfrecord")
    pattern = tmp_path / "waymo" / "seg-1*.tfrecord"
    assert named(pattern) == [("tfrecord", "seg-1"), ("tfrecord", "seg-10")]


def test_records_under_any_name(tmp_path: Path) -> None:
    """Where no name tells, the content does, gzip included."""
    write_frames(frames(2), tmp_path / "part-0.bin")
    write_frames(frames(2), tmp_path / "part-1", compress=True)
    put(tmp_path / "notes", b"nothing of use here")
    assert named(tmp_path) == [("tfrecord", "part-0.bin"), ("tfrecord", "part-1")]


def test_an_empty_tfrecord_file_has_no_records(tmp_path: Path) -> None:
    """It is listed and yields nothing."""
    put(tmp_path / "a.tfrecord", b"")
    assert read_all(tmp_path) == []


def test_an_empty_folder(tmp_path: Path) -> None:
    """Said as such, with what was expected."""
    with pytest.raises(InputError, match=r"is an empty folder: expected TFRecord files, folders"):
        list_sources(str(tmp_path), STORAGE)


def test_a_folder_of_other_files(tmp_path: Path) -> None:
    """The message counts what was found."""
    for name in ("a.config", "b.config", "README"):
        put(tmp_path / name, b"text")
    with pytest.raises(
        InputError, match=r"holds nothing frames can be read from \(2 \.config, 1 no suffix\): exp"
    ):
        list_sources(str(tmp_path), STORAGE)


@pytest.mark.parametrize("name", ["data.zip", "notes.txt", "empty"])
def test_another_file(tmp_path: Path, name: str) -> None:
    """A single file that is nothing to read from is refused."""
    put(tmp_path / name, b"" if name == "empty" else b"PK\x03\x04 something else")
    with pytest.raises(InputError, match=rf"{name} is not something frames can be read from"):
        list_sources(str(tmp_path / name), STORAGE)


def test_nothing_there(tmp_path: Path) -> None:
    """A missing folder is NotFoundError, not an empty list."""
    with pytest.raises(NotFoundError, match="does not exist"):
        list_sources(str(tmp_path / "missing"), STORAGE)


@pytest.mark.parametrize("compress", [False, True])
def test_reading_from_a_later_record(tmp_path: Path, compress: bool) -> None:
    """An offset of an earlier reading leads to the same record, in gzip files too."""
    path = tmp_path / "drive.tfrecord"
    write_frames(frames(5), path, compress=compress)
    (source,) = list_sources(str(path), STORAGE)
    whole = list(read_source(source, STORAGE))
    later = list(read_source(source, STORAGE, first_index=3, offset=whole[3].offset))
    assert [(r.index, r.offset, r.raw) for r in later] == [
        (r.index, r.offset, r.raw) for r in whole[3:]
    ]
    assert whole[2].next_offset == whole[3].offset


def test_bad_records_stand_between_good_ones(tmp_path: Path) -> None:
    """A record that is no Example keeps its index, offset, bytes and reason."""
    from urbandet_ray.records.example import example_from_frame
    from urbandet_ray.records.tfrecord import RecordWriter

    path = tmp_path / "drive.tfrecord"
    with path.open("wb") as file, RecordWriter(file) as writer:
        for data in (example_from_frame(frames(1)[0]), b"\xffnothing", b""):
            writer.write(data)
    good, bad, empty = read_all(path)
    assert good.frame is not None
    assert good.frame.truth is not None
    assert (bad.index, bad.frame, bad.raw, bad.uri) == (1, None, b"\xffnothing", str(path))
    assert bad.error is not None
    assert bad.error.reason == "not-an-example"
    assert empty.error is not None
    assert empty.error.reason == "not-an-example"


def test_frame_keys_from_the_segment_and_index(tmp_path: Path) -> None:
    """Records without a name of their own are numbered within their drive."""
    path = tmp_path / "drive.tfrecord"
    write_frames((Frame("drive", "s", JPEG, "jpeg") for _ in range(2)), path)
    keys = [r.frame.frame_key for r in read_all(path) if r.frame]
    assert keys == ["drive-000000", "drive-000001"]


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    """A TFRecord file that was replaced after it was listed is not read."""
    path = tmp_path / "drive.tfrecord"
    write_frames(frames(2), path)
    (source,) = list_sources(str(path), STORAGE)
    os.utime(path, ns=(1, 1))
    with pytest.raises(StorageError, match="changed since it was listed"):
        list(read_source(source, STORAGE))


def test_an_image_that_vanished_is_one_bad_record(tmp_path: Path) -> None:
    """unreadable-file for that one; the others are read."""
    for i in range(3):
        put(tmp_path / f"{i}.jpg")
    (source,) = list_sources(str(tmp_path), STORAGE)
    (tmp_path / "1.jpg").unlink()
    records = list(read_source(source, STORAGE))
    assert [r.error.reason if r.error else "" for r in records] == ["", "unreadable-file", ""]
    assert "does not exist" in str(records[1].error)


def test_an_absurdly_large_image_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """image-too-large by the listing, without opening it."""
    put(tmp_path / "1.jpg")
    monkeypatch.setattr(readers, "MAX_IMAGE_FILE_BYTES", 100)
    (record,) = read_all(tmp_path)
    assert record.error is not None
    assert str(record.error).endswith(f"1.jpg has {len(JPEG)} bytes; at most 100 are read")


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv", "mov"])
def test_videos(tmp_path: Path, suffix: str) -> None:
    """Frames in order, as raw RGB with their size; reading may begin midway."""
    path = tmp_path / f"drive.{suffix}"
    make_video(path)
    (source,) = list_sources(str(path), STORAGE)
    records = list(read_source(source, STORAGE))
    assert [r.index for r in records] == list(range(12))
    levels = [decode_frame(r.frame).mean() for r in records if r.frame]
    np.testing.assert_allclose(levels, np.arange(12) * 20, atol=6)
    first = records[0].frame
    assert first is not None
    assert (first.format, first.size_wh, first.frame_key) == ("raw", (64, 48), "drive-000000")
    later = list(read_source(source, STORAGE, first_index=9, offset=9))
    assert [(r.index, r.raw) for r in later] == [(r.index, r.raw) for r in records[9:]]


def test_a_broken_video_is_one_bad_record(tmp_path: Path) -> None:
    """bad-video names the file."""
    put(tmp_path / "drive.mp4", b"no video at all" * 50)
    (record,) = read_all(tmp_path)
    assert record.error is not None
    assert record.error.reason == "bad-video"
    assert "drive.mp4 cannot be decoded at frame 0" in record.error.detail


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    """One bad record that says so."""
    with av.open(str(tmp_path / "drive.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        sound.sample_rate = 44100
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    (record,) = read_all(tmp_path)
    assert record.error is not None
    assert str(record.error).endswith("drive.mp4 has no video stream")


def test_a_telephone_s_video_is_turned_upright(tmp_path: Path) -> None:
    """It is stored on its side, with the turn in its header (ISO/IEC 14496-12, tkhd's matrix)."""
    make_video(tmp_path / "lying.mp4", 2)
    data = (tmp_path / "lying.mp4").read_bytes()
    tkhd = data.index(b"tkhd")
    matrices = (
        np.array(one, ">i4").tobytes()
        for one in (
            [1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30],
            [0, 1 << 16, 0, -1 << 16, 0, 0, 48 << 16, 0, 1 << 30],
        )
    )
    turned = data[:tkhd] + data[tkhd:].replace(*matrices, 1)
    assert turned != data
    (tmp_path / "lying.mp4").write_bytes(turned)
    first = read_all(tmp_path)[0].frame
    assert first is not None
    assert first.size_wh == (48, 64)
    assert decode_frame(first).shape == (64, 48, 3)


def test_a_cut_video_ends_with_a_bad_record(tmp_path: Path) -> None:
    """Frames before the cut are read; then truncated-video or bad-video."""
    whole, cut = tmp_path / "whole.avi", tmp_path / "cut.avi"
    make_video(whole, 100)
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    records = read_all(cut)
    assert 20 < len(records) < 90
    assert all(r.frame for r in records[:-1])
    assert records[-1].error is not None
    assert records[-1].error.reason in ("truncated-video", "bad-video")


def test_writing_is_all_or_nothing(tmp_path: Path) -> None:
    """A frame that cannot be written leaves no file, and an older file as it was."""
    path = tmp_path / "out" / "drive.tfrecord"
    assert write_frames(frames(3), path) == 3
    before = path.read_bytes()
    with pytest.raises(InputError, match="raw-image"):
        write_frames([*frames(1), Frame("x", "s", b"", "raw")], path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["drive.tfrecord"]


def test_a_source_can_travel() -> None:
    """Sources are pickled into tasks."""
    import pickle

    source = Source("tfrecord", "s3://b/a.tfrecord", "a", "a", 5, "v")
    assert pickle.loads(pickle.dumps(source)) == source


@pytest.mark.realdata
def test_the_real_drives(realdata: Path) -> None:
    """50 segments, a drive of 100 pictures, 17 photos."""
    waymo = list_sources(str(realdata / "waymo"), STORAGE)
    assert [source.kind for source in waymo] == ["tfrecord"] * 50
    records = read_all(realdata / "video")
    assert [r.frame.frame_key for r in records if r.frame] == [f"frame_{i:03d}" for i in range(100)]
    assert len(read_all(realdata / "coco_street")) == 17


@pytest.mark.s3
def test_archived_files_are_bad_records_and_the_rest_is_read(s3_server, tmp_path: Path) -> None:
    """Each says how it is restored; a TFRecord file is one bad record, whatever it holds."""
    import boto3

    bucket = s3_server.make_bucket("archived")
    write_frames(frames(3), tmp_path / "b.tfrecord")
    (image,) = frames(1)
    archived = {"StorageClass": "DEEP_ARCHIVE"}
    client = boto3.client("s3", endpoint_url=s3_server.endpoint_url)
    for key, body, extra in (
        ("a.tfrecord", b"x" * 90, archived),
        ("b.tfrecord", (tmp_path / "b.tfrecord").read_bytes(), {}),
        ("c/1.jpg", image.encoded, {}),
        ("c/2.jpg", image.encoded, archived),
        ("d.mp4", b"x", archived),
    ):
        client.put_object(Bucket="archived", Key=key, Body=body, **extra)
    storage = Storage(s3_server.options)
    read = {
        source.name: list(read_source(source, storage)) for source in list_sources(bucket, storage)
    }
    assert {name: [bool(one.error) for one in records] for name, records in read.items()} == {
        "a": [True],
        "b": [False] * 3,
        "c": [False, True],
        "d": [True],
    }
    assert read["a"][0].next_offset == 90
    assert read["a"][0].error.reason == read["d"][0].error.reason == "archived-file"
    for bad in (read["a"][0], read["c"][1], read["d"][0]):
        assert "restore it first (aws s3api restore-object" in str(bad.error)
