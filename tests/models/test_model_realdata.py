"""Two TFLite detectors as the world publishes them, on street photos."""

import time
from types import SimpleNamespace

import numpy as np
import pytest

from urbandet_ray.config import ModelConfig
from urbandet_ray.labels import STREET_LABELS
from urbandet_ray.models.loader import load_detector
from urbandet_ray.storage import Storage

MODELS = {
    "tf2-fpnlite": ("tf2_ssd_mobilenet_v2_fpnlite_320_dynrange.tflite", "tf2_ssd_labels.txt"),
    "v1-quant": ("coco_ssd_mobilenet_v1_1.0_quant_2018_06_29.tflite", "coco_ssd_labelmap.txt"),
}
CLEAR = {
    "000000001584.jpg": 1,  # a bus that fills the middle
    "000000002006.jpg": 1,
    "000000005037.jpg": 1,
    "000000000532.jpg": 1,
    "000000000257.jpg": 2,  # a square full of people
    "000000008211.jpg": 2,
}

pytestmark = pytest.mark.realdata


@pytest.fixture(params=list(MODELS))
def detector(request, realdata):
    model, labels = MODELS[request.param]
    folder = realdata / "models"
    return load_detector(
        ModelConfig(
            uri=str(folder / model),
            labels=str(folder / labels),
            mapping="coco-to-street",
            score_min=0.5,
        ),
        Storage(),
    )


def read_rgb(path):
    import cv2

    return np.ascontiguousarray(cv2.imread(str(path))[:, :, ::-1])


def test_published_models_find_vehicles_and_people(detector, realdata):
    """Photos with a plain bus, truck or crowd show it, whichever habit the label list has."""
    images = [read_rgb(realdata / "coco_street" / name) for name in CLEAR]
    for answer, (name, class_id) in zip(detector.detect(images), CLEAR.items(), strict=True):
        assert class_id in answer.class_ids.tolist(), (name, STREET_LABELS.name_of(class_id))


def test_boxes_stay_in_their_photo(detector, realdata):
    """Boxes are pixels of each photo, whatever its size."""
    images = [read_rgb(path) for path in sorted((realdata / "coco_street").glob("*.jpg"))[:8]]
    for image, answer in zip(images, detector.detect(images), strict=True):
        height, width = image.shape[:2]
        assert (answer.boxes_xyxy >= 0).all()
        assert (answer.boxes_xyxy <= [width, height, width, height]).all()
        assert (np.diff(answer.scores) <= 0).all()


def test_most_time_is_the_model_s(detector, realdata):
    """Resizing, normalising and unpacking cost below a tenth of the network's CPU time."""
    image = read_rgb(sorted((realdata / "video").rglob("*.jpg"))[0])
    detector.detect([image])
    network = detector._interpreter
    network_s = cpu_s(network.invoke)
    detector._interpreter = SimpleNamespace(
        set_tensor=network.set_tensor, get_tensor=network.get_tensor, invoke=lambda: None
    )
    assert cpu_s(lambda: detector.detect([image])) < 0.1 * network_s


def cpu_s(call):
    """The least CPU time of this thread that a call took, of ten."""
    tries = []
    for _ in range(10):
        start = time.thread_time()
        call()
        tries.append(time.thread_time() - start)
    return min(tries)
