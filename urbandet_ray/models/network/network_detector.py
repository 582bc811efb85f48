"""A detector around a network of our own export: batches in, post-processing outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from urbandet_ray.detections import Detections
from urbandet_ray.errors import ModelError
from urbandet_ray.frames import Image
from urbandet_ray.models.answers import AnswerRules, failed, image_size_wh
from urbandet_ray.models.devices import Device
from urbandet_ray.models.network.facts import NetworkFacts, Resizing, Runtime, read_anchors
from urbandet_ray.models.network.postprocess import detect_from_raw
from urbandet_ray.models.network.runtimes import Answer, Compiler, load_runtime


class NetworkDetector:
    """Runs a folder with network.json; class ids are those of the label map, from 1."""

    def __init__(
        self,
        folder: Path,
        facts: NetworkFacts,
        source: str,
        rules: AnswerRules,
        threads: int,
        device: Device,
        *,
        nms: Mapping[str, Any],
        compiler: Compiler | None,
    ) -> None:
        """Load the network.

        Args:
            folder: holds network.json.
            facts: what is in it.
            source: the model's name in messages.
            rules: what is kept of its answers.
            threads: of the runtime on the CPU.
            device: where it runs; OpenVINO and TFLite know the CPU alone.
            nms: fields of its PostProcess to be another than its own.
            compiler: what compiles it, where anything does.

        Raises:
            MissingExtraError: its runtime is not installed.
            ModelError: it is damaged, there is no GPU for it, it has no PostProcess to change, or
                the compiler is for others.
        """
        self._facts = facts
        self._anchors = self._raw_rules = None
        if self._facts.rules is not None:
            self._anchors = read_anchors(folder, source)
            # what is below is dropped anyway; strictly above, and answers at the limit are kept
            least = float(np.nextafter(np.float32(rules.score_min), np.float32(-1)))
            self._raw_rules = replace(
                self._facts.rules, score_min=max(self._facts.rules.score_min, least), **nms
            )
        elif nms:
            raise ModelError(keeps_its_nms(source))
        self._runtime = load_runtime(
            self._facts, folder, source, threads, device, compiler=compiler
        )
        self._rules = rules
        self._source = source
        self.labels = rules.classes.target
        self.batch_size = batch_size(
            self._facts.resizing, self._facts.runtime, self._runtime.on_gpu
        )

    def detect(self, images: Sequence[Image]) -> list[Detections]:
        """Detect objects in n images of any sizes; see `Detector.detect`."""
        by_size: dict[tuple[int, int], list[int]] = {}
        for index, image in enumerate(images):
            by_size.setdefault(image_size_wh(image), []).append(index)
        found: dict[int, Detections] = {}
        for size_wh, indices in by_size.items():
            answer = self._answer(self._batch([images[index] for index in indices]))
            found.update(zip(indices, self._read(answer, size_wh), strict=True))
        return [found[index] for index in range(len(images))]

    def _batch(self, images: Sequence[Image]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        """Images of one size as the runtime takes them."""
        return np.stack([self._facts.resizing.sample(image) for image in images])

    def _answer(self, batch: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Answer:
        try:
            answer = self._runtime.run(batch)
        except Exception as error:  # each runtime has its own kinds
            raise failed(self._source, len(batch), error) from error
        wanted = ("deltas", "logits") if self._raw_rules else ("boxes", "scores", "classes")
        if missing := [name for name in wanted if name not in answer]:
            raise ModelError(
                f"{self._source} answers {', '.join(sorted(answer))}, not {', '.join(missing)}: "
                "its model file is of another export; copy or export it again"
            )
        counts = {len(answer[name]) for name in wanted}
        if counts != {len(batch)}:
            raise ModelError(
                f"{self._source} was given {len(batch)} images and answered for {min(counts)}: its "
                "export cannot batch; export it again"
            )
        return answer

    def _read(self, answer: Answer, size_wh: tuple[int, int]) -> list[Detections]:
        """Answers for images of one size."""
        if self._raw_rules is None or self._anchors is None:
            rows = zip(answer["boxes"], answer["scores"], answer["classes"], strict=True)
            return [
                self._rules.read(boxes, scores, np.rint(classes).astype(np.int32) + 1, size_wh)
                for boxes, scores, classes in rows
            ]
        window = self._facts.resizing.window(size_wh)
        found = detect_from_raw(
            answer["deltas"],
            answer["logits"],
            self._anchors,
            self._raw_rules,
            windows_yxyx=window,
        )
        return [
            self._rules.read(one.boxes_yxyx, one.scores, one.classes + 1, size_wh) for one in found
        ]


def batch_size(resizing: Resizing, runtime: Runtime, on_gpu: bool) -> int:
    """Images a call: 8 on a GPU; on a CPU 2 of 320 x 320 px, more of smaller and 1 of larger ones.

    More than that fill a CPU's caches with what is between layers (bench/openvino_batches.py). No
    runtime but OpenVINO is given one alone: TensorFlow is slower then.
    """
    if on_gpu:
        return 8
    least = 1 if runtime == "openvino" else 2
    return min(8, max(least, round(2 * 320 * 320 / (resizing.height * resizing.width))))


def keeps_its_nms(source: str) -> str:
    """What to say where suppression cannot be changed."""
    return (
        f"{source} suppresses boxes inside, by its own rules: model.nms changes an SSD's network "
        "alone (urbandet export --format openvino, onnx, tflite or savedmodel)"
    )
