"""YOLO's labels: a text file an image, a line a box, `class cx cy width height` in shares.

Ultralytics' data.yaml and Darknet's obj.data say where the parts are. The labels of
images/.../a.jpg are in labels/.../a.txt; without a folder images they are beside the image
(ultralytics/data/utils.py: img2label_paths, check_det_dataset).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from posixpath import normpath
from typing import Any

import yaml

from urbandet_ray.datasets.annotated import AnnotatedImage, Corners, Dataset, LabelledBox, numbered
from urbandet_ray.datasets.file_index import FileIndex, folder_of, split_in
from urbandet_ray.datasets.oddities import Tally
from urbandet_ray.errors import InputError, LabelError
from urbandet_ray.label_files import label_text
from urbandet_ray.records.split_names import SPLIT_NAMES
from urbandet_ray.storage import Storage

NAME_FILES = ("obj.names", "classes.txt", "classes.names", "_darknet.labels")
"""Where Darknet, LabelImg and Roboflow keep the classes' names, one a line."""

_ROUNDING = 1e-4


@dataclass(frozen=True)
class YoloLayout:
    """What data.yaml or obj.data says.

    Attributes:
        names: of the classes, by number from 0.
        parts: folders, or lists of images, relative to the index, by "train", "val" and "test".
        keypoints: numbers behind the box in each line that are keypoints.
    """

    names: Mapping[int, str]
    parts: Mapping[str, tuple[str, ...]]
    keypoints: int = 0


def yolo_evidence(index: FileIndex, storage: Storage) -> str | None:
    """The file that makes a folder YOLO's; None where there is none."""
    for path in index.ending(".yaml", ".yml"):
        content = _yaml(index, path, storage)
        if isinstance(content, dict) and "names" in content and {"train", "val"} & set(content):
            return path
    data = [path for path in index.ending(".data") if path.rpartition("/")[2] == "obj.data"]
    named = [path for path in index.files if path.rpartition("/")[2] in NAME_FILES]
    return next(iter([*data, *named]), None)


def read_yolo(index: FileIndex, storage: Storage, evidence: str) -> Dataset:
    """Read the images of all parts and the labels beside them.

    An image without a label file, or with an empty one, holds nothing, as YOLO trains on it.

    Raises:
        InputError: data.yaml names no folder that is there.
        LabelError: the classes have no names.
    """
    tally = Tally()
    layout = _layout(index, storage, evidence)
    numbers = dict(sorted(layout.names.items()))
    images: list[AnnotatedImage] = []
    seen: set[str] = set()
    for path, split in _pictures(index, layout, storage, tally):
        if path in seen:
            tally.add("image-twice", path)
            continue
        seen.add(path)
        label = _label_path(path, index)
        boxes: tuple[LabelledBox, ...] = ()
        if label is None:
            tally.add("image-negative", f"{path}: no label file")
        else:
            text = storage.read_bytes(index.uri_of(label)).decode("utf-8-sig", "replace")
            boxes = tuple(_boxes(text, label, numbers, layout.keypoints, tally))
        images.append(AnnotatedImage(path, index.uri_of(path), boxes, normalised=True, split=split))
    if not images:
        raise InputError(
            f"{index.uri_of(evidence)} names no image that is there: expected folders of images "
            f"as train and val, found {dict(layout.parts) or 'none'}"
        )
    return Dataset("YOLO", index.uri, evidence, images, numbered(numbers.values()), tally)


def _yaml(index: FileIndex, path: str, storage: Storage) -> Any:
    try:
        return yaml.safe_load(storage.read_bytes(index.uri_of(path)).decode("utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return None


def _layout(index: FileIndex, storage: Storage, evidence: str) -> YoloLayout:
    if evidence.lower().endswith((".yaml", ".yml")):
        return _ultralytics(_yaml(index, evidence, storage), index, evidence)
    folder = folder_of(evidence)
    if evidence.endswith(".data"):
        text = label_text(storage.read_bytes(index.uri_of(evidence)), index.uri_of(evidence))
        pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
        data = {key.strip(): value.strip() for key, _, value in pairs}
        known = {"train": "train", "valid": "val", "val": "val", "test": "test"}
        parts = {
            part: (_place(data[key], folder, index),) for key, part in known.items() if key in data
        }
        names = _place(data.get("names", ""), folder, index)
        return YoloLayout(_names_in(index, names, storage), parts)
    return YoloLayout(_names_in(index, evidence, storage), {})


def _ultralytics(content: Mapping[str, Any], index: FileIndex, path: str) -> YoloLayout:
    names = content["names"]
    try:
        listed = names.items() if isinstance(names, dict) else enumerate(names)
        numbers = {int(number): str(name) for number, name in listed}
    except (TypeError, ValueError):
        raise LabelError(
            f"{index.uri_of(path)}: names is {names!r}, expected a list of names, or numbers from "
            "0 with their names"
        ) from None
    root = _place(str(content.get("path") or ""), folder_of(path), index)
    parts: dict[str, tuple[str, ...]] = {}
    for split, keys in SPLIT_NAMES.items():
        for key in keys:
            given = content.get(key)
            entries = given if isinstance(given, list) else [given]
            places = tuple(_place(str(entry), root, index) for entry in entries if entry)
            if places:
                parts[split] = parts.get(split, ()) + places
    shape = content.get("kpt_shape")
    return YoloLayout(numbers, parts, math.prod(shape) if shape else 0)


def _place(entry: str, folder: str, index: FileIndex) -> str:
    """A path of the yaml relative to the index, wherever the dataset was when it was written.

    Ultralytics passes over a `../` that leads nowhere, as Roboflow writes it.
    """
    clean = entry.replace("\\", "/").rstrip("/")
    tries = [f"{folder}/{clean}" if folder else clean]
    if clean.startswith("../"):
        tries.append(f"{folder}/{clean[3:]}" if folder else clean[3:])
    tail = clean.strip("/").split("/")
    tries += ["/".join(tail[start:]) for start in range(len(tail))]
    for path in map(normpath, tries):
        below = "" if path == "." else f"{path}/"
        if path in index.files or any(file.startswith(below) for file in index.files):
            return "" if path == "." else path
    return clean or folder


def _names_in(index: FileIndex, path: str, storage: Storage) -> dict[int, str]:
    if path not in index.files:
        raise LabelError(
            f"{index.uri} has no file of class names ({path or 'none named'}): expected data.yaml "
            f"with names, or one of {', '.join(NAME_FILES)}"
        )
    text = label_text(storage.read_bytes(index.uri_of(path)), index.uri_of(path))
    return dict(enumerate(line.strip() for line in text.splitlines() if line.strip()))


def _pictures(
    index: FileIndex, layout: YoloLayout, storage: Storage, tally: Tally
) -> Iterator[tuple[str, str]]:
    """Each image of the parts with its part; all images where no parts are named."""
    pictures = list(index.pictures())
    if not layout.parts:
        yield from ((path, split_in(folder_of(path))) for path in pictures)
        return
    for split, place in _each_once(layout, tally):
        if place in index.files:
            text = storage.read_bytes(index.uri_of(place)).decode("utf-8-sig", "replace")
            folders = [folder_of(place), ""]
            for line in filter(None, map(str.strip, text.splitlines())):
                path = index.picture(line, folders, tally)
                if path is not None:
                    yield path, split
            continue
        below = f"{place}/" if place else ""
        found = [path for path in pictures if path.startswith(below)]
        if not found:
            tally.add("part-missing", f"{split}: {place}")
        yield from ((path, split) for path in found)


def _each_once(layout: YoloLayout, tally: Tally) -> Iterator[tuple[str, str]]:
    """Part and place of the images; those of several parts are in no part."""
    times = Counter(place for places in layout.parts.values() for place in places)
    seen: set[str] = set()
    for split, places in layout.parts.items():
        for place in places:
            if place in seen:
                tally.add("part-again", f"{split}: {place or 'the whole folder'}")
                continue
            seen.add(place)
            yield (split if times[place] == 1 else ""), place


def _label_path(path: str, index: FileIndex) -> str | None:
    """The label file of an image: the last images/ becomes labels/; else beside it."""
    folder, _, name = path.rpartition("/")
    stem = PurePosixPath(name).stem
    head, found, tail = f"/{folder}/".rpartition("/images/")
    tries = [f"{head}/labels/{tail}{stem}.txt"] if found else []
    for label in [*tries, f"/{folder}/{stem}.txt"]:
        clean = normpath(label.strip("/"))
        if clean in index.files:
            return clean
    return None


def _boxes(
    text: str, place: str, names: Mapping[int, str], keypoints: int, tally: Tally
) -> Iterator[LabelledBox]:
    seen: set[tuple[object, ...]] = set()
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{place}:{number}"
        try:
            given = [float(word) for word in line.split()]
            class_name = names.get(int(given[0])) if given[0] == int(given[0]) else None
        except (ValueError, OverflowError):
            tally.add("label-damaged", f"{where}: {line.strip()[:60]!r}")
            continue
        corners = _corners(given[1:], keypoints, where, tally)
        if class_name is None:
            tally.add("class-unknown", f"{where}: class number {given[0]:g}")
        elif corners is not None:
            key = (class_name, corners)
            if key in seen:
                tally.add("box-twice", where)
                continue
            seen.add(key)
            yield LabelledBox(class_name, corners)


def _corners(given: list[float], keypoints: int, where: str, tally: Tally) -> Corners | None:
    """Of a box, of a box with keypoints or a score behind it, or of an outline."""
    if len(given) < 4 or (len(given) > 5 + keypoints and len(given) % 2):
        tally.add("label-damaged", f"{where}: {len(given) + 1} numbers, expected 5")
        return None
    if any(value > 1 + _ROUNDING for value in given[: 4 if keypoints else len(given)]):
        tally.add("box-looks-like-pixels", where)
        return None
    if len(given) >= 6 and not keypoints:
        tally.add("box-from-polygon", where)
        return (min(given[::2]), min(given[1::2]), max(given[::2]), max(given[1::2]))
    if len(given) == 5 and not keypoints:
        tally.add("score-left-out", where)
    x, y, width, height = given[:4]
    return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
