"""What fine-tuning kept of a checkpoint, as values and as a few lines of text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from urbandet_ray.labels import LabelMap
from urbandet_ray.models.classes import ModelLabels
from urbandet_ray.tables import text_table


@dataclass(frozen=True)
class PartCount:
    """Variables of one part of the model.

    Attributes:
        part: its name.
        copied: taken over as they are.
        mapped: filled row by row from the old classes.
        random: left as they were initialised.
    """

    part: str
    copied: int = 0
    mapped: int = 0
    random: int = 0


@dataclass(frozen=True)
class FineTuneReport:
    """What a model started from.

    Attributes:
        checkpoint: its prefix.
        kind: how it was restored.
        parts: the model's parts, in its order.
        classes: a line for each new class; empty for kinds that map none.
    """

    checkpoint: str
    kind: str
    parts: tuple[PartCount, ...]
    classes: tuple[str, ...] = ()

    @property
    def copied(self) -> int:
        """Variables taken over as they are."""
        return sum(part.copied for part in self.parts)

    @property
    def mapped(self) -> int:
        """Variables filled row by row."""
        return sum(part.mapped for part in self.parts)

    @property
    def random(self) -> int:
        """Variables left as they were initialised."""
        return sum(part.random for part in self.parts)

    def to_text(self) -> str:
        """A line of totals, one a part, one a class."""
        total = f"{self.copied} variables copied, {self.mapped} mapped, {self.random} left random"
        rows = [
            (one.part, f"{one.copied} copied", f"{one.mapped} mapped", f"{one.random} random")
            for one in self.parts
        ]
        below = [*text_table(rows).splitlines(), *self.classes]
        head = f"fine-tuning from {self.checkpoint} ({self.kind}): {total}"
        return "\n".join([head, *(f"  {line}" for line in below)])


def class_lines(
    table: Mapping[int, Mapping[int, float]], old: ModelLabels, new: LabelMap, classes: int
) -> tuple[str, ...]:
    """A line for each id that the model can answer: what its row starts from."""
    return tuple(_class_line(class_id, table, old, new) for class_id in range(1, classes + 1))


def _class_line(
    class_id: int, table: Mapping[int, Mapping[int, float]], old: ModelLabels, new: LabelMap
) -> str:
    if class_id not in new.names:
        return f"id {class_id} is no class of the label map: its row starts empty"
    shares = table.get(class_id, {})
    name = new.names[class_id]
    if not shares:
        return f"{name} has no old class: its row starts empty, at a score of 0.01"
    if len(shares) == 1:
        return f"{name} <- {old.names.name_of(next(iter(shares)))}"
    told = (f"{share:.2g} {old.names.name_of(old_id)}" for old_id, share in shares.items())
    return f"{name} <- {' + '.join(told)}"
