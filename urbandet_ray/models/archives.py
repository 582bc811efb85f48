"""Unpacks an archive that somebody else made: nothing lands outside its folder, or half."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from urbandet_ray.errors import ModelError

MAX_BYTES = 8 << 30
"""More than any archive of the zoo holds; stops what would fill the disk."""
MAX_MEMBERS = 10_000
_CHUNK_BYTES = 1 << 20


def unpack(archive: Path, folder: Path, source: str, max_bytes: int = MAX_BYTES) -> None:
    """Unpack a tar archive of plain files and folders into an empty folder.

    Checks each member before it is written. What was written before a bad one stays: the caller
    throws the folder away.

    Args:
        archive: .tar.gz or another kind that tarfile knows.
        folder: exists and is empty.
        source: names the archive in messages.
        max_bytes: of all files together.

    Raises:
        ModelError: no archive, a truncated one, or one with a member that has no business there.
    """
    total = 0
    try:
        with tarfile.open(archive) as tar:
            for count, member in enumerate(tar, start=1):
                total += member.size
                trouble = _trouble(member)
                if count > MAX_MEMBERS:
                    trouble = f"holds more than {MAX_MEMBERS} members"
                elif total > max_bytes:
                    trouble = f"unpacks to more than {max_bytes} bytes"
                if trouble:
                    raise ModelError(f"{source} is not safe to unpack, it {trouble}: not unpacked")
                tar.extract(member, folder, filter="data")
            # a damaged header reads as the end of the archive: gzip's checksum, at the very end
            # of the stream, tells the two apart
            while tar.fileobj is not None and tar.fileobj.read(_CHUNK_BYTES):
                pass
    except tarfile.FilterError as error:
        raise ModelError(f"{source} is not safe to unpack: {error}: not unpacked") from error
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ModelError(
            f"{source} is damaged or no tar archive ({error}): fetch it again, or look at what the "
            "address really serves"
        ) from error


def _trouble(member: tarfile.TarInfo) -> str:
    """What is wrong with a member, "" if nothing is; tarfile's own filter lets some of it pass."""
    path = PurePosixPath(member.name)
    if path.is_absolute():
        return f"has the absolute path {member.name}"
    if ".." in path.parts:
        return f"climbs out of its folder with {member.name}"
    if member.issym() or member.islnk():
        return f"has a link, {member.name} -> {member.linkname}"
    if not (member.isreg() or member.isdir()):
        return f"has {member.name}, neither a file nor a folder"
    return ""
