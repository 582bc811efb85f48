"""An export is a value: what was made of which checkpoint, and where it lies.

export.json         this module's Export; written last: a folder without it holds no whole export
export.unfinished   on S3, where a folder cannot appear at once: an export was begun here
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from urbandet_ray.errors import ConfigError, NotFoundError, StorageError
from urbandet_ray.json_files import read_value, to_json
from urbandet_ray.models.network.facts import Precision
from urbandet_ray.storage import Storage, join_uri
from urbandet_ray.uris import parse_uri

_MARKER, _UNFINISHED = "export.json", "export.unfinished"


@dataclass(frozen=True)
class _Content:
    """export.json."""

    model: str
    run: str
    checkpoint: str
    precision: Precision
    state: dict[str, Any]


@dataclass(frozen=True)
class Export:
    """A checkpoint of a training run as a model.

    Attributes:
        folder: holds everything of the export; local or s3://.
        model_name: the model within the folder; "" where the folder itself is the model.
        run: the training run's folder.
        checkpoint: what it was made from, within the run: "best/ckpt-7".
        precision: what a network computes in; of a stock export, what its weights are rounded to.
        state: that checkpoint's state.json, {} where there is none.
    """

    folder: str
    model_name: str
    run: str
    checkpoint: str
    precision: Precision
    state: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The last part of the folder."""
        return self.folder.rpartition("/")[2]

    @property
    def model(self) -> str:
        """What `urbandet infer --model` takes; its label map lies beside it."""
        return join_uri(self.folder, self.model_name) if self.model_name else self.folder

    @property
    def is_best(self) -> bool:
        """Whether it was made from the run's best checkpoint."""
        return self.checkpoint.startswith("best/")

    def to_json(self) -> bytes:
        """export.json."""
        names = self.model_name, self.run, self.checkpoint
        return to_json(asdict(_Content(*names, self.precision, dict(self.state))))


def read_export(folder: str, storage: Storage) -> Export:
    """The export in a folder.

    Raises:
        NotFoundError: the folder holds no whole export.
        RunError: its export.json is damaged.
    """
    marker = join_uri(folder, _MARKER)
    found = read_value(marker, storage, _Content, "Export it again")
    return Export(folder, found.model, found.run, found.checkpoint, found.precision, found.state)


def list_exports(uri: str, storage: Storage) -> list[Export]:
    """Exports of a run folder, or below a folder of exports, by the names of their folders.

    Raises:
        RunError: one of them has a damaged export.json.
    """
    for place in (join_uri(uri, "exports"), uri):
        try:
            files = [file.uri for file in storage.list_files(f"{place.rstrip('/')}/")]
        except NotFoundError:
            continue
        folders = [file.rpartition("/")[0] for file in files if file.endswith(f"/{_MARKER}")]
        if folders:
            return [read_export(folder, storage) for folder in sorted(folders)]
    return []


def export_around(model: str, storage: Storage) -> Export | None:
    """The export that a model belongs to: in its folder, or in the one above; None without one.

    Raises:
        RunError: its export.json is damaged.
    """
    model = model.rstrip("/")
    for folder in (model, model.rpartition("/")[0]):
        try:
            return read_export(folder, storage)
        except NotFoundError:
            continue
    return None


def check_target(folder: str, storage: Storage) -> None:
    """Refuse a folder of anything but an earlier export: publishing replaces all that is in it.

    Raises:
        ConfigError: names what the folder holds.
    """
    try:
        files = [file.uri.rpartition("/")[2] for file in storage.list_files(f"{folder}/")]
    except NotFoundError:
        return
    ours = any(storage.exists(join_uri(folder, name)) for name in (_MARKER, _UNFINISHED))
    if files and not ours:
        raise ConfigError(
            f"{folder} holds {', '.join(files[:3])}, no earlier export: give another folder"
        )


def publish(export: Export, made: Path, storage: Storage) -> None:
    """Put an export into its folder, whole or not at all; an earlier one there is replaced.

    Args:
        made: a local folder with all files of the export but export.json.

    Raises:
        StorageError: the folder cannot be written.
    """
    (made / _MARKER).write_bytes(export.to_json())
    place = parse_uri(export.folder)
    if isinstance(place, Path):
        _publish_local(made, place)
        return
    marker, begun = join_uri(export.folder, _MARKER), join_uri(export.folder, _UNFINISHED)
    storage.write_bytes(begun, b"")
    storage.delete(marker)
    files = [file for file in sorted(made.rglob("*")) if file.is_file() and file.name != _MARKER]
    kept = {join_uri(export.folder, file.relative_to(made).as_posix()): file for file in files}
    for uri, file in kept.items():
        storage.upload_file(file, uri)
    for stale in list(storage.list_files(f"{export.folder}/")):
        if stale.uri not in kept and stale.uri != begun:
            storage.delete(stale.uri)
    storage.upload_file(made / _MARKER, marker)
    storage.delete(begun)


def _publish_local(made: Path, place: Path) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".exporting-", dir=place.parent) as scratch:
            copy = Path(scratch) / "new"
            shutil.copytree(made, copy, copy_function=shutil.copyfile)
            if place.exists():
                place.rename(Path(scratch) / "old")
            copy.rename(place)
    except OSError as error:
        raise StorageError(
            f"cannot write the export to {place}: {error.strerror or error}: free some space, or "
            "name another folder (--out)"
        ) from error
