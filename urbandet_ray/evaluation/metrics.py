"""What an evaluation found: COCO's figures as values, as JSON and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from urbandet_ray.tables import text_table

Figure = float | None
"""In [0, 1]; None where there is no truth to measure against."""


@dataclass(frozen=True)
class SizeMetrics:
    """Figures over the truth boxes of one size (area in px² of the frame)."""

    ap: Figure
    """Mean over classes and IoU 0.50:0.95 of the average precision."""
    ar: Figure
    """Mean over classes and IoU 0.50:0.95 of the recall."""


@dataclass(frozen=True)
class ClassMetrics:
    """Figures of one class; all None where the truth has no box of it."""

    ap: Figure
    """Average precision, mean over IoU 0.50:0.95."""
    ap50: Figure
    """Average precision at IoU 0.50."""
    ar100: Figure
    """Recall with all considered detections, mean over IoU 0.50:0.95."""
    truth_boxes: int
    """Labelled boxes, crowds left out."""
    detections: int
    """Detections at or above the score threshold."""
    ap_by_size: Mapping[str, Figure]
    """`ap` over small, medium and large truth boxes."""


@dataclass(frozen=True)
class Metrics:
    """COCO's twelve figures and where they come from.

    A class without truth has no figure and no part in the means, as in COCO.
    """

    frames: int
    """Frames compared, those without truth or detections included."""
    truth_boxes: int
    """Labelled boxes, crowds left out."""
    detections: int
    """Detections at or above the score threshold."""
    max_detections: int
    """Best detections considered per frame and class; `ar100` means this many."""
    map: Figure
    """Mean average precision over classes and IoU 0.50:0.95."""
    ap50: Figure
    """Mean average precision at IoU 0.50."""
    ap75: Figure
    """Mean average precision at IoU 0.75."""
    ar1: Figure
    """Recall with the best detection per frame and class, mean over IoU 0.50:0.95."""
    ar10: Figure
    """The same with the best ten."""
    ar100: Figure
    """The same with the best `max_detections`."""
    by_size: Mapping[str, SizeMetrics]
    """Keys small (area up to 32² px), medium (up to 96²) and large."""
    by_class: Mapping[str, ClassMetrics]
    """By class name, in the label map's order."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; a figure without truth is None (null)."""
        return asdict(self)

    def to_text(self) -> str:
        """A table for people: the run's figures first, then a line a class."""
        head = (
            f"{self.frames} frames, {self.truth_boxes} truth boxes, {self.detections} detections\n"
            f"mAP {_show(self.map)}   AP50 {_show(self.ap50)}   AP75 {_show(self.ap75)}\n"
            f"AR1 {_show(self.ar1)}   AR10 {_show(self.ar10)}   "
            f"AR{self.max_detections} {_show(self.ar100)}"
        )
        size_rows = [[name, _show(size.ap), _show(size.ar)] for name, size in self.by_size.items()]
        class_rows = [
            [
                name,
                str(one.truth_boxes),
                str(one.detections),
                *map(_show, (one.ap, one.ap50, one.ar100, *one.ap_by_size.values())),
            ]
            for name, one in self.by_class.items()
        ]
        class_head = ["class", "truth", "detections", "AP", "AP50", f"AR{self.max_detections}"]
        class_head += [f"AP {name}" for name in self.by_size]
        return "\n\n".join(
            [
                head,
                text_table([["size", "AP", "AR"], *size_rows]),
                text_table([class_head, *class_rows]),
            ]
        )


def _show(figure: Figure) -> str:
    return "-" if figure is None else f"{figure:.3f}"
