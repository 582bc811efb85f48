"""A detector exported by the OD API as a TensorFlow SavedModel (needs the `train` extra).

The stock exporter fixes the input at [1, None, None, 3]: such a model is given one image at a time.
Where the batch is open, images of the same size go together.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.detections import Detections
from urbandet_ray.errors import ModelError, first_line
from urbandet_ray.frames import Image
from urbandet_ray.models.answers import AnswerRules, failed, image_size_wh
from urbandet_ray.models.devices import Device, open_tensorflow

OUTPUTS = ("detection_boxes", "detection_classes", "detection_scores")


class SavedModelDetector:
    """Runs the serving_default signature; class ids are those of the label map, from 1."""

    def __init__(
        self, folder: Path, source: str, rules: AnswerRules, threads: int, device: Device
    ) -> None:
        """Load the model.

        Args:
            folder: holds saved_model.pb.
            source: the model's name in messages.
            rules: what is kept of its answers.
            threads: of TensorFlow on the CPU; without effect once TensorFlow has run something.
            device: where it runs.

        Raises:
            MissingExtraError: TensorFlow is not installed.
            ModelError: it does not load, is no OD API detector, or there is no GPU for it.
        """
        tf = open_tensorflow(threads, device)
        try:
            self._model = tf.saved_model.load(str(folder))
        except Exception as error:  # TensorFlow raises a dozen kinds for a broken SavedModel
            detail = first_line(error)
            raise ModelError(
                f"{source} does not load as a SavedModel ({detail}); copy or export it again"
            ) from error
        self.labels = rules.classes.target
        self._rules = rules
        self._source = source
        self._tf = tf
        self._signature = _signature(self._model, source)
        self._input_name, self._input_shape = _image_input(self._signature, source)
        self.batch_size = 8 if self._input_shape[0] is None else 1

    def detect(self, images: Sequence[Image]) -> list[Detections]:
        """Detect objects in n images of any sizes; see `Detector.detect`."""
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for index, image in enumerate(images):
            size_wh = image_size_wh(image)
            key = size_wh if self._input_shape[0] is None else (index,)
            by_shape.setdefault(key, []).append(index)
        answers: dict[int, Detections] = {}
        for indices in by_shape.values():
            detections = self._detect_batch([images[i] for i in indices])
            answers.update(zip(indices, detections, strict=True))
        return [answers[index] for index in range(len(images))]

    def _detect_batch(self, images: list[Image]) -> list[Detections]:
        """Images of one size; the answer keeps their order."""
        stacked = np.stack([self._fit(image) for image in images])
        try:
            raw = self._signature(**{self._input_name: self._tf.constant(stacked)})
        except self._tf.errors.OpError as error:
            raise failed(self._source, len(images), error) from error
        boxes, classes, scores = (np.asarray(raw[name].numpy(), np.float32) for name in OUTPUTS)
        answered = (len(boxes), len(classes), len(scores))
        if answered != (len(images),) * 3:
            raise ModelError(
                f"{self._source} was given {len(images)} images and answered for {min(answered)}: "
                "its graph fixes the batch; export it again with an open or a fixed batch of 1"
            )
        counts = self._counts(raw, len(images), boxes.shape[1])
        size_wh = image_size_wh(images[0])
        return [
            self._rules.read(b[:n], s[:n], np.rint(c[:n]).astype(np.int32), size_wh)
            for b, s, c, n in zip(boxes, scores, classes, counts, strict=True)
        ]

    def _fit(self, image: Image) -> Image:
        """The image in the signature's own size where it has one; boxes are normalised."""
        _, height, width = self._input_shape
        if height is None or width is None or image.shape[:2] == (height, width):
            return image
        import cv2

        return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR))

    def _counts(self, raw: Any, images: int, most: int) -> list[int]:
        if "num_detections" not in raw:
            return [most] * images
        counts: NDArray[np.float32] = raw["num_detections"].numpy().reshape(-1)
        return [int(count) for count in counts]


def _signature(model: Any, source: str) -> Any:
    signature = getattr(model, "signatures", {}).get("serving_default")
    outputs = sorted(signature.structured_outputs) if signature is not None else []
    missing = [name for name in OUTPUTS if name not in outputs]
    if missing:
        found = f"outputs {', '.join(outputs)}" if outputs else "no serving_default signature"
        raise ModelError(
            f"{source} is a SavedModel with {found}; expected the Object Detection API's "
            f"{', '.join(OUTPUTS)}: export the detector with exporter_main_v2.py"
        )
    return signature


def _image_input(signature: Any, source: str) -> tuple[str, tuple[int | None, ...]]:
    """Name of the input, and its batch, height and width (None: open)."""
    specs: dict[str, Any] = signature.structured_input_signature[1]
    shapes = {name: _dimensions(spec) for name, spec in specs.items()}
    name, shape = next(iter(shapes.items()), ("", []))
    if (
        len(specs) != 1
        or len(shape) != 4
        or shape[0] not in (1, None)
        or shape[3] not in (3, None)
        or specs[name].dtype.name != "uint8"
    ):
        found = ", ".join(f"{key} {one.shape} {one.dtype.name}" for key, one in specs.items())
        raise ModelError(
            f"{source} takes {found or 'nothing'}; expected images [1 or None, height, width, 3] "
            "uint8: export it with --input_type image_tensor"
        )
    return name, tuple(shape[:3])


def _dimensions(spec: Any) -> list[int | None]:
    return [] if spec.shape.rank is None else list(spec.shape.as_list())
