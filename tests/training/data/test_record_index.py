"""Which records a worker gets, what is left out, and that each is read back as it was written."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import S3Server
from hypothesis import given, settings
from hypothesis import strategies as st
from painted import grey_example, write_records

from urbandet_ray.errors import InputError, RunError, StorageError
from urbandet_ray.frames import Frame, Truth
from urbandet_ray.labels import LabelMap
from urbandet_ray.records.example import example_from_frame, frame_from_example
from urbandet_ray.records.images import encode_png
from urbandet_ray.records.sources import list_sources
from urbandet_ray.storage import Storage
from urbandet_ray.training.data import record_scan
from urbandet_ray.training.data.record_index import RecordIndex, build_index, share_of_worker
from urbandet_ray.training.data.record_scan import Checks

EXAMPLES = [grey_example(level, [1 + level % 3]) for level in range(20)]


def index_of(folder: Path, rank: int = 0, world: int = 1, **options: object) -> RecordIndex:
    """A worker's index of a folder `records`, with its cache beside it."""
    storage = Storage()
    slices = share_of_worker(list_sources(str(folder / "records"), storage), rank, world)
    return build_index(slices, storage, folder / "cache", **options)  # type: ignore[arg-type]


def places(index: RecordIndex) -> list[tuple[str, int]]:
    """File and position of each record."""
    numbers = index.record_numbers.tolist()
    files = [index.sources[i].uri for i in index.file_ids.tolist()]
    return list(zip(files, numbers, strict=True))


def write_files(folder: Path, counts: Sequence[int]) -> list[Path]:
    """Files of so many records each."""
    paths = []
    for number, count in enumerate(counts):
        path = folder / "records" / f"drive-{number}.tfrecord"
        paths.append(write_records(path, EXAMPLES[:count]))
    return paths


@settings(max_examples=30)
@given(
    counts=st.lists(st.integers(0, 6), min_size=1, max_size=4).filter(any),
    world=st.integers(1, 9),
)
def test_shares_of_all_workers_are_every_record_once(counts: list[int], world: int) -> None:
    """However many files and workers: no record twice, none forgotten."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write_files(folder, counts)
        found = [place for rank in range(world) for place in places(index_of(folder, rank, world))]
        expected = [
            (str(path), n) for path, count in zip(files, counts, strict=True) for n in range(count)
        ]
        assert sorted(found) == sorted(expected)


@settings(max_examples=40)
@given(
    world=st.integers(2, 6),
    damage=st.lists(
        st.tuples(st.floats(0, 0.999), st.sampled_from(["flip", "cut", "insert"])),
        min_size=1,
        max_size=3,
    ),
)
def test_damage_does_not_make_shares_overlap(world: int, damage: list[tuple[float, str]]) -> None:
    """Several workers find in a damaged file exactly what one finds, good and bad."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        [path] = write_files(folder, [12])
        data = bytearray(path.read_bytes())
        for share, kind in damage:
            at = int(share * len(data))
            if kind == "flip":
                data[at] ^= 0x55
            elif kind == "cut":
                del data[at : at + 20]
            else:
                data[at:at] = b"noise"
        path.write_bytes(bytes(data))
        alone = index_of(folder)
        together = [index_of(folder, rank, world) for rank in range(world)]
        assert [place for one in together for place in places(one)] == places(alone)
        assert [bad for one in together for bad in one.bad] == list(alone.bad)


def test_a_record_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    """Also from the middle of a file that begins in another worker's share."""
    write_files(tmp_path, [9, 4])
    for rank in range(3):
        index = index_of(tmp_path, rank, 3)
        for i, number in enumerate(index.record_numbers.tolist()):
            assert index.read(i) == EXAMPLES[number]


def test_more_files_than_are_kept_open_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are closed behind the ones read last."""
    monkeypatch.setattr("urbandet_ray.training.data.record_index._OPEN_FILES", 2)
    write_files(tmp_path, [1] * 5)
    index = index_of(tmp_path)
    open_before = sum(1 for _ in Path("/proc/self/fd").iterdir())
    for i in [*range(5), *range(5)]:
        assert index.read(i) == EXAMPLES[0]
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) <= open_before + 2


def test_a_packed_file_belongs_to_the_worker_with_its_first_byte(tmp_path: Path) -> None:
    """It cannot be entered midway."""
    write_records(tmp_path / "records/drive.tfrecord.gz", EXAMPLES[:5], compress=True)
    sizes = [len(index_of(tmp_path, rank, 3)) for rank in range(3)]
    assert sizes == [5, 0, 0]
    assert index_of(tmp_path).read(3) == EXAMPLES[3]


def test_a_broken_packed_file_gives_what_comes_before_the_damage(tmp_path: Path) -> None:
    """The rest is one bad record, on a restart too."""
    path = write_records(tmp_path / "records/drive.tfrecord.gz", EXAMPLES, compress=True)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    for _ in range(2):
        index = index_of(tmp_path)
        assert 0 < len(index) < 20
        assert "bad-gzip" in [bad.reason for bad in index.bad]


@pytest.mark.s3
def test_remote_files_are_brought_to_the_cache_once(tmp_path: Path, s3_server: S3Server) -> None:
    """A second index reads the local copies."""
    bucket = s3_server.make_bucket("train-index")
    storage = Storage(s3_server.options)
    [path] = write_files(tmp_path, [6])
    storage.upload_file(path, f"{bucket}/records/drive.tfrecord")
    for _ in range(2):
        slices = share_of_worker(list_sources(f"{bucket}/records", storage), 0, 1)
        index = build_index(slices, storage, tmp_path / "cache")
        assert [index.read(i) for i in range(6)] == EXAMPLES[:6]
        [copy] = (tmp_path / "cache").glob("*.tfrecord")
        copy.touch()
        stamp = copy.stat().st_mtime_ns
    assert copy.stat().st_mtime_ns == stamp


def test_records_without_labels_are_kept(tmp_path: Path) -> None:
    """They are negatives, with no class present."""
    records = [grey_example(1, None), grey_example(2, []), grey_example(3, [2, 2, 1])]
    write_records(tmp_path / "records/drive.tfrecord", records)
    index = index_of(tmp_path, num_classes=3)
    assert index.class_presence.astype(int).tolist() == [[0, 0, 0, 0], [0] * 4, [0, 1, 1, 0]]


@pytest.mark.parametrize(
    ("class_id", "message"),
    [
        (4, r"drive.tfrecord record 1 has a box of class id 4; .* 1 to 3: set num_classes to 4"),
        (0, r"record 1 has a box of class id 0; .* there is no label map, and no class.label"),
    ],
)
def test_an_unknown_class_id_is_refused(tmp_path: Path, class_id: int, message: str) -> None:
    """It would be one-hot to nothing, and train the wrong thing in silence."""
    records = [grey_example(1), grey_example(2, [1, class_id])]
    write_records(tmp_path / "records/drive.tfrecord", records)
    with pytest.raises(InputError, match=message):
        index_of(tmp_path, num_classes=3)


@pytest.mark.parametrize(("labels", "kept"), [({1: "car"}, [1]), ({1: "car", 3: "bus"}, [1, 3])])
def test_boxes_of_other_classes_are_left_out_and_counted(
    tmp_path: Path, labels: dict[int, str], kept: list[int]
) -> None:
    """A label map of some of the classes is enough to train on."""
    boxes = [1, 3, 0, 2, 7]
    write_records(tmp_path / "records/a.tfrecord", [grey_example(1, boxes), grey_example(2, [2])])
    checks = Checks(labels=LabelMap(labels))
    for _ in range(2):  # the second time from what the first one found
        index = index_of(tmp_path, num_classes=3, checks=checks)
        frames = [frame_from_example(index.read(at), default_key="", segment="") for at in (0, 1)]
        truths = [one.truth for one in frames if one.truth is not None]
        assert [one.class_ids.tolist() for one in truths] == [kept, []]
        assert (index.foreign, index.boxes.tolist()) == (6 - len(kept), [len(kept), 0])


def _with_damaged_image() -> bytes:
    picture = encode_png(np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8))
    damaged = picture[:200] + bytes(30) + picture[230:]
    return example_from_frame(Frame("frame", "drive", damaged, "png", (32, 24), Truth.empty()))


def _with_columns_apart() -> bytes:
    from urbandet_ray.records.example_proto import example_class

    example = example_class()()
    example.ParseFromString(grey_example(9, [1, 1]))
    example.features.feature["image/object/class/label"].int64_list.value.append(1)
    return bytes(example.SerializeToString())


def _with_a_small_mask() -> bytes:
    truth = Truth.of([[1, 1, 9, 9]], [1], masks_png=(encode_png(np.ones((5, 5), np.uint8)),))
    picture = encode_png(np.zeros((24, 32, 3), np.uint8))
    return example_from_frame(Frame("frame", "drive", picture, "png", (32, 24), truth))


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"no example", "not-an-example"),
        (_with_damaged_image(), "undecodable-image"),
        (_with_columns_apart(), "bad-labels"),
        (_with_a_small_mask(), "bad-mask"),
    ],
)
def test_a_record_that_would_stop_the_run_later_is_left_out(
    tmp_path: Path, record: bytes, reason: str
) -> None:
    """And it is listed with its place and the reason."""
    write_records(tmp_path / "records/drive.tfrecord", [EXAMPLES[0], record, EXAMPLES[1]])
    index = index_of(tmp_path, checks=Checks(masks=True))
    assert index.record_numbers.tolist() == [0, 2]
    assert [(bad.index, bad.reason) for bad in index.bad] == [(1, reason)]


def test_too_many_bad_records_end_the_run(tmp_path: Path) -> None:
    """The message shows the first of them."""
    write_records(tmp_path / "records/drive.tfrecord", [b"no", b"example", EXAMPLES[0]])
    with pytest.raises(
        RunError, match=r"2 records cannot be trained on, at most 1 .* record 0: not-an-example"
    ):
        index_of(tmp_path, max_bad_records=1)


def test_a_restart_does_not_read_the_records_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was found is kept by the file's version."""
    write_records(tmp_path / "records/drive.tfrecord", [*EXAMPLES[:3], b"no example"])
    first = index_of(tmp_path)
    monkeypatch.setattr(record_scan, "check_record", None)
    again = index_of(tmp_path)
    assert places(again) == places(first)
    assert again.bad == first.bad
    assert (again.class_presence == first.class_presence).all()


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    """Its version is another."""
    [path] = write_files(tmp_path, [3])
    index_of(tmp_path)
    write_records(path, EXAMPLES[:7])
    assert len(index_of(tmp_path)) == 7


def test_a_file_cut_short_after_indexing_is_told(tmp_path: Path) -> None:
    """Half a record never reaches the decoder."""
    [path] = write_files(tmp_path, [3])
    index = index_of(tmp_path)
    os.truncate(path, path.stat().st_size - 40)
    with pytest.raises(StorageError, match="ends within record 2: it changed since the run began"):
        index.read(2)


def test_images_without_labels_are_refused(tmp_path: Path) -> None:
    """A folder of pictures has nothing to learn from."""
    (tmp_path / "records").mkdir()
    (tmp_path / "records/a.png").write_bytes(encode_png(np.zeros((4, 4, 3), np.uint8)))
    with pytest.raises(InputError, match="of kind images, which carries no labels"):
        index_of(tmp_path)
