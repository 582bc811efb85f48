"""Storage on a local disk."""

import errno
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from urbandet_ray.errors import AccessError, ConflictError, NotFoundError, StorageError
from urbandet_ray.storage import FileInfo, Storage, join_uri
from urbandet_ray.storage import local as local_module

storage = Storage()


def _fill(folder: Path, *names: str) -> None:
    for name in names:
        storage.write_bytes(str(folder / name), name.encode())


def _names(folder: Path, uri: str) -> list[str]:
    return [os.path.relpath(info.uri, folder) for info in storage.list_files(uri)]


def test_writes_and_reads_back(tmp_path: Path) -> None:
    """What was written is read, whole or from an offset, and folders are made."""
    uri = str(tmp_path / "new" / "folder" / "a.bin")
    version = storage.write_bytes(uri, b"0123456789")
    assert storage.read_bytes(uri) == b"0123456789"
    with storage.open_read(uri, offset=7, expect_version=version) as stream:
        assert stream.read(2) + stream.read() == b"789"
    assert storage.open_read(uri, offset=99).read() == b""
    assert storage.info(f"file://{uri}") == FileInfo(uri, 10, version)
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["a.bin"]


def test_a_folder_s_own_files_are_listed(tmp_path: Path) -> None:
    """Not those below; none where there is no folder."""
    _fill(tmp_path, "a", "b/c", ".hidden")
    assert [info.uri for info in storage.list_folder(str(tmp_path))] == [str(tmp_path / "a")]
    assert list(storage.list_folder(str(tmp_path / "nowhere"))) == []


def test_negative_offset_is_refused(tmp_path: Path) -> None:
    """An offset before the start is a mistake of the caller."""
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        storage.open_read(str(tmp_path / "x"), -1)


def test_lists_in_the_order_of_whole_paths(tmp_path: Path) -> None:
    """The order is that of S3: "a.txt" before "a/b" before "a0"."""
    names = ["a/b", "a/c/d", "a.txt", "a0", "A", "ä"]
    _fill(tmp_path, *names)
    assert _names(tmp_path, str(tmp_path)) == sorted(names, key=str.encode)


def test_listing_passes_over_hidden_and_unfinished_files(tmp_path: Path) -> None:
    """Files a person or a crash left behind are no input."""
    _fill(tmp_path, "a", ".hidden", ".git/x", "b.tmp")
    assert _names(tmp_path, str(tmp_path)) == ["a"]


def test_listing_a_file_yields_it_and_an_empty_folder_nothing(tmp_path: Path) -> None:
    """A single file is a listing of one; an existing empty folder is no error."""
    _fill(tmp_path, "a.tfrecord")
    assert _names(tmp_path, str(tmp_path / "a.tfrecord")) == ["a.tfrecord"]
    (tmp_path / "empty").mkdir()
    assert _names(tmp_path, str(tmp_path / "empty")) == []


def test_listing_matches_patterns(tmp_path: Path) -> None:
    """Patterns work in folders and names, ** across folders; a name with [ ] is found as it is."""
    _fill(tmp_path, "s1/a.rec", "s2/b.rec", "s2/deep/c.rec", "s3/d.txt", "odd[1].rec")
    assert _names(tmp_path, f"{tmp_path}/s?/*.rec") == ["s1/a.rec", "s2/b.rec"]
    assert _names(tmp_path, f"{tmp_path}/s2/**") == ["s2/b.rec", "s2/deep/c.rec"]
    assert _names(tmp_path, f"{tmp_path}/**/*.txt") == ["s3/d.txt"]
    assert _names(tmp_path, f"{tmp_path}/odd[1].rec") == ["odd[1].rec"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("nope", r"nope does not exist"), ("*.rec", r"no file matches .*\*\.rec: check the pattern")],
)
def test_listing_nothing_says_what_was_looked_for(tmp_path: Path, name: str, message: str) -> None:
    """A missing folder and a pattern without a match fail at once, naming the place."""
    with pytest.raises(NotFoundError, match=message):
        storage.list_files(str(tmp_path / name))


def test_missing_files(tmp_path: Path) -> None:
    """Reading a missing file names it; asking and deleting do not mind."""
    uri = str(tmp_path / "no" / "file")
    for ask in (storage.info, storage.read_bytes):
        with pytest.raises(NotFoundError, match=r"no/file does not exist \(tried to"):
            ask(uri)
    assert not storage.exists(uri)
    storage.delete(uri)
    with pytest.raises(NotFoundError, match="does not exist or is no file"):
        storage.upload_file(tmp_path / "none", uri)


def test_folders_are_not_files(tmp_path: Path) -> None:
    """A folder has no content, and a file has nothing below it."""
    for ask in (storage.info, storage.read_bytes):
        with pytest.raises(StorageError, match="is a folder, expected a file"):
            ask(str(tmp_path))
    assert not storage.exists(str(tmp_path))
    _fill(tmp_path, "plain")
    with pytest.raises(StorageError, match="plain"):
        storage.write_bytes(str(tmp_path / "plain" / "below"), b"")


def test_every_write_has_a_new_version(tmp_path: Path) -> None:
    """Versions differ even for writes faster than the clock of the file system ticks."""
    uri = str(tmp_path / "a")
    versions = [storage.write_bytes(uri, b"same") for _ in range(50)]
    assert len(set(versions)) == 50
    assert storage.info(uri).version == versions[-1]


def test_changed_content_is_not_read(tmp_path: Path) -> None:
    """A reader that expects the listed version is told that it is gone."""
    uri = str(tmp_path / "a")
    version = storage.write_bytes(uri, b"1")
    storage.write_bytes(uri, b"2")
    with pytest.raises(StorageError, match=rf"a changed since it was listed \(version {version}"):
        storage.open_read(uri, expect_version=version)


def test_conditional_writes(tmp_path: Path) -> None:
    """if_absent and if_version hold, and a write that lost leaves everything as it was."""
    uri = str(tmp_path / "a")
    first = storage.write_bytes(uri, b"1", if_absent=True)
    with pytest.raises(ConflictError, match="a exists already: somebody else wrote it first"):
        storage.write_bytes(uri, b"2", if_absent=True)
    second = storage.write_bytes(uri, b"2", if_version=first)
    with pytest.raises(ConflictError, match=f"has version {second}, expected version {first}"):
        storage.write_bytes(uri, b"3", if_version=first)
    assert storage.read_bytes(uri) == b"2"
    storage.delete(uri)
    with pytest.raises(ConflictError, match="was deleted, expected version"):
        storage.write_bytes(uri, b"3", if_version=second)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="exclude each other"):
        storage.write_bytes(uri, b"", if_absent=True, if_version="1")


def test_one_of_many_conditional_writers_wins(tmp_path: Path) -> None:
    """At once from eight threads: one creates the file, one replaces that version."""
    uri, gate = str(tmp_path / "a"), threading.Barrier(8)

    def attempt(number: int, version: str | None) -> str | None:
        gate.wait()
        try:
            return storage.write_bytes(
                uri, str(number).encode(), if_absent=version is None, if_version=version
            )
        except ConflictError:
            return None

    version: str | None = None
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            won = [v for v in pool.map(attempt, range(8), [version] * 8) if v is not None]
            assert len(won) == 1
            version = won[0]


def test_a_failed_write_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is told, the old file stays and no partial file is left."""
    uri = str(tmp_path / "a")
    storage.write_bytes(uri, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(local_module.os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device: free some space"):
        storage.write_bytes(uri, b"new")
    assert storage.read_bytes(uri) == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_no_permission_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file the user may not open names the action, the path and the user id."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # tests may run as root, who may open everything
    with pytest.raises(AccessError, match=rf"not allowed to read .*secret: user id {os.geteuid()}"):
        storage.read_bytes(str(tmp_path / "secret"))


def test_copies_files_whole(tmp_path: Path) -> None:
    """upload_file and download_file copy any size, and make the folders."""
    source = tmp_path / "source.bin"
    source.write_bytes(os.urandom(3_000_000))
    storage.upload_file(source, join_uri(str(tmp_path), "up", "x.bin"))
    storage.download_file(str(tmp_path / "up" / "x.bin"), tmp_path / "down" / "y.bin")
    assert (tmp_path / "down" / "y.bin").read_bytes() == source.read_bytes()


def test_storage_can_be_pickled(tmp_path: Path) -> None:
    """It travels to other processes."""
    uri = str(tmp_path / "a")
    pickle.loads(pickle.dumps(storage)).write_bytes(uri, b"x")
    assert storage.read_bytes(uri) == b"x"
