"""Where a model's files are: made local, cached per user, and named for what they are."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from urbandet_ray.errors import ModelError, NotFoundError
from urbandet_ray.models.model_cache import cache_folder
from urbandet_ray.models.network.facts import FACTS_NAME, is_network
from urbandet_ray.models.shipped import SHIPPED_URI, shipped_model_path
from urbandet_ray.storage import Storage, join_uri
from urbandet_ray.uris import parse_uri

EXPECTED = (
    "expected a .tflite detector with its post-process op, a folder that `urbandet export` wrote, "
    "a SavedModel folder exported by the Object Detection API, or 'shipped'"
)
_MAX_MODEL_FILES = 1000


def resolve_uri(uri: str) -> str:
    """The model's real place: "shipped" becomes the file in the package."""
    return str(shipped_model_path()) if uri == SHIPPED_URI else uri.rstrip("/")


def local_model(uri: str, storage: Storage) -> Path:
    """The .tflite file, or the folder with network.json or saved_model.pb, on this machine.

    Raises:
        ModelError: nothing there, or a model of another kind.
    """
    uri = resolve_uri(uri)
    place = parse_uri(uri)
    path = place if isinstance(place, Path) else _download(uri, storage)
    if not path.exists():
        raise ModelError(f"no model at {uri}: {EXPECTED}")
    if path.is_dir():
        return path if is_network(path) else _saved_model_folder(path, uri)
    _check_tflite(path, uri)
    return path


def model_files(path: Path) -> list[Path]:
    """The files that make up a local model, in a fixed order."""
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file())


def _download(uri: str, storage: Storage) -> Path:
    """Copy a remote model into the cache, once per version.

    Processes that race each download into a folder of their own; the first rename wins and the
    others take its result, so nobody ever sees half a model.
    """
    files = _remote_files(uri, storage)
    key = hashlib.sha256(repr([uri, *files]).encode()).hexdigest()[:32]
    name = uri.rsplit("/", 1)[-1]
    final = cache_folder() / key
    if not final.is_dir():
        final.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f"{key}.", dir=final.parent))
        try:
            for relative, _ in files:
                target = scratch / name / relative if relative else scratch / name
                target.parent.mkdir(parents=True, exist_ok=True)
                storage.download_file(join_uri(uri, relative) if relative else uri, target)
            _publish(scratch, final)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return final / name


def _publish(scratch: Path, final: Path) -> None:
    try:
        scratch.rename(final)
    except OSError:
        if not final.is_dir():  # anything but a lost race
            raise


def _remote_files(uri: str, storage: Storage) -> list[tuple[str, str]]:
    """(path under the model, version) of each file; the path is "" for a model of one file."""
    try:
        return [("", storage.info(uri).version)]
    except NotFoundError:
        prefix = uri + "/"
    try:
        found = [(file.uri, file.version) for file in storage.list_files(prefix)]
    except NotFoundError as error:
        raise ModelError(f"no model at {uri} ({error}): {EXPECTED}") from error
    files = sorted((each.removeprefix(prefix), version) for each, version in found)
    if not files:
        raise ModelError(f"no model at {uri}: {EXPECTED}")
    wanted = (FACTS_NAME, "saved_model.pb", "saved_model/saved_model.pb")
    if not any(name in wanted for name, _ in files):
        names = ", ".join(name for name, _ in files[:5])
        raise ModelError(f"{uri} holds {names}, no saved_model.pb: {EXPECTED}")
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
