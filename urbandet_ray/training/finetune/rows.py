"""Rows of a class head: which old classes a new one starts from, and the filling in of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.errors import LabelError
from urbandet_ray.labels import ClassMapping, LabelMap
from urbandet_ray.models.classes import ModelLabels

Floats = NDArray[np.float32]
Table = Mapping[int, Mapping[int, float]]
"""New class id -> old class id -> its share in the new row."""

PRIOR_LOGIT = -math.log(99)
"""A score of 0.01: what a class without a source starts from (focal loss paper, 3.3)."""

FIRST_SHARE = 0.6
"""Share of the first of several old classes. Measured with an SSD of COCO on 100 street frames (car
before bus, truck and motorcycle, AP of vehicles): 0.25 gives .089, 0.5 .100, 0.6 .102, 0.8 .100,
the first alone .097, and the old model with its answers renamed .103."""


@dataclass(frozen=True)
class RowLayout:
    """How the last dimension of a variable holds classes: [anchors, background + classes, width].

    Attributes:
        classes: ids 1 to this many have a row.
        anchors: groups of rows; 1 where there are no anchors.
        background: rows before the first class, 0 or 1.
        width: numbers a row; 4 in box heads that predict a box per class.
    """

    classes: int
    anchors: int = 1
    background: int = 0
    width: int = 1

    @property
    def length(self) -> int:
        """Of the last dimension."""
        return self.anchors * (self.background + self.classes) * self.width

    def of_old(self, length: int) -> RowLayout | None:
        """The layout of the same head with another number of classes; None if it has none."""
        rows, rest = divmod(length, self.anchors * self.width)
        if rest or rows <= self.background:
            return None
        return RowLayout(rows - self.background, self.anchors, self.background, self.width)


def class_shares(
    old: ModelLabels, new: LabelMap, renames: Mapping[str, str] | None
) -> dict[int, dict[int, float]]:
    """The old classes of each new one, by name.

    Args:
        old: the checkpoint's classes.
        new: the run's.
        renames: old name -> new name, the old class that matters most first; names that are equal
            match without.

    Returns:
        New id -> old id -> share, the shares of a new class adding up to 1; new classes without
        an old one are left out.

    Raises:
        LabelError: nothing matches, or a rename's target is unknown.
    """
    ids = ClassMapping.by_name(old.names, new, renames).ids
    order = {name: place for place, name in enumerate(renames or {})}
    by_order = sorted(ids, key=lambda each: order.get(old.names.name_of(each), -1))
    table: dict[int, dict[int, float]] = {}
    for new_id in new.names:
        sources = [old_id for old_id in by_order if ids[old_id] == new_id]
        if sources:
            table[new_id] = _shares(sources)
    return table


def _shares(sources: list[int]) -> dict[int, float]:
    """FIRST_SHARE for the first, the rest in equal parts for the others."""
    if len(sources) == 1:
        return {sources[0]: 1.0}
    rest = (1 - FIRST_SHARE) / (len(sources) - 1)
    return {old_id: FIRST_SHARE if at == 0 else rest for at, old_id in enumerate(sources)}


def map_rows(
    old: Floats, new: Floats, table: Table, old_layout: RowLayout, new_layout: RowLayout
) -> Floats:
    """Fill a class head's rows from another's.

    Args:
        old: the checkpoint's values [..., old_layout.length].
        new: the model's values as initialised [..., new_layout.length].
        table: which old classes a new one starts from.
        old_layout, new_layout: alike but for the number of classes.

    Returns:
        `new` with the background row and the rows of the table's classes taken from `old`.

    Raises:
        LabelError: the table names a class that one of the two has no row for.
    """
    rows_old, rows_new = _rows(old, old_layout), _rows(new, new_layout).copy()
    start = new_layout.background
    rows_new[..., :start, :] = rows_old[..., :start, :]
    for new_id, shares in table.items():
        _check_id(new_id, new_layout.classes, "the model", "num_classes is too small")
        total = np.zeros_like(rows_new[..., 0, :])
        for old_id, share in shares.items():
            _check_id(old_id, old_layout.classes, "the checkpoint", "name its own label map")
            total += np.float32(share) * rows_old[..., start + old_id - 1, :]
        rows_new[..., start + new_id - 1, :] = total
    return rows_new.reshape(new.shape)


def silence_rows(values: Floats, layout: RowLayout, table: Table, value: float) -> Floats:
    """Set the rows of classes that the table has no source for.

    Rows as initialised would drown the others: random kernels on trained features give an unused
    id scores of 0.99.
    """
    rows = _rows(values, layout).copy()
    for class_id in range(1, layout.classes + 1):
        if class_id not in table:
            rows[..., layout.background + class_id - 1, :] = value
    return rows.reshape(values.shape)


def _rows(values: Floats, layout: RowLayout) -> Floats:
    """[..., anchors, background + classes, width]."""
    slots = layout.background + layout.classes
    return values.reshape(*values.shape[:-1], layout.anchors, slots, layout.width)


def _check_id(class_id: int, classes: int, whose: str, advice: str) -> None:
    if not 1 <= class_id <= classes:
        raise LabelError(f"{whose} has {classes} classes, none with id {class_id}: {advice}")
