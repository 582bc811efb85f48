"""Pascal VOC's labels: an XML file an image, with corners in pixels.

Corners are taken as they stand, as the OD API's create_pascal_tf_record.py takes them: VOC's own
count pixels from 1, those of today's tools from 0, and nothing in a file tells which.
http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from urbandet_ray.datasets.annotated import AnnotatedImage, Dataset, LabelledBox, numbered
from urbandet_ray.datasets.file_index import (
    FileIndex,
    folder_of,
    split_in,
)
from urbandet_ray.datasets.oddities import Tally
from urbandet_ray.datasets.xml_labels import flag, numbers_of, read_xml, text_of, xml_format
from urbandet_ray.errors import InputError
from urbandet_ray.records.image_headers import IMAGE_SUFFIXES
from urbandet_ray.storage import Storage

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_LISTS = ("train", "val", "test")


def read_voc(index: FileIndex, storage: Storage, evidence: str) -> Dataset:
    """Read every XML file and the image that it names.

    ImageSets/Main/ says the parts, where it is there: images in no list are left out, as VOC's own
    are labelled in part only. An image without XML is not labelled, so it is no negative.
    """
    tally = Tally()
    lists = _lists(index, storage)
    images: list[AnnotatedImage] = []
    for path in index.ending(".xml"):
        listed = _listed(path, lists)
        if lists and not listed:
            tally.add("image-unlisted", path)
            continue
        try:
            root = read_xml(index, path, storage)
        except InputError as error:
            tally.add("label-damaged", str(error))
            continue
        if xml_format(root) != "voc":
            tally.add("file-unread", path)
            continue
        split = listed or split_in(folder_of(path))
        image = _image(root, path, split, index, tally)
        if image is not None:
            images.append(image)
    labelled = {image.name for image in images}
    for picture in index.pictures() if index.chosen is None else ():
        known = picture in labelled or _listed(picture, lists)
        if not known and "Segmentation" not in picture:
            tally.add("image-unlabelled", picture)
    names = {box.class_name for image in images for box in image.boxes}
    ids = numbered(sorted(names))  # VOC's own order is that of the alphabet
    return Dataset("Pascal VOC", index.uri, evidence, images, ids, tally)


def _lists(index: FileIndex, storage: Storage) -> dict[str, str]:
    """The part of each image by the lists of ImageSets/Main."""
    found: dict[str, str] = {}
    for path in index.files:
        folder, _, name = path.rpartition("/")
        part = name.removesuffix(".txt")
        if f"/{folder}".endswith("/ImageSets/Main") and part in _LISTS:
            text = storage.read_bytes(index.uri_of(path)).decode("utf-8-sig", "replace")
            for line in filter(None, map(str.strip, text.splitlines())):
                found.setdefault(line.split()[0], part)
    return found


def _listed(path: str, lists: Mapping[str, str]) -> str:
    """The part of a file by the lists, which may name folders below Annotations; "" for none."""
    bare = str(PurePosixPath(path).with_suffix(""))
    parts = bare.split("/")
    tails = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((lists[tail] for tail in tails if tail in lists), "")


def _image(
    root: Element, path: str, split: str, index: FileIndex, tally: Tally
) -> AnnotatedImage | None:
    stem, folder = PurePosixPath(path).stem, folder_of(path)
    name = text_of(root, "filename") or f"{stem}.jpg"
    base = folder.rpartition("/")[0] if folder.endswith("Annotations") else folder
    beside = [folder, f"{base}/JPEGImages".strip("/"), f"{base}/images".strip("/"), base]
    file = _beside(stem, name, beside, index) or index.picture(name, beside, tally)
    if file is None:
        return None
    size = root.find("size")
    sides = None if size is None else numbers_of(size, "width", "height")
    return AnnotatedImage(
        file,
        index.uri_of(file),
        tuple(_boxes(root, path, tally)),
        size_wh=(int(sides[0]), int(sides[1])) if sides and min(sides) >= 1 else None,
        split=split,
        drive=text_of(root, "segment"),
        camera=text_of(root, "camera"),
        timestamp_us=_whole(text_of(root, "timestamp_us")),
    )


def _beside(stem: str, name: str, folders: list[str], index: FileIndex) -> str | None:
    """The named image in its place; else one of the XML's own name, as after a rename."""
    for wanted in (name, *(f"{stem}{s}" for s in IMAGE_SUFFIXES)):
        for folder in folders:
            path = f"{folder}/{wanted}".strip("/")
            if path in index.files and PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES:
                return path
    return None


def _boxes(root: Element, path: str, tally: Tally) -> Iterator[LabelledBox]:
    for number, one in enumerate(root.iterfind("object"), start=1):
        place = f"{path}, object {number}"
        name, corners = text_of(one, "name"), one.find("bndbox")
        if corners is None:
            tally.add("label-without-box", place)
            continue
        sides = numbers_of(corners, "xmin", "ymin", "xmax", "ymax")
        if sides is None or not name:
            tally.add("label-damaged", f"{place}: name {name!r}, bndbox {sides or 'not 4 numbers'}")
            continue
        truncated, occluded = flag(text_of(one, "truncated")), flag(text_of(one, "occluded"))
        share = numbers_of(one, "truncated")
        yield LabelledBox(
            name,
            (sides[0], sides[1], sides[2], sides[3]),
            difficult=bool(flag(text_of(one, "difficult"))),
            crowd=bool(flag(text_of(one, "crowd"))),
            truncated=share[0] if share else None if truncated is None else float(truncated),
            occluded=None if occluded is None else int(occluded),
        )


def _whole(text: str) -> int | None:
    return int(text) if text.isdecimal() else None
