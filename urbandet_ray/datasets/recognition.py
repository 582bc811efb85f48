"""Which format a dataset has, by what is in it, said with the file that told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from urbandet_ray.datasets.annotated import Dataset
from urbandet_ray.datasets.bdd_folder import read_bdd
from urbandet_ray.datasets.coco_folder import read_coco
from urbandet_ray.datasets.cvat_file import read_cvat
from urbandet_ray.datasets.file_index import FileIndex, index_files
from urbandet_ray.datasets.json_labels import first_json_format
from urbandet_ray.datasets.kitti_folder import kitti_evidence, read_kitti
from urbandet_ray.datasets.label_studio import read_label_studio
from urbandet_ray.datasets.voc_folder import read_voc
from urbandet_ray.datasets.waymo_frames import read_waymo_frames, record_files, waymo_evidence
from urbandet_ray.datasets.waymo_tables import read_waymo_tables, waymo_tables_evidence
from urbandet_ray.datasets.xml_labels import first_xml_format
from urbandet_ray.datasets.yolo_folder import read_yolo, yolo_evidence
from urbandet_ray.errors import ConfigError, InputError
from urbandet_ray.storage import Storage

READERS: dict[str, Callable[[FileIndex, Storage, str], Dataset]] = {
    "coco": read_coco,
    "yolo": read_yolo,
    "voc": read_voc,
    "bdd100k": read_bdd,
    "kitti": read_kitti,
    "cvat": read_cvat,
    "label-studio": read_label_studio,
    "waymo-v1": read_waymo_frames,
    "waymo-v2": read_waymo_tables,
}
"""What reads each format, by the name that --format takes."""

_EXPECTED = (
    "expected COCO's instances JSON, YOLO's data.yaml or obj.data, Pascal VOC's or CVAT's XML, "
    "BDD100K's or Label Studio's JSON, KITTI's label_2/, or the Waymo Open Dataset"
)


def read_dataset(
    uri: str, storage: Storage, *, kind: str | None = None, images: str | None = None
) -> Dataset:
    """Recognise a dataset and read its labels; images are only looked up, not opened.

    Args:
        uri: a folder or a labels file, local or s3://.
        storage: reads it.
        kind: its format, one of READERS; None recognises it.
        images: the folder of the images, where the labels are somewhere else.

    Raises:
        ConfigError: no such kind.
        InputError: no format is recognised, several are, or nothing usable is in it.
        NotFoundError: nothing is there.
    """
    if kind is not None and kind not in READERS:
        raise ConfigError(f"--format is {kind!r}: expected one of {', '.join(READERS)}")
    index = index_files(uri, storage, images)
    found = formats_in(index, storage)
    if kind is not None:
        return _read(kind, index, storage, found.get(kind, uri))
    if len(found) > 1:
        named = ", ".join(f"{one} ({path})" for one, path in found.items())
        raise InputError(
            f"{uri} holds labels of {len(found)} formats, {named}: name the right one with "
            "--format, or the labels file itself"
        )
    if not found and any(record_files(index)):
        raise InputError(
            f"{uri} holds records that are no Frames of Waymo's: TFRecords of tf.Examples need no "
            f"import, {_EXPECTED}"
        )
    if not found:
        raise InputError(f"{uri} holds no labels of a format that is read here: {_EXPECTED}")
    ((name, evidence),) = found.items()
    return _read(name, index, storage, evidence)


def formats_in(index: FileIndex, storage: Storage) -> dict[str, str]:
    """The formats that a dataset's files speak of, each with the file that told."""
    found: dict[str, str] = {}
    by_name = {
        "yolo": yolo_evidence(index, storage),
        "kitti": kitti_evidence(index),
        "waymo-v1": waymo_evidence(index, storage),
        "waymo-v2": waymo_tables_evidence(index),
    }
    found |= {name: path for name, path in by_name.items() if path is not None}
    for one in (first_json_format(index, storage), first_xml_format(index, storage)):
        if one is not None:
            found[one[0]] = one[1]
    return found


def _read(kind: str, index: FileIndex, storage: Storage, evidence: str) -> Dataset:
    dataset = READERS[kind](index, storage, evidence)
    if not dataset.class_ids:
        raise InputError(
            f"{index.uri} was read as {dataset.kind} (by {evidence}), and no class was found in "
            f"it: {'; '.join(dataset.tally.lines()) or 'it has no labels'}"
        )
    return replace(dataset, version=index.version)
