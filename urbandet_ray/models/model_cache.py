"""Models from elsewhere on this machine: downloaded once per version, kept per user."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from urbandet_ray.storage import FileInfo, Storage


def cache_folder() -> Path:
    """Where downloaded models are kept: $XDG_CACHE_HOME/urbandet, else ~/.cache/urbandet."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "urbandet" / "models"


def cached_copy(uri: str, files: Sequence[FileInfo], storage: Storage) -> Path:
    """The local copy of a remote model; downloads what this machine does not have yet.

    Processes that race each download into a folder of their own; the first rename wins and the
    others take its result, so nobody ever sees half a model.

    Args:
        uri: a file or a folder.
        files: all of it as it was listed; nothing is listed again.

    Raises:
        StorageError: a file changed since it was listed.
    """
    names = [file.uri.removeprefix(uri).removeprefix("/") for file in files]
    versions = [(name, file.version) for name, file in zip(names, files, strict=True)]
    key = hashlib.sha256(repr([uri, *versions]).encode()).hexdigest()[:32]
    name = uri.rsplit("/", 1)[-1]
    final = cache_folder() / key
    if not final.is_dir():
        final.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f"{key}.", dir=final.parent))
        try:
            for relative, file in zip(names, files, strict=True):
                target = scratch / name / relative if relative else scratch / name
                target.parent.mkdir(parents=True, exist_ok=True)
                storage.download_file(file.uri, target, expect_version=file.version)
            _publish(scratch, final)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return final / name


def _publish(scratch: Path, final: Path) -> None:
    try:
        scratch.rename(final)
    except OSError:
        if not final.is_dir():  # anything but a lost race
            raise
