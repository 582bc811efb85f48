"""A network on its own: what `urbandet export` writes for fast inference, and what runs it needs.

    network.json      this module's NetworkFacts; a folder with it is a network
    model.xml|.onnx|.tflite, or saved_model/
    anchors.npy       where boxes are decoded outside (an SSD's)
    label_map.pbtxt

uint8 images [n, height, width, 3] go in, of any size and number; resizing and normalising are the
network's own, exactly the OD API's. The folder is all that inference needs: no object_detection.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.errors import ConfigError, ModelError
from urbandet_ray.frames import Image
from urbandet_ray.models.network.postprocess import PostProcess

FACTS_NAME, ANCHORS_NAME = "network.json", "anchors.npy"

Runtime = Literal["savedmodel", "openvino", "onnx", "tflite"]
Precision = Literal["f32", "bf16", "fp16", "int8"]

PRECISIONS: dict[str, tuple[Precision, ...]] = {
    "savedmodel": ("f32", "bf16", "fp16"),
    "openvino": ("f32", "bf16", "fp16", "int8"),
    "onnx": ("f32", "int8"),
    "tflite": ("f32", "fp16", "int8"),
}
"""What each runtime's networks are exported at, the first by default."""

MAP_GATES: dict[str, float] = {"bf16": 0.002, "fp16": 0.002, "int8": 0.01}
"""mAP that a precision may cost; what costs more is never chosen by itself."""

REFERENCE_MAP_MIN = 0.01
"""A comparison where f32 itself has less shows nothing: a network could not lose more than that."""

MODEL_NAMES = {
    "savedmodel": "saved_model",
    "openvino": "model.xml",
    "onnx": "model.onnx",
    "tflite": "model.tflite",
}


@dataclass(frozen=True)
class Resizing:
    """The OD API's image resizer, as far as boxes depend on it.

    Attributes:
        height, width: what the network sees, in pixels.
        keep_aspect: (shorter, longer) side that an image is fitted into, padded below and to the
            right; None stretches it to height x width.
    """

    height: int
    width: int
    keep_aspect: tuple[int, int] | None = None

    def window(self, size_wh: tuple[int, int]) -> NDArray[np.float32]:
        """Where [ymin, xmin, ymax, xmax] an image lies in the network's input, in [0, 1]."""
        height, width = self._seen(size_wh)
        return np.array([0, 0, height / self.height, width / self.width], np.float32)

    def sample(self, image: Image) -> Image:
        """An image that the network answers alike and that is smaller where it can be.

        TensorFlow 1's bilinear rule, which the OD API resizes by, reads at i * (size / new size):
        where that is whole, each pixel is one of the image's, and the others are not needed.
        """
        height, width = image.shape[:2]
        seen = self._seen((width, height))
        if 0 in seen or height % seen[0] or width % seen[1]:  # 0: of a line of pixels
            return image
        return image[:: height // seen[0], :: width // seen[1]]

    def _seen(self, size_wh: tuple[int, int]) -> tuple[int, int]:
        """Height and width that an image has in the network's input.

        Rounds as tf.image.resize_images does with preserve_aspect_ratio.
        """
        if self.keep_aspect is None:
            return self.height, self.width
        width, height = (np.float32(side) for side in size_wh)
        shorter, longer = (np.float32(side) for side in self.keep_aspect)
        target = (shorter, longer) if height < width else (longer, shorter)
        scale = min(target[0] / height, target[1] / width)
        return int(np.rint(scale * height)), int(np.rint(scale * width))


@dataclass(frozen=True)
class Accuracy:
    """What a network's answers are worth, beside the same weights in f32.

    Attributes:
        map, reference_map: COCO mAP of both over the same frames, in [0, 1].
        frames: how many, with labels.
        data: where they came from.
    """

    map: float
    reference_map: float
    frames: int
    data: str


@dataclass(frozen=True, kw_only=True)
class NetworkFacts:
    """All that a network's folder says of itself.

    Attributes:
        runtime, precision: what runs it, and how exactly.
        answers: `raw` are an SSD's deltas and logits, `detections` are final.
        resizing: what its own resizing comes to.
        rules: how raw answers become detections; None where they are final.
        calibrated_on: what int8 was calibrated on.
        accuracy: what the precision was found to cost; None where nobody looked.
    """

    runtime: Runtime
    precision: Precision
    answers: Literal["raw", "detections"]
    resizing: Resizing
    rules: PostProcess | None
    calibrated_on: str | None = None
    accuracy: Accuracy | None = None

    def model_path(self, folder: Path) -> Path:
        """The runtime's own file or folder."""
        return folder / MODEL_NAMES[self.runtime]

    def objection(self) -> str | None:
        """Why nobody should be given this precision unasked; None where nothing is against it."""
        gate = MAP_GATES.get(self.precision)
        if gate is None:
            return None
        if self.accuracy is None:
            return f"what {self.precision} costs was not measured (urbandet export --check DATA)"
        if self.accuracy.reference_map < REFERENCE_MAP_MIN:
            return (
                f"f32 itself finds next to nothing in {self.accuracy.data} "
                f"(mAP {self.accuracy.reference_map:.3f}), which shows nothing of "
                f"{self.precision}: check it on other data"
            )
        lost = self.accuracy.reference_map - self.accuracy.map
        if lost <= gate:
            return None
        return f"{self.precision} costs {lost:.3f} mAP, allowed are {gate}"


def lost_accuracy(precision: str, accuracy: Accuracy) -> str:
    """What a precision costs, in words."""
    return (
        f"mAP {accuracy.map:.3f} at {precision}, {accuracy.reference_map:.3f} in f32 "
        f"({accuracy.frames} frames of {accuracy.data})"
    )


def check_precision(runtime: str, precision: str) -> None:
    """Refuse what cannot be exported.

    Raises:
        ConfigError: names what can.
    """
    offered = PRECISIONS.get(runtime)
    if offered is None:
        raise ConfigError(f"format is {runtime!r}: give one of {', '.join(PRECISIONS)}")
    if precision not in offered:
        raise ConfigError(
            f"{runtime} networks are not exported at {precision}: give {', '.join(offered)}, or "
            "another format"
        )


def is_network(folder: Path) -> bool:
    """Whether a folder holds a network."""
    return (folder / FACTS_NAME).is_file()


def write_facts(facts: NetworkFacts, folder: Path) -> None:
    """Put network.json into the folder; the model is there already."""
    text = json.dumps({"version": 1, **asdict(facts)}, indent=2) + "\n"
    (folder / FACTS_NAME).write_text(text, "utf-8")


def read_facts(folder: Path, source: str) -> NetworkFacts:
    """Read network.json.

    Args:
        source: the model's name in messages.

    Raises:
        ModelError: damaged, or of a later version of this package.
    """
    try:
        given: dict[str, Any] = json.loads((folder / FACTS_NAME).read_text("utf-8"))
        version = given.pop("version")
        if version != 1:
            raise ModelError(
                f"{source} was exported by a later urbandet (network.json version {version}): "
                "update this one, or export again"
            )
        sides, rules = given.pop("resizing"), given.pop("rules")
        checked = given.pop("accuracy", None)
        given.pop("batch_size", None)  # the runtime's own; networks once named one
        if sides["keep_aspect"] is not None:
            sides["keep_aspect"] = tuple(sides["keep_aspect"])
        if rules is not None:
            rules = PostProcess(**{**rules, "box_scales": tuple(rules["box_scales"])})
        facts = NetworkFacts(
            **given,
            resizing=Resizing(**sides),
            rules=rules,
            accuracy=None if checked is None else Accuracy(**checked),
        )
    except (ValueError, KeyError, TypeError, ConfigError) as error:
        raise ModelError(
            f"{source}: network.json is damaged ({error}): copy or export it again"
        ) from error
    if facts.runtime not in MODEL_NAMES or not facts.model_path(folder).exists():
        raise ModelError(
            f"{source} lacks its {MODEL_NAMES.get(facts.runtime, facts.runtime)}: copy or export "
            "it again"
        )
    return facts


def read_anchors(folder: Path, source: str) -> NDArray[np.float32]:
    """Anchors [a, 4] yxyx of the network's input, in [0, 1].

    Raises:
        ModelError: they are not there.
    """
    try:
        anchors: NDArray[np.float32] = np.load(folder / ANCHORS_NAME, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"{source} lacks its {ANCHORS_NAME}: copy or export it again") from error
    return anchors
