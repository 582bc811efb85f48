"""How COCO's files name a run's frames: by their own paths, or by the ids of a COCO file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from urbandet_ray.datasets.truth_lookup import NameLookup
from urbandet_ray.errors import InputError
from urbandet_ray.evaluation.results_file import CocoNames
from urbandet_ray.labels import LabelMap
from urbandet_ray.phrases import printable, some_of
from urbandet_ray.records.sources import Source, base_of
from urbandet_ray.runs.detections_table import DetectionRow
from urbandet_ray.storage import Storage

_SHOWN = 3


def frame_paths(uri: str, sources: Sequence[Source]) -> Callable[[str, DetectionRow], str]:
    """What file_name is: a picture's path below the input, with its ending; else its key."""
    pictures = {one.name: one.files for one in sources if one.files}
    base = base_of(uri, [info for files in pictures.values() for info in files])[0]

    def path_of(source: str, row: DetectionRow) -> str:
        if source not in pictures:
            return row.frame_key
        return printable(pictures[source][row.index].uri[len(base) :].lstrip("/"))

    return path_of


class CocoIds:
    """Ids of images and categories from a COCO file.

    Raises:
        InputError: it is no COCO file, or has none of the run's classes.
    """

    def __init__(self, uri: str, labels: LabelMap, storage: Storage) -> None:
        self._uri = uri
        content = _read(uri, storage)
        images = {str(one["file_name"]): one for one in content["images"]}
        self._lookup: NameLookup[dict[str, Any]] = NameLookup(images)
        theirs = {str(one["name"]): int(one["id"]) for one in content["categories"]}
        ours = labels.names.items()
        self._classes = {number: theirs[name] for number, name in ours if name in theirs}
        self._unknown = [name for _, name in ours if name not in theirs]
        if not self._classes:
            raise InputError(
                f"{uri} has the categories {some_of(sorted(theirs), 5)}, the run "
                f"{some_of(self._unknown, 5)}: none is the same; infer with --labels and --mapping "
                "of its classes"
            )

    def names(self, path_of: Callable[[str, DetectionRow], str]) -> CocoNames:
        """For write_coco; frames and classes that the file does not have are left out."""

        def name(source: str, row: DetectionRow) -> tuple[int, str] | None:
            found = self._lookup.find(path_of(source, row), source)
            return None if found is None else (int(found["id"]), str(found["file_name"]))

        return CocoNames(name, self._classes)

    def to_lines(self) -> list[str]:
        """What was left out.

        Raises:
            InputError: no frame of the run is in the file.
        """
        lookup = self._lookup
        if not lookup.found:
            raise InputError(
                f"no frame of the run is in {self._uri}: frames are named "
                f"{some_of(lookup.unknown, _SHOWN)} in the run and "
                f"{some_of([*lookup.known], _SHOWN)} there; give the COCO file of this input"
            )
        lines = []
        if lookup.unknown:
            lines.append(
                f"{len(lookup.unknown)} frames are not in {self._uri}, nor in coco/: "
                f"{some_of(lookup.unknown, _SHOWN)}"
            )
        if self._unknown:
            lines.append(
                f"{self._uri} has no category {some_of(self._unknown, _SHOWN)}: their boxes are "
                "not in coco/"
            )
        return lines


def _read(uri: str, storage: Storage) -> dict[str, Any]:
    expected = "expected COCO's instances JSON: images with id and file_name, categories"
    try:
        content = json.loads(storage.read_bytes(uri).decode("utf-8-sig"))
        _ = [(int(one["id"]), one["file_name"]) for one in content["images"]]
        _ = [(int(one["id"]), one["name"]) for one in content["categories"]]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"{uri} is no COCO file ({error!r}): {expected}") from None
    whole: dict[str, Any] = content
    return whole
