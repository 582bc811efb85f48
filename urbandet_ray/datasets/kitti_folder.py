"""KITTI's labels: a text file an image (objects) or a drive (tracking), corners in pixels.

Columns: type, truncated, occluded, alpha, x0, y0, x1, y1, then 3D, as its devkit's readme.txt has
them; tracking has frame and track id in front. http://www.cvlibs.net/datasets/kitti/
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import PurePosixPath

from urbandet_ray.datasets.annotated import AnnotatedImage, Dataset, LabelledBox, numbered
from urbandet_ray.datasets.file_index import FileIndex, folder_of, split_in
from urbandet_ray.datasets.oddities import Tally
from urbandet_ray.storage import Storage

IGNORED = "DontCare"
"""Marks regions that nobody labelled."""

_KNOWN = (
    "Car", "Van", "Truck", "Pedestrian", "Person_sitting", "Person", "Cyclist", "Tram", "Misc",
)  # fmt: skip
_COLUMNS = 15


def kitti_evidence(index: FileIndex) -> str | None:
    """A file of labels by its place, label_2/000001.txt or label_02/0000.txt."""
    for path in index.ending(".txt"):
        if folder_of(path).rpartition("/")[2].lower() in ("label_2", "label_02", "label_3"):
            return path
    return None


def read_kitti(index: FileIndex, storage: Storage, evidence: str) -> Dataset:
    """Read all label files; images without one are not labelled."""
    tally = Tally()
    images: list[AnnotatedImage] = []
    for path in index.ending(".txt"):
        folder = folder_of(path).rpartition("/")[2].lower()
        if not folder.startswith("label"):
            continue
        text = storage.read_bytes(index.uri_of(path)).decode("utf-8-sig", "replace")
        if folder == "label_02":
            images += _drive(text, path, index, tally)
        else:
            images += _object(text, path, index, tally)
    labelled = {image.name for image in images}
    for picture in index.pictures():
        if picture not in labelled:
            tally.add("image-unlabelled", picture)
    names = {box.class_name for image in images for box in image.boxes}
    known = [name for name in _KNOWN if name in names]
    ids = numbered([*known, *sorted(names - set(known))])
    return Dataset("KITTI", index.uri, evidence, images, ids, tally)


def _object(text: str, path: str, index: FileIndex, tally: Tally) -> Iterator[AnnotatedImage]:
    folder, stem = folder_of(path), PurePosixPath(path).stem
    base, _, labels = folder.rpartition("/")
    number = labels.rpartition("_")[2]
    for name in (f"image_{number}/{stem}", f"image_2/{stem}", f"images/{stem}", stem):
        for ending in (".png", ".jpg", ".jpeg"):
            picture = f"{base}/{name}{ending}".strip("/")
            if picture in index.files:
                rows = [(number, line.split()) for number, line in _lines(text)]
                boxes = tuple(_boxes(rows, path, tally))
                yield AnnotatedImage(
                    picture, index.uri_of(picture), boxes, split=split_in(folder_of(picture))
                )
                return
    tally.add("image-missing", f"of {path}")


def _drive(text: str, path: str, index: FileIndex, tally: Tally) -> Iterator[AnnotatedImage]:
    """The images of a drive of KITTI's tracking part; one without a line holds nothing."""
    drive = PurePosixPath(path).stem
    base = folder_of(folder_of(path))
    below = f"{base}/image_02/{drive}/".lstrip("/")
    rows: dict[int, list[tuple[int, list[str]]]] = defaultdict(list)
    for number, line in _lines(text):
        words = line.split()
        if words[0].isdecimal():
            rows[int(words[0])].append((number, words[2:]))
        else:
            tally.add("label-damaged", f"{path}:{number}: no frame number")
    for picture in [one for one in index.pictures() if one.startswith(below)]:
        stem = PurePosixPath(picture).stem
        own = rows.pop(int(stem), []) if stem.isdecimal() else []
        yield AnnotatedImage(
            picture, index.uri_of(picture), tuple(_boxes(own, path, tally)), drive=drive
        )
    for frame in rows:
        tally.add("image-missing", f"frame {frame} of {path}")


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield number, line


def _boxes(rows: list[tuple[int, list[str]]], path: str, tally: Tally) -> Iterator[LabelledBox]:
    for number, words in rows:
        place = f"{path}:{number}"
        try:
            values = [float(word) for word in words[1:]]
        except ValueError:
            values = []
        if len(words) < _COLUMNS or not values:
            tally.add("label-damaged", f"{place}: expected a type and 14 numbers")
            continue
        if words[0] == IGNORED:
            tally.add("region-ignored", place)
            continue
        x0, y0, x1, y1 = values[3:7]
        truncated, occluded = values[0], int(values[1])
        yield LabelledBox(
            words[0],
            (x0, y0, x1, y1),
            truncated=truncated if truncated >= 0 else None,
            occluded=occluded if occluded >= 0 else None,
        )
