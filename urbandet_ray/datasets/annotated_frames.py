"""Annotated images to frames: the image is read, and its boxes are checked against it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

from urbandet_ray.datasets.annotated import AnnotatedImage, Corners, LabelledBox
from urbandet_ray.datasets.oddities import Tally
from urbandet_ray.errors import AccessError, NotFoundError, RecordError
from urbandet_ray.frames import Frame, Truth
from urbandet_ray.labels import LabelMap
from urbandet_ray.phrases import printable
from urbandet_ray.records.image_headers import image_size
from urbandet_ray.records.images import decode_image, encode_png
from urbandet_ray.records.orientation import UPRIGHT, exif_orientation, size_upright
from urbandet_ray.storage import Storage, is_remote
from urbandet_ray.storage.prefetch import fetched_ahead

Fetched = tuple[AnnotatedImage, bytes | None, str]
"""An image, its bytes where it could be read, and why not."""

_OUTSIDE_PX = 0.05
"""So far outside the image is rounding of the format's own."""
_READ_THREADS, _READ_AHEAD = 16, 64


def frames_of(
    images: Iterable[AnnotatedImage], labels: LabelMap, storage: Storage, tally: Tally
) -> Iterator[Frame]:
    """The frames of images, in their order; what cannot be used is counted and left out.

    From S3 several are fetched at a time.
    """
    listed = list(images)

    def fetch(at: int) -> Fetched:
        return _fetched(listed[at], storage)

    remote = any(is_remote(image.uri) and image.within is None for image in listed[:1])
    indexes = range(len(listed))
    fetched = (
        fetched_ahead(fetch, indexes, threads=_READ_THREADS, ahead=_READ_AHEAD)
        if remote
        else map(fetch, indexes)
    )
    for image, encoded, why in fetched:
        if encoded is None:
            tally.add("image-damaged", f"{image.name}: {why}")
            continue
        frame = frame_of(image, encoded, labels, tally)
        if frame is not None:
            yield frame


def frame_of(image: AnnotatedImage, encoded: bytes, labels: LabelMap, tally: Tally) -> Frame | None:
    """One image with its labels in pixels, ids by the label map; None where it is damaged."""
    try:
        kind, width, height = image_size(encoded)
        orientation = _turn(encoded, image, (width, height))
        if orientation != UPRIGHT:
            tally.add("image-upright", image.name)
            encoded = encode_png(decode_image(encoded, orientation=orientation))
            kind, width, height = image_size(encoded)
        elif kind not in ("jpeg", "png"):
            tally.add("image-converted", image.name)
            encoded, kind = encode_png(decode_image(encoded)), "png"
    except RecordError as error:
        tally.add("image-damaged", f"{image.name}: {error.detail}")
        return None
    return Frame(
        frame_key=printable(_without_ending(image.name)),
        segment=image.drive,
        encoded=encoded,
        format=kind,
        size_wh=(width, height),
        truth=truth_of(image, (width, height), labels, tally),
        file_name=image.name,
        camera=image.camera,
        timestamp_us=image.timestamp_us,
    )


def truth_of(
    image: AnnotatedImage, size_wh: tuple[int, int], labels: LabelMap, tally: Tally
) -> Truth:
    """The labels of an image in its pixels; boxes that cannot be used are counted and left out.

    Where the dataset states another size than the image has, boxes are relative to the stated one,
    as the OD API's converters take them.
    """
    scale = _scale(image, size_wh, tally)
    ids = {name: class_id for class_id, name in labels.names.items()}
    kept: list[LabelledBox] = []
    for at, box in enumerate(image.boxes):
        place = f"{image.name}, box {at} ({box.class_name})"
        if box.class_name not in ids:
            tally.add("class-unknown", place)
            continue
        x0, y0, x1, y1 = box.xyxy
        corners = (x0 * scale[0], y0 * scale[1], x1 * scale[0], y1 * scale[1])
        fault = _fault(corners, box.xyxy, image, size_wh)
        if fault:
            tally.add(fault, f"{place}: {', '.join(f'{side:g}' for side in box.xyxy)}")
            if fault != "box-outside":
                continue
        kept.append(replace(box, xyxy=_clipped(corners, size_wh)))
    if not kept:
        tally.add("image-negative", image.name)
    return _truth(kept, ids)


def _turn(encoded: bytes, image: AnnotatedImage, size_wh: tuple[int, int]) -> int:
    """The EXIF orientation to turn a picture by, as whoever labelled it saw it.

    Where the dataset states the size of the stored pixels, and turning would swap the sides, the
    labels are those of the stored pixels.
    """
    orientation = exif_orientation(encoded)
    swaps = size_upright(size_wh, orientation) != size_wh
    return UPRIGHT if swaps and image.size_wh == size_wh else orientation


def _fetched(image: AnnotatedImage, storage: Storage) -> Fetched:
    try:
        if image.within is not None:
            return image, image.within.read(storage), ""
        return image, storage.read_bytes(image.uri), ""
    except (NotFoundError, AccessError, RecordError) as error:  # of this one image
        return image, None, str(error)


def _scale(image: AnnotatedImage, size_wh: tuple[int, int], tally: Tally) -> tuple[float, float]:
    if image.size_wh is not None and image.size_wh != size_wh:
        stated, actual = (f"{w} x {h}" for w, h in (image.size_wh, size_wh))
        tally.add("size-differs", f"{image.name}: {stated} stated, {actual} px found")
    if image.normalised:
        return float(size_wh[0]), float(size_wh[1])
    if image.size_wh is None:
        return 1.0, 1.0
    return size_wh[0] / image.size_wh[0], size_wh[1] / image.size_wh[1]


def _fault(
    corners: Corners, stated: Corners, image: AnnotatedImage, size_wh: tuple[int, int]
) -> str | None:
    """The kind of what is wrong with a box; None where nothing is."""
    if not all(map(math.isfinite, corners)):
        return "box-not-finite"
    x0, y0, x1, y1 = corners
    if x1 < x0 or y1 < y0:
        return "box-inverted"
    if x1 == x0 or y1 == y0:
        return "box-empty"
    if not image.normalised and max(stated) <= 1 and min(size_wh) > 4:
        return "box-looks-like-shares"
    a, b, c, d = _clipped(corners, size_wh)
    if c <= a or d <= b:
        return "box-beyond"
    outside = max(-x0, -y0, x1 - size_wh[0], y1 - size_wh[1])
    return "box-outside" if outside > _OUTSIDE_PX else None


def _clipped(corners: Corners, size_wh: tuple[int, int]) -> Corners:
    width, height = size_wh
    x0, y0, x1, y1 = corners
    return (
        min(max(x0, 0.0), width),
        min(max(y0, 0.0), height),
        min(max(x1, 0.0), width),
        min(max(y1, 0.0), height),
    )


def _truth(boxes: list[LabelledBox], ids: dict[str, int]) -> Truth:
    """Columns of what was kept; one that no box has is None."""
    truncated = [box.truncated for box in boxes]
    occluded = [box.occluded for box in boxes]
    areas = [box.area_px for box in boxes]
    return Truth.of(
        [box.xyxy for box in boxes],
        [ids[box.class_name] for box in boxes],
        tuple(box.class_name for box in boxes),
        difficult=[box.difficult for box in boxes],
        is_crowd=[box.crowd for box in boxes],
        areas_px=areas if boxes and None not in areas else None,
        truncated=[value or 0.0 for value in truncated] if _any_known(truncated) else None,
        occluded=[value or 0 for value in occluded] if _any_known(occluded) else None,
    )


def _any_known(column: Iterable[object]) -> bool:
    """Whether a format says anything there, for any box."""
    return any(value is not None for value in column)


def _without_ending(name: str) -> str:
    return name.rpartition(".")[0] or name
