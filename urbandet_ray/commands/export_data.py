"""`urbandet data export`: records, or the boxes of a run, as a dataset that other tools open."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from urbandet_ray.datasets.annotated import LabelledBox
from urbandet_ray.datasets.exported import IMAGES, DatasetWriter, ExportDesk, ExportedImage
from urbandet_ray.datasets.json_writers import CocoWriter, LabelStudioWriter
from urbandet_ray.datasets.oddities import Tally
from urbandet_ray.datasets.text_writers import CvatWriter, VocWriter, YoloWriter
from urbandet_ray.detections import Detections
from urbandet_ray.errors import ConfigError, InputError, NotFoundError, RecordError
from urbandet_ray.frames import Frame, Truth
from urbandet_ray.labels import LabelMap
from urbandet_ray.records.data_folder import DataFolder, read_data_folder
from urbandet_ray.records.image_headers import image_size
from urbandet_ray.records.images import decode_frame, encode_jpeg, encode_png
from urbandet_ray.records.orientation import UPRIGHT
from urbandet_ray.records.own_labels import own_labels
from urbandet_ray.records.sources import list_sources, read_source, safe_name
from urbandet_ray.runs.manifest import MANIFEST_NAME
from urbandet_ray.runs.run_folder import RunFolder, chains
from urbandet_ray.storage import Storage, join_uri

WRITERS: dict[str, Callable[[ExportDesk], DatasetWriter]] = {
    "coco": CocoWriter,
    "yolo": YoloWriter,
    "voc": VocWriter,
    "label-studio": LabelStudioWriter,
    "cvat": CvatWriter,
}
"""What writes each format, by the name that --to takes."""

_QUALITY = 95
"""Of frames of a video, which have no file of their own."""
_ENDINGS = {"jpeg": ".jpg", "png": ".png", "bmp": ".bmp", "webp": ".webp", "tiff": ".tiff"}


@dataclass(frozen=True, eq=False)
class LabelledFrame:
    """A frame, the part it is in, and its boxes; None where nobody says what is in it."""

    frame: Frame
    part: str
    boxes: tuple[LabelledBox, ...] | None


@dataclass(frozen=True)
class DatasetExport:
    """What was written: where, how many images and boxes, what was odd, and from what score on."""

    out: str
    kind: str
    images: int
    boxes: int
    score_min: float | None
    tally: Tally

    def to_text(self) -> str:
        """One line, and one for each odd thing."""
        what = (
            "boxes" if self.score_min is None else f"predictions from a score of {self.score_min}"
        )
        first = f"{self.out}: {self.images} images and {self.boxes} {what}, as {self.kind}"
        return "\n".join([first, *self.tally.lines()])


def export_dataset(
    uri: str,
    out: str,
    kind: str,
    storage: Storage,
    *,
    labels: LabelMap | None = None,
    score_min: float | None = None,
    input_uri: str | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> DatasetExport:
    """Write a dataset: images byte for byte, then the files that hold the labels.

    Args:
        uri: a finished run, whose predictions are written; or a data folder or records.
        out: an empty folder, local or s3://.
        kind: one of WRITERS.
        storage: reads and writes.
        labels: names of the records' classes, where their own label map is not to be taken.
        score_min: predictions below it are left out; None is the run's own for drawing.
        input_uri: the run's input, if it was moved.
        progress: told (frames done, frames), where it is known how many there are.

    Raises:
        ConfigError: no such format.
        InputError: something is in `out`, or nothing can be written.
        NotFoundError: nothing is there.
        RunError: the run is not finished.
    """
    if kind not in WRITERS:
        raise ConfigError(f"--to is {kind!r}: expected one of {', '.join(WRITERS)}")
    _refuse_to_mix(out, storage)
    tally = Tally()
    if storage.exists(join_uri(uri, MANIFEST_NAME)):
        run = RunFolder(uri, storage)
        manifest = run.manifest()
        least = manifest.draw.score_min if score_min is None else score_min
        classes = manifest.labels
        frames = _of_run(run, classes, input_uri or manifest.input, least, tally)
    else:
        if score_min is not None:
            raise ConfigError("--score-min is for the predictions of a run: records have labels")
        least = None
        data = read_data_folder(uri, storage)
        classes = labels or own_labels(data, storage)
        frames = _of_records(data, classes, storage, tally, progress)
    desk = ExportDesk(classes, lambda path, content: _put(storage, out, path, content), tally)
    images, boxes = _write(frames, WRITERS[kind](desk), desk)
    if not images:
        raise InputError(f"{uri} has no frame that can be exported: {'; '.join(tally.lines())}")
    return DatasetExport(out, kind, images, boxes, least, tally)


def _refuse_to_mix(out: str, storage: Storage) -> None:
    try:
        there = next(storage.list_files(out), None)
    except NotFoundError:
        return
    if there is not None:
        raise InputError(f"{out} is not empty ({there.uri}): export into another folder")


def _put(storage: Storage, out: str, path: str, content: bytes) -> None:
    storage.write_bytes(join_uri(out, path), content)


def _write(
    frames: Iterator[LabelledFrame], writer: DatasetWriter, desk: ExportDesk
) -> tuple[int, int]:
    """Images first, each before its labels; how many images and boxes."""
    names: set[str] = set()
    boxes = 0
    for one in frames:
        if one.boxes is None and not writer.takes_unlabelled:
            desk.tally.add("image-unlabelled", one.frame.frame_key)
            continue
        try:
            encoded, image_format, size_wh = _encoded(one.frame, desk.tally)
        except RecordError as error:
            desk.tally.add("frame-left-out", f"{one.frame.frame_key}: {error}")
            continue
        name = _name(one, _ENDINGS.get(image_format, f".{image_format}"), names)
        names.add(name.casefold())
        desk.write(f"{IMAGES}/{name}", encoded)
        found = one.boxes or ()
        boxes += len(found)
        writer.add(
            ExportedImage(
                name=name,
                size_wh=size_wh,
                boxes=found,
                labelled=one.boxes is not None,
                part=one.part,
                drive=one.frame.segment,
                camera=one.frame.camera,
                timestamp_us=one.frame.timestamp_us,
            )
        )
    writer.finish()
    return len(names), boxes


def _name(one: LabelledFrame, ending: str, taken: set[str]) -> str:
    """The frame's key as a path; with its drive in front where another frame has that name."""
    parts = [safe_name(part) for part in one.frame.frame_key.split("/") if part.strip(".")]
    plain = "/".join(filter(None, [one.part, *parts])) or "frame"
    longer = "/".join(filter(None, [one.part, safe_name(one.frame.segment or "frames"), *parts]))
    tries = [plain, longer, *(f"{longer}-{number}" for number in range(2, len(taken) + 3))]
    return next(f"{path}{ending}" for path in tries if f"{path}{ending}".casefold() not in taken)


def _encoded(frame: Frame, tally: Tally) -> tuple[bytes, str, tuple[int, int]]:
    """The image's own bytes, their format and size; a frame of a video as JPEG, and a picture
    that its EXIF tag turns as an upright PNG.

    Raises:
        RecordError: the image is damaged.
    """
    encoded = bytes(frame.encoded)
    if frame.format == "raw":
        encoded = encode_jpeg(decode_frame(frame), quality=_QUALITY)
        tally.add("frame-encoded", frame.frame_key)
    elif frame.orientation != UPRIGHT:  # boxes are those of the upright picture
        encoded = encode_png(decode_frame(frame))
        tally.add("image-upright", frame.frame_key)
    image_format, width, height = image_size(encoded)
    return encoded, image_format, (width, height)


def _of_records(
    data: DataFolder,
    labels: LabelMap,
    storage: Storage,
    tally: Tally,
    progress: Callable[[int, int], None],
) -> Iterator[LabelledFrame]:
    parts = {source.uri: name for name, part in data.parts.items() for source in part.sources}
    for done, source in enumerate(data.sources):
        progress(done, len(data.sources))
        for record in read_source(source, storage, labels=labels):
            if record.frame is None:
                tally.add("frame-left-out", f"{record.uri}, record {record.index}: {record.error}")
                continue
            truth = record.frame.truth
            boxes = None if truth is None else _labelled(record.frame, truth, labels, tally)
            if truth is not None and any(truth.masks_png):
                tally.add("mask-left-out", record.frame.frame_key)
            yield LabelledFrame(record.frame, parts.get(source.uri, ""), boxes)


def _labelled(
    frame: Frame, truth: Truth, labels: LabelMap, tally: Tally
) -> tuple[LabelledBox, ...]:
    """Boxes by the records' own text, else by the label map."""

    def of(column: Any, at: int) -> Any:
        return None if column is None else column[at].item()

    known = set(labels.names.values())
    found = []
    for at, box in enumerate(truth.boxes_xyxy.astype(float).tolist()):
        text = truth.class_texts[at]
        name = text if text in known else labels.names.get(int(truth.class_ids[at]))
        if name is None:
            tally.add("class-unknown", f"{frame.frame_key}: class {truth.class_ids[at]} {text}")
            continue
        found.append(
            LabelledBox(
                name,
                (box[0], box[1], box[2], box[3]),
                difficult=bool(truth.difficult[at]),
                crowd=bool(truth.is_crowd[at]),
                truncated=of(truth.truncated, at),
                occluded=of(truth.occluded, at),
                area_px=of(truth.areas_px, at),
            )
        )
    return tuple(found)


def _of_run(
    run: RunFolder, labels: LabelMap, uri: str, score_min: float, tally: Tally
) -> Iterator[LabelledFrame]:
    """The frames of a run's input with its predictions; dead letters are counted."""
    try:
        sources = {source.name: source for source in list_sources(uri, run.storage)}
    except NotFoundError as error:
        raise NotFoundError(
            f"the run's input is not where it was ({error}): say where it is now with --input"
        ) from None
    for name, shards in chains(run.finished_markers()).items():
        if name not in sources:
            raise InputError(f"{uri} lacks {name}, which the run has: is it another input?")
        rows = {row.index: row for marker in shards.values() for row in run.rows(marker)}
        for record in read_source(sources[name], run.storage):
            row = rows.pop(record.index, None)
            if row is None or record.frame is None:
                tally.add("frame-left-out", f"{record.uri}, record {record.index}: a dead letter")
                continue
            found = _predicted(row.detections.above(score_min), labels)
            yield LabelledFrame(record.frame, "", found)
        if rows:
            raise InputError(f"{sources[name].uri} lacks {len(rows)} frames that the run has")


def _predicted(found: Detections, labels: LabelMap) -> tuple[LabelledBox, ...]:
    columns = zip(
        found.boxes_xyxy.astype(float).tolist(),
        found.scores.tolist(),
        found.class_ids.tolist(),
        strict=True,
    )
    return tuple(
        LabelledBox(labels.name_of(class_id), (box[0], box[1], box[2], box[3]), score=score)
        for box, score, class_id in columns
    )
