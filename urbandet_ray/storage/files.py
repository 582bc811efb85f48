"""One door to files: the same calls for local paths and s3://, with the same promises."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from urbandet_ray.config import StorageConfig
from urbandet_ray.errors import NotFoundError
from urbandet_ray.storage import local
from urbandet_ray.storage.policy import FileInfo, RetryPolicy
from urbandet_ray.storage.s3 import S3Files
from urbandet_ray.uris import S3Location, is_remote, join_uri, parse_uri

__all__ = ["FileInfo", "RetryPolicy", "Storage", "is_remote", "join_uri"]

_DEFAULT, _INSIST = StorageConfig(), RetryPolicy()


class Storage:
    """Reads and writes files by URI: a local path (also ~ and file://) or s3://bucket/key.

    Cheap to make and to pickle: the S3 client is made on first use, once per process, and shared
    by its threads. Every method raises StorageError or one of its kinds: NotFoundError,
    AccessError, ConflictError.
    """

    def __init__(self, s3: StorageConfig = _DEFAULT, retries: RetryPolicy = _INSIST) -> None:
        self.s3 = s3
        self.retries = retries

    def __repr__(self) -> str:
        return f"Storage({self.s3})"

    def list_files(self, uri: str, hidden: list[str] | None = None) -> Iterator[FileInfo]:
        """All files below a folder or prefix, a single file, or the matches of a pattern.

        Recursive, in lexicographic order of the whole path, streamed page by page. Patterns:
        `*` and `?` and `[..]` within a folder, `**` across folders. Hidden files and unfinished
        `*.tmp` files are passed over unless named themselves. An existing folder may be empty.

        Args:
            uri: local or s3://.
            hidden: gets what is passed over below a folder: files, folders (with "/" at the end)
                and links to nothing. Complete once all files are read.

        Raises:
            NotFoundError: at once (not on first use), when nothing is there or nothing matches.
        """
        at = parse_uri(uri)
        files = (
            local.list_files(at, hidden)
            if isinstance(at, Path)
            else self._remote.list_files(at, hidden)
        )
        first = next(files, None)
        return iter(()) if first is None else itertools.chain([first], files)

    def list_folder(self, uri: str) -> Iterator[FileInfo]:
        """The files directly in a folder or prefix; none where there is no such folder.

        Raises:
            AccessError: it may not be listed.
        """
        at = parse_uri(uri)
        return local.list_folder(at) if isinstance(at, Path) else self._remote.list_folder(at)

    def info(self, uri: str) -> FileInfo:
        """Size and version of one file.

        Raises:
            NotFoundError: no such file, or no such bucket.
        """
        at = parse_uri(uri)
        return local.info(at) if isinstance(at, Path) else self._remote.info(at)

    def exists(self, uri: str) -> bool:
        """Whether a file is there; False for folders.

        Raises:
            AccessError: the credentials do not allow to know.
        """
        at = parse_uri(uri)
        return local.exists(at) if isinstance(at, Path) else self._remote.exists(at)

    def read_bytes(self, uri: str) -> bytes:
        """The whole content."""
        with self.open_read(uri) as stream:
            return stream.read()

    def open_read(self, uri: str, offset: int = 0, expect_version: str | None = None) -> BinaryIO:
        """Open for reading forward from `offset`, buffered; a context manager.

        On S3 a broken connection is opened again where it broke, and only on the same version.

        Args:
            uri: a file.
            offset: first byte; at or beyond the end gives an empty stream.
            expect_version: refuse any other version (FileInfo.version).

        Raises:
            StorageError: the content changed, or the connection kept breaking.
        """
        if offset < 0:
            raise ValueError(f"offset must not be negative, got {offset}")
        at = parse_uri(uri)
        if isinstance(at, Path):
            return local.open_read(at, offset, expect_version)
        return self._remote.open_read(at, offset, expect_version)

    def write_bytes(
        self,
        uri: str,
        data: bytes,
        *,
        if_absent: bool = False,
        if_version: str | None = None,
    ) -> str:
        """Write a file whole or not at all, making local folders as needed.

        Args:
            uri: the file.
            data: its content.
            if_absent: only if the file is not there yet.
            if_version: only if the file still has this version.

        Returns:
            The version written.

        Raises:
            ConflictError: somebody else wrote first; nothing was changed.
        """
        if if_absent and if_version is not None:
            raise ValueError("if_absent and if_version exclude each other")
        at = parse_uri(uri)
        if isinstance(at, Path):
            return local.write_bytes(at, data, if_absent=if_absent, if_version=if_version)
        return self._remote.write_bytes(at, data, if_absent=if_absent, if_version=if_version)

    def write_provisional(self, uri: str, data: bytes) -> None:
        """Write a file that counts only once another, written later, says so.

        A local one is written in place and without waiting for the disk, at a third of the cost;
        it may stand half written after a crash. `make_durable` comes before what makes it count.
        """
        at = parse_uri(uri)
        if isinstance(at, Path):
            local.write_in_place(at, data)
        else:
            self._remote.write_bytes(at, data, if_absent=False, if_version=None)

    def make_durable(self, uris: Iterable[str]) -> None:
        """Wait until these files would be there after a power cut; on S3 they are.

        Raises:
            StorageError: one is not there, or the disk does not take it.
        """
        places = [parse_uri(uri) for uri in uris]
        local.make_durable([at for at in places if isinstance(at, Path)])

    def sweep(self, uri: str) -> int:
        """Remove what killed writers left unfinished below a folder; S3 has no such files.

        Only for who holds the folder's WriterLock. Returns how many files were removed.
        """
        at = parse_uri(uri)
        return local.sweep(at) if isinstance(at, Path) else 0

    def upload_file(self, local_path: Path, uri: str) -> None:
        """Copy a local file to a URI, whole or not at all; in parts on S3 when it is large."""
        source, at = Path(local_path), parse_uri(uri)
        if not source.is_file():
            raise NotFoundError(f"{source} does not exist or is no file (to be copied to {uri})")
        if isinstance(at, S3Location):
            self._remote.upload_file(source, at)
            return
        with local.open_read(source, 0, None) as stream:
            local.copy_in(stream, at)

    def download_file(
        self, uri: str, local_path: Path, *, expect_version: str | None = None
    ) -> None:
        """Copy a file to a local path, whole or not at all; its folder is made if needed.

        Args:
            expect_version: refuse any other version (FileInfo.version).

        Raises:
            StorageError: the content changed, or the connection kept breaking.
        """
        with self.open_read(uri, expect_version=expect_version) as stream:
            local.copy_in(stream, Path(local_path))

    def delete(self, uri: str) -> None:
        """Remove a file; a missing one is fine."""
        at = parse_uri(uri)
        if isinstance(at, Path):
            local.delete(at)
        else:
            self._remote.delete(at)

    @property
    def _remote(self) -> S3Files:
        return S3Files(self.s3, self.retries)
