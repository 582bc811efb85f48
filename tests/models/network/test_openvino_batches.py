"""OpenVINO's networks are compiled for a number of images: which, and that no answer tells."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from urbandet_ray.models.network.runtimes import OpenVinoRuntime


@pytest.fixture
def brightness(tmp_path: Path) -> OpenVinoRuntime:
    """A network that answers each image's mean."""
    import openvino
    from openvino import opset13 as ops

    images = ops.parameter([-1, -1, -1, 3], np.uint8, name="images")
    mean = ops.reduce_mean(ops.convert(images, "f32"), np.array([1, 2, 3]), False)
    mean.output(0).set_names({"mean"})
    openvino.save_model(openvino.Model([mean], [images]), tmp_path / "model.xml")
    facts: Any = SimpleNamespace(runtime="openvino", precision="f32")
    return OpenVinoRuntime(tmp_path / "model.xml", facts, 1, "cpu")


def test_a_smaller_batch_is_filled_up_or_compiled_for(brightness: OpenVinoRuntime) -> None:
    """Filled up to twice its number; the black images behind it are not answered for."""
    images = np.random.default_rng(0).integers(0, 256, (8, 6, 4, 3), np.uint8)
    compiled = []
    for count in (4, 3, 2, 1, 1, 8, 4, 5):
        answer = brightness.run(images[:count])["mean"]
        np.testing.assert_allclose(answer, images[:count].mean(axis=(1, 2, 3)), rtol=1e-5)
        compiled.append(brightness._compiled.cache_info().misses)
    assert compiled == [1, 1, 1, 2, 2, 3, 3, 3]


def test_sizes_of_frames_have_networks_of_their_own(brightness: OpenVinoRuntime) -> None:
    """Compiled once each, and found again when the size comes back."""
    for height, width in ((6, 4), (4, 6), (6, 4)):
        images = np.full((2, height, width, 3), 7, np.uint8)
        np.testing.assert_array_equal(brightness.run(images)["mean"], [7, 7])
    assert brightness._compiled.cache_info().misses == 2
