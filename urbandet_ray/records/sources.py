"""Finds what frames can be read from, in drive order, and reads it: TFRecords, images, videos."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Literal

from urbandet_ray.config import SampleConfig
from urbandet_ray.errors import ArchivedError, InputError, RecordError
from urbandet_ray.labels import LabelMap
from urbandet_ray.records.bytestream import read_exactly
from urbandet_ray.records.image_headers import IMAGE_SUFFIXES, sniff_format
from urbandet_ray.records.readers import read_images, read_tfrecord
from urbandet_ray.records.sampling import FrameSampler
from urbandet_ray.records.source import Record, Source, SourceKind
from urbandet_ray.records.tfrecord import HEADER_BYTES, decompress, is_record_header
from urbandet_ray.records.video_reader import VIDEO_ENDINGS, read_video
from urbandet_ray.storage import FileInfo, Storage
from urbandet_ray.uris import S3Location, has_glob, parse_uri, split_glob

__all__ = ["Record", "Source", "list_sources", "read_source"]

VIDEO_SUFFIXES = frozenset(f".{ending}" for ending in VIDEO_ENDINGS.split("|"))
_TFRECORD_NAME = re.compile(r"tfrecord|\.tfrec(\.gz)?$|\.records?(-\d+-of-\d+)?(\.gz)?$", re.I)
_OTHER_SUFFIX = re.compile(
    r"\.(txt|md|jsonl?|ya?ml|csv|pbtxt|config|py|sh|html|index|parquet|zip)$", re.I
)
_DATA_SUFFIX = re.compile(
    r"(\.(tfrecords?|tfrec|records?))?(\.gz)?$|("
    + "|".join(re.escape(one) for one in sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))
    + ")$",
    re.I,
)
_EXPECTED = (
    f"TFRecord files, folders of images ({', '.join(sorted(IMAGE_SUFFIXES))}) "
    "or videos (.mp4, .mov, .avi, .mkv, .webm, .ts and others)"
)
ALL_FRAMES = SampleConfig()
Shape = Literal["file", "folder", "pattern"]
"""What a URI of data names."""

_SNIFFED_FILES = 20
_NAME_CHARACTERS = 120


_Found = tuple[str, FileInfo]
"""A file's path within the listed folder, and the file."""


def list_sources(uri: str, storage: Storage) -> list[Source]:
    """The sources at a file, below a folder or prefix, or matching a pattern, in drive order.

    Drive order is the natural order of the relative paths: frame_2 before frame_10. Each folder
    that holds images is one source. An empty TFRecord file is a source without records.

    Raises:
        InputError: the folder is empty, or holds nothing to read frames from.
        NotFoundError: nothing is there.
        StorageError: it cannot be listed.
    """
    return sources_listed(uri, list(storage.list_files(uri)), storage)


def sources_listed(uri: str, infos: Sequence[FileInfo], storage: Storage) -> list[Source]:
    """`list_sources`, of the files that were listed at the URI.

    Raises:
        InputError: there are none, or frames are read from none of them.
    """
    if not infos:
        raise InputError(f"{uri} is an empty folder: expected {_EXPECTED}")
    sources = sources_among(uri, infos, storage)
    if not sources:
        base, shape = base_of(uri, infos)
        relative = [info.uri[len(base) :].lstrip("/") for info in infos]
        raise InputError(nothing_usable(uri, relative, shape))
    return sources


def sources_among(uri: str, infos: Sequence[FileInfo], storage: Storage | None) -> list[Source]:
    """The sources among the files that were listed at a URI, in drive order; none where none is.

    Args:
        storage: looks into files whose names tell nothing, where no name does; None does not.
    """
    base, shape = base_of(uri, infos)
    is_file = shape == "file"
    found = [(info.uri[len(base) :].lstrip("/"), info) for info in infos]
    kinds = {relative: _kind_by_name(relative) for relative, _ in found}
    if storage is not None and not any(kinds.values()):
        kinds |= _kinds_by_content(found, storage)
    usable = [file for file in found if kinds[file[0]]]
    singles = [
        (relative, _file_source(kind, info))
        for relative, info in usable
        if (kind := kinds[relative]) and (kind != "images" or is_file)
    ]
    images = [] if is_file else [file for file in usable if kinds[file[0]] == "images"]
    return _named_uniquely([*singles, *_image_folders(images, base)])


def listed_together(base: str, sources: Iterable[Source]) -> list[Source]:
    """Sources of several folders below `base`, named and in order as if it had been listed."""
    return _named_uniquely(
        [(one.uri[len(base) :].lstrip("/") or base.rpartition("/")[2], one) for one in sources]
    )


def read_source(
    source: Source,
    storage: Storage,
    *,
    first_index: int = 0,
    offset: int = 0,
    labels: LabelMap | None = None,
    sample: SampleConfig = ALL_FRAMES,
) -> Iterator[Record]:
    """Read a source's records in order, bad ones included; stop early by closing the iterator.

    Args:
        source: from list_sources; reading fails if it changed since then.
        storage: reads it.
        first_index: index of the first record wanted.
        offset: that record's offset, from an earlier Record (`offset` or `next_offset`).
        labels: turns class texts into ids (class_column.py); None takes the records' numbers.
        sample: which sound frames are read at all; damage is always told.

    A file in an archive is one bad record, "archived-file": the rest of the input can be read.

    Raises:
        StorageError: the source changed since it was listed, or cannot be read.
    """
    index, end = first_index, offset
    try:
        sampler = FrameSampler(sample)
        for record in _records_of(source, storage, first_index, offset, labels, sampler):
            index, end = record.index + 1, record.next_offset
            yield record
    except ArchivedError as error:
        rest = max(source.size_bytes, end + 1) if source.kind == "tfrecord" else index + 1
        yield Record(
            index, end, rest, b"", RecordError("archived-file", str(error)), uri=source.uri
        )


def _records_of(
    source: Source,
    storage: Storage,
    first_index: int,
    offset: int,
    labels: LabelMap | None,
    sampler: FrameSampler,
) -> Iterator[Record]:
    if source.kind == "tfrecord":
        return read_tfrecord(source, storage, first_index, offset, labels, sampler)
    if source.kind == "images":
        return read_images(source, storage, first_index, sampler)
    return read_video(source, storage, first_index, sampler)


def natural_key(path: str) -> tuple[object, ...]:
    """Sort key under which frame_2 comes before frame_10, folder by folder."""
    parts = []
    for part in path.split("/"):
        pieces = re.split(r"([0-9]+)", part.casefold())
        parts.append(tuple(int(piece) if i % 2 else piece for i, piece in enumerate(pieces)))
    return (tuple(parts), path)


def plain_uri(uri: str) -> str:
    """A URI as listings spell it: a local path made absolute, no slash at the end."""
    at = parse_uri(uri)
    return at.uri.rstrip("/") if isinstance(at, S3Location) else str(at)


def base_of(uri: str, infos: Sequence[FileInfo]) -> tuple[str, Shape]:
    """The folder that relative paths start from, and what the URI names."""
    whole = plain_uri(uri)
    if [info.uri for info in infos] == [whole]:
        return whole.rpartition("/")[0], "file"
    if infos and has_glob(whole) and not infos[0].uri.startswith(whole + "/"):
        return split_glob(whole)[0], "pattern"
    return whole, "folder"


def _kind_by_name(relative: str) -> SourceKind | None:
    name = PurePosixPath(relative).name
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return "images"
    if suffix in VIDEO_SUFFIXES:
        return "video"
    if _TFRECORD_NAME.search(name) and not _OTHER_SUFFIX.search(name):
        return "tfrecord"
    return None


def _kinds_by_content(found: Sequence[_Found], storage: Storage) -> dict[str, SourceKind | None]:
    """What files are whose names tell nothing; the rest is looked at where the first ones tell."""
    kinds: dict[str, SourceKind | None] = {}
    for number, (relative, info) in enumerate(found):
        if number == _SNIFFED_FILES and not any(kinds.values()):
            break
        kinds[relative] = _kind_by_content(info, storage)
    return kinds


def _kind_by_content(info: FileInfo, storage: Storage) -> SourceKind | None:
    """What a file begins with: a TFRecord's header, or an image's."""
    try:
        with storage.open_read(info.uri) as stream:
            if is_record_header(read_exactly(decompress(stream), HEADER_BYTES)):
                return "tfrecord"
        with storage.open_read(info.uri) as stream:
            return "images" if sniff_format(stream.read(HEADER_BYTES)) else None
    except RecordError:
        return None


def nothing_usable(uri: str, relative: Sequence[str], shape: Shape) -> str:
    """What to say where no file can be read from; the files by their paths."""
    if shape == "file":
        return f"{uri} is not something frames can be read from: expected {_EXPECTED}"
    suffixes = Counter(PurePosixPath(path).suffix or "no suffix" for path in relative)
    listed = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(6))
    return (
        f"{uri} holds nothing frames can be read from ({listed}): expected {_EXPECTED}; `urbandet "
        "data import` reads labels of other formats"
    )


def _file_source(kind: SourceKind, info: FileInfo) -> Source:
    files = (info,) if kind == "images" else ()
    return Source(kind, info.uri, "", "", info.size_bytes, info.version, files)


def _image_folders(images: list[_Found], base: str) -> Iterator[tuple[str, Source]]:
    folders: dict[str, list[_Found]] = {}
    for relative, info in images:
        folders.setdefault(relative.rpartition("/")[0], []).append((relative, info))
    for folder, members in folders.items():
        members.sort(key=lambda file: natural_key(file[0]))
        digest = hashlib.sha256()
        for relative, info in members:
            digest.update(repr((relative, info.size_bytes, info.version)).encode())
        source = Source(
            kind="images",
            uri=members[0][1].uri.rpartition("/")[0],
            name="",
            segment="",
            size_bytes=sum(info.size_bytes for _, info in members),
            version=digest.hexdigest()[:32],
            files=tuple(info for _, info in members),
        )
        yield folder or base.rpartition("/")[2], source


def _named_uniquely(listed: list[tuple[str, Source]]) -> list[Source]:
    """In drive order, with names from relative paths without suffix; two alike get a hash.

    The segment is the last part alone, so that it does not depend on the folder that was listed,
    unless two sources share it.
    """
    listed = sorted(listed, key=lambda pair: natural_key(pair[0]))
    paths = [_DATA_SUFFIX.sub("", path) or path for path, _ in listed]
    names = [safe_name(path) for path in paths]
    stems = [safe_name(path.rpartition("/")[2] or path) for path in paths]
    name_times = Counter(name.casefold() for name in names)
    stem_times = Counter(stem.casefold() for stem in stems)
    named = []
    for (path, source), name, stem in zip(listed, names, stems, strict=True):
        unique = name
        if name_times[name.casefold()] > 1:
            unique = (
                f"{name}-{hashlib.sha256(os.fsencode(f'{source.kind}:{path}')).hexdigest()[:8]}"
            )
        segment = stem if stem_times[stem.casefold()] == 1 else unique
        named.append(replace(source, name=unique, segment=segment))
    return named


def safe_name(path: str) -> str:
    """Letters, digits and `.-_` only, at most 120; never hidden, as data readers skip . and _."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", path.replace("/", "--"))
    if name != path.replace("/", "--") or len(name) > _NAME_CHARACTERS:
        name = f"{name[:_NAME_CHARACTERS]}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"
    return f"source{name}" if name[:1] in "._-" else name
