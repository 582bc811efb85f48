"""Which class a box is of: its text through the label map, else its number.

The rule is that of the OD API's TfExampleDecoder with a label map: where a record has class texts,
they decide, by a class's name or display name; the numbers are for records without texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.labels import LabelMap
from urbandet_ray.phrases import some_of

UNKNOWN_TEXT, OTHER_NUMBER = "unknown-class-text", "class-number"
FROM_ZERO, FROM_TEXT = "class-from-zero", "class-from-text"
"""Reasons of problems: a text that is no class of the map; a number that is another class's;
numbers that count from 0; no numbers at all."""

HARMLESS = frozenset({OTHER_NUMBER, FROM_ZERO, FROM_TEXT})
"""The texts are right, and they decide."""

RESOLVED = HARMLESS | {UNKNOWN_TEXT}
"""The ids are others than image/object/class/label's."""

NO_CLASS = 0


def class_ids_of(
    texts: Sequence[str],
    numbers: NDArray[np.int32],
    labels: LabelMap | None,
    problems: list[str],
) -> NDArray[np.int32]:
    """Ids of n boxes, [n] int32; 0 for a text that the label map does not have.

    Args:
        texts: n class texts; "" where a box has none.
        numbers: [n] or [0] image/object/class/label.
        labels: None takes the numbers as they are.
        problems: grows by "reason: detail" a box.
    """
    n = len(texts)
    given = numbers if len(numbers) else np.full(n, NO_CLASS, np.int32)
    if labels is None or not any(texts):
        if n and not len(numbers):
            problems.append(
                f"no-class-id: {n} boxes have no image/object/class/label"
                f"{'' if any(texts) else ' and no class/text'}; their id is {NO_CLASS}"
            )
        return given
    known = labels.ids_by_text
    pairs = zip(given.tolist(), texts, strict=True)
    ids = np.array(
        [known.get(text, NO_CLASS) if text else number for number, text in pairs], np.int32
    )
    if not len(numbers):
        problems.append(f"{FROM_TEXT}: {n} boxes have a class/text and no class/label")
    for row in np.flatnonzero((ids != given) | (ids == NO_CLASS)).tolist():
        text, number, class_id = texts[row], int(given[row]), int(ids[row])
        if text and class_id == NO_CLASS and text not in known:
            problems.append(
                f"{UNKNOWN_TEXT}: box {row} is a {text!r}, which the label map does not have; it "
                f"has {some_of([*known], 5)}"
            )
        elif len(numbers) and class_id != number:
            reason = FROM_ZERO if number == class_id - 1 else OTHER_NUMBER
            problems.append(
                f"{reason}: box {row} is a {text!r}, id {class_id} in the label map, and its "
                f"class/label is {number}"
            )
    return ids


def labels_of_texts(pairs: Iterable[tuple[int, str]]) -> LabelMap | None:
    """The label map that records without one speak of: the classes that their texts name.

    A text keeps its number where each has one of its own, from 1. Else the texts are numbered from
    1, in the order of the alphabet; numbers of boxes without a text are passed over, as those boxes
    are none of the classes. A number that no text names is "class 7".

    Args:
        pairs: number and text of each box; "" where it has none.

    Returns:
        None where no box has a text.
    """
    numbers: dict[str, set[int]] = {}
    for number, text in pairs:
        numbers.setdefault(text, set()).add(number)
    unnamed = {number for number in numbers.pop("", ()) if number > 0}
    if not numbers:
        return None
    own = {min(given): text for text, given in numbers.items()}
    if len(own) < len(numbers) or min(own) < 1 or any(len(one) > 1 for one in numbers.values()):
        free = (number for number in count(1) if number not in unnamed)
        own = dict(zip(free, sorted(numbers), strict=False))
    plain = {number: f"class {number}" for number in unnamed - own.keys()}
    return LabelMap({n: name for n, name in plain.items() if name not in numbers} | own)


def renumbered(
    numbers: NDArray[np.int32], texts: Sequence[str], labels: LabelMap
) -> NDArray[np.int32]:
    """The label map's ids for n texts, [n]; the numbers where a text is no class of it."""
    known = labels.ids_by_text
    pairs = zip(numbers.tolist(), texts, strict=True)
    return np.array([known.get(text, number) for number, text in pairs], np.int32)
