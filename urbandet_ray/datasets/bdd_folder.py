"""BDD100K's labels: JSON, a list of images with box2d, or one file an image (its first edition).

https://doc.bdd100k.com/format.html. Corners are pixels. Lanes and areas have poly2d and no box.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from urbandet_ray.datasets.annotated import AnnotatedImage, Dataset, LabelledBox, numbered
from urbandet_ray.datasets.file_index import FileIndex, folder_of, split_in
from urbandet_ray.datasets.json_labels import labels_in_json, number
from urbandet_ray.datasets.oddities import Tally
from urbandet_ray.storage import Storage

BDD_CLASSES = (
    "pedestrian", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
    "traffic light", "traffic sign",
)  # fmt: skip
"""Its detection classes in their order."""


def read_bdd(index: FileIndex, storage: Storage, evidence: str) -> Dataset:
    """Read all label files of a folder, or the one that was named."""
    tally = Tally()
    images: dict[str, AnnotatedImage] = {}
    for path, content in labels_in_json(index, "bdd100k", storage, tally):
        for one in _entries(content, path):
            if not isinstance(one, dict) or not isinstance(one.get("name"), str):
                tally.add("label-damaged", f"{path}: an image without name")
                continue
            image = _image(one, path, index, tally)
            if image is not None and image.name in images:
                tally.add("image-twice", image.name)
            elif image is not None:
                images[image.name] = image
    names = {box.class_name for image in images.values() for box in image.boxes}
    own = [name for name in BDD_CLASSES if name in names]
    ids = numbered([*own, *sorted(names - set(own))])
    return Dataset("BDD100K", index.uri, evidence, [*images.values()], ids, tally)


def _entries(content: Any, path: str) -> list[Any]:
    if isinstance(content, list):
        return content
    frames: list[Any] = content["frames"]
    if not frames or not isinstance(frames[0], dict) or "objects" not in frames[0]:
        return frames
    name = content.get("name") or PurePosixPath(path).stem
    return [
        {"name": name, "labels": frame.get("objects"), "timestamp": frame.get("timestamp")}
        for frame in frames[:1]
    ]


def _image(
    one: Mapping[str, Any], path: str, index: FileIndex, tally: Tally
) -> AnnotatedImage | None:
    name, video = one["name"], str(one.get("videoName") or "")
    wanted = name if PurePosixPath(name).suffix else f"{name}.jpg"
    split = split_in(path)
    folders = [folder_of(path), *(f"images/100k/{s}" for s in (split,) if s), "images", ""]
    if video:
        folders = [f"{folder}/{video}".strip("/") for folder in folders] + folders
    if one.get("labels") is None and "labels" not in one:
        tally.add("image-unlabelled", f"{path}: {name}")
        return None
    file = index.picture(wanted, folders, tally)
    if file is None:
        return None
    stamp = number(one.get("timestamp"))
    return AnnotatedImage(
        file,
        index.uri_of(file),
        tuple(_boxes(one.get("labels") or [], f"{path}: {name}", tally)),
        drive=video,
        split=split,
        timestamp_us=None if stamp is None else round(stamp * 1000),
    )


def _boxes(labels: list[Any], place: str, tally: Tally) -> Iterator[LabelledBox]:
    for at, one in enumerate(labels):
        where = f"{place}, label {one.get('id', at) if isinstance(one, dict) else at}"
        if not isinstance(one, dict) or not one.get("category"):
            tally.add("label-damaged", where)
            continue
        box = one.get("box2d")
        if not box:
            tally.add("label-without-box", f"{where}: {one['category']}")
            continue
        sides = [number(box.get(side)) for side in ("x1", "y1", "x2", "y2")]
        if None in sides:
            tally.add("label-damaged", f"{where}: box2d {box}")
            continue
        x0, y0, x1, y1 = (side or 0.0 for side in sides)
        said = {k.lower(): v for k, v in (one.get("attributes") or {}).items()}
        yield LabelledBox(
            str(one["category"]),
            (x0, y0, x1, y1),
            crowd=bool(said.get("crowd")),
            truncated=float(bool(said["truncated"])) if "truncated" in said else None,
            occluded=int(bool(said["occluded"])) if "occluded" in said else None,
        )
