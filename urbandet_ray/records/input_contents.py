"""What of an input is read, and what is left out and why: nothing is passed over without a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from urbandet_ray.phrases import printable
from urbandet_ray.records.source import Source, SourceKind
from urbandet_ray.records.sources import base_of, sources_listed
from urbandet_ray.storage import FileInfo, Storage

_SHOWN = 3
_KEPT = 20
"""Names of a group that run.json has."""

_LABEL_SUFFIXES = frozenset({".json", ".jsonl", ".xml", ".parquet", ".manifest"})
_LABEL_FOLDERS = ("label", "annotation")
_ARCHIVES = frozenset({".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar"})
_FOREIGN_IMAGES = frozenset(
    {".heic", ".heif", ".avif", ".jp2", ".jxl", ".svg", ".psd", ".raw", ".dng", ".cr2", ".nef"}
    | {".arw", ".ppm", ".pgm", ".exr", ".hdr", ".tga", ".ico", ".eps", ".pdf"}
)
_REASONS = {
    "labels": (
        "file that may hold labels",
        "files that may hold labels",
        ": `urbandet data import` makes records of labels",
    ),
    "foreign-images": (
        "picture of another format",
        "pictures of other formats",
        ": JPEG, PNG, BMP, GIF, WebP and TIFF are read",
    ),
    "archives": ("archive", "archives", ": unpack first"),
    "label-maps": ("label map", "label maps", ", which this does not use"),
    "no-ending": ("file without an ending", "files without an ending", " that says what it is"),
    "other": ("file", "files", " that frames are not read from"),
    "hidden": (
        "hidden or unfinished file",
        "hidden or unfinished files",
        " (.name, .tmp), or links to nothing",
    ),
}
"""In the order of the lines: what a person has to do something about comes first."""


@dataclass(frozen=True)
class LeftOut:
    """Files that are not read, for one reason.

    Attributes:
        reason: one of "labels", "foreign-images", "archives", "label-maps", "no-ending", "other",
            "hidden".
        count: how many.
        names: the first of them, relative to the input; a folder ends with "/".
    """

    reason: str
    count: int
    names: tuple[str, ...]

    def to_text(self) -> str:
        """A line for a person."""
        one, many, remark = _REASONS[self.reason]
        more = f" and {self.count - _SHOWN} more" if self.count > _SHOWN else ""
        shown = ", ".join(self.names[:_SHOWN]) + more
        return f"left out: {self.count:,} {one if self.count == 1 else many}{remark}: {shown}"


@dataclass(frozen=True)
class InputContents:
    """The files of an input.

    Attributes:
        read: what frames are read from, in words.
        left_out: everything else.
    """

    read: str
    left_out: tuple[LeftOut, ...]

    def to_lines(self) -> list[str]:
        """What is left out, a line for each reason."""
        return [one.to_text() for one in self.left_out]

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        groups = [
            {"reason": one.reason, "files": one.count, "names": list(one.names)}
            for one in self.left_out
        ]
        return {"read": self.read, "left_out": groups}


def list_input(uri: str, storage: Storage) -> tuple[list[Source], InputContents]:
    """`list_sources`, and what it leaves out; listed once.

    Raises:
        InputError, NotFoundError, StorageError: as `list_sources` does.
    """
    hidden: list[str] = []
    infos = list(storage.list_files(uri, hidden))
    sources = sources_listed(uri, infos, storage)
    return sources, contents_of(uri, infos, hidden, sources)


def contents_of(
    uri: str,
    infos: Sequence[FileInfo],
    hidden: Sequence[str],
    sources: Iterable[Source],
    used: Iterable[str] = (),
) -> InputContents:
    """Sort the files of a listing by what becomes of them.

    Args:
        uri: what was listed.
        infos: its files.
        hidden: what the listing passed over (Storage.list_files).
        sources: what is read of it.
        used: other files that are read, such as the label map.
    """
    sources = list(sources)
    base, _ = base_of(uri, infos)
    taken = {*used, *(one.uri for one in sources)}
    taken.update(info.uri for one in sources for info in one.files)
    stems = {one.uri.rpartition(".")[0].rpartition("/")[2] for s in sources for one in s.files}
    groups: dict[str, list[str]] = {reason: [] for reason in _REASONS}
    for info in infos:
        if info.uri not in taken:
            path = info.uri[len(base) :].lstrip("/")
            groups[_reason(path, stems)].append(path)
    groups["hidden"] += sorted(path[len(base) :].lstrip("/") for path in hidden)
    left_out = [
        LeftOut(reason, len(paths), tuple(printable(path) for path in paths[:_KEPT]))
        for reason, paths in groups.items()
    ]
    return InputContents(count_of(sources), tuple(one for one in left_out if one.count))


def count_of(sources: Iterable[Source]) -> str:
    """ "2 TFRecord files, 1 folder of images (120 .jpg, 3 .png)"."""
    listed = list(sources)
    nouns: dict[SourceKind, tuple[str, str]] = {
        "tfrecord": ("TFRecord file", "TFRecord files"),
        "images": ("folder of images", "folders of images"),
        "video": ("video", "videos"),
    }
    kinds = Counter(one.kind for one in listed)
    endings = Counter(
        PurePosixPath(info.uri).suffix.lower() or "without ending"
        for one in listed
        for info in one.files
    )
    held = ", ".join(f"{count:,} {ending}" for ending, count in endings.most_common())
    return ", ".join(
        f"{kinds[kind]} {nouns[kind][kinds[kind] > 1]}" + (f" ({held})" if kind == "images" else "")
        for kind in nouns
        if kinds[kind]
    )


def _reason(path: str, stems: set[str]) -> str:
    """Why a file is not read, by its path; `stems` are the names of the pictures beside."""
    name = path.rpartition("/")[2]
    suffix = PurePosixPath(name).suffix.lower()
    folders = path.lower().split("/")[:-1]
    if suffix in _LABEL_SUFFIXES or name.lower() == "data.yaml":
        return "labels"
    labelled = name[: -len(suffix)] in stems or any(
        one.startswith(_LABEL_FOLDERS) for one in folders
    )
    if suffix == ".txt" and labelled:
        return "labels"
    if suffix in _FOREIGN_IMAGES:
        return "foreign-images"
    if suffix in _ARCHIVES:
        return "archives"
    if name.lower().endswith("label_map.pbtxt"):
        return "label-maps"
    return "other" if suffix else "no-ending"
