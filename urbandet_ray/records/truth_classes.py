"""Truth boxes as classes of a run: named by their own label map, looked up by name in the run's."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from urbandet_ray.errors import LabelError
from urbandet_ray.frames import Truth
from urbandet_ray.labels import LabelMap
from urbandet_ray.phrases import some_of

_SHOWN = 5


@dataclass
class TruthClasses:
    """Gives truth boxes the run's ids; boxes of classes that the run does not have are counted.

    Attributes:
        run: the classes of the detections.
        own: the truth's label map; None where the run's stands in for it.
        kept: boxes of classes that both have.
        left_out: the others, by name.
        places: the first frame of each.
    """

    run: LabelMap
    own: LabelMap | None = None
    kept: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    places: dict[str, str] = field(default_factory=dict)

    @property
    def reading(self) -> LabelMap:
        """What the truth's class texts are looked up in."""
        return self.own or self.run

    @cached_property
    def _ids(self) -> dict[int, int]:
        """The run's id by the truth's."""
        if self.own is None:
            return {class_id: class_id for class_id in self.run.names}
        known = self.run.ids_by_text
        others = ((text, one) for text, one in self.own.other_names.items() if one)
        named = [*((text, one) for one, text in self.own.names.items()), *others]
        found: dict[int, int] = {}
        for text, class_id in named:
            if known.get(text):
                found.setdefault(class_id, known[text])
        return found

    def of(self, truth: Truth, place: str) -> Truth:
        """The boxes of classes that the run has, with its ids.

        Args:
            truth: read with `reading`.
            place: the frame, for messages.
        """
        ids = np.array([self._ids.get(one, 0) for one in truth.class_ids.tolist()], np.int32)
        for row in np.flatnonzero(ids == 0).tolist():
            name = truth.class_texts[row] or self.reading.name_of(int(truth.class_ids[row]))
            self.left_out[name] += 1
            self.places.setdefault(name, place)
        self.kept += int(np.count_nonzero(ids))
        return truth.with_ids(ids).keep(ids != 0)

    def lines(self) -> list[str]:
        """What is not in the figures: how many boxes of which class, and where.

        Raises:
            LabelError: no box is of a class that the run has.
        """
        if self.left_out and not self.kept:
            raise LabelError(
                f"the truth has boxes of {some_of([*self.left_out], _SHOWN)}, the run detects "
                f"{some_of([*self.run.names.values()], _SHOWN)}: none is the same. Infer with "
                "--labels and --mapping of the truth's classes, or put the label map that the "
                "records were made with beside them"
            )
        told = [
            f"{count:,} {name!r} ({self.places[name]})"
            for name, count in self.left_out.most_common(_SHOWN)
        ]
        if not told:
            return []
        more = len(self.left_out) - len(told)
        return [
            f"{sum(self.left_out.values()):,} truth boxes are of classes that the run does not "
            f"have, and not in the figures: {', '.join(told)}"
            f"{f' and {more} more classes' if more else ''}"
        ]
