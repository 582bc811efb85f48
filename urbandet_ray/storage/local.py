"""Files on local disks: whole or not at all, also when the process dies halfway."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, BinaryIO

from urbandet_ray.errors import AccessError, ConflictError, NotFoundError, StorageError
from urbandet_ray.storage.policy import FileInfo
from urbandet_ray.uris import glob_regex, has_glob, split_glob

_COPY_BYTES = 1 << 20
_SYNC_THREADS = 16
_TO_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
_UNFINISHED = re.compile(r"\..*\.[0-9a-f]{12}\.tmp")


def list_files(path: Path, hidden: list[str] | None = None) -> Iterator[FileInfo]:
    """Files below a folder, the file itself, or the matches of a pattern, in the order of S3."""
    text = str(path)
    if not has_glob(text) or path.exists():
        yield from _list_existing(path, hidden)
        return
    base, pattern = split_glob(text)
    regex, found = glob_regex(pattern), False
    depth = None if "**" in pattern else pattern.count("/")
    if Path(base or "/").is_dir():
        for info in _walk(base or "/", depth):
            if regex.fullmatch(os.path.relpath(info.uri, base or "/")):
                found = True
                yield info
    if not found:
        raise NotFoundError(f"no file matches {path}: check the pattern, or quote it in the shell")


def list_folder(path: Path) -> Iterator[FileInfo]:
    """Files directly in a folder; none where it is no folder."""
    return _walk(str(path), 0) if path.is_dir() else iter(())


def _list_existing(path: Path, hidden: list[str] | None) -> Iterator[FileInfo]:
    if path.is_dir():
        yield from _walk(str(path), None, hidden)
    else:
        yield info(path)


def _walk(folder: str, depth: int | None, hidden: list[str] | None = None) -> Iterator[FileInfo]:
    """Depth first; folders sort as "name/", so that whole paths come in lexicographic order."""
    passed_over = [] if hidden is None else hidden
    entries = []
    with _translated("list", Path(folder)):
        for entry in os.scandir(folder):
            slash = "/" if entry.is_dir() else ""
            if entry.name.startswith(".") or entry.name.endswith(".tmp"):
                passed_over.append(entry.path + slash)
            else:
                entries.append((entry.name + slash, entry))
    for name, entry in sorted(entries, key=lambda pair: os.fsencode(pair[0])):
        if name.endswith("/"):
            if depth is None or depth > 0:
                yield from _walk(entry.path, None if depth is None else depth - 1, hidden)
            continue
        try:
            stat = entry.stat()
        except FileNotFoundError:  # deleted since it was listed, or a dangling link
            passed_over.append(entry.path)
            continue
        yield FileInfo(entry.path, stat.st_size, str(stat.st_mtime_ns))


def info(path: Path) -> FileInfo:
    """Size and version of a file."""
    with _translated("look at", path):
        stat = path.stat()
    if path.is_dir():
        raise StorageError(f"{path} is a folder, expected a file")
    return FileInfo(str(path), stat.st_size, str(stat.st_mtime_ns))


def exists(path: Path) -> bool:
    """Whether a file (not a folder) is there."""
    with _translated("look at", path):
        try:
            return not os.path.isdir(path) and bool(path.stat())  # noqa: PTH112 - swallows EACCES
        except (FileNotFoundError, NotADirectoryError):
            return False


def open_read(path: Path, offset: int, expect_version: str | None) -> BinaryIO:
    """Open for reading at an offset."""
    with _translated("read", path):
        stream = path.open("rb")
        version = str(os.fstat(stream.fileno()).st_mtime_ns)
        if expect_version is not None and version != expect_version:
            stream.close()
            raise StorageError(
                f"{path} changed since it was listed (version {expect_version}, now {version}): "
                "start again from the listing"
            )
        stream.seek(offset)
        return stream


def write_bytes(path: Path, data: bytes, *, if_absent: bool, if_version: str | None) -> str:
    """Write whole or not at all; see Storage.write_bytes."""
    return _write(path, lambda out: out.write(data), if_absent, if_version)


def write_in_place(path: Path, data: bytes) -> None:
    """Write without a temporary file; see Storage.write_provisional.

    Once a frame: the system's own calls take half the time of a Python file.
    """
    try:
        try:
            file = os.open(path, _TO_WRITE, 0o666)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, _TO_WRITE, 0o666)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(file, rest) :]
        finally:
            os.close(file)
    except OSError as error:
        raise _translation("write", path, error) from error


def copy_in(source: IO[bytes], path: Path) -> None:
    """Write a stream's rest to a file, whole or not at all."""
    _write(path, lambda out: shutil.copyfileobj(source, out, _COPY_BYTES), False, None)


def delete(path: Path) -> None:
    """Remove a file; a missing one is fine."""
    with _translated("delete", path), suppress(FileNotFoundError, NotADirectoryError):
        path.unlink()


def make_durable(paths: Sequence[Path]) -> None:
    """Wait for the disk to have the files, their folders and the folders above those.

    By several threads: a journal takes many files with one of its commits.
    """
    if not paths:
        return
    folders = {path.parent for path in paths}
    above = {one.parent for one in folders}
    with ThreadPoolExecutor(_SYNC_THREADS) as pool:
        for group in (paths, folders | above):
            list(pool.map(_sync, group))


def _sync(path: Path) -> None:
    with _translated("write to the disk", path):
        opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(opened)
        except OSError as error:
            if error.errno != errno.EINVAL:  # a file system that does not sync folders
                raise
        finally:
            os.close(opened)


def sweep(folder: Path) -> int:
    """Remove what killed writers left unfinished below a folder; returns how many files."""
    count = 0
    for base, _, names in os.walk(folder):
        for name in names:
            if _UNFINISHED.fullmatch(name):
                Path(base, name).unlink(missing_ok=True)
                count += 1
    return count


def _write(
    path: Path,
    fill: Callable[[BinaryIO], object],
    if_absent: bool,
    if_version: str | None,
) -> str:
    temp = path.parent / f".{path.name[:180]}.{uuid.uuid4().hex[:12]}.tmp"
    with _translated("write", path):
        _make_folder(path.parent)
        try:
            with temp.open("wb") as out:
                fill(out)
                out.flush()
                os.fsync(out.fileno())
            guarded = if_absent or if_version is not None
            with _folder_lock(path.parent) if guarded else nullcontext():
                if guarded:
                    _check_guard(path, if_absent, if_version)
                version = _newer_version(temp, path)
                temp.replace(path)
                _sync(path.parent)  # its name; the content is on the disk already
        finally:
            temp.unlink(missing_ok=True)
    return version


def _make_folder(folder: Path) -> None:
    """With those above it, so that their names are on the disk too."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync(folder.parent)


def _check_guard(path: Path, if_absent: bool, if_version: str | None) -> None:
    found = str(path.stat().st_mtime_ns) if os.path.lexists(path) else None
    if if_absent and found is not None:
        raise ConflictError(f"{path} exists already: somebody else wrote it first")
    if if_version is not None and found != if_version:
        state = "was deleted" if found is None else f"has version {found}"
        raise ConflictError(f"{path} {state}, expected version {if_version}: somebody else wrote")


def _newer_version(temp: Path, path: Path) -> str:
    """Give the new file an mtime above the old one's: clocks tick coarser than files change."""
    stat = temp.stat()
    old_ns = path.stat().st_mtime_ns if path.is_file() else 0
    if stat.st_mtime_ns <= old_ns:
        os.utime(temp, ns=(stat.st_atime_ns, old_ns + 1))
    return str(temp.stat().st_mtime_ns)


@contextmanager
def _folder_lock(folder: Path) -> Iterator[None]:
    """One guarded write at a time in a folder, across processes of this host."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no locks for folders
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def _translated(action: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _translation(action, path, error) from error


def _translation(action: str, path: Path, error: OSError) -> StorageError:
    """The error that says what to do."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return NotFoundError(f"{path} does not exist (tried to {action} it)")
    if isinstance(error, PermissionError):
        return AccessError(
            f"not allowed to {action} {path}: user id {os.geteuid()} lacks the file permission"
        )
    if isinstance(error, IsADirectoryError):
        return StorageError(f"{path} is a folder, expected a file")
    hint = {
        errno.ENOSPC: ": free some space on that disk",
        errno.EDQUOT: ": the quota is used up",
        errno.EROFS: ": the disk is mounted read-only",
    }.get(error.errno or 0, "")
    reason = re.sub(r"\s+", " ", error.strerror or str(error))
    return StorageError(f"cannot {action} {path}: {reason}{hint}")
