"""Objects on S3, and on servers that speak its language."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from urbandet_ray.config import StorageConfig
from urbandet_ray.errors import AccessError, ConflictError, NotFoundError, StorageError
from urbandet_ray.storage.policy import FileInfo, RetryPolicy
from urbandet_ray.storage.s3_client import (
    Connection,
    connect,
    error_code,
    http_status,
    pause,
    retrying,
    whole,
)
from urbandet_ray.storage.s3_errors import session_error, translated
from urbandet_ray.storage.s3_reader import S3Reader
from urbandet_ray.uris import (
    S3Location,
    glob_regex,
    has_glob,
    hidden_part,
    is_hidden,
    split_glob,
)

T = TypeVar("T")

_READ_BUFFER_BYTES = 1 << 20
_PART_BYTES = 16 << 20
_WRITER_KEY = "urbandet-write"


class S3Files:
    """The operations of Storage on s3:// locations."""

    def __init__(self, options: StorageConfig, policy: RetryPolicy) -> None:
        self._options, self._policy = options, policy

    def list_files(self, at: S3Location, hidden: list[str] | None = None) -> Iterator[FileInfo]:
        """Objects below a prefix, the object itself, or the matches of a pattern."""
        matched = False
        if has_glob(at.key):
            for info in self._list_matches(at):
                matched = True
                yield info
        if not matched:  # keys may hold pattern characters themselves
            yield from self._list_below(at, hidden)

    def list_folder(self, at: S3Location) -> Iterator[FileInfo]:
        """Objects directly below a prefix."""
        below = f"{at.key.rstrip('/')}/" if at.key else ""
        for info in self._pages(S3Location(at.bucket, below), Delimiter="/"):
            if not is_hidden(info.uri[len(f"s3://{at.bucket}/{below}") :]):
                yield info

    def _list_matches(self, at: S3Location) -> Iterator[FileInfo]:
        base, pattern = split_glob(at.key)
        below = f"{base}/" if base else ""
        literal = next(i for i, sign in enumerate(pattern) if sign in "*?[")
        regex = glob_regex(pattern)
        for info in self._pages(S3Location(at.bucket, below + pattern[:literal])):
            relative = info.uri[len(f"s3://{at.bucket}/{below}") :]
            if regex.fullmatch(relative) and not is_hidden(relative):
                yield info

    def _list_below(self, at: S3Location, hidden: list[str] | None) -> Iterator[FileInfo]:
        if at.key and not at.key.endswith("/"):
            try:
                itself = self._head(at)
            except (NotFoundError, AccessError):  # a folder, perhaps; the listing says
                at = S3Location(at.bucket, at.key + "/")
            else:
                below = S3Location(at.bucket, at.key + "/")
                if not self._holds(below):
                    yield itself
                    return
                if itself.size_bytes:
                    raise StorageError(
                        f"{at.uri} is an object of {itself.size_bytes} bytes, and {below.uri} a "
                        f"folder: give {below.uri} for what is in the folder, or a pattern such "
                        f"as {at.uri[:-1]}[{at.uri[-1]}] for the object"
                    )
                at = below  # an empty object is how some programs mark a folder
        found = not at.key
        for info in self._pages(at):
            found = True
            relative = info.uri[len(at.uri) :]
            if is_hidden(relative):
                place = at.uri + hidden_part(relative)
                if hidden is not None and place not in hidden[-1:]:
                    hidden.append(place)
            elif relative and not relative.endswith("/"):
                yield info
        if not found:
            shape = "matches" if has_glob(at.key) else "is at or below"
            raise NotFoundError(
                f"no file {shape} {at.uri.rstrip('/')}: the bucket exists, check the key"
            )

    def _holds(self, folder: S3Location) -> bool:
        """Whether anything lies below a prefix."""
        try:
            return bool(self._page(folder, MaxKeys=1).get("Contents"))
        except AccessError:  # it may not be listed; the object may be read
            return False

    def _pages(self, prefix: S3Location, **wanted: str | int) -> Iterator[FileInfo]:
        page = self._page(prefix, **wanted)
        while True:
            for found in page.get("Contents", ()):
                uri = f"s3://{prefix.bucket}/{found['Key']}"
                yield FileInfo(uri, int(found["Size"]), found["ETag"].strip('"'))
            if not page.get("IsTruncated"):
                return
            page = self._page(prefix, ContinuationToken=page["NextContinuationToken"], **wanted)

    def _page(self, prefix: S3Location, **wanted: str | int) -> Any:
        return self._ask(
            "s3:ListBucket",
            prefix,
            lambda c: whole(
                c.client.list_objects_v2(Bucket=prefix.bucket, Prefix=prefix.key, **wanted),
                "IsTruncated",
            ),
        )

    def info(self, at: S3Location) -> FileInfo:
        """Size and version of an object."""
        _need_key(at)
        try:
            return self._head(at)
        except NotFoundError:  # HEAD has no body to tell a missing bucket from a missing key
            self._ask(
                "s3:ListBucket",
                S3Location(at.bucket, ""),
                lambda c: c.client.head_bucket(Bucket=at.bucket),
            )
            raise

    def _head(self, at: S3Location) -> FileInfo:
        answer = self._ask_head(at)
        return FileInfo(at.uri, int(answer["ContentLength"]), answer["ETag"].strip('"'))

    def _ask_head(self, at: S3Location) -> Any:
        def ask(connection: Connection) -> Any:
            answer = connection.client.head_object(Bucket=at.bucket, Key=at.key)
            return whole(whole(answer, "ETag"), "ContentLength")

        return self._ask("s3:GetObject", at, ask)

    def exists(self, at: S3Location) -> bool:
        """Whether the object is there."""
        _need_key(at)
        try:
            self._head(at)
        except NotFoundError:
            return False
        return True

    def open_read(self, at: S3Location, offset: int, expect_version: str | None) -> BinaryIO:
        """A buffered stream that survives broken connections."""
        _need_key(at)
        raw = S3Reader(self._connection(at), at, offset, expect_version)
        return cast(BinaryIO, io.BufferedReader(raw, _READ_BUFFER_BYTES))

    def write_bytes(
        self, at: S3Location, data: bytes, *, if_absent: bool, if_version: str | None
    ) -> str:
        """Put an object; see Storage.write_bytes."""
        _need_key(at)
        wanted: dict[str, Any] = {"Bucket": at.bucket, "Key": at.key, "Body": data}
        if not if_absent and if_version is None:
            answer = self._ask(
                "s3:PutObject", at, lambda c: whole(c.client.put_object(**wanted), "ETag")
            )
            return str(answer["ETag"]).strip('"')
        writer = uuid.uuid4().hex
        wanted["Metadata"] = {_WRITER_KEY: writer}
        wanted |= {"IfNoneMatch": "*"} if if_absent else {"IfMatch": f'"{if_version}"'}
        answer = self._ask("s3:PutObject", at, lambda c: _put_guarded(c, wanted))
        if answer is not None:
            return str(answer["ETag"]).strip('"')
        return self._lost_or_ours(at, writer, if_version)

    def _lost_or_ours(self, at: S3Location, writer: str, if_version: str | None) -> str:
        """A put whose answer got lost is sent again and then loses against itself."""
        found: Any = {}
        with suppress(NotFoundError, AccessError):  # else it is unknown who wrote
            found = self._ask_head(at)
        if found.get("Metadata", {}).get(_WRITER_KEY) == writer:
            return str(found["ETag"]).strip('"')
        if if_version is None:
            raise ConflictError(f"{at.uri} exists already: somebody else wrote it first")
        raise ConflictError(
            f"{at.uri} no longer has version {if_version}: somebody else wrote or deleted it"
        )

    def upload_file(self, local_path: Path, at: S3Location) -> None:
        """Put a file, in parts when it is large."""
        from boto3.s3.transfer import TransferConfig

        _need_key(at)
        parts = TransferConfig(
            multipart_threshold=2 * _PART_BYTES, multipart_chunksize=_PART_BYTES, max_concurrency=4
        )
        self._ask(
            "s3:PutObject",
            at,
            lambda c: c.client.upload_file(str(local_path), at.bucket, at.key, Config=parts),
        )

    def delete(self, at: S3Location) -> None:
        """Remove an object; S3 does not mind a missing one."""
        _need_key(at)
        self._ask(
            "s3:DeleteObject", at, lambda c: c.client.delete_object(Bucket=at.bucket, Key=at.key)
        )

    def _connection(self, at: S3Location) -> Connection:
        from botocore.exceptions import BotoCoreError

        try:
            return connect(self._options, self._policy)
        except (BotoCoreError, ValueError) as error:
            raise session_error(error, at) or StorageError(
                f"{at.uri}: the S3 client cannot be made: {error}"
            ) from error

    def _ask(self, action: str, at: S3Location, call: Callable[[Connection], T]) -> T:
        connection = self._connection(at)
        with translated(connection, action, at):
            return retrying(self._policy, lambda: call(connection))


def _put_guarded(connection: Connection, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """Put with a condition; None when the condition does not hold.

    409 means that another write was under way, and S3 asks to try once more
    (https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html).
    """
    from botocore.exceptions import ClientError

    put: Callable[..., dict[str, Any]] = connection.client.put_object
    for tries in range(2):
        try:
            return cast("dict[str, Any]", whole(put(**wanted), "ETag"))
        except ClientError as error:
            status, code = http_status(error), error_code(error)
            if status == 409 and tries == 0:
                pause(connection.policy, tries)
            elif status in (409, 412) or (code == "NoSuchKey" and "IfMatch" in wanted):
                return None
            else:
                raise
    raise AssertionError("unreachable")


def _need_key(at: S3Location) -> None:
    if not at.key or at.key.endswith("/"):
        raise StorageError(f"{at.uri} is a bucket or folder, expected a file: s3://bucket/key")
