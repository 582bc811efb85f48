"""A data folder, read once: what is trained on, what validates, what tests, and the classes.

doctor, train, stats, validate, show and SageMaker's job all take this value, so that all of them
mean the same files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from urbandet_ray.errors import InputError, NotFoundError
from urbandet_ray.label_files import read_labels
from urbandet_ray.labels import LabelMap
from urbandet_ray.phrases import some_of
from urbandet_ray.records.input_contents import InputContents, contents_of, count_of
from urbandet_ray.records.label_map_lookup import find_label_map
from urbandet_ray.records.source import Source
from urbandet_ray.records.sources import (
    base_of,
    list_sources,
    listed_together,
    nothing_usable,
    plain_uri,
    sources_among,
)
from urbandet_ray.records.split_names import split_of
from urbandet_ray.storage import FileInfo, Storage, join_uri

_ENDING = re.compile(r"\.(tfrecords?|tfrec|records?)(\.gz)?$", re.I)
_EXPECTED = (
    "training needs train/ and val/ (or valid/, validation/, eval/) with TFRecord files, and a "
    "label_map.pbtxt"
)
_SHOWN = 3
_NOTHING = InputContents("", ())


@dataclass(frozen=True)
class SplitFolder:
    """One part of a data folder.

    Attributes:
        uri: its folder.
        sources: all that frames can be read from, in drive order.
    """

    uri: str
    sources: tuple[Source, ...]

    @property
    def records(self) -> tuple[Source, ...]:
        """The TFRecord files; the rest carries no labels."""
        return tuple(one for one in self.sources if one.kind == "tfrecord")

    @property
    def patterns(self) -> tuple[str, ...]:
        """The records as a pipeline.config's input_path names them: a pattern for each ending.

        The folder itself where files lie deeper, or have no ending of their own.
        """
        folders = {one.uri.rpartition("/")[0] for one in self.records}
        endings = [_ENDING.search(one.uri) for one in self.records]
        found = {f"*{ending[0]}" for ending in endings if ending}
        if not all(endings) or folders != {plain_uri(self.uri)}:
            return (self.uri,)
        return tuple(join_uri(self.uri, one) for one in sorted(found))


@dataclass(frozen=True)
class DataFolder:
    """What a folder of data holds, or a file, or the matches of a pattern.

    Attributes:
        uri: as it was given.
        train, val, test: the parts; None where there is no such folder with something to read.
        sources: of all parts, or all there is where there are no parts; in drive order.
        labels_uri: the label map that belongs to the data; None where there is none.
        labels: its classes.
        left_out: sources beside the parts, which nothing reads.
        contents: the files that are no sources, and why.
    """

    uri: str
    train: SplitFolder | None
    val: SplitFolder | None
    test: SplitFolder | None
    sources: tuple[Source, ...]
    labels_uri: str | None
    labels: LabelMap | None
    left_out: tuple[Source, ...] = ()
    contents: InputContents = _NOTHING

    @property
    def parts(self) -> dict[str, SplitFolder]:
        """Those that are there, by "train", "val" and "test"."""
        parts = {"train": self.train, "val": self.val, "test": self.test}
        return {name: part for name, part in parts.items() if part is not None}

    def for_training(self) -> tuple[SplitFolder, SplitFolder]:
        """The parts to train on and to validate with.

        Raises:
            NotFoundError: one of them has no TFRecord file.
        """
        for name in ("train", "val"):
            part = self.parts.get(name)
            if part is None or not part.records:
                raise NotFoundError(
                    f"{self.uri} has no {name}/ with TFRecord files, it holds {self._found()}: "
                    f"{_EXPECTED}; `urbandet data` has what makes them"
                )
        return self.parts["train"], self.parts["val"]

    def to_text(self) -> str:
        """Lines for a person: the parts and the label map, then what is left out."""
        labels = f"classes by {self.labels_uri}" if self.labels_uri else "no label map"
        found = f"{self.uri}: {self._found()}; {labels}{self._left_out()}"
        return "\n".join([found, *self.contents.to_lines()])

    def _found(self) -> str:
        if not self.parts:
            return f"{count_of(self.sources)} in no train/ or val/"
        return ", ".join(f"{name} {count_of(part.sources)}" for name, part in self.parts.items())

    def _left_out(self) -> str:
        if not self.left_out:
            return ""
        names = [one.uri[len(plain_uri(self.uri)) :].lstrip("/") for one in self.left_out]
        return f"; left out, in no part: {some_of(names, _SHOWN)}"


def read_data_folder(uri: str, storage: Storage, labels: str | None = None) -> DataFolder:
    """Read what a person names as data: a folder with parts, or anything list_sources takes.

    The folder is listed once. The label map is the one at the top, else one beside or above the
    records (label_map_lookup.py).

    Args:
        uri: a folder, local or s3://, a file or a pattern.
        storage: lists it, and reads the label map.
        labels: the label map in place of the data's own.

    Raises:
        InputError: nothing to read frames from, or two folders for one part.
        LabelError: label maps differ, or one is none.
        NotFoundError: nothing is there.
    """
    hidden: list[str] = []
    infos = list(storage.list_files(uri, hidden))
    if not infos:
        raise InputError(f"{uri} is an empty folder: expected train/ and val/ with TFRecord files")
    base, shape = base_of(uri, infos)
    paths = {info.uri[len(base) :].lstrip("/"): info for info in infos}
    parts = _parts(uri, paths, storage) if shape == "folder" else {}
    beside: list[Source] = []
    if parts:
        sources = listed_together(base, [one for part in parts.values() for one in part.sources])
        loose = [info for path, info in paths.items() if not split_of(path)]
        beside = sources_among(uri, loose, None)
    else:
        sources = sources_among(uri, infos, storage)
    if not sources:
        raise InputError(nothing_usable(uri, list(paths), shape))
    if labels is None:
        listed = [info.uri for info in infos] if shape == "folder" else None
        labels = find_label_map(base, listed, sources, storage)
    return DataFolder(
        uri=uri,
        train=parts.get("train"),
        val=parts.get("val"),
        test=parts.get("test"),
        sources=tuple(sources),
        labels_uri=labels,
        labels=read_labels(labels, storage) if labels else None,
        left_out=tuple(beside),
        contents=contents_of(
            uri, infos, hidden, [*sources, *beside], _label_maps(labels, base, infos)
        ),
    )


def sources_and_labels(uri: str, storage: Storage) -> tuple[tuple[Source, ...], LabelMap | None]:
    """All sources at a URI, as list_sources finds them, and the label map that belongs to them.

    Raises:
        InputError: nothing to read frames from.
        LabelError: label maps differ, or one is none.
        NotFoundError: nothing is there.
    """
    infos = list(storage.list_files(uri))
    base, shape = base_of(uri, infos)
    sources = tuple(sources_among(uri, infos, storage))
    if not sources:
        paths = [info.uri[len(base) :].lstrip("/") for info in infos]
        raise InputError(nothing_usable(uri, paths, shape))
    listed = [info.uri for info in infos] if shape == "folder" else None
    found = find_label_map(base, listed, sources, storage)
    return sources, read_labels(found, storage) if found else None


def _label_maps(used: str | None, base: str, infos: list[FileInfo]) -> list[str]:
    """The label map that is used; where it is a part's, also those of the others, as they agree."""
    if used is None:
        return []
    folder = used.rpartition("/")[0]
    maps = [info.uri for info in infos if info.uri.lower().endswith("label_map.pbtxt")]
    others = [uri for uri in maps if folder != base and uri.rpartition("/")[0] != folder]
    return [used, *others]


def records_at(uri: str, storage: Storage) -> tuple[Source, ...]:
    """The TFRecord files at a path that a pipeline.config names.

    Raises:
        InputError: there is none.
        NotFoundError: nothing is there.
    """
    records = tuple(one for one in list_sources(uri, storage) if one.kind == "tfrecord")
    if not records:
        raise InputError(f"{uri} has no TFRecord file: training needs TFRecords of tf.Examples")
    return records


def _parts(uri: str, paths: dict[str, FileInfo], storage: Storage) -> dict[str, SplitFolder]:
    """The parts of a folder by name; none where neither train nor val is there.

    Raises:
        InputError: two folders for one part.
    """
    folders: dict[str, list[FileInfo]] = {}
    for path, info in paths.items():
        if split_of(path):
            folders.setdefault(path.partition("/")[0], []).append(info)
    parts: dict[str, SplitFolder] = {}
    for folder, infos in folders.items():
        place, name = join_uri(uri, folder), split_of(f"{folder}/")
        found = SplitFolder(place, tuple(sources_among(place, infos, storage)))
        if found.sources and name in parts:
            raise InputError(
                f"{uri} has {parts[name].uri.rpartition('/')[2]}/ and {folder}/, which both stand "
                f"for {name}: expected one folder with all records of it; move or rename the other"
            )
        if found.sources:
            parts[name] = found
    return parts if {"train", "val"} & set(parts) else {}
