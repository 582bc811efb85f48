"""The TensorFlow 2 Detection Model Zoo: what it holds, and one of its archives on this machine.

Names, speed and mAP are those of the zoo's page
(github.com/tensorflow/models, research/object_detection/g3doc/tf2_detection_zoo.md); it publishes
no checksums, so the first download's is recorded and later ones are held to it.
"""

from __future__ import annotations

import difflib
import fcntl
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from urbandet_ray.errors import ConfigError, ModelError, NotFoundError, StorageError
from urbandet_ray.models.archives import unpack
from urbandet_ray.models.model_cache import cache_folder
from urbandet_ray.storage import Storage
from urbandet_ray.storage.download import Progress, download, is_http
from urbandet_ray.uris import parse_uri

ZOO_URL = "http://download.tensorflow.org/models/object_detection/tf2"
_TABLE = Path(__file__).with_name("zoo.json")
_PACKAGE = Path(__file__).parent.parent
_MARK = "archive.sha256"
"""In a model's folder: the checksum of the archive it came from."""
_ENDINGS = (".tar.gz", ".tgz", ".tar")


@dataclass(frozen=True)
class ZooModel:
    """One archive of the zoo, trained on COCO 2017."""

    name: str
    title: str
    date: str
    """The folder it lies in on the zoo's server."""
    input_size: str
    """As the zoo's page has it: a square, or the shorter and the longer side at most."""
    speed_ms: int
    coco_map: float
    """Boxes, in percent."""
    mask_map: float | None = None
    config: str | None = None
    """The file in configs/models, without its ending, whose network takes these weights."""

    @property
    def url(self) -> str:
        """The official address."""
        return f"{ZOO_URL}/{self.date}/{self.name}.tar.gz"


@dataclass(frozen=True)
class FetchedModel:
    """A zoo model on this machine."""

    model: ZooModel
    folder: Path
    pipeline_config: Path
    checkpoint: Path
    """The prefix that fine_tune_checkpoint takes, ".../checkpoint/ckpt-0"."""
    sha256: str | None
    """Of the archive; None for a folder that was given unpacked."""
    first_seen: bool
    """Whether nothing was known to hold this checksum to."""


@cache
def zoo_models() -> tuple[ZooModel, ...]:
    """All archives the project knows, in the order of the zoo's page."""
    return tuple(ZooModel(**row) for row in json.loads(_TABLE.read_text("utf-8")))


def zoo_model(name: str) -> ZooModel:
    """The archive of that name, or the first that a config in configs/models goes with.

    Raises:
        ConfigError: none; names the nearest.
    """
    wanted = name.removesuffix(".tar.gz").removesuffix(".config")
    for model in zoo_models():
        if wanted in (model.name, model.config):
            return model
    names = [model.name for model in zoo_models()]
    names += sorted({model.config for model in zoo_models() if model.config})
    near = difflib.get_close_matches(wanted.lower(), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else "see `urbandet models list`"
    raise ConfigError(f"no model {name!r} in the TF2 detection zoo: {hint}")


def model_config_path(config: str) -> Path:
    """Where a file of configs/models lies: in the installed package or in the source tree.

    Raises:
        NotFoundError: in neither.
    """
    places = [_PACKAGE / "configs", _PACKAGE.parent / "configs"]
    for place in places:
        path = place / "models" / f"{config}.config"
        if path.is_file():
            return path
    raise NotFoundError(
        f"no {config}.config in {' or '.join(str(place / 'models') for place in places)}: take it "
        "from the source tree's configs/models"
    )


def zoo_folder() -> Path:
    """Where fetched models are kept, unless told otherwise."""
    return cache_folder() / "zoo"


def cached_model(model: ZooModel, folder: Path) -> FetchedModel | None:
    """The model as an earlier fetch left it in `folder`; None where there is none."""
    place = folder / model.name
    if not place.is_dir():
        return None
    mark = place / _MARK
    digest = mark.read_text("utf-8").strip() if mark.is_file() else None
    return _fetched(model, place, digest, False)


def fetch_model(
    model: ZooModel,
    storage: Storage,
    progress: Progress,
    *,
    source: str | None = None,
    folder: Path | None = None,
    sha256: str | None = None,
) -> FetchedModel:
    """Bring a model's checkpoint and pipeline.config to this machine, once.

    The folder of a model appears whole or not at all; a download that broke goes on at the next
    call.

    Args:
        model: which.
        storage: opens local and s3:// sources.
        progress: told about every piece of a download.
        source: an archive, a mirror that has <name>.tar.gz (http(s), s3:// or a folder), or an
            unpacked folder; None is the zoo itself.
        folder: keeps the models; None is zoo_folder().
        sha256: what the archive must have, in hex; None holds it to the first download's.

    Raises:
        ConfigError: the checksum given is none, or there is no archive that it could be of.
        ModelError: another checksum than expected, or an archive that is unsafe or no model.
        StorageError: not there, not allowed, or nobody answers.
    """
    folder = (folder or zoo_folder()).expanduser().absolute()
    wanted = _checked_digest(sha256)
    with _one_at_a_time(folder, model.name):
        have = cached_model(model, folder)
        if have is not None:
            if wanted and wanted != have.sha256:
                raise ModelError(
                    f"{have.folder} came from an archive with sha256 {have.sha256 or 'unknown'}, "
                    f"expected {wanted}: delete that folder to fetch it anew"
                )
            return have
        unpacked = _unpacked_folder(model, source)
        if unpacked is None:
            return _fetch_archive(model, storage, progress, source, folder, wanted)
        if wanted:
            raise ConfigError(f"{unpacked} is an unpacked folder: --sha256 is for an archive")
        _copy_in(model, unpacked, folder)
        return _fetched(model, folder / model.name, None, False)


def _fetch_archive(
    model: ZooModel,
    storage: Storage,
    progress: Progress,
    source: str | None,
    folder: Path,
    wanted: str | None,
) -> FetchedModel:
    uri, archive = _archive_uri(model, source), folder / f"{model.name}.tar.gz"
    record = _record(model, folder)
    known = _recorded(record)
    try:
        download(uri, archive, storage, progress)
    except StorageError as error:
        raise type(error)(f"{error}; {_other_ways(model, source)}") from error
    try:
        with archive.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        expected = wanted or known.get("sha256")
        if expected and found != expected:
            whose = "given" if wanted else f"that of the first download, from {known.get('uri')}"
            anew = "" if wanted else f"; if it was changed for good, delete {record}"
            raise ModelError(
                f"{uri} has sha256 {found}, expected {expected} ({whose}): it is damaged or was "
                f"changed, nothing was unpacked{anew}"
            )
        with _scratch(folder) as scratch:
            unpack(archive, scratch, uri)
            root = _model_root(scratch, uri)
            (root / _MARK).write_text(f"{found}\n", "utf-8")
            told = json.dumps({"sha256": found, "uri": uri})
            storage.write_bytes(str(record), f"{told}\n".encode())
            _publish(model, root, folder)
    finally:
        archive.unlink(missing_ok=True)
    return _fetched(model, folder / model.name, found, expected is None)


def _archive_uri(model: ZooModel, source: str | None) -> str:
    if source is None:
        return model.url
    return source if source.endswith(_ENDINGS) else f"{source.rstrip('/')}/{model.name}.tar.gz"


def _unpacked_folder(model: ZooModel, source: str | None) -> Path | None:
    """The local folder with a pipeline.config that `source` is, or that it holds."""
    if source is None or is_http(source):
        return None
    place = parse_uri(source)
    if not isinstance(place, Path):
        return None
    near = [path for path in (place, place / model.name) if (path / "pipeline.config").is_file()]
    return near[0] if near else None


def _other_ways(model: ZooModel, source: str | None) -> str:
    if source is not None:
        return f"--from takes an archive, or a place that has {model.name}.tar.gz"
    return (
        f"without a way to that server, fetch {model.name} --from a mirror (https://... or "
        f"s3://...) or a folder that has {model.name}.tar.gz"
    )


def _checked_digest(sha256: str | None) -> str | None:
    if sha256 is None:
        return None
    digest = sha256.strip().lower()
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise ConfigError(f"{sha256!r} is no sha256: expected 64 hex digits (sha256sum FILE)")
    return digest


def _record(model: ZooModel, folder: Path) -> Path:
    return folder / f"{model.name}.sha256.json"


def _recorded(record: Path) -> dict[str, str]:
    try:
        return dict(json.loads(record.read_text("utf-8")))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ModelError(f"{record} is not readable as a checksum's record: delete it") from error


def _model_root(scratch: Path, uri: str) -> Path:
    """The folder inside an archive that has the pipeline.config."""
    for root in [scratch, *sorted(path for path in scratch.iterdir() if path.is_dir())]:
        if (root / "pipeline.config").is_file():
            _checkpoint(root, uri)
            return root
    names = ", ".join(sorted(path.name for path in scratch.iterdir())[:5]) or "nothing"
    raise ModelError(f"{uri} holds {names}: no pipeline.config, so no archive of the zoo")


def _checkpoint(root: Path, source: str) -> Path:
    """The checkpoint's prefix; the first where there are several."""
    for index in sorted((root / "checkpoint").glob("*.index")):
        prefix = index.with_suffix("")
        if list(prefix.parent.glob(f"{prefix.name}.data-*")):
            return prefix
    raise ModelError(f"{source} has no checkpoint/ckpt-0.index with its data: it is incomplete")


def _copy_in(model: ZooModel, unpacked: Path, folder: Path) -> None:
    _checkpoint(unpacked, str(unpacked))
    with _scratch(folder) as scratch:
        copy = scratch / "model"
        copy.mkdir()
        shutil.copyfile(unpacked / "pipeline.config", copy / "pipeline.config")
        for part in ("checkpoint", "saved_model"):
            if (unpacked / part).is_dir():
                shutil.copytree(unpacked / part, copy / part, copy_function=shutil.copyfile)
        _publish(model, copy, folder)


def _publish(model: ZooModel, root: Path, folder: Path) -> None:
    root.chmod(0o755)  # a temporary folder is closed to others
    root.rename(folder / model.name)


def _fetched(model: ZooModel, place: Path, sha256: str | None, first_seen: bool) -> FetchedModel:
    checkpoint = _checkpoint(place, str(place))
    return FetchedModel(model, place, place / "pipeline.config", checkpoint, sha256, first_seen)


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=folder))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _one_at_a_time(folder: Path, name: str) -> Iterator[None]:
    """Processes of this host that fetch the same model wait for each other."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f".{name}.lock").open("w") as handle:
            with suppress(OSError):  # some network file systems have no locks
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise StorageError(
            f"cannot keep {name} in {folder}: {error.strerror or error}: free some space there, or "
            "name another folder (--cache)"
        ) from error
