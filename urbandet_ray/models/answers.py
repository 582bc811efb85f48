"""From a model's raw answer for one image to `Detections`, without a loop over boxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.boxes import boxes_from_yxyx_norm, clip_boxes
from urbandet_ray.detections import Detections
from urbandet_ray.errors import ModelError, first_line
from urbandet_ray.frames import Image
from urbandet_ray.models.classes import ClassTable


@dataclass(frozen=True)
class AnswerRules:
    """What is kept of an answer.

    Attributes:
        classes: model class id -> the run's.
        score_min: lower scores are dropped, in [0, 1].
        max_detections: the best this many are kept.
    """

    classes: ClassTable
    score_min: float
    max_detections: int

    def read(
        self,
        boxes_yxyx_norm: NDArray[np.float32],
        scores: NDArray[np.float32],
        model_ids: NDArray[np.int32],
        size_wh: tuple[int, int],
    ) -> Detections:
        """Detections of one image, best score first.

        A box or score that is no finite number, a box without area inside the image and a class
        without a counterpart in the run's label map are dropped.

        Args:
            boxes_yxyx_norm: [n, 4] (ymin, xmin, ymax, xmax) in [0, 1].
            scores: [n].
            model_ids: [n] class ids of the model's label map, from 1.
            size_wh: the image's, in pixels.

        Raises:
            LabelError: a kept class id lies outside the model's label map.
        """
        good = (scores >= np.float32(self.score_min)) & np.isfinite(scores)
        good &= np.isfinite(boxes_yxyx_norm).all(axis=1)
        boxes_xyxy = clip_boxes(boxes_from_yxyx_norm(boxes_yxyx_norm[good], size_wh), size_wh)
        scores = scores[good]
        class_ids = self.classes.look_up(model_ids[good])
        kept = (class_ids > 0) & (boxes_xyxy[:, 2:] > boxes_xyxy[:, :2]).all(axis=1)
        order = np.flatnonzero(kept)
        order = order[np.argsort(-scores[order], kind="stable")][: self.max_detections]
        return Detections.of(boxes_xyxy[order], scores[order], class_ids[order])


def image_size_wh(image: Image) -> tuple[int, int]:
    """The image's width and height.

    Raises:
        ModelError: it is not [height, width, 3] uint8, or empty.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ModelError(
            f"a detector takes images [height, width, 3] uint8 RGB; got {list(image.shape)} "
            f"{image.dtype}"
        )
    return image.shape[1], image.shape[0]


def failed(source: str, images: int, error: Exception) -> ModelError:
    """What to say where a runtime breaks off, most often for want of memory."""
    detail = first_line(error)
    return ModelError(
        f"{source} failed on {images} images ({detail}): where memory ran out, set a smaller "
        "batch_size or fewer actors (more gpus an actor)"
    )
