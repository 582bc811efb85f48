"""A stream over one S3 object that survives broken connections."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from urbandet_ray.errors import StorageError
from urbandet_ray.storage import s3_client
from urbandet_ray.storage.s3_client import Connection
from urbandet_ray.storage.s3_errors import translated
from urbandet_ray.uris import S3Location

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import WriteableBuffer

    Get = Callable[..., Any]


class S3Reader(io.RawIOBase):
    """Reads forward from an offset; on a break it re-opens there, same version or not at all."""

    def __init__(
        self, connection: Connection, at: S3Location, offset: int, expect_version: str | None
    ) -> None:
        self._connection, self._at = connection, at
        self._position, self._version = offset, expect_version
        self._end: int | None = None
        self._body: Any = None
        self._retry(self._open)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill some of the buffer; 0 at the end."""
        view = memoryview(buffer).cast("B")
        if self._end is not None and self._position >= self._end:
            return 0

        def read() -> bytes:
            if self._body is None:
                self._open()
            data: bytes = self._body.read(len(view))
            if not data and self._end is not None and self._position < self._end:
                raise ConnectionError("the body ended early")
            return data

        data = self._retry(read)
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        self._drop()
        super().close()

    def _retry(self, call: Callable[[], Any]) -> Any:
        policy = self._connection.policy
        with translated(self._connection, "s3:GetObject", self._at):
            for tries in range(policy.attempts):
                try:
                    return call()
                except Exception as error:
                    self._drop()
                    if tries + 1 == policy.attempts or not self._may_pass(error):
                        raise
                s3_client.pause(policy, tries)
        raise AssertionError("unreachable")

    def _may_pass(self, error: Exception) -> bool:
        from botocore.exceptions import ConnectTimeoutError, EndpointConnectionError

        unreachable = isinstance(error, (EndpointConnectionError, ConnectTimeoutError))
        midway = self._end is not None  # it did answer before: wait for it to come back
        return s3_client.is_passing(error) or (midway and unreachable)

    def _open(self) -> None:
        from botocore.exceptions import ClientError

        wanted: dict[str, str] = {}
        if self._version is not None:
            wanted["IfMatch"] = f'"{self._version}"'
        if self._position:
            wanted["Range"] = f"bytes={self._position}-"
        get: Get = self._connection.client.get_object
        try:
            answer = get(Bucket=self._at.bucket, Key=self._at.key, **wanted)
        except ClientError as error:
            if s3_client.http_status(error) == 416:  # nothing at or after the offset
                self._end, self._body = self._position, io.BytesIO()
                return
            if s3_client.http_status(error) == 412:
                raise StorageError(
                    f"{self._at.uri} changed while it was read (version {self._version} is gone): "
                    "start again from the listing"
                ) from error
            raise
        self._body = answer["Body"]
        self._version = s3_client.whole(answer, "ETag")["ETag"].strip('"')
        if self._position and not str(answer.get("ContentRange")).startswith(
            f"bytes {self._position}-"
        ):
            raise StorageError(
                f"{self._at.uri}: {self._connection.endpoint} does not honour the Range header: "
                "use a server that does, or copy the file to a local disk first"
            )
        if self._end is None:
            length = s3_client.whole(answer, "ContentLength")["ContentLength"]
            self._end = self._position + int(length)

    def _drop(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None
