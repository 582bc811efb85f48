"""Label Studio's JSON, and its JSON-MIN: boxes in percent of the image.

https://labelstud.io/guide/export. x, y, width and height are percent; a rotated box is turned
about its upper left corner.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from urbandet_ray.datasets.annotated import AnnotatedImage, Corners, Dataset, LabelledBox, numbered
from urbandet_ray.datasets.file_index import FileIndex, folder_of
from urbandet_ray.datasets.json_labels import labels_in_json, number
from urbandet_ray.datasets.oddities import Tally
from urbandet_ray.datasets.rotation import around_points, around_rotated
from urbandet_ray.storage import Storage, is_remote

_UPLOADED = re.compile(r"^[0-9a-f]{8}-")
"""Label Studio puts this in front of the name of a file that was uploaded."""
_LISTS = ("rectanglelabels", "polygonlabels", "ellipselabels", "labels")
_FLAGS = ("difficult", "crowd", "truncated", "occluded")


def read_label_studio(index: FileIndex, storage: Storage, evidence: str) -> Dataset:
    """Read all exports of a folder, or the one that was named.

    A task whose labels are empty is a negative; one that nobody labelled is left out.
    """
    tally = Tally()
    images: dict[str, AnnotatedImage] = {}
    for path, content in labels_in_json(index, "label-studio", storage, tally):
        for task in content:
            image = _task(task, path, index, tally) if isinstance(task, dict) else None
            if image is None:
                continue
            if image.name in images:
                tally.add("image-twice", image.name)
            images.setdefault(image.name, image)
    names = {box.class_name for image in images.values() for box in image.boxes}
    kept = [*images.values()]
    return Dataset("Label Studio", index.uri, evidence, kept, numbered(sorted(names)), tally)


def _task(
    task: Mapping[str, Any], path: str, index: FileIndex, tally: Tally
) -> AnnotatedImage | None:
    data: Mapping[str, Any] = task["data"] if isinstance(task.get("data"), dict) else task
    url = _image_of(data)
    place = f"{path}: task {task.get('id', '?')}"
    if url is None:
        tally.add("label-damaged", f"{place} names no image")
        return None
    results = _results(task, place, tally)
    if results is None:
        tally.add("image-unlabelled", f"{place}: {url}")
        return None
    found = _file(url, folder_of(path), index, tally)
    if found is None:
        return None
    boxes, size_wh = _boxes(results, place, tally)
    stamp = data.get("timestamp_us")
    return AnnotatedImage(
        *found,
        tuple(boxes),
        size_wh=size_wh,
        normalised=True,
        split=str(data.get("split") or ""),
        drive=str(data.get("segment") or ""),
        camera=str(data.get("camera") or ""),
        timestamp_us=stamp if isinstance(stamp, int) else None,
    )


def _image_of(data: Mapping[str, Any]) -> str | None:
    """The image of a task: by its usual name, else the only text that ends like a picture."""
    for key in ("image", "img", "image_url", "url"):
        if isinstance(data.get(key), str):
            return str(data[key])
    texts = [value for value in data.values() if isinstance(value, str)]
    pictures = [text for text in texts if re.search(r"\.(jpe?g|png|bmp|webp|tiff?)\b", text, re.I)]
    return pictures[0] if len(pictures) == 1 else None


def _file(url: str, here: str, index: FileIndex, tally: Tally) -> tuple[str, str] | None:
    """Name and address of an image: in the folder, or where S3 keeps it."""
    query = parse_qs(urlsplit(url).query)
    name = unquote(query["d"][0]) if "d" in query else unquote(urlsplit(url).path)
    plain = name.lstrip("/")
    base = plain.rpartition("/")[2]
    tries = [plain, plain.replace(base, _UPLOADED.sub("", base))]
    probe = Tally()
    for one in tries:
        file = index.picture(one, [here, "images", f"{here}/images".strip("/"), ""], probe)
        if file is not None:
            return file, index.uri_of(file)
    if is_remote(url):
        return plain, url
    tally.merge(dict.fromkeys([*probe.counts][:1], 1), probe.places)
    return None


def _results(task: Mapping[str, Any], place: str, tally: Tally) -> Sequence[Any] | None:
    """The labels of a task by its first annotator; None where nobody labelled it."""
    if "annotations" in task or "completions" in task:
        done = [
            one
            for one in task.get("annotations") or task.get("completions") or ()
            if isinstance(one, dict) and not one.get("was_cancelled")
        ]
        if len(done) > 1:
            tally.add("annotators-several", place)
        return done[0].get("result") or [] if done else None
    if "data" in task:
        return None
    return next((v for k, v in task.items() if _is_results(v) and k != "choices"), None)


def _is_results(value: object) -> bool:
    """JSON-MIN keeps the boxes under the control's name."""
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def _boxes(
    results: Sequence[Any], place: str, tally: Tally
) -> tuple[list[LabelledBox], tuple[int, int] | None]:
    size_wh: tuple[int, int] | None = None
    said: dict[str, set[str]] = {}
    for one in results:  # choices of a region stand beside it, under its id
        value = one.get("value") if isinstance(one, dict) else None
        if isinstance(value, dict) and "choices" in value:
            said.setdefault(str(one.get("id")), set()).update(map(str, value["choices"]))
    boxes: list[LabelledBox] = []
    for at, one in enumerate(results):
        where = f"{place}, region {at}"
        if not isinstance(one, dict):
            tally.add("label-damaged", where)
            continue
        value = one["value"] if isinstance(one.get("value"), dict) else one
        if "choices" in value:
            continue
        width, height = number(one.get("original_width")), number(one.get("original_height"))
        size_wh = (int(width), int(height)) if width and height else size_wh
        box = _box(one, value, size_wh, said.get(str(one.get("id")), set()), where, tally)
        if box is not None:
            boxes.append(box)
    return boxes, size_wh


def _box(
    one: Mapping[str, Any],
    value: Mapping[str, Any],
    size_wh: tuple[int, int] | None,
    said: set[str],
    where: str,
    tally: Tally,
) -> LabelledBox | None:
    names = next((value[key] for key in _LISTS if value.get(key)), None)
    if not names or "brushlabels" in value:
        tally.add("label-without-box", f"{where}: {one.get('type', 'no label')}")
        return None
    percent = _percent(value, size_wh, where, tally)
    if percent is None:
        tally.add("label-damaged", f"{where}: {dict(value)}")
        return None
    if max(percent) > 100 * 1.5:
        tally.add("box-looks-like-pixels", where)
        return None
    meta = one.get("meta") if isinstance(one.get("meta"), dict) else {}
    flags = {name: meta.get(name) for name in _FLAGS} if meta else {}
    truncated, occluded = number(flags.get("truncated")), number(flags.get("occluded"))
    x0, y0, x1, y1 = (side / 100 for side in percent)
    return LabelledBox(
        str(names[0]),
        (x0, y0, x1, y1),
        difficult="difficult" in said or bool(flags.get("difficult")),
        crowd="crowd" in said or bool(flags.get("crowd")),
        truncated=truncated if truncated is not None else 1.0 if "truncated" in said else None,
        occluded=int(occluded) if occluded is not None else 1 if "occluded" in said else None,
    )


def _percent(
    value: Mapping[str, Any], size_wh: tuple[int, int] | None, where: str, tally: Tally
) -> Corners | None:
    """Corners in percent of the upright box around a region."""
    if isinstance(value.get("points"), list):
        points = [(number(p[0]), number(p[1])) for p in value["points"] if len(p) == 2]
        whole = [(x, y) for x, y in points if x is not None and y is not None]
        tally.add("box-from-polygon", where)
        return around_points(whole) if len(whole) > 2 else None
    turned = number(value.get("rotation")) or 0.0
    names = (
        ("x", "y", "radiusX", "radiusY") if "radiusX" in value else ("x", "y", "width", "height")
    )
    sides = [number(value.get(name)) for name in names]
    if None in sides:
        return None
    x, y, width, height = (side or 0.0 for side in sides)
    if "radiusX" in value:
        tally.add("box-from-polygon", where)
        return (x - width, y - height, x + width, y + height)
    if not turned:
        return (x, y, x + width, y + height)
    tally.add("box-rotated", where)
    across, down = size_wh or (100, 100)
    scale = (across / 100, down / 100) * 2
    pixels = [side * s for side, s in zip((x, y, x + width, y + height), scale, strict=True)]
    turned_px = around_rotated(
        (pixels[0], pixels[1], pixels[2], pixels[3]), turned, (pixels[0], pixels[1])
    )
    a, b, c, d = (side / s for side, s in zip(turned_px, scale, strict=True))
    return (a, b, c, d)
