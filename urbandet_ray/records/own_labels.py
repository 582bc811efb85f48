"""The classes of data without a label map: those that the records' own texts name."""

from __future__ import annotations

from itertools import chain, islice

from urbandet_ray.labels import LabelMap
from urbandet_ray.records.class_column import labels_of_texts
from urbandet_ray.records.data_folder import DataFolder
from urbandet_ray.records.sources import read_source
from urbandet_ray.storage import Storage


def own_labels(data: DataFolder, storage: Storage, most: int | None = None) -> LabelMap:
    """The data's label map, else one of the texts and numbers of its records.

    Args:
        most: records that are looked at in each file; None looks at all.

    Raises:
        StorageError: a file cannot be read.
    """
    if data.labels is not None:
        return data.labels
    truths = [
        record.frame.truth
        for source in data.sources
        for record in islice(read_source(source, storage), most)
        if record.frame is not None and record.frame.truth is not None
    ]
    pairs = [zip(one.class_ids.tolist(), one.class_texts, strict=True) for one in truths]
    named = labels_of_texts(chain.from_iterable(pairs))
    if named is not None:
        return named
    numbers = {number for one in truths for number in one.class_ids.tolist() if number > 0}
    return LabelMap({number: f"class {number}" for number in numbers or {1}})
