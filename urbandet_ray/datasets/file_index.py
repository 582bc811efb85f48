"""The files of a dataset, found by the names that its labels use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from posixpath import normpath

from urbandet_ray.datasets.oddities import Tally
from urbandet_ray.errors import InputError
from urbandet_ray.json_files import digest
from urbandet_ray.records.image_headers import IMAGE_SUFFIXES
from urbandet_ray.records.sources import base_of, natural_key
from urbandet_ray.records.split_names import SPLIT_NAMES
from urbandet_ray.storage import FileInfo, Storage

_LABEL_FOLDERS = ("annotations", "labels")


@dataclass(frozen=True, eq=False)
class FileIndex:
    """All files below a folder by their relative paths.

    Attributes:
        uri: the folder, as it was given.
        base: the folder, as listings spell it.
        files: by path relative to it, in natural order.
        chosen: the file that was named itself, relative; None where a folder was.
    """

    uri: str
    base: str
    files: dict[str, FileInfo]
    chosen: str | None = None
    _by_name: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for path in self.files:
            self._by_name.setdefault(path.rpartition("/")[2].casefold(), []).append(path)

    def uri_of(self, path: str) -> str:
        """The address of a file of the index."""
        return self.files[path].uri

    @property
    def version(self) -> str:
        """Changes when a file does, or comes or goes."""
        return digest([(path, one.size_bytes, one.version) for path, one in self.files.items()])

    def ending(self, *suffixes: str) -> list[str]:
        """Paths with one of the endings, which are in small letters; the chosen file alone."""
        paths: Iterable[str] = self.files if self.chosen is None else [self.chosen]
        return [path for path in paths if path.lower().endswith(suffixes)]

    def pictures(self) -> Iterator[str]:
        """Paths of all images."""
        for path in self.files:
            if PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES:
                yield path

    def picture(self, name: str, folders: Sequence[str], tally: Tally) -> str | None:
        """The image that labels call `name`; what is not found is counted.

        Tried in order: the name below each folder, then the only file whose path ends with it,
        then the only one of its file name alone. Backslashes are folders, as on Windows.

        Args:
            name: as in the labels: a file name, a relative or a foreign absolute path.
            folders: where it is expected, relative to the index.
            tally: counts image-missing and image-ambiguous.
        """
        clean = name.replace("\\", "/").strip()
        for folder in folders:
            path = normpath(f"{folder}/{clean}" if folder else clean)
            if path in self.files:
                return path
        alike = self._by_name.get(clean.rpartition("/")[2].casefold(), [])
        parts = clean.strip("/").split("/")
        for length in range(len(parts), 0, -1):
            tail = "/".join(parts[-length:])
            found = [path for path in alike if f"/{path}".endswith(f"/{tail}")]
            if len(found) == 1:
                return found[0]
            if found:
                tally.add("image-ambiguous", f"{name}: {', '.join(found[:3])}")
                return None
        if len(alike) == 1:
            return alike[0]
        tally.add("image-missing", name)
        return None


def index_files(uri: str, storage: Storage, images: str | None = None) -> FileIndex:
    """List a dataset: a folder, or a labels file with the folder around it.

    Args:
        uri: local or s3://.
        storage: lists it.
        images: the folder of the images, where it is not the labels'.

    Raises:
        NotFoundError: nothing is there.
        InputError: the folder is empty.
    """
    infos = list(storage.list_files(uri))
    if not infos:
        raise InputError(f"{uri} is an empty folder: expected a dataset, labels and images")
    base, shape = base_of(uri, infos)
    chosen = infos[0].uri if shape == "file" else None
    if chosen is not None:
        folder = base.rpartition("/")[2].lower()
        base = base.rpartition("/")[0] if folder in _LABEL_FOLDERS else base
        infos = infos if images else list(storage.list_files(base))
    files = {info.uri[len(base) :].lstrip("/"): info for info in infos}
    if images is not None:
        found = list(storage.list_files(images))
        below, _ = base_of(images, found)
        files |= {info.uri[len(below) :].lstrip("/"): info for info in found}
    ordered = dict(sorted(files.items(), key=lambda pair: natural_key(pair[0])))
    return FileIndex(uri, base, ordered, chosen and chosen[len(base) :].lstrip("/"))


def split_in(path: str) -> str:
    """The part that a path's folders or file name speak of; "" for none: images/val2017/1.jpg."""
    words = [part.lower().split(".")[0].rstrip("0123456789") for part in path.split("/")]
    for word in reversed(words):
        ends = {word, word.rpartition("_")[2], word.rpartition("-")[2]}
        for split, known in SPLIT_NAMES.items():
            if ends & set(known):
                return split
    return ""


def folder_of(path: str) -> str:
    """The folder of a relative path; "" at the top."""
    return path.rpartition("/")[0]
