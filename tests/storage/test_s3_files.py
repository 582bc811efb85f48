"""Storage on S3, against a real server over HTTP."""

import os
import pickle
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest

from urbandet_ray.config import StorageConfig
from urbandet_ray.errors import (
    AccessError,
    ArchivedError,
    ConflictError,
    NotFoundError,
    StorageError,
)
from urbandet_ray.storage import Storage

pytestmark = pytest.mark.s3


@pytest.fixture
def storage(s3_server) -> Storage:
    """Storage on the test server."""
    return Storage(s3_server.options)


@pytest.fixture
def bucket(s3_server) -> str:
    """URI of a fresh bucket."""
    return s3_server.make_bucket(f"b-{uuid.uuid4().hex[:12]}")


def _keys(storage: Storage, bucket: str, uri: str) -> list[str]:
    return [info.uri.removeprefix(bucket + "/") for info in storage.list_files(uri)]


def test_writes_and_reads_back(storage: Storage, bucket: str) -> None:
    """What was written is read, whole or from an offset, with its size and version."""
    uri = f"{bucket}/a b/ü+#?.bin"
    version = storage.write_bytes(uri, b"0123456789")
    assert storage.read_bytes(uri) == b"0123456789"
    with storage.open_read(uri, 7, version) as stream:
        assert stream.read(2) + stream.read() == b"789"
    for offset in (10, 99):
        assert storage.open_read(uri, offset).read() == b""
    info = storage.info(uri)
    assert (info.uri, info.size_bytes, info.version) == (uri, 10, version)
    storage.write_bytes(uri, b"")
    assert storage.read_bytes(uri) == b""
    storage.delete(uri)
    assert not storage.exists(uri)
    storage.delete(uri)


def test_endpoint_from_the_environment(
    s3_server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS_ENDPOINT_URL alone leads to another server."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint_url)
    Storage().write_bytes(f"{bucket}/a", b"x")
    assert Storage(s3_server.options).read_bytes(f"{bucket}/a") == b"x"


def test_lists_more_than_a_page(storage: Storage, bucket: str) -> None:
    """Beyond the keys of one answer (50 on the test server) all come, once and in order."""
    names = [f"many/{number:04d}" for number in range(120)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: storage.write_bytes(f"{bucket}/{name}", b""), names))
    storage.write_bytes(f"{bucket}/many-more", b"")
    assert _keys(storage, bucket, f"{bucket}/many") == names
    assert _keys(storage, bucket, f"{bucket}/many/00**") == names[:100]


def test_lists_like_a_local_folder(storage: Storage, bucket: str, tmp_path: Path) -> None:
    """The same files are listed the same on both sides, patterns and hidden files included."""
    for name in ["a/b", "a/c/d", "a.txt", "a0", ".x", "a/.git/y", "e.tmp", "s1/z.rec"]:
        storage.write_bytes(f"{bucket}/{name}", b"1")
        storage.write_bytes(str(tmp_path / name), b"1")
    for pattern in ["", "/a", "/a/", "/a.txt", "/*", "/**", "/a/**", "/s?/*.rec", "/**/d"]:
        local = [
            os.path.relpath(i.uri, tmp_path) for i in storage.list_files(f"{tmp_path}{pattern}")
        ]
        assert _keys(storage, bucket, bucket + pattern) == local != []


def test_lists_odd_keys(s3_server, storage: Storage, bucket: str) -> None:
    """Folder markers are no files; a key with pattern characters is found as it is."""
    storage.write_bytes(f"{bucket}/odd[1].rec", b"")
    client = boto3.client("s3", endpoint_url=s3_server.endpoint_url)
    client.put_object(Bucket=bucket[5:], Key="folder/")
    assert _keys(storage, bucket, f"{bucket}/odd[1].rec") == ["odd[1].rec"]
    assert _keys(storage, bucket, f"{bucket}/folder") == []
    assert not storage.exists(f"{bucket}/folde")


@pytest.mark.parametrize("ask", [Storage.list_files, Storage.info, Storage.read_bytes])
def test_missing_bucket_is_told_from_missing_file(
    storage: Storage, bucket: str, ask: Callable[[Storage, str], object]
) -> None:
    """A missing bucket comes with region and endpoint, a missing file with its URI."""
    with pytest.raises(
        NotFoundError,
        match=r"bucket 'no-such' does not exist \(region us-east-1, endpoint http://127.*check its",
    ):
        ask(storage, "s3://no-such/file")
    with pytest.raises(NotFoundError, match=rf"{bucket}/file"):
        ask(storage, f"{bucket}/file")


def test_patterns_without_a_match(storage: Storage, bucket: str) -> None:
    """The pattern is named."""
    with pytest.raises(NotFoundError, match=r"no file matches s3://b-.*/\*\.rec"):
        storage.list_files(f"{bucket}/*.rec")


@pytest.mark.parametrize("ask", [Storage.info, Storage.exists, Storage.open_read, Storage.delete])
def test_a_bucket_is_no_file(storage: Storage, ask: Callable[[Storage, str], object]) -> None:
    """Files need a key."""
    with pytest.raises(StorageError, match="is a bucket or folder, expected a file"):
        ask(storage, "s3://bucket")


def test_conditional_writes(storage: Storage, bucket: str) -> None:
    """if_absent and if_version hold, and a write that lost changes nothing."""
    uri = f"{bucket}/a"
    first = storage.write_bytes(uri, b"1", if_absent=True)
    with pytest.raises(ConflictError, match="a exists already: somebody else wrote it first"):
        storage.write_bytes(uri, b"2", if_absent=True)
    second = storage.write_bytes(uri, b"2", if_version=first)
    with pytest.raises(ConflictError, match=rf"no longer has version {first}"):
        storage.write_bytes(uri, b"3", if_version=first)
    assert storage.read_bytes(uri) == b"2"
    storage.delete(uri)
    with pytest.raises(ConflictError, match="somebody else wrote or deleted it"):
        storage.write_bytes(uri, b"3", if_version=second)
    assert not storage.exists(uri)


def test_changed_content_is_not_read(storage: Storage, bucket: str) -> None:
    """A reader that expects the listed version is told that it is gone."""
    uri = f"{bucket}/a"
    version = storage.write_bytes(uri, b"1")
    storage.write_bytes(uri, b"2")
    with pytest.raises(StorageError, match=rf"changed while it was read \(version {version}"):
        storage.open_read(uri, expect_version=version)


def test_copies_large_files(storage: Storage, bucket: str, tmp_path: Path) -> None:
    """A file above the multipart threshold goes up in parts and comes back the same."""
    source = tmp_path / "source.bin"
    source.write_bytes(os.urandom(1 << 20) * 33)
    storage.upload_file(source, f"{bucket}/x")
    assert storage.info(f"{bucket}/x").version.endswith("-3")
    storage.download_file(f"{bucket}/x", tmp_path / "down" / "y.bin")
    assert (tmp_path / "down" / "y.bin").read_bytes() == source.read_bytes()
    with pytest.raises(NotFoundError, match="bucket 'no-such' does not exist"):
        storage.upload_file(source, "s3://no-such/x")


def test_anonymous_reads_what_is_public(s3_server, storage: Storage, bucket: str) -> None:
    """Unsigned requests read a public file, and say that they are anonymous where refused."""
    anonymous = Storage(StorageConfig(endpoint_url=s3_server.endpoint_url, anonymous=True))
    for name in ("open", "closed"):
        storage.write_bytes(f"{bucket}/{name}", b"x")
    client = boto3.client("s3", endpoint_url=s3_server.endpoint_url)
    client.put_object_acl(Bucket=bucket[5:], Key="open", ACL="public-read")
    assert anonymous.read_bytes(f"{bucket}/open") == b"x"
    with pytest.raises(AccessError, match=r"key 'closed', with anonymous access. Missing perm"):
        anonymous.read_bytes(f"{bucket}/closed")


def test_works_pickled_and_in_threads(storage: Storage, bucket: str) -> None:
    """A used Storage travels to another process and serves many threads."""
    storage.write_bytes(f"{bucket}/a", b"x" * 100_000)
    other = pickle.loads(pickle.dumps(storage))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(other.read_bytes, [f"{bucket}/a"] * 32))
    assert answers == [b"x" * 100_000] * 32


def test_dots_in_keys_are_listed_and_read(storage: Storage, bucket: str) -> None:
    """Keys that a program joined without thinking: none is hidden, none becomes another."""
    keys = ["drives/../a.tfrecord", "drives/./b.tfrecord", "drives/.."]
    for key in keys:
        storage.write_bytes(f"{bucket}/{key}", key.encode())
    assert sorted(_keys(storage, bucket, f"{bucket}/drives")) == sorted(keys)
    for key in keys:
        assert storage.read_bytes(f"{bucket}/{key}") == key.encode()


def test_an_object_and_a_folder_of_one_name_are_told_apart(storage: Storage, bucket: str) -> None:
    """Neither hides the other; each has a spelling of its own."""
    storage.write_bytes(f"{bucket}/drives", b"index")
    storage.write_bytes(f"{bucket}/drives/one", b"x")
    with pytest.raises(StorageError, match=r"an object of 5 bytes, and s3://.*/drives/ a folder"):
        _keys(storage, bucket, f"{bucket}/drives")
    assert _keys(storage, bucket, f"{bucket}/drives/") == ["drives/one"]
    assert _keys(storage, bucket, f"{bucket}/drive[s]") == ["drives"]


def test_an_empty_object_marks_a_folder(storage: Storage, bucket: str) -> None:
    """Some programs leave one where they mean a folder."""
    storage.write_bytes(f"{bucket}/drives", b"")
    assert _keys(storage, bucket, f"{bucket}/drives") == ["drives"]
    storage.write_bytes(f"{bucket}/drives/one", b"x")
    assert _keys(storage, bucket, f"{bucket}/drives") == ["drives/one"]


@pytest.mark.parametrize("kept", ["GLACIER", "DEEP_ARCHIVE"])
def test_an_archived_object_says_how_it_is_restored(
    s3_server, storage: Storage, bucket: str, kept: str
) -> None:
    """It is there and listed, but S3 does not hand it out."""
    name = bucket.removeprefix("s3://")
    client = boto3.client("s3", endpoint_url=s3_server.endpoint_url)
    client.put_object(Bucket=name, Key="a b", Body=b"x", StorageClass=kept)
    assert _keys(storage, bucket, bucket) == ["a b"]
    advice = rf"is archived .*restore-object --bucket {name} --key 'a b' --restore-request Days=7"
    with pytest.raises(ArchivedError, match=advice):
        storage.read_bytes(f"{bucket}/a b")


def test_requester_pays_is_said_in_every_request(s3_server, bucket: str) -> None:
    """Signed, so that the bucket's owner may rely on it."""
    import botocore.awsrequest

    asked: list[dict[str, str]] = []
    paying = Storage(StorageConfig(endpoint_url=s3_server.endpoint_url, requester_pays=True))
    with pytest.MonkeyPatch.context() as patch:
        prepare = botocore.awsrequest.AWSRequest.prepare

        def kept(request: botocore.awsrequest.AWSRequest) -> object:
            if "Authorization" in request.headers:
                asked.append(dict(request.headers))
            return prepare(request)

        patch.setattr(botocore.awsrequest.AWSRequest, "prepare", kept)
        paying.write_bytes(f"{bucket}/a", b"x")
        assert paying.read_bytes(f"{bucket}/a") == b"x"
        assert [info.size_bytes for info in paying.list_files(bucket)] == [1]
    assert len(asked) >= 3
    for headers in asked:
        assert headers["x-amz-request-payer"] == "requester"
        assert b"x-amz-request-payer" in _as_bytes(headers["Authorization"])


def _as_bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()
