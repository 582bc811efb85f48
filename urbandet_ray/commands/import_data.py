"""`urbandet data import`: a dataset of another format as TFRecords, a label map and a report."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import PurePosixPath

from urbandet_ray.commands.data import write_contact_sheet
from urbandet_ray.config import RayConfig
from urbandet_ray.datasets.annotated import AnnotatedImage, Dataset
from urbandet_ray.datasets.oddities import Tally
from urbandet_ray.datasets.recognition import read_dataset
from urbandet_ray.datasets.record_files import (
    RecordGroup,
    WrittenGroup,
    class_counts,
    grouped,
    write_group,
)
from urbandet_ray.datasets.splitting import (
    PARTS,
    deal,
    drives_in_two_parts,
    drives_of,
    read_shares,
)
from urbandet_ray.errors import InputError, NotFoundError
from urbandet_ray.inference.import_tasks import write_groups
from urbandet_ray.json_files import digest, read_value, to_json
from urbandet_ray.label_files import read_labels
from urbandet_ray.labels import LabelMap
from urbandet_ray.records.data_folder import read_data_folder
from urbandet_ray.runs.lock import LOCK_NAME, WriterLock
from urbandet_ray.storage import Storage, join_uri
from urbandet_ray.tables import text_table

PLAN_NAME, REPORT_NAME = "import.json", "import_report.json"
SHARES = "80,10,10"
LARGE = 20_000
"""Images from which on Ray's start of some 10 s is worth it."""
_SHEET_FRAMES = 12


@dataclass(frozen=True)
class ImportChoice:
    """What a person may say about an import; the fields decide what is written.

    Attributes:
        kind: the format, where it is not to be recognised.
        images: the folder of the images, where it is not the labels'.
        labels: a label map: its classes and ids alone are written.
        split: shares of train, val and test; None keeps the dataset's own parts where it has some.
        drive: a regular expression that finds the drive in an image's name.
        seed: of the split.
    """

    kind: str | None = None
    images: str | None = None
    labels: str | None = None
    split: str | None = None
    drive: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class ImportReport:
    """What became of a dataset.

    Attributes:
        kind, evidence: the format, and the file that told it.
        out: the data folder.
        written: all groups of files.
        labels: the classes.
        split: how the parts were made.
        drives: how it is known which images belong together.
        tally: what was odd.
    """

    kind: str
    evidence: str
    out: str
    written: Sequence[WrittenGroup]
    labels: LabelMap
    split: str
    drives: str
    tally: Tally

    @property
    def sheet(self) -> str:
        """The contact sheet, beside the folder: within it, it would be one more frame."""
        return f"{self.out.rstrip('/')}_sheet.png"

    @property
    def frames(self) -> int:
        """How many were written."""
        return sum(sum(one.files.values()) for one in self.written)

    def to_text(self) -> str:
        """What it was read as, a table of the parts by class, and a line for each odd thing."""
        lines = [
            f"read as {self.kind}, by {self.evidence}",
            f"parts: {self.split}; drives: {self.drives}",
            text_table(self._rows()),
            *self.tally.lines(),
            f"{self.out}: {self.frames} frames, label_map.pbtxt, {REPORT_NAME}",
            f"to look at: {self.sheet}",
        ]
        return "\n".join(lines)

    def _rows(self) -> list[list[str]]:
        names = [*self.labels.names.values()]
        rows = [["part", "files", "drives", "frames", *names]]
        for part in PARTS:
            own = [one for one in self.written if one.part == part]
            boxes: Counter[str] = Counter()
            for one in own:
                boxes.update(one.boxes)
            files = sum(len(one.files) for one in own)
            frames = sum(sum(one.files.values()) for one in own)
            drives = len({one.drive for one in own if one.drive})
            figures = (files, drives, frames, *(boxes[name] for name in names))
            rows.append([part, *(str(figure) for figure in figures)])
        return rows

    def to_dict(self) -> dict[str, object]:
        """The content of import_report.json: each odd thing with its places."""
        return {
            "format": self.kind,
            "evidence": self.evidence,
            "split": self.split,
            "drives": self.drives,
            "parts": {part: self._part(part) for part in PARTS},
            "classes": {name: class_id for class_id, name in self.labels.names.items()},
            "odd": {
                kind: {"count": count, "places": self.tally.places[kind]}
                for kind, count in self.tally.counts.items()
            },
        }

    def _part(self, part: str) -> dict[str, dict[str, int]]:
        return {one.name: one.files for one in self.written if one.part == part}


def import_dataset(
    uri: str,
    out: str,
    choice: ImportChoice,
    storage: Storage,
    progress: Callable[[int, int], None] = lambda *_: None,
    *,
    on_ray: bool | None = None,
) -> ImportReport:
    """Write OUT/train, val and test, OUT/label_map.pbtxt and the report; a cut-off try is resumed.

    Args:
        uri: the dataset, local or s3://.
        out: the data folder to make, local or s3://.
        choice: what a person says about it.
        storage: reads and writes.
        progress: told (images done, images).
        on_ray: groups are written in Ray's tasks; None does so from LARGE images on.

    Raises:
        InputError: no dataset that can be read, or another import is in `out`.
        LabelError: classes that make no label map.
        ConfigError: shares or a pattern that are none.
        NotFoundError: nothing is there.
        RunError: somebody else writes to `out`, or Ray gives up.
    """
    dataset = read_dataset(uri, storage, kind=choice.kind, images=choice.images)
    own_classes = LabelMap({number: name for name, number in dataset.class_ids.items()})
    labels = read_labels(choice.labels, storage) if choice.labels else own_classes
    images = _without_common_folders(list(dataset.images))
    if not images:
        raise InputError(
            f"{uri} was read as {dataset.kind}, and no labelled image was found: "
            + "; ".join(dataset.tally.lines())
        )
    tally = Tally()
    tally.merge(dataset.tally.counts, dataset.tally.places)
    groups, split, drives = _planned(images, choice, tally)
    _begin(uri, out, choice, dataset, labels, storage)
    if on_ray is None:
        on_ray = len(images) >= LARGE and len(groups) > 1
    with WriterLock(storage, join_uri(out, LOCK_NAME), "urbandet data import") as lock:
        storage.sweep(out)
        done = _written(groups, out, labels, storage, on_ray=on_ray)
        written = _in_order(groups, done, tally, progress, lock.check)
    storage.write_bytes(join_uri(out, "label_map.pbtxt"), labels.to_pbtxt().encode())
    report = ImportReport(
        dataset.kind, dataset.evidence, out, written, labels, split, drives, tally
    )
    if not report.frames:
        raise InputError(f"no image of {uri} could be written: {'; '.join(tally.lines())}")
    data = read_data_folder(out, storage)
    write_contact_sheet(data, report.sheet, _SHEET_FRAMES, labels, storage)
    storage.write_bytes(join_uri(out, REPORT_NAME), to_json(report.to_dict()))
    return report


def _without_common_folders(images: list[AnnotatedImage]) -> list[AnnotatedImage]:
    """Images without the folders that all of them are in, which tell none from another."""
    folders = [PurePosixPath(image.name).parent.parts for image in images]
    common = 0
    while folders and all(len(one) > common for one in folders):
        if len({one[common] for one in folders}) > 1:
            break
        common += 1
    return [
        replace(image, name="/".join(PurePosixPath(image.name).parts[common:])) for image in images
    ]


def _planned(
    images: list[AnnotatedImage], choice: ImportChoice, tally: Tally
) -> tuple[list[RecordGroup], str, str]:
    """The groups to write, and in words how parts and drives were found."""
    drives, how = drives_of(images, choice.drive)
    if not any(drives):
        how += ", so each image stands for itself (name drives with --drive REGEX)"
    if choice.split is None and any(image.split for image in images):
        torn = drives_in_two_parts(
            (drive, image.split) for drive, image in zip(drives, images, strict=True)
        )
        for drive in torn:
            tally.add("drive-in-two-parts", drive)
        parts = [image.split or "train" for image in images]
        loose = sum(not image.split for image in images)
        split = "the dataset's own" + (f"; {loose} images of none are in train" if loose else "")
        return grouped(images, drives, parts), split, how
    shares = read_shares(choice.split or SHARES)
    scenes: dict[str, list[AnnotatedImage]] = defaultdict(list)
    keys = [drive or f"/{image.name}" for drive, image in zip(drives, images, strict=True)]
    for key, image in zip(keys, images, strict=True):
        scenes[key].append(image)
    dealt = deal({key: class_counts(some) for key, some in scenes.items()}, shares, choice.seed)
    given = ":".join(f"{share:.0%}" for share in shares)
    split = f"{given} by drive, seed {choice.seed}"
    taken = set(dealt.values())
    wanted = [part for part, share in zip(PARTS, shares, strict=True) if share]
    empty = [part for part in wanted if part not in taken]
    if empty:
        split += f"; nothing is left for {' and '.join(empty)}: there are {len(scenes)} drives"
    return grouped(images, drives, [dealt[key] for key in keys]), split, how


def _begin(
    uri: str, out: str, choice: ImportChoice, dataset: Dataset, labels: LabelMap, storage: Storage
) -> None:
    """Say what is imported before anything else is written; another import there is refused.

    Raises:
        InputError: the folder holds another import, or other data.
    """
    plan = {
        "from": uri,
        "choice": asdict(choice),
        "fingerprint": digest([dataset.version, asdict(choice), labels.to_pbtxt()]),
    }
    place = join_uri(out, PLAN_NAME)
    if storage.exists(place):
        remedy = "Import into another folder"
        before = read_value(place, storage, dict, remedy)
        if before.get("fingerprint") != plan["fingerprint"]:
            raise InputError(
                f"{out} holds an import of {before.get('from')} with other files or options: "
                "import into another folder, or move it away"
            )
        return
    for name in (*PARTS, "label_map.pbtxt"):
        if _anything_at(join_uri(out, name), storage):
            raise InputError(
                f"{join_uri(out, name)} is there already, and no import made it: import into "
                "another folder, or move it away"
            )
    storage.write_bytes(place, to_json(plan))


def _anything_at(uri: str, storage: Storage) -> bool:
    try:
        return next(storage.list_files(uri), None) is not None
    except NotFoundError:
        return False


def _written(
    groups: Sequence[RecordGroup], out: str, labels: LabelMap, storage: Storage, *, on_ray: bool
) -> Iterator[WrittenGroup]:
    if on_ray:
        yield from write_groups(groups, out, labels, storage, RayConfig())
        return
    for group in groups:
        yield write_group(group, out, labels, storage)


def _in_order(
    groups: Sequence[RecordGroup],
    written: Iterator[WrittenGroup],
    tally: Tally,
    progress: Callable[[int, int], None],
    check: Callable[[], None],
) -> list[WrittenGroup]:
    """What was written, in the order of the groups, whoever was done first."""
    sizes = {(group.part, group.name): len(group.images) for group in groups}
    found: dict[tuple[str, str], WrittenGroup] = {}
    done = 0
    for one in written:
        check()
        found[(one.part, one.name)] = one
        done += sizes[(one.part, one.name)]
        progress(done, sum(sizes.values()))
    in_order = [found[place] for place in sizes]
    for one in in_order:
        tally.merge(one.counts, one.places)
    return in_order
