"""A TFLite detector with its post-process op, run by LiteRT without TensorFlow.

The input is resized with OpenCV's INTER_LINEAR on uint8. It samples at half-pixel centres as
tf.image.resize does inside the OD API's fixed_shape_resizer, but rounds each pixel to a whole
number: at most one grey level away from TensorFlow, 0.27 on average on a photo
(tests/models/test_tflite.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.chatter import stderr_held
from urbandet_ray.detections import Detections
from urbandet_ray.errors import ModelError, first_line
from urbandet_ray.frames import Image
from urbandet_ray.models.answers import AnswerRules, image_size_wh
from urbandet_ray.models.backends.tflite_file import TfliteFacts, read_tflite_facts

OD_API_MEAN, OD_API_STD = 127.5, 127.5
"""Normalisation of the OD API's SSD MobileNets: pixels to [-1, 1]."""


class TfliteFile:
    """A .tflite file the interpreter has accepted, and the facts in it."""

    def __init__(self, path: Path, source: str, threads: int) -> None:
        """Open the file.

        Raises:
            ModelError: broken, needs ops that are not there, no detector, or no image input.
        """
        from ai_edge_litert.interpreter import Interpreter

        content = path.read_bytes()
        try:
            # the class is built over the bytes: a file replaced on disk cannot change under it
            with stderr_held(show_on_failure=False):
                self.interpreter: Any = Interpreter(model_content=content, num_threads=threads)
        except (ValueError, RuntimeError) as error:
            raise ModelError(
                f"{source} is no complete TFLite model ({error}); got {len(content)} bytes: "
                "copy or export it again"
            ) from error
        self.facts: TfliteFacts = read_tflite_facts(content, source)
        try:
            with stderr_held(show_on_failure=False):
                self.interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ModelError(
                f"{source} needs operators this runtime does not have ({first_line(error)}); "
                "convert it with TFLITE_BUILTINS only"
            ) from error
        self.input: dict[str, Any] = _image_input(self.interpreter, source)


class TfliteDetector:
    """Runs one image at a time; buffers are made once and reused."""

    def __init__(
        self, file: TfliteFile, rules: AnswerRules, mean: float | None, std: float | None
    ) -> None:
        """Get ready to detect.

        Args:
            file: the opened model.
            rules: what is kept of its answers.
            mean, std: normalisation of a float input; None takes the file's metadata, else 127.5.
        """
        self.labels = rules.classes.target
        self.batch_size = 1
        self._rules = rules
        self._facts = file.facts
        self._interpreter = file.interpreter
        self._input_index = file.input["index"]
        _, self._height, self._width, _ = file.input["shape"].tolist()
        self._resized: Image = np.empty((self._height, self._width, 3), np.uint8)
        self._values = _value_table(file, mean, std)
        self._input = np.empty((1, *self._resized.shape), file.input["dtype"])

    def detect(self, images: Sequence[Image]) -> list[Detections]:
        """Detect objects in n images of any sizes; see `Detector.detect`."""
        return [self._detect_one(image) for image in images]

    def _detect_one(self, image: Image) -> Detections:
        size_wh = image_size_wh(image)
        self._interpreter.set_tensor(self._input_index, self._prepare(image))
        self._interpreter.invoke()
        get, facts = self._interpreter.get_tensor, self._facts
        n = max(int(get(facts.count).flat[0]), 0)
        return self._rules.read(
            get(facts.boxes).reshape(-1, 4)[:n],
            get(facts.scores).reshape(-1)[:n],
            get(facts.classes).reshape(-1)[:n].astype(np.int32) + 1,
            size_wh,
        )

    def _prepare(self, image: Image) -> NDArray[Any]:
        """The input tensor [1, height, width, 3]; valid until the next call."""
        import cv2

        resized = image
        if image.shape != self._resized.shape:
            size_wh = (self._width, self._height)
            resized = self._resized
            cv2.resize(image, size_wh, dst=resized, interpolation=cv2.INTER_LINEAR)
        if self._values is None:
            self._input[0] = resized
        else:
            cv2.LUT(resized, self._values, dst=self._input[0])
        return self._input


def _value_table(
    file: TfliteFile, mean: float | None, std: float | None
) -> NDArray[np.float32] | NDArray[np.int8] | None:
    """Input value by pixel value, [1, 256, 3]; None where pixels go in as they are (uint8)."""
    dtype = file.input["dtype"]
    if dtype == np.uint8:
        return None
    means = np.array((mean,) if mean is not None else file.facts.mean or (OD_API_MEAN,), np.float32)
    stds = np.array((std,) if std is not None else file.facts.std or (OD_API_STD,), np.float32)
    table = (np.arange(256, dtype=np.float32)[:, None] - means) / stds
    if dtype == np.int8:
        scale, zero = file.input["quantization"]
        table = np.clip(np.rint(table / scale + zero), -128, 127)
    return np.ascontiguousarray(np.broadcast_to(table, (256, 3))[None].astype(dtype))


def _image_input(interpreter: Any, source: str) -> dict[str, Any]:
    inputs: list[dict[str, Any]] = interpreter.get_input_details()
    first = inputs[0]
    shape = first["shape"].tolist()
    good = len(inputs) == 1 and len(shape) == 4 and shape[0] == 1 and shape[3] == 3
    if not good or first["dtype"] not in (np.uint8, np.int8, np.float32):
        found = ", ".join(f"{d['shape'].tolist()} {np.dtype(d['dtype'])}" for d in inputs)
        raise ModelError(
            f"{source} takes {found}; expected one RGB image, [1, height, width, 3] uint8, int8 "
            "or float32"
        )
    if min(shape[1:3]) < 8:
        raise ModelError(
            f"{source} does not fix its input size (got {shape}); convert it with a fixed "
            "height and width"
        )
    return first
