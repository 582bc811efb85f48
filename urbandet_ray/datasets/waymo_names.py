"""What both versions of the Waymo Open Dataset call cameras and classes, by number.

waymo_open_dataset/dataset.proto (CameraName), label.proto (Label.Type, DifficultyLevel).
"""

from __future__ import annotations

from urbandet_ray.datasets.annotated import LabelledBox

CAMERAS = {
    1: "FRONT",
    2: "FRONT_LEFT",
    3: "FRONT_RIGHT",
    4: "SIDE_LEFT",
    5: "SIDE_RIGHT",
    6: "REAR_LEFT",
    7: "REAR",
    8: "REAR_RIGHT",
}
WAYMO_CLASSES = {"vehicle": 1, "pedestrian": 2, "sign": 3, "cyclist": 4}
"""Its numbers are the ids."""

_NAMES = {number: name for name, number in WAYMO_CLASSES.items()}
_LEVEL_2 = 2


def camera_name(number: int) -> str:
    """A camera's name, by its number where it is none of those that are known."""
    return CAMERAS.get(number, f"CAMERA_{number}")


def image_name(context: str, timestamp_us: int, camera: int) -> str:
    """A name for an image that has no file: its drive, time and camera."""
    return f"{context}/{timestamp_us}_{camera_name(camera)}.jpg"


def waymo_box(
    centre: tuple[float, float], size: tuple[float, float], kind: int, difficulty: int
) -> LabelledBox:
    """A camera label; level 2 is difficult. A class that is not known is called by its number."""
    (x, y), (width, height) = centre, size
    return LabelledBox(
        _NAMES.get(kind, f"type {kind}"),
        (x - width / 2, y - height / 2, x + width / 2, y + height / 2),
        difficult=difficulty == _LEVEL_2,
    )
