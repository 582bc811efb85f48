"""A model's files as one value: where they are, what they are, and a copy on this machine."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from urbandet_ray.errors import ModelError, NotFoundError
from urbandet_ray.models.model_cache import cached_copy
from urbandet_ray.models.network.facts import FACTS_NAME, NetworkFacts, is_network, read_facts
from urbandet_ray.models.shipped import SHIPPED_URI, shipped_model_path
from urbandet_ray.runs.manifest import run_instead_of_model
from urbandet_ray.storage import FileInfo, Storage
from urbandet_ray.uris import parse_uri

Kind = Literal["network", "saved-model", "tflite"]
"""A folder of `urbandet export`, the OD API's SavedModel, a TFLite file with its NMS inside."""

EXPECTED = (
    "expected a .tflite detector with its post-process op, a folder that `urbandet export` wrote, "
    "a SavedModel folder exported by the Object Detection API, or 'shipped'"
)
_MAX_MODEL_FILES = 1000
_MODEL_NAMES = (FACTS_NAME, "saved_model.pb", "saved_model/saved_model.pb")


@dataclass(frozen=True)
class ModelFiles:
    """A model's files, found and recognised once.

    It travels to the nodes of a cluster: what it says holds everywhere. The files themselves lie on
    each node's own disk, where `local` finds or downloads them without listing anything again.

    Attributes:
        uri: the model as it was asked for; names it in messages.
        kind: what runs it.
        facts: what a network says of itself; None for the other kinds.
        within: the folder of a SavedModel inside the model; "" is the model itself.
        remote: the files of a model on S3, as they were listed; () of a local one.
    """

    uri: str
    kind: Kind
    facts: NetworkFacts | None = None
    within: str = ""
    remote: tuple[FileInfo, ...] = ()

    @property
    def place(self) -> str:
        """The model's real place: "shipped" becomes the file in the package."""
        return _place(self.uri)

    @property
    def knows_gpus(self) -> bool:
        """Whether what runs it can use a GPU."""
        if self.facts is not None:
            return self.facts.runtime in ("savedmodel", "onnx")
        return self.kind == "saved-model"

    @property
    def input_wh(self) -> tuple[int, int]:
        """Width and height that a network sees of any image.

        Raises:
            ModelError: it is no network of `urbandet export`.
        """
        if self.facts is None:
            raise ModelError(
                f"{self.uri} does not tell its input's size: reduced_decode needs a network "
                "(urbandet export --format savedmodel, openvino, onnx or tflite)"
            )
        return self.facts.resizing.width, self.facts.resizing.height

    def local(self, storage: Storage) -> Path:
        """The .tflite file, or the folder with network.json or saved_model.pb, on this machine.

        Raises:
            ModelError: this machine does not have a local model.
            StorageError: a remote model changed since it was found.
        """
        at = parse_uri(self.place)
        if not isinstance(at, Path):
            return cached_copy(self.place, self.remote, storage) / self.within
        path = at / self.within
        if not path.exists():
            raise ModelError(
                f"no model at {path} on {platform.node()}: put it where all machines see it, or "
                "on s3://"
            )
        return path

    def contents(self, storage: Storage) -> list[Path]:
        """The files that make up the model on this machine, in a fixed order."""
        path = self.local(storage)
        if path.is_file():
            return [path]
        return sorted(file for file in path.rglob("*") if file.is_file())


def find_model_files(uri: str, storage: Storage) -> ModelFiles:
    """Look for a model once: where it is, and what.

    A remote one is listed once and downloaded.

    Raises:
        ModelError: nothing there, a model of another kind, or a damaged network.json.
    """
    try:
        return _recognised(uri, storage)
    except ModelError:
        if told := run_instead_of_model(_place(uri), storage):
            raise ModelError(told) from None
        raise


def _recognised(uri: str, storage: Storage) -> ModelFiles:
    place = _place(uri)
    at = parse_uri(place)
    remote = () if isinstance(at, Path) else _listed(place, storage)
    path = at if isinstance(at, Path) else cached_copy(place, remote, storage)
    if not path.exists():
        raise ModelError(f"no model at {place}: {EXPECTED}")
    if not path.is_dir():
        _check_tflite(path, place)
        return ModelFiles(uri, "tflite", remote=remote)
    if is_network(path):
        return ModelFiles(uri, "network", read_facts(path, uri), remote=remote)
    within = _saved_model_folder(path, place).relative_to(path).as_posix()
    return ModelFiles(uri, "saved-model", None, "" if within == "." else within, remote)


def _place(uri: str) -> str:
    return str(shipped_model_path()) if uri == SHIPPED_URI else uri.rstrip("/")


def _listed(uri: str, storage: Storage) -> tuple[FileInfo, ...]:
    """All files of a remote model, as far as their names can be one's."""
    try:
        return (storage.info(uri),)
    except NotFoundError:
        prefix = uri + "/"
    try:
        files = tuple(sorted(storage.list_files(prefix), key=lambda file: file.uri))
    except NotFoundError as error:
        raise ModelError(f"no model at {uri} ({error}): {EXPECTED}") from error
    names = [file.uri.removeprefix(prefix) for file in files]
    if not names:
        raise ModelError(f"no model at {uri}: {EXPECTED}")
    if not any(name in _MODEL_NAMES for name in names):
        raise ModelError(f"{uri} holds {', '.join(names[:5])}, no saved_model.pb: {EXPECTED}")
    if len(files) > _MAX_MODEL_FILES:
        raise ModelError(f"{uri} holds {len(files)} files, more than a model has: {EXPECTED}")
    return files


def _saved_model_folder(path: Path, uri: str) -> Path:
    for folder in (path, path / "saved_model"):
        if (folder / "saved_model.pb").is_file():
            return folder
    names = sorted(child.name for child in path.iterdir())
    if "config.json" in names or "keras_metadata.pb" in names:
        found = "a Keras model"
    elif any(name == "checkpoint" or name.startswith("ckpt-") for name in names):
        found = "a training checkpoint, not exported yet"
    else:
        found = f"a folder with {', '.join(names[:5])}" if names else "an empty folder"
    raise ModelError(f"{uri} is {found}: {EXPECTED}")


def _check_tflite(path: Path, uri: str) -> None:
    with path.open("rb") as file:
        head = file.read(512)
    if head[4:8] == b"TFL3":
        return
    raise ModelError(f"{uri} is {_kind_of_file(path, head)}: {EXPECTED}")


def _kind_of_file(path: Path, head: bytes) -> str:
    suffix = path.suffix.lower()
    decoded = head.decode("utf-8", "ignore")
    readable = all(char.isprintable() or char.isspace() for char in decoded)
    kinds = [
        (not head, "an empty file"),
        (path.name == "saved_model.pb", "the graph of a SavedModel (give its folder instead)"),
        (suffix == ".onnx", "an ONNX model"),
        (suffix == ".keras", "a Keras model"),
        (head.startswith(b"PK"), "a zip archive: unpack it first"),
        (head.startswith(b"\x1f\x8b"), "a gzip archive: unpack it first"),
        (head.startswith(b"\x89HDF"), "an HDF5 file, probably Keras weights"),
        (readable and len(decoded) > 0.9 * len(head), "a text file"),
        (suffix == ".pb", "a frozen TensorFlow 1 graph"),
        (suffix == ".tflite", "no TFLite file in spite of its name"),
    ]
    return next((name for match, name in kinds if match), "a file of an unknown kind")
