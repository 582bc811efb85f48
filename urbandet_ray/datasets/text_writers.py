"""Writes datasets as text and XML: YOLO's folders, Pascal VOC's and CVAT's files."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import yaml

from urbandet_ray.datasets.annotated import LabelledBox
from urbandet_ray.datasets.exported import IMAGES, ExportDesk, ExportedImage, flags_of


def stem_of(name: str) -> str:
    """A file's path without its ending."""
    return str(PurePosixPath(name).with_suffix(""))


class YoloWriter:
    """Ultralytics' folders: images/, labels/ and data.yaml. Flags and scores have no place."""

    takes_unlabelled = False

    def __init__(self, desk: ExportDesk) -> None:
        self._desk = desk
        self._parts: set[str] = set()
        names = [*desk.labels.names.values()]
        self._numbers = {name: number for number, name in enumerate(names)}

    def add(self, image: ExportedImage) -> None:
        """Its labels, in the words of the format."""
        self._parts.add(image.part)
        rows = "".join(self._row(box, image) for box in image.boxes)
        self._desk.write(f"labels/{stem_of(image.name)}.txt", rows.encode())

    def _row(self, box: LabelledBox, image: ExportedImage) -> str:
        if flags_of(box):
            self._desk.tally.add("flag-left-out", f"{image.name}: {box.class_name}")
        if box.score is not None:
            self._desk.tally.add("score-left-out", f"{image.name}: {box.class_name}")
        width, height = image.size_wh
        x0, y0, x1, y1 = box.xyxy
        shares = (
            (x0 + x1) / 2 / width,
            (y0 + y1) / 2 / height,
            (x1 - x0) / width,
            (y1 - y0) / height,
        )
        return f"{self._numbers[box.class_name]} {' '.join(map(repr, shares))}\n"

    def finish(self) -> None:
        """data.yaml; a set without parts is train and val alike, as YOLO needs both."""
        named = sorted(part for part in self._parts if part)
        parts = {part: f"{IMAGES}/{part}" for part in named} or {"train": IMAGES, "val": IMAGES}
        names = {number: name for name, number in self._numbers.items()}
        content = {"path": ".", **parts, "names": names}
        self._desk.write(
            "data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode()
        )


class VocWriter:
    """Annotations/*.xml, and ImageSets/Main where there are parts. Scores have no place.

    Corners have decimals, where VOC's own are whole.
    """

    takes_unlabelled = False

    def __init__(self, desk: ExportDesk) -> None:
        self._desk = desk
        self._lists: dict[str, list[str]] = {}

    def add(self, image: ExportedImage) -> None:
        """Its labels, in the words of the format."""
        root = Element("annotation")
        width, height = image.size_wh
        _children(root, folder=IMAGES, filename=image.name, **image.place)
        _children(SubElement(root, "size"), width=width, height=height, depth=3)
        for box in image.boxes:
            if box.score is not None:
                self._desk.tally.add("score-left-out", f"{image.name}: {box.class_name}")
            self._object(root, box)
        stem = stem_of(image.name)
        if image.part:
            self._lists.setdefault(image.part, []).append(stem)
        self._desk.write(f"Annotations/{stem}.xml", _xml(root))

    def _object(self, root: Element, box: LabelledBox) -> None:
        one = SubElement(root, "object")
        _children(one, name=box.class_name, difficult=int(box.difficult))
        if box.truncated is not None:
            _children(one, truncated=_plain(box.truncated))
        if box.occluded is not None:
            _children(one, occluded=box.occluded)
        if box.crowd:
            _children(one, crowd=1)
        sides = zip(("xmin", "ymin", "xmax", "ymax"), map(repr, box.xyxy), strict=True)
        _children(SubElement(one, "bndbox"), **dict(sides))

    def finish(self) -> None:
        """The lists of the parts."""
        for part, stems in self._lists.items():
            text = "".join(f"{stem}\n" for stem in stems)
            self._desk.write(f"ImageSets/Main/{part}.txt", text.encode())


class CvatWriter:
    """CVAT for images 1.1. Scores have no place; flags are attributes, which the labels declare."""

    takes_unlabelled = False

    def __init__(self, desk: ExportDesk) -> None:
        self._desk = desk
        self._root = Element("annotations")
        _children(self._root, version="1.1")
        self._labels = SubElement(SubElement(SubElement(self._root, "meta"), "task"), "labels")
        self._flags: set[str] = set()
        self._count = 0

    def add(self, image: ExportedImage) -> None:
        """Its labels, in the words of the format."""
        width, height = image.size_wh
        known = {"id": self._count, "name": image.name, "width": width, "height": height}
        known |= image.place | ({"subset": image.part} if image.part else {})
        self._count += 1
        one = SubElement(self._root, "image", {key: str(value) for key, value in known.items()})
        for box in image.boxes:
            self._box(one, box, image.name)

    def _box(self, image: Element, box: LabelledBox, name: str) -> None:
        if box.score is not None:
            self._desk.tally.add("score-left-out", f"{name}: {box.class_name}")
        sides = dict(zip(("xtl", "ytl", "xbr", "ybr"), map(repr, box.xyxy), strict=True))
        hidden = str(int(bool(box.occluded)))
        one = SubElement(image, "box", {"label": box.class_name, "occluded": hidden, **sides})
        for flag, value in flags_of(box).items():
            if flag == "occluded" and value == 1:
                continue  # CVAT's own flag says it
            self._flags.add(flag)
            SubElement(one, "attribute", {"name": flag}).text = _plain(value)

    def finish(self) -> None:
        """annotations.xml, with the classes and the flags that were used."""
        for name in self._desk.labels.names.values():
            label = SubElement(self._labels, "label")
            _children(label, name=name)
            attributes = SubElement(label, "attributes")
            for flag in sorted(self._flags):
                _children(SubElement(attributes, "attribute"), name=flag, input_type="text")
        self._desk.write("annotations.xml", _xml(self._root))


def _children(parent: Element, **values: Any) -> None:
    for name, value in values.items():
        SubElement(parent, name).text = str(value)


def _plain(value: float) -> str:
    """1.0 as 1: tools that expect a flag read it."""
    return str(int(value)) if value == int(value) else repr(float(value))


def _xml(root: Element) -> bytes:
    indent(root)
    text: bytes = tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"
