"""The package's own detector, trained on synthetic streets; CARD.md says how good it is."""

from pathlib import Path

from urbandet_ray.errors import ModelError

SHIPPED_URI = "shipped"
"""What a run config writes for the package's own detector."""

SHIPPED_FOLDER = Path(__file__).parent / "shipped"


def shipped_model_path() -> Path:
    """The .tflite file in the package; its label_map.pbtxt and CARD.md lie beside it.

    Raises:
        ModelError: the installation lacks the file.
    """
    path = SHIPPED_FOLDER / "street-ssd-320.tflite"
    if not path.is_file():
        raise ModelError(
            f"the package's own detector is missing: expected {path}; install urbandet-ray again "
            "or name a model (a .tflite file or a SavedModel folder)"
        )
    return path
