"""What a detector says about one frame: columns of equal length, checked once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.boxes import Boxes


@dataclass(frozen=True, eq=False)
class Detections:
    """Detections of one frame, best score first where they come from a detector.

    Attributes:
        boxes_xyxy: [n, 4] float32, pixels of the frame.
        scores: [n] float32 in [0, 1].
        class_ids: [n] int32, ids of the run's label map.
        track_ids: [n] int64, -1 where untracked.
    """

    boxes_xyxy: Boxes
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int32]
    track_ids: NDArray[np.int64]

    def __post_init__(self) -> None:
        n = len(self.scores)
        shapes = (self.boxes_xyxy.shape, self.class_ids.shape, self.track_ids.shape)
        if shapes != ((n, 4), (n,), (n,)):
            raise ValueError(f"columns of different length: {n} scores against {shapes}")
        if not (np.isfinite(self.boxes_xyxy).all() and np.isfinite(self.scores).all()):
            raise ValueError("boxes or scores are not finite numbers")

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def of(
        cls,
        boxes_xyxy: object,
        scores: object,
        class_ids: object,
        track_ids: object = None,
    ) -> Detections:
        """Make from anything array-like.

        Raises:
            ValueError: columns of different length, or a value that is not finite.
        """
        score_column = np.asarray(scores, np.float32).reshape(-1)
        if track_ids is None:
            tracks = np.full(len(score_column), -1, np.int64)
        else:
            tracks = np.asarray(track_ids, np.int64).reshape(-1)
        return cls(
            np.ascontiguousarray(np.asarray(boxes_xyxy, np.float32).reshape(-1, 4)),
            score_column,
            np.asarray(class_ids, np.int32).reshape(-1),
            tracks,
        )

    @classmethod
    def empty(cls) -> Detections:
        """No detections."""
        return cls.of([], [], [])

    def keep(self, mask: NDArray[np.bool_]) -> Detections:
        """Those where `mask` [n] is true."""
        if mask.all():
            return self
        return Detections(
            self.boxes_xyxy[mask], self.scores[mask], self.class_ids[mask], self.track_ids[mask]
        )

    def above(self, score_min: float) -> Detections:
        """Those with a score of at least `score_min`."""
        return self.keep(self.scores >= np.float32(score_min))
