"""The label map that belongs to records: the one rule of where it lies, for every command."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence

from urbandet_ray.errors import AccessError, LabelError
from urbandet_ray.label_files import read_label_text
from urbandet_ray.labels import LabelMap
from urbandet_ray.records.source import Source
from urbandet_ray.records.split_names import SPLIT_NAMES, split_of
from urbandet_ray.storage import Storage
from urbandet_ray.uris import parent_uri

LABEL_MAP = "label_map.pbtxt"
_NAME = re.compile(r"(.+[_-])?label[_-]?map\.pbtxt", re.I)
_EXACT = (LABEL_MAP, "labelmap.pbtxt")
_DATA_ENDING = re.compile(
    r"(-\d+-of-\d+)?(\.(tfrecords?|tfrec|records?))?(-\d+-of-\d+)?(\.gz)?$", re.I
)
_LEVELS_UP = 2


def find_label_map(
    base: str, listed: Sequence[str] | None, sources: Sequence[Source], storage: Storage
) -> str | None:
    """The label map of records: beside them, between them and `base`, or up to two folders above.

    It is named label_map.pbtxt or labelmap.pbtxt, else ..._label_map.pbtxt. The map named for a
    file that was given (a_label_map.pbtxt for a.record-00000-of-00002) comes first.

    Args:
        base: the folder that was given, or the one of the file or pattern that was given.
        listed: the files in and below the folder that was given; None where files were given.
        sources: what was found there.
        storage: looks beside files and above.

    Raises:
        LabelError: several maps with different classes where only one can be right, or one of them
            is no label map.
    """
    records = [one.uri for one in sources if one.kind == "tfrecord"]
    parts = [one for one in listed or () if split_of(one[len(base) :].lstrip("/"))]
    folders = _folders(base, [*records, *(one for one in parts if _is_in_top_folder(one, base))])
    if listed is not None:
        members = _maps(listed)
    else:
        members = [one for folder in folders for one in _maps_in(folder, storage)]
        own = {f"{_stem(one)}_{LABEL_MAP}".lower() for one in records}
        members = [one for one in members if _name(one).lower() in own] or members
    found = [one for folder in folders for one in _best(members, folder)]
    if not found:
        return _above(base, storage)
    if differing := _differing(found, storage):
        raise LabelError(
            f"{base} has label maps that differ, {' and '.join(differing)}: expected one for all "
            "records; name the right one (--labels, or labels in a run config), or give one folder "
            "with its own map"
        )
    return found[0]


def _folders(base: str, records: Iterable[str]) -> list[str]:
    """The base, and what lies between it and the records: high ones first, train before val."""
    found = {base}
    for uri in records:
        folder = uri.rpartition("/")[0]
        while folder.startswith(f"{base}/"):
            found.add(folder)
            folder = folder.rpartition("/")[0]

    parts = [*SPLIT_NAMES, ""]
    order = {one: parts.index(split_of(f"{_name(one)}/")) for one in found}
    return sorted(found, key=lambda one: (one.count("/"), order[one], one))


def _is_in_top_folder(uri: str, base: str) -> bool:
    return uri[len(base) :].lstrip("/").count("/") == 1


def _above(base: str, storage: Storage) -> str | None:
    folder = parent_uri(base)
    for _ in range(_LEVELS_UP):
        if folder is None:
            break
        found = _best(_maps_in(folder, storage), folder)
        if found and not _differing(found, storage):
            return found[0]
        if found:
            logging.getLogger(__name__).warning(
                "%s has %d label maps that differ, so none is taken for %s: name the right one "
                "(--labels, or labels in a run config)",
                folder,
                len(found),
                base,
            )
        folder = parent_uri(folder)
    return None


def _maps_in(folder: str, storage: Storage) -> list[str]:
    try:
        return _maps(info.uri for info in storage.list_folder(folder))
    except AccessError as error:
        logging.getLogger(__name__).warning("no label map is looked for in %s: %s", folder, error)
        return []


def _maps(uris: Iterable[str]) -> list[str]:
    return [uri for uri in uris if _NAME.fullmatch(_name(uri))]


def _best(maps: Iterable[str], folder: str) -> list[str]:
    """Of a folder's own label maps the one of the plain name, else all."""
    own = sorted(one for one in maps if one.rpartition("/")[0] == folder)
    for exact in _EXACT:
        if chosen := [one for one in own if _name(one).lower() == exact]:
            return chosen
    return own


def _differing(maps: Sequence[str], storage: Storage) -> tuple[str, ...]:
    """The first map, and one with other classes; none where all are alike."""
    first, *others = maps
    if not others:
        return ()
    labels = LabelMap.parse(read_label_text(first, storage), first)
    for other in others:
        if LabelMap.parse(read_label_text(other, storage), other) != labels:
            return first, other
    return ()


def _name(uri: str) -> str:
    return uri.rpartition("/")[2]


def _stem(uri: str) -> str:
    """ "a" of ".../a.record-00000-of-00002"."""
    return _DATA_ENDING.sub("", _name(uri), count=1)
