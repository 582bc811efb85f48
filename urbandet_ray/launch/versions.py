"""The versions on both sides: of Ray, of Python, of the package and of what it imports."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

from urbandet_ray.launch.verdicts import Check, fail, ok, warn
from urbandet_ray.phrases import some_of

PYTHON_MIN, PYTHON_END = (3, 11), (3, 13)
"""As in pyproject.toml."""

_OF_TRAINING = ("tensorflow", "tf-keras", "tf-object-detection-api")
_NAMED = 4


def check_ray(cluster: str, here: str | None = None) -> Check:
    """A job is written for the Ray that its lock file names, which is this side's."""
    here = here or metadata.version("ray")
    if cluster != here:
        return fail(
            "ray",
            f"the cluster runs Ray {cluster}, this side {here}, which the lock files name: build "
            "the cluster's image anew (docs/how-to/cluster.md), or use the checkout that belongs "
            "to it",
        )
    return ok("ray", f"{here} on both sides")


def check_python(cluster: str, here: str | None = None) -> Check:
    """The cluster's Python runs the job."""
    number = tuple(int(part) for part in cluster.split(".")[:2])
    here = here or platform.python_version()
    if not PYTHON_MIN <= number < PYTHON_END:
        return fail("python", f"the job's Python is {cluster}, the package needs 3.11 or 3.12")
    if cluster.split(".")[:2] != here.split(".")[:2]:
        return warn("python", f"{cluster} there, {here} here: the lock files are for 3.11")
    return ok("python", cluster)


def check_packages(lock: Path, *, training: bool) -> Check:
    """Whether this Python has what the lock file names.

    Args:
        lock: requirements/core.lock.
        training: TensorFlow and the OD API have to be there too.
    """
    try:
        pins = read_pins(lock)
    except OSError:
        return warn("packages", f"not compared: there is no {lock}")
    missing = [name for name in pins if _version(name) is None]
    missing += [name for name in _OF_TRAINING if training and _version(name) is None]
    if missing:
        return fail(
            "packages",
            f"{some_of(missing, _NAMED)} missing there: build the image from requirements/*.lock "
            "(docs/how-to/cluster.md), or submit with --install",
        )
    other = [
        f"{name} {_version(name)} (locked {pin})"
        for name, pin in pins.items()
        if _version(name) != pin
    ]
    if other:
        return warn("packages", f"other than locked: {some_of(other, _NAMED)}")
    return ok("packages", f"the {len(pins)} of {lock.name}, as locked")


def read_pins(lock: Path) -> dict[str, str]:
    """Version of each package of a lock file; those that this platform leaves out are left out."""
    pins = {}
    for line in lock.read_text(encoding="utf-8").splitlines():
        name, equals, rest = line.partition("==")
        if equals and line[:1].isalnum() and _applies(rest):
            pins[name.split("[")[0].strip()] = rest.split()[0].rstrip(";")
    return pins


def _applies(rest: str) -> bool:
    from packaging.markers import Marker

    _, _, marker = rest.rstrip("\\ ").partition(";")
    return not marker.strip() or Marker(marker.strip()).evaluate()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
