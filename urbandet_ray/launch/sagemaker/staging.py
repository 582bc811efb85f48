"""What each host of a job does before Ray starts, so that all hosts see the same under one name.

    ROOT/urbandet/data/     train, val and label_map.pbtxt: links into the channels
    ROOT/urbandet/run       the run folder; on the head a link to ROOT/checkpoints

The other hosts' run folder holds a copy of the head's last/, to go on from. It is not in their
ROOT/checkpoints, since SageMaker would copy that over the head's in S3.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from urbandet_ray.errors import ConfigError, NotFoundError
from urbandet_ray.launch.sagemaker.container import Container
from urbandet_ray.models.checkpoint_files import newest_checkpoint
from urbandet_ray.records.split_names import SPLIT_NAMES
from urbandet_ray.storage import Storage

TRAIN, VAL = SPLIT_NAMES["train"], SPLIT_NAMES["val"]
PRETRAINED = ("pretrained", "checkpoint", "model")
CONFIG = ("config",)
WHOLE = ("data", "training", "train")
"""Names of channels, the first that is there counts. WHOLE ones hold train/ and val/ both."""

_STATES = "states"
_SAMPLE_BYTES = 1 << 16
_BASE_NS, _SPAN_NS = 10**18, 5 * 10**17  # times of 2001 to 2017: none looks like a fresh change


def run_folder(container: Container) -> Path:
    """Where the run folder is, on every host; makes it."""
    folder = container.own / "run"
    container.own.mkdir(parents=True, exist_ok=True)
    if not container.is_head:
        folder.mkdir(exist_ok=True)
    elif not folder.is_symlink():
        container.checkpoints.mkdir(parents=True, exist_ok=True)
        folder.symlink_to(container.checkpoints)
    return folder


def data_folder(container: Container) -> Path | None:
    """A folder with train/, val/ and label_map.pbtxt, made of the channels; None without channels.

    Raises:
        ConfigError: one of train and val alone, or several label maps.
    """
    channels = container.channels
    for name in WHOLE:
        folder = channels.get(name)
        if folder and all(any((folder / one).is_dir() for one in part) for part in (TRAIN, VAL)):
            return folder
    train, val = _first(channels, TRAIN), _first(channels, VAL)
    if train is None and val is None:
        return None
    if train is None or val is None:
        raise ConfigError(
            f"the channels are {', '.join(channels)}: training needs train and val (or one, data, "
            "that holds train/ and val/)"
        )
    folder = container.own / "data"
    folder.mkdir(parents=True, exist_ok=True)
    _link(folder / "train", train)
    _link(folder / "val", val)
    labels = label_map(container)
    if labels is not None:
        _link(folder / "label_map.pbtxt", labels)
    return folder


def label_map(container: Container) -> Path | None:
    """The label map that came with a channel; None where there is none.

    Raises:
        ConfigError: several.
    """
    for names in (CONFIG, WHOLE, VAL, PRETRAINED):
        folder = _first(container.channels, names)
        found = sorted(folder.glob("*.pbtxt")) if folder and folder.is_dir() else []
        exact = [path for path in found if path.name == "label_map.pbtxt"]
        if len(found) > 1 and not exact:
            raise ConfigError(
                f"{folder} holds several label maps ({', '.join(path.name for path in found)}): "
                "name one with the hyperparameter labels, by its path in the container"
            )
        if found:
            return (exact or found)[0]
    return None


def pretrained_checkpoint(container: Container) -> Path | None:
    """Prefix (".../ckpt-0") of the newest checkpoint in the pretrained channel; None without one.

    Raises:
        NotFoundError: the channel holds none.
    """
    folder = _first(container.channels, PRETRAINED)
    if folder is None:
        return None
    files = (str(path) for path in sorted(folder.rglob("*")) if path.is_file())
    found = newest_checkpoint(files, Storage())
    if found is None:
        raise NotFoundError(
            f"{folder} holds no checkpoint: expected ckpt-0.index and ckpt-0.data-00000-of-00001, "
            "as the zoo's archives do, unpacked"
        )
    return Path(found)


def find_in_channels(container: Container, name: str, submitted: Path | None) -> str:
    """A file that a hyperparameter names relatively; the name itself where it lies nowhere."""
    places = [submitted] if submitted else []
    places += [folder for folder in (_first(container.channels, CONFIG),) if folder]
    places += list(container.channels.values())
    for folder in places:
        if (folder / name).is_file():
            return str(folder / name)
    return name


def only_file(
    container: Container, names: tuple[str, ...], suffixes: tuple[str, ...]
) -> Path | None:
    """The one file with a suffix in the first of some channels; None where it is not one."""
    folder = _first(container.channels, names)
    found = [path for path in _files(folder) if path.suffix in suffixes] if folder else []
    return found[0] if len(found) == 1 else None


def stamp_channels(container: Container) -> int:
    """Give each channel file a time that follows from its content; how many would not take it.

    A local file's version is its time, which differs from host to host and from one start to the
    next. By content, all hosts and a resumed run agree, and changed records are still noticed.
    """
    stuck = 0
    for folder in container.channels.values():
        for path in _files(folder):
            try:
                time_ns = _content_time_ns(path)
                os.utime(path, ns=(time_ns, time_ns))
            except OSError:  # a read-only channel (FastFile): its times are S3's, one for all
                stuck += 1
    return stuck


def checkpoint_files(run: Path) -> list[str]:
    """Names of the files that another host needs to go on; state.json, which counts, is last."""
    last = run / "last"
    names = sorted(path.name for path in last.glob("*")) if last.is_dir() else []
    return sorted((name for name in names if not name.startswith(".")), key=_is_state)


def keep_state(run: Path) -> None:
    """Keep each checkpoint's state.json under the checkpoint's name, for mend_checkpoint."""
    try:
        text = (run / "last" / "state.json").read_text("utf-8")
        name = str(json.loads(text)["checkpoint"])
    except (OSError, ValueError, KeyError):
        return
    kept = run / _STATES
    if (kept / f"{name}.json").is_file():
        return
    kept.mkdir(exist_ok=True)
    (kept / f"{name}.json").write_text(text, "utf-8")
    for path in kept.glob("*.json"):
        if not _is_whole(run, path.stem):
            path.unlink()


def mend_checkpoint(run: Path) -> str:
    """Make last/ whole after a spot instance was taken, and free the run folder; what was done.

    SageMaker copies files in an order of its own, so state.json may have reached S3 without the
    checkpoint that it speaks of. The one before it is then gone on from.
    """
    (run / "writer.json").unlink(missing_ok=True)  # of a container that is gone: this is a copy
    state = run / "last" / "state.json"
    try:
        name = str(json.loads(state.read_text("utf-8"))["checkpoint"])
    except (OSError, ValueError, KeyError):
        name = ""
    if not state.is_file() or _is_whole(run, name):
        return ""
    kept = [path for path in (run / _STATES).glob("*.json") if _is_whole(run, path.stem)]
    if not kept:
        state.unlink()
        return (
            f"the checkpoint {name} did not come whole, and there is no other: from the beginning"
        )
    newest = max(kept, key=_number)
    shutil.copyfile(newest, state)
    return f"the checkpoint {name} did not come whole: going on from {newest.stem}"


def follow(source: Path, targets: list[Path]) -> None:
    """Bring what was appended to the files of a folder to copies of them elsewhere."""
    for path in _files(source):
        for target in targets:
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            have = copy.stat().st_size if copy.is_file() else 0
            if path.stat().st_size == have:
                continue
            mode = "ab" if path.stat().st_size > have else "wb"
            with path.open("rb") as stream, copy.open(mode) as out:
                stream.seek(have if mode == "ab" else 0)
                shutil.copyfileobj(stream, out)


def _first(channels: Mapping[str, Path], names: tuple[str, ...]) -> Path | None:
    return next((channels[name] for name in names if name in channels), None)


def _link(link: Path, target: Path) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(target)


def _files(folder: Path | None) -> Iterator[Path]:
    if folder is not None and folder.is_dir():
        yield from sorted(path for path in folder.rglob("*") if path.is_file())


def _content_time_ns(path: Path) -> int:
    """From its length, beginning and end."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as stream:
        digest.update(stream.read(_SAMPLE_BYTES))
        stream.seek(max(0, size - _SAMPLE_BYTES))
        digest.update(stream.read(_SAMPLE_BYTES))
    return _BASE_NS + int.from_bytes(digest.digest()[:8]) % _SPAN_NS


def _is_whole(run: Path, name: str) -> bool:
    folder = run / "last"
    return (
        bool(name) and (folder / f"{name}.index").is_file() and any(folder.glob(f"{name}.data-*"))
    )


def _number(state: Path) -> int:
    digits = state.stem.rpartition("-")[2]
    return int(digits) if digits.isdigit() else -1


def _is_state(name: str) -> bool:
    return name == "state.json"
