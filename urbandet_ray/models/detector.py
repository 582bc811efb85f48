"""What every detector offers, whatever runs inside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from urbandet_ray.detections import Detections
from urbandet_ray.frames import Image
from urbandet_ray.labels import LabelMap


class Detector(Protocol):
    """A loaded model: images in, detections out, in the same order."""

    labels: LabelMap
    """Classes of the detections' class_ids."""
    batch_size: int
    """Images a call it works best with; 1 where it takes them one by one anyway, so that an image
    is drawn while it is still in the processor's cache."""

    def detect(self, images: Sequence[Image]) -> list[Detections]:
        """Detect objects in a batch.

        Args:
            images: n images [height, width, 3] uint8 RGB, of any sizes.

        Returns:
            n Detections in pixels of their own image, best score first.

        Raises:
            ModelError: the model answered for fewer images than it was given.
        """
        ...
