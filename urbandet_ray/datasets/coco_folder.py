"""COCO's instances files: images, annotations with [x, y, width, height] in pixels, categories.

https://cocodataset.org/#format-data. One file a part, as `instances_train2017.json` beside
`train2017/`, or Roboflow's `train/_annotations.coco.json` among the images.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from urbandet_ray.datasets.annotated import AnnotatedImage, Corners, Dataset, LabelledBox, numbered
from urbandet_ray.datasets.file_index import FileIndex, folder_of, split_in
from urbandet_ray.datasets.json_labels import labels_in_json, number, size_of
from urbandet_ray.datasets.oddities import Tally
from urbandet_ray.errors import InputError
from urbandet_ray.storage import Storage


def read_coco(index: FileIndex, storage: Storage, evidence: str) -> Dataset:
    """Read all instances files of a folder, or the one that was named.

    Raises:
        InputError: a file without a list of annotations, or categories that contradict each other.
    """
    tally = Tally()
    images: dict[str, AnnotatedImage] = {}
    ids: dict[str, int] = {}
    for path, content in labels_in_json(index, "coco", storage, tally):
        if not isinstance(content.get("annotations"), list):
            raise InputError(
                f"{index.uri_of(path)} has images and categories, but no list of annotations: "
                "expected an instances file (COCO's test parts have no labels)"
            )
        names = _categories(content, index.uri_of(path), tally)
        _join_ids(ids, names)
        for image in _images(content, path, names, index, tally):
            before = images.get(image.name)
            if before is not None:
                tally.add("image-joined", image.name)
            boxes = before.boxes + image.boxes if before else image.boxes
            images[image.name] = replace(image, boxes=boxes)
    return Dataset("COCO", index.uri, evidence, [*images.values()], _sound_ids(ids), tally)


def _categories(content: Mapping[str, Any], uri: str, tally: Tally) -> dict[Any, str]:
    """Names by category id; Roboflow's group, which no box has, is left out.

    Raises:
        InputError: a category without id or name.
    """
    names: dict[Any, str] = {}
    for one in content["categories"]:
        if not isinstance(one, dict) or "id" not in one or not one.get("name"):
            raise InputError(f"{uri}: a category is {one!r}, expected an object with id and name")
        names[one["id"]] = str(one["name"])
    used = {one.get("category_id") for one in content["annotations"] if isinstance(one, dict)}
    groups = {str(one.get("supercategory")) for one in content["categories"]}
    for class_id in [one for one in names if one == 0 and one not in used and len(names) > 1]:
        if names[class_id] in groups:
            tally.add("class-unused", f"{uri}: {names[class_id]}")
            del names[class_id]
    return names


def _join_ids(ids: dict[str, int], names: Mapping[Any, str]) -> None:
    """Keep the file's ids; a name that another file has already keeps that one's."""
    for class_id, name in names.items():
        if name not in ids:
            free = isinstance(class_id, int) and class_id not in ids.values()
            ids[name] = class_id if free else max([*ids.values(), 0]) + 1


def _sound_ids(ids: Mapping[str, int]) -> dict[str, int]:
    """COCO's own ids, gaps and all, where a label map may have them; else from 1 in their order."""
    if all(class_id >= 1 for class_id in ids.values()):
        return dict(ids)
    return numbered(sorted(ids, key=lambda name: ids[name]))


def _images(
    content: Mapping[str, Any],
    path: str,
    names: Mapping[Any, str],
    index: FileIndex,
    tally: Tally,
) -> list[AnnotatedImage]:
    by_image: dict[Any, list[Any]] = defaultdict(list)
    for one in content["annotations"]:
        if isinstance(one, dict):
            by_image[one.get("image_id")].append(one)
        else:
            tally.add("label-damaged", f"{path}: annotation {one!r}")
    videos = {one["id"]: str(one.get("name", one["id"])) for one in content.get("videos", ())}
    split = split_in(path)
    folders = _image_folders(path, index)
    found = []
    for image in content["images"]:
        name = image.get("file_name") if isinstance(image, dict) else None
        if not isinstance(name, str) or not name:
            tally.add("label-damaged", f"{path}: image {image!r} without file_name")
            continue
        labels = by_image.pop(image.get("id"), [])
        file = index.picture(name, folders, tally)
        if file is None:
            continue
        found.append(
            AnnotatedImage(
                name=file,
                uri=index.uri_of(file),
                boxes=tuple(_boxes(labels, names, f"{path}: {name}", tally)),
                size_wh=size_of(image),
                drive=str(image.get("segment") or videos.get(image.get("video_id"), "")),
                split=str(image.get("split") or "") or split,
                camera=str(image.get("camera") or ""),
                timestamp_us=_whole(image.get("timestamp_us")),
            )
        )
    for image_id, labels in by_image.items():
        tally.add("label-damaged", f"{path}: image_id {image_id!r} is no image's", len(labels))
    return found


def _image_folders(path: str, index: FileIndex) -> list[str]:
    """Where images are by custom: beside the file, at the top, in images/, in the part's folder."""
    here = folder_of(path)
    tops = {file.partition("/")[0] for file in index.pictures() if "/" in file}
    stem = path.rpartition("/")[2].partition(".")[0]
    part = stem.rpartition("_")[2]
    own = [top for top in sorted(tops) if part and top.lower() == part.lower()]
    inner = [f"images/{part}", *(f"{here}/images" if here else "images" for _ in (0,))]
    return [*own, here, *inner, "images", ""]


def _boxes(
    labels: Sequence[Mapping[str, Any]], names: Mapping[Any, str], place: str, tally: Tally
) -> list[LabelledBox]:
    found = []
    for one in labels:
        label = f"{place}, annotation {one.get('id')}"
        class_name = names.get(one.get("category_id"))
        corners = _corners(one, label, tally)
        if class_name is None:
            tally.add("label-damaged", f"{label} has category_id {one.get('category_id')!r}")
            continue
        if corners is None:
            continue
        truncated, occluded = number(one.get("truncated")), number(one.get("occluded"))
        found.append(
            LabelledBox(
                class_name,
                corners,
                difficult=bool(one.get("difficult") or one.get("ignore")),
                crowd=bool(one.get("iscrowd")),
                truncated=truncated,
                occluded=None if occluded is None else int(occluded),
                area_px=number(one.get("area")),
            )
        )
    return found


def _corners(one: Mapping[str, Any], label: str, tally: Tally) -> Corners | None:
    box, outline = one.get("bbox"), one.get("segmentation")
    if isinstance(box, list) and len(box) == 4:
        sides = [number(side) for side in box]
        if None not in sides:
            if outline:
                tally.add("mask-left-out", label)
            x, y, width, height = (side or 0.0 for side in sides)
            return (x, y, x + width, y + height)
    if outline and not box:
        return _around(outline, label, tally)
    tally.add("label-damaged", f"{label} has bbox {box!r}, expected 4 numbers")
    return None


def _around(outline: Any, label: str, tally: Tally) -> Corners | None:
    """The box around polygons or a run-length mask."""
    if isinstance(outline, dict):
        return _around_mask(outline, label, tally)
    points = [number(value) for part in outline for value in part] if _nested(outline) else []
    if len(points) < 6 or len(points) % 2 or None in points:
        tally.add("label-damaged", f"{label} has an outline that is none")
        return None
    tally.add("box-from-polygon", label)
    values = [value or 0.0 for value in points]
    return (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))


def _nested(outline: Any) -> bool:
    return isinstance(outline, list) and all(isinstance(part, list) for part in outline)


def _around_mask(outline: dict[str, Any], label: str, tally: Tally) -> Corners | None:
    from faster_coco_eval.core import mask

    try:
        height, width = outline["size"]
        packed = outline
        if isinstance(outline["counts"], list):
            packed = mask.frPyObjects(outline, height, width)
        x, y, w, h = (float(side) for side in mask.toBbox([packed])[0])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        tally.add("label-damaged", f"{label} has a mask that cannot be read: {error}")
        return None
    tally.add("box-from-mask", label)
    return (x, y, x + w, y + h)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
