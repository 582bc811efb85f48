"""`urbandet data from-manifest`: labels of SageMaker Ground Truth as TFRecords.

An augmented manifest is JSON Lines, a line for an image, with pixel boxes:

    {"source-ref": "s3://bucket/a.jpg",
     "JOB": {"image_size": [{"width": 640, "height": 480, "depth": 3}],
             "annotations": [{"class_id": 0, "left": 10, "top": 20, "width": 30, "height": 40}]},
     "JOB-metadata": {"class-map": {"0": "vehicle"}, "type": "groundtruth/object-detection", ...}}

https://docs.aws.amazon.com/sagemaker/latest/dg/sms-data-output.html
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from urbandet_ray.errors import InputError, LabelError, RecordError, StorageError
from urbandet_ray.frames import Frame, Truth
from urbandet_ray.label_files import read_labels
from urbandet_ray.labels import LabelMap
from urbandet_ray.records.image_headers import image_size
from urbandet_ray.records.images import decode_image, encode_png
from urbandet_ray.records.writer import write_frames
from urbandet_ray.storage import Storage, is_remote, join_uri

Row = tuple[int, dict[str, Any]]

KIND = "groundtruth/object-detection"
_TOLERANCE_PX = 1.0
"""A box may stick out so far: people drag to the edge and beyond."""
_MOST_TOLD = 20


@dataclass(frozen=True)
class Annotation:
    """One line of a manifest, checked.

    Attributes:
        line: its number, from 1.
        image: where the image is, local or s3://.
        boxes: (left, top, width, height) in pixels and the class's number in the manifest.
        size_wh: as the line says.
    """

    line: int
    image: str
    boxes: tuple[tuple[tuple[float, float, float, float], int], ...]
    size_wh: tuple[int, int]


@dataclass(frozen=True)
class ManifestReport:
    """What became of a manifest.

    Attributes:
        files: TFRecords written, with their frames.
        labels: the label map's path.
        boxes: written, by class.
        left_out: what is wrong with the lines that were left out, where that was allowed.
    """

    files: Mapping[str, int]
    labels: str
    boxes: Mapping[str, int]
    left_out: Sequence[str]

    def to_text(self) -> str:
        """A line a file, the classes, and what was left out."""
        lines = [f"{path}: {count} frames" for path, count in self.files.items()]
        lines.append(f"{self.labels}: " + ", ".join(f"{n} {k}" for k, n in self.boxes.items()))
        lines += [f"left out: {one}" for one in self.left_out[:_MOST_TOLD]]
        more = len(self.left_out) - _MOST_TOLD
        return "\n".join([*lines, f"and {more} more"] if more > 0 else lines)


def convert_manifest(
    manifest: str,
    out: Path,
    storage: Storage,
    *,
    attribute: str | None = None,
    labels: LabelMap | None = None,
    name: str | None = None,
    skip_bad: bool = False,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> ManifestReport:
    """Write out/NAME.tfrecord and out/label_map.pbtxt, whole or not at all.

    Args:
        manifest: local or s3://.
        attribute: the label attribute, which is the labelling job's name; None takes the only one.
        labels: ids to write, by class name; None numbers the manifest's classes from 1.
        name: of the TFRecord; None is the manifest's.
        skip_bad: leave bad lines out; else they are an error, and nothing is written.
        progress: told (lines done, lines).

    Raises:
        InputError: lines that cannot be used, by number; or a file is in the way.
        LabelError: a class that `labels` does not have, or another name for the same number.
        NotFoundError: no manifest.
    """
    rows = _read_rows(manifest, storage)
    attribute = attribute or _only_attribute(rows, manifest)
    class_map = _class_map(rows, attribute, manifest)
    label_map = labels or LabelMap({n + 1: name for n, name in sorted(class_map.items())})
    target = out / f"{name or PurePosixPath(manifest).name.split('.')[0]}.tfrecord"
    path = out / "label_map.pbtxt"
    _refuse_to_replace(target, path, label_map, storage)
    ids = {number: label_map.id_of(name) for number, name in class_map.items()}
    reading = _Reading(manifest, attribute, class_map, ids, storage)
    written = write_frames(reading.frames(rows, progress, skip_bad=skip_bad), target)
    if not path.exists():
        storage.write_bytes(str(path), label_map.to_pbtxt().encode())
    return ManifestReport({str(target): written}, str(path), reading.counts, reading.bad)


def _refuse_to_replace(target: Path, path: Path, label_map: LabelMap, storage: Storage) -> None:
    """Raises InputError where the records, or a label map of other classes, are there already."""
    if target.exists():
        raise InputError(f"{target} is there already: give another --name, or move it away")
    if path.exists() and read_labels(str(path), storage) != label_map:
        raise InputError(
            f"{path} is there already, with other classes: keep its ids with --labels {path}, or "
            "write to another folder"
        )


@dataclass
class _Reading:
    """A manifest as it is read.

    Attributes:
        ids: what to write for each class number.
        bad: what is wrong with the lines that could not be used.
        counts: boxes of the frames that were given, by class.
    """

    manifest: str
    attribute: str
    class_map: Mapping[int, str]
    ids: Mapping[int, int]
    storage: Storage
    bad: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counts = dict.fromkeys(self.class_map.values(), 0)

    def frames(
        self, rows: Sequence[Row], progress: Callable[[int, int], None], *, skip_bad: bool
    ) -> Iterator[Frame]:
        """The frames of the lines that can be used.

        Raises:
            InputError: at the end, where others cannot and may not be left out, or none can.
        """
        images: set[str] = set()
        keys: set[str] = set()
        for done, (line, row) in enumerate(rows, start=1):
            progress(done, len(rows))
            try:
                found = _annotation(line, row, self.attribute, self.class_map, self.manifest)
                frame = _frame(found, self.ids, self.class_map, self.storage, images)
            except (InputError, StorageError) as error:
                self.bad.append(f"{self.manifest}:{line}: {error}")
                continue
            if frame.frame_key in keys:  # of another folder
                frame = replace(frame, frame_key=f"{frame.frame_key}-{line}")
            keys.add(frame.frame_key)
            for _, number in found.boxes:
                self.counts[self.class_map[number]] += 1
            yield frame
        if self.bad and not (skip_bad and keys):
            raise InputError(_told(self.bad))


def _read_rows(manifest: str, storage: Storage) -> list[Row]:
    """The objects of the manifest's lines.

    Raises:
        InputError: a line that is no object; nothing can be said of the others then.
    """
    text = storage.read_bytes(manifest)
    rows: list[Row] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, UnicodeDecodeError) as error:
            raise InputError(
                f"{manifest}:{number}: no JSON ({error}); expected a JSON object a line"
            ) from None
        if not isinstance(row, dict):
            raise InputError(f"{manifest}:{number}: a {type(row).__name__}, expected an object")
        rows.append((number, row))
    if not rows:
        raise InputError(
            f"{manifest} has no lines: is it the output manifest of the labelling job?"
        )
    return rows


def _only_attribute(rows: Sequence[Row], manifest: str) -> str:
    found = {
        key.removesuffix("-metadata")
        for _, row in rows
        for key, value in row.items()
        if key.endswith("-metadata") and isinstance(value, dict) and value.get("type") == KIND
    }
    if len(found) != 1:
        named = ", ".join(sorted(found)) or "none"
        raise InputError(
            f"{manifest} has {len(found)} label attributes of {KIND} ({named}): "
            + ("name one with --attribute" if found else "only boxes can be used")
        )
    return found.pop()


def _class_map(rows: Sequence[Row], attribute: str, manifest: str) -> dict[int, str]:
    """All numbers and names of the lines; they have to agree."""
    found: dict[int, str] = {}
    for line, row in rows:
        metadata = row.get(f"{attribute}-metadata")
        given = metadata.get("class-map") if isinstance(metadata, dict) else None
        for number, name in given.items() if isinstance(given, dict) else ():
            if not str(number).isdecimal() or not isinstance(name, str) or not name:
                raise LabelError(f"{manifest}:{line}: class-map has {number!r}: {name!r}")
            if found.setdefault(int(number), name) != name:
                raise LabelError(
                    f"{manifest}:{line}: class {number} is {name!r} here and "
                    f"{found[int(number)]!r} before: two labelling jobs? Convert them apart"
                )
    if not found:
        raise LabelError(f"{manifest}: no line has a {attribute}-metadata with a class-map")
    return found


def _annotation(
    line: int, row: Mapping[str, Any], attribute: str, classes: Mapping[int, str], manifest: str
) -> Annotation:
    """Check one line.

    Raises:
        InputError: what is wrong with it.
    """
    source = row.get("source-ref")
    if not isinstance(source, str) or not source:
        raise InputError("no source-ref with the image's place")
    metadata = row.get(f"{attribute}-metadata")
    if isinstance(metadata, dict) and metadata.get("failure-reason"):
        raise InputError(f"labelling failed: {metadata['failure-reason']}")
    labelled = row.get(attribute)
    if not isinstance(labelled, dict):
        raise InputError(f"no label attribute {attribute}: the image was not labelled")
    try:
        size = labelled["image_size"][0]
        size_wh = int(size["width"]), int(size["height"])
        annotations = list(labelled["annotations"])
    except (KeyError, IndexError, TypeError, ValueError):
        raise InputError(f"{attribute} needs image_size and annotations") from None
    boxes = tuple(_box(one, number, size_wh, classes) for number, one in enumerate(annotations))
    if not is_remote(source) and not source.startswith("/"):
        base = manifest.rpartition("/")[0]
        source = join_uri(base, source) if base else source
    return Annotation(line, source, boxes, size_wh)


def _box(
    given: Any, number: int, size_wh: tuple[int, int], classes: Mapping[int, str]
) -> tuple[tuple[float, float, float, float], int]:
    try:
        left, top, width, height = (float(given[k]) for k in ("left", "top", "width", "height"))
        class_id = given["class_id"]
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"box {number} needs class_id, left, top, width and height in pixels, got {given}"
        ) from None
    if class_id not in classes or isinstance(class_id, bool):
        raise InputError(f"box {number} has class_id {class_id!r}, which class-map does not name")
    if not all(math.isfinite(side) for side in (left, top, width, height)):
        raise InputError(f"box {number} has a side that is no number: {given}")
    if width <= 0 or height <= 0:
        raise InputError(f"box {number} is {width:g} x {height:g} px, expected a size above 0")
    right, bottom = left + width, top + height
    outside = max(-left, -top, right - size_wh[0], bottom - size_wh[1])
    if outside > _TOLERANCE_PX:
        raise InputError(
            f"box {number} ({left:g}, {top:g}, {right:g}, {bottom:g}) leaves the image of "
            f"{size_wh[0]} x {size_wh[1]} px by {outside:g} px"
        )
    return (left, top, width, height), int(class_id)


def _frame(
    found: Annotation,
    ids: Mapping[int, int],
    class_map: Mapping[int, str],
    storage: Storage,
    seen: set[str],
) -> Frame:
    if found.image in seen:
        raise InputError(f"{found.image} is on an earlier line already")
    seen.add(found.image)
    encoded = storage.read_bytes(found.image)
    try:
        kind, width, height = image_size(encoded)
        if kind not in ("jpeg", "png"):
            encoded, kind = encode_png(decode_image(encoded)), "png"
    except RecordError as error:
        raise InputError(f"{found.image}: {error.detail}") from None
    if (width, height) != found.size_wh:
        raise InputError(
            f"{found.image} is {width} x {height} px, image_size says {found.size_wh[0]} x "
            f"{found.size_wh[1]}: its boxes would not fit"
        )
    boxes = [
        (max(x, 0), max(y, 0), min(x + w, width), min(y + h, height))
        for (x, y, w, h), _ in found.boxes
    ]
    numbers = [number for _, number in found.boxes]
    path = PurePosixPath(found.image)
    return Frame(
        frame_key=path.stem,
        segment=path.parent.name,
        encoded=encoded,
        format=kind,
        size_wh=(width, height),
        truth=Truth.of(
            boxes, [ids[number] for number in numbers], tuple(class_map[n] for n in numbers)
        ),
    )


def _told(bad: Sequence[str]) -> str:
    lines = "\n  ".join(bad[:_MOST_TOLD])
    more = f"\n  and {len(bad) - _MOST_TOLD} more" if len(bad) > _MOST_TOLD else ""
    return (
        f"{len(bad)} lines cannot be used, and nothing was written (--skip-bad leaves them out):\n"
        f"  {lines}{more}"
    )
