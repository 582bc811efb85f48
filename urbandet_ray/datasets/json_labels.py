"""Labels that are JSON: read once, and told apart by what they hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from urbandet_ray.datasets.file_index import FileIndex
from urbandet_ray.datasets.oddities import Tally
from urbandet_ray.errors import InputError
from urbandet_ray.storage import Storage


def read_json(index: FileIndex, path: str, storage: Storage) -> Any:
    """The content of a JSON file, with or without a byte order mark.

    Raises:
        InputError: it is no JSON.
    """
    data = storage.read_bytes(index.uri_of(path))
    try:
        return json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{index.uri_of(path)} is no JSON ({error}): expected labels in JSON, whole and in "
            "UTF-8; export it again"
        ) from None


def json_format(content: Any) -> str | None:
    """The format of parsed labels; "results" for COCO's detections, None for something else."""
    if isinstance(content, dict):
        if isinstance(content.get("images"), list) and "categories" in content:
            return "coco"
        return "bdd100k" if isinstance(content.get("frames"), list) else None
    first = content[0] if isinstance(content, list) and content else None
    return _list_format(first) if isinstance(first, dict) else None


def _list_format(first: dict[str, Any]) -> str | None:
    """Of a list of labels by its first entry."""
    if "image_id" in first and "bbox" in first:
        return "results"
    if isinstance(first.get("data"), dict) or ("image" in first and "id" in first):
        return "label-studio"
    is_bdd = "name" in first and any(key in first for key in ("labels", "attributes", "videoName"))
    return "bdd100k" if is_bdd else None


def labels_in_json(
    index: FileIndex, wanted: str, storage: Storage, tally: Tally
) -> Iterator[tuple[str, Any]]:
    """Path and content of each JSON file of one format; others are counted as unread."""
    for path in index.ending(".json"):
        content = read_json(index, path, storage)
        if json_format(content) == wanted:
            yield path, content
        else:
            tally.add("file-unread", path)


def first_json_format(index: FileIndex, storage: Storage) -> tuple[str, str] | None:
    """Format and path of the first JSON file that holds labels; few files are looked into.

    Raises:
        InputError: the file that was named itself is no JSON, or holds detections.
    """
    for path in index.ending(".json")[:20]:
        try:
            found = json_format(read_json(index, path, storage))
        except InputError:
            if index.chosen is not None:
                raise
            continue
        if found == "results":
            if index.chosen is None:
                continue
            raise InputError(
                f"{index.uri_of(path)} holds detections (COCO's results), no images and no labels: "
                "expected the instances file, with images, annotations and categories"
            )
        if found is not None:
            return found, path
    return None


def number(value: object) -> float | None:
    """A number as JSON has it; None for anything else, and for true and false."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def size_of(given: dict[str, Any]) -> tuple[int, int] | None:
    """The `width` and `height` of an object, where it has both."""
    width, height = number(given.get("width")), number(given.get("height"))
    return (int(width), int(height)) if width and height else None
