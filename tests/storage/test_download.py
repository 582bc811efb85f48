"""One file from the web, from S3 or from a folder: whole, or to be gone on with."""

import json
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from web import RunningServer, WebServer

from urbandet_ray.errors import AccessError, NotFoundError, StorageError
from urbandet_ray.storage import Storage
from urbandet_ray.storage.download import download

DATA = bytes(range(256)) * 12_000  # 3 MB: several pieces


@pytest.fixture
def web() -> Iterator[WebServer]:
    """A server that has /a.bin."""
    with RunningServer() as server:
        server.files["/a.bin"] = DATA
        yield server


def fetch(uri: str, path: Path, storage: Storage | None = None) -> list[tuple[int, int | None]]:
    """Download and give back what progress was told."""
    told: list[tuple[int, int | None]] = []
    download(uri, path, storage or Storage(), lambda done, total: told.append((done, total)))
    return told


def test_brings_the_whole_file_and_leaves_nothing_else(web: WebServer, tmp_path: Path) -> None:
    """In a folder made for it; progress grows to the file's size."""
    told = fetch(f"{web.url}/a.bin", tmp_path / "new" / "a")
    assert (tmp_path / "new" / "a").read_bytes() == DATA
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a"]
    assert told == sorted(told)
    assert told[-1] == (len(DATA), len(DATA))
    assert len(told) > 1


def test_a_broken_download_goes_on_where_it_broke(web: WebServer, tmp_path: Path) -> None:
    """The file is not there before it is whole; the second request asks for the rest only."""
    web.break_after = 1_000_000
    with pytest.raises(StorageError, match=r"broke off.*run it again to go on"):
        fetch(f"{web.url}/a.bin", tmp_path / "a")
    assert not (tmp_path / "a").exists()
    kept = (tmp_path / "a.part").stat().st_size
    assert 0 < kept <= 1_000_000
    fetch(f"{web.url}/a.bin", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == DATA
    assert web.asked == [("/a.bin", None), ("/a.bin", f"bytes={kept}-")]


def test_a_file_changed_meanwhile_starts_over(web: WebServer, tmp_path: Path) -> None:
    """No mixture of two versions."""
    web.break_after = 1_000_000
    with pytest.raises(StorageError, match="broke off"):
        fetch(f"{web.url}/a.bin", tmp_path / "a")
    web.files["/a.bin"] = DATA[::-1]
    fetch(f"{web.url}/a.bin", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == DATA[::-1]


def test_a_server_without_ranges_starts_over(web: WebServer, tmp_path: Path) -> None:
    """It answers 200 with the whole file."""
    web.break_after, web.ranges = 1_000_000, False
    with pytest.raises(StorageError, match="broke off"):
        fetch(f"{web.url}/a.bin", tmp_path / "a")
    fetch(f"{web.url}/a.bin", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == DATA


def test_a_part_that_is_complete_already(web: WebServer, tmp_path: Path) -> None:
    """Killed between the last byte and the renaming: the server answers 416, and it still works."""
    web.break_after = len(DATA) - 1
    with pytest.raises(StorageError, match="broke off"):
        fetch(f"{web.url}/a.bin", tmp_path / "a")
    (tmp_path / "a.part").write_bytes(DATA)
    fetch(f"{web.url}/a.bin", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == DATA


def test_a_part_of_another_address_is_not_used(web: WebServer, tmp_path: Path) -> None:
    """Nor one whose note is unreadable."""
    web.files["/b.bin"] = b"short"
    web.break_after = 1_000_000
    with pytest.raises(StorageError, match="broke off"):
        fetch(f"{web.url}/a.bin", tmp_path / "a")
    fetch(f"{web.url}/b.bin", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"short"
    (tmp_path / "a.part").write_bytes(b"junk")
    (tmp_path / "a.part.json").write_text("{")
    fetch(f"{web.url}/a.bin", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == DATA


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (404, NotFoundError, "answers 404 Not Found: check the address"),
        (410, NotFoundError, "answers 410"),
        (403, AccessError, "answers 403 Forbidden: it wants credentials"),
        (503, StorageError, "answers 503 Service Unavailable: try again later"),
    ],
)
def test_answers_that_are_errors(
    web: WebServer, tmp_path: Path, code: int, kind: type[Exception], message: str
) -> None:
    """Each named, with the address."""
    web.status["/a.bin"] = code
    with pytest.raises(kind, match=message) as caught:
        fetch(f"{web.url}/a.bin", tmp_path / "a")
    assert f"{web.url}/a.bin" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_nobody_there(tmp_path: Path) -> None:
    """A refused connection and a name that does not resolve."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/a.bin"
    with pytest.raises(StorageError, match=f"cannot reach {url}: .*refused"):
        fetch(url, tmp_path / "a")
    with pytest.raises(StorageError, match=r"cannot reach http://no-such-host\.invalid/a"):
        fetch("http://no-such-host.invalid/a", tmp_path / "a")


def test_a_local_file(tmp_path: Path) -> None:
    """Copied; a missing one is named."""
    (tmp_path / "from").write_bytes(DATA)
    assert fetch(str(tmp_path / "from"), tmp_path / "to")[-1] == (len(DATA), len(DATA))
    assert (tmp_path / "to").read_bytes() == DATA
    with pytest.raises(NotFoundError, match=r"nowhere does not exist"):
        fetch(str(tmp_path / "nowhere"), tmp_path / "to2")


@pytest.mark.s3
def test_from_s3_and_on_from_a_part(s3_server, tmp_path: Path) -> None:
    """The rest is added to what came before, as long as the version is the same."""
    storage = Storage(s3_server.options)
    uri = f"{s3_server.make_bucket(f'b-{uuid.uuid4().hex[:12]}')}/a.bin"
    version = storage.write_bytes(uri, DATA)
    (tmp_path / "a.part").write_bytes(DATA[:1_000_000])
    (tmp_path / "a.part.json").write_text(json.dumps({"uri": uri, "version": version}))
    told = fetch(uri, tmp_path / "a", storage)
    assert (tmp_path / "a").read_bytes() == DATA
    assert told[-1] == (len(DATA), len(DATA))
    assert told[0][0] > 1_000_000
