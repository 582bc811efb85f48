"""CVAT's XML 1.1, for images and for video: boxes, outlines, masks; corners in pixels.

https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from urbandet_ray.datasets.annotated import AnnotatedImage, Corners, Dataset, LabelledBox, numbered
from urbandet_ray.datasets.file_index import FileIndex, folder_of, split_in
from urbandet_ray.datasets.oddities import Tally
from urbandet_ray.datasets.rotation import around_ellipse, around_points, around_rotated
from urbandet_ray.datasets.xml_labels import as_numbers, flag, read_xml, text_of, xml_format
from urbandet_ray.storage import Storage

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_SHAPES = ("box", "polygon", "polyline", "points", "ellipse", "mask", "cuboid", "skeleton", "tag")
_SIDES = {
    "box": ("xtl", "ytl", "xbr", "ybr"),
    "ellipse": ("cx", "cy", "rx", "ry"),
    "mask": ("left", "top", "width", "height"),
}
_FLAGS = ("difficult", "truncated", "crowd")


def read_cvat(index: FileIndex, storage: Storage, evidence: str) -> Dataset:
    """Read every CVAT file: its images, and the frames of its tracks."""
    tally = Tally()
    images: dict[str, AnnotatedImage] = {}
    names: list[str] = []
    for path in index.ending(".xml"):
        root = read_xml(index, path, storage)
        if xml_format(root) != "cvat":
            tally.add("file-unread", path)
            continue
        names += [text_of(label, "name") for label in root.iterfind("meta//labels/label")]
        for image in (*_stills(root, path, index, tally), *_tracks(root, path, index, tally)):
            if image.name in images:
                tally.add("image-twice", image.name)
            images.setdefault(image.name, image)
    used = {box.class_name for image in images.values() for box in image.boxes}
    ids = numbered([*filter(None, names), *sorted(used)])
    return Dataset("CVAT", index.uri, evidence, [*images.values()], ids, tally)


def _stills(root: Element, path: str, index: FileIndex, tally: Tally) -> Iterator[AnnotatedImage]:
    here = folder_of(path)
    for one in root.iterfind("image"):
        name = one.get("name", "")
        subset = one.get("subset", "")
        folders = [here, f"{here}/images".strip("/"), f"images/{subset}".strip("/"), "images", ""]
        file = index.picture(name, folders, tally)
        if file is None:
            continue
        boxes = (
            box
            for shape in one
            if shape.tag in _SHAPES
            for box in _box(shape, shape.get("label", ""), f"{path}: {name}", tally)
        )
        stamp = one.get("timestamp_us", "")
        yield AnnotatedImage(
            file,
            index.uri_of(file),
            tuple(boxes),
            size_wh=_size(one.get("width"), one.get("height")),
            split=split_in(subset or folder_of(file)),
            drive=one.get("segment", ""),
            camera=one.get("camera", ""),
            timestamp_us=int(stamp) if stamp.isdecimal() else None,
        )


def _tracks(root: Element, path: str, index: FileIndex, tally: Tally) -> Iterator[AnnotatedImage]:
    """The frames of a video task: CVAT writes each of a track's boxes, keyframe or between."""
    tracks = root.findall("track")
    if not tracks:
        return
    boxes: dict[int, list[LabelledBox]] = defaultdict(list)
    for track in tracks:
        for shape in track:
            frame = shape.get("frame", "")
            if shape.get("outside") == "1" or shape.tag not in _SHAPES:
                continue
            place = f"{path}: frame {frame}, track {track.get('id')}"
            if not frame.isdecimal():
                tally.add("label-damaged", place)
                continue
            boxes[int(frame)] += _box(shape, track.get("label", ""), place, tally)
    size = next(root.iterfind("meta//original_size"), None)
    size_wh = None if size is None else _size(size.findtext("width"), size.findtext("height"))
    source = next((one.text for one in root.iterfind("meta//source") if one.text), "")
    drive = PurePosixPath(source or path).stem
    frames = _frames_of(folder_of(path), index)
    for number, file in frames.items():
        own = tuple(boxes.pop(number, ()))
        yield AnnotatedImage(file, index.uri_of(file), own, size_wh=size_wh, drive=drive)
    for number in boxes:
        tally.add("image-missing", f"frame {number} of {path}")


def _frames_of(here: str, index: FileIndex) -> dict[int, str]:
    """The pictures of a video by frame number, images/frame_000012.PNG, or in their order."""
    below = f"{here}/" if here else ""
    pictures = [path for path in index.pictures() if path.startswith(below)]
    numbers = [PurePosixPath(path).stem.rpartition("_")[2] for path in pictures]
    if all(number.isdecimal() for number in numbers):
        return {int(number): path for number, path in zip(numbers, pictures, strict=True)}
    return dict(enumerate(pictures))


def _box(shape: Element, label: str, place: str, tally: Tally) -> Iterator[LabelledBox]:
    """The box of a shape; none where it has none."""
    if shape.tag in ("tag", "points", "polyline", "cuboid", "skeleton"):
        tally.add("label-without-box", f"{place}: {shape.tag} {label}")
        return
    corners = _corners(shape, place, tally)
    if corners is None or not label:
        tally.add("label-damaged", f"{place}: {shape.tag} {label} {dict(shape.attrib)}")
        return
    said: Mapping[str, str] = {
        one.get("name", "").lower(): (one.text or "") for one in shape.iterfind("attribute")
    }
    flags = {name: flag(said.get(name, "")) for name in _FLAGS}
    share = as_numbers(iter([said.get("truncated", "")]))
    occluded = as_numbers(iter([said.get("occluded", shape.get("occluded", ""))]))
    truncated = flags["truncated"]
    yield LabelledBox(
        label,
        corners,
        difficult=bool(flags["difficult"]),
        crowd=bool(flags["crowd"]),
        truncated=share[0] if share else None if truncated is None else float(truncated),
        occluded=int(occluded[0]) if occluded else None,
    )


def _corners(shape: Element, place: str, tally: Tally) -> Corners | None:
    names = _SIDES.get(shape.tag)
    if names is None:
        return _around_outline(shape, place, tally)
    sides = as_numbers(shape.get(name, "") for name in names)
    if sides is None:
        return None
    a, b, c, d = sides
    turned = (as_numbers(iter([shape.get("rotation", "0")])) or [0.0])[0]
    if shape.tag == "ellipse":
        tally.add("box-from-polygon", place)
        return around_ellipse(a, b, c, d, turned)
    if shape.tag == "mask":
        tally.add("box-from-mask", place)
        return (a, b, a + c, b + d)
    if not turned:
        return (a, b, c, d)
    tally.add("box-rotated", place)
    return around_rotated((a, b, c, d), turned, ((a + c) / 2, (b + d) / 2))


def _around_outline(shape: Element, place: str, tally: Tally) -> Corners | None:
    texts = [pair.partition(",") for pair in shape.get("points", "").split(";") if pair]
    flat = as_numbers(text for x, _, y in texts for text in (x, y))
    if not flat:
        return None
    tally.add("box-from-polygon", place)
    return around_points(list(zip(flat[::2], flat[1::2], strict=True)))


def _size(width: str | None, height: str | None) -> tuple[int, int] | None:
    sides = as_numbers(iter([width or "", height or ""]))
    return (int(sides[0]), int(sides[1])) if sides and min(sides) >= 1 else None
