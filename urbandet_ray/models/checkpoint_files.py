"""Which checkpoint is meant by a path: the one rule for training, doctor, export and jobs."""

from __future__ import annotations

import re
from collections.abc import Iterable

from urbandet_ray.storage import Storage, join_uri

_FILE = re.compile(r"\.(index|data-\d+-of-\d+)$")
_NUMBERED = re.compile(r"ckpt-(\d+)\.index")
_NAMED = re.compile(r'(?m)^model_checkpoint_path: "(?:[^"]*[/\\])?([^"/\\]+)"')
_STATE = "checkpoint"


def find_checkpoint_prefix(uri: str, storage: Storage) -> str | None:
    """The prefix (".../ckpt-0") that a person means; None where there is no checkpoint.

    Args:
        uri: the prefix, one of its files (.index, .data-00000-of-00001), its folder, or a folder
            with checkpoint/ in it; local or s3://.
        storage: looks.
    """
    prefix = _FILE.sub("", uri)
    if storage.exists(f"{prefix}.index"):
        return prefix
    for folder in (join_uri(uri, "checkpoint"), uri):
        found = newest_checkpoint((info.uri for info in storage.list_folder(folder)), storage)
        if found is not None:
            return found
    return None


def newest_checkpoint(uris: Iterable[str], storage: Storage) -> str | None:
    """The newest checkpoint's prefix among files; None where none is whole.

    In each folder that is the one that TensorFlow's state file names, else that of the highest
    number: ckpt-10 comes after ckpt-9. Of several folders the highest number counts.
    """
    files = list(uris)
    data = {_FILE.sub("", one) for one in files if not one.endswith(".index") and _FILE.search(one)}
    numbers = {
        one.removesuffix(".index"): int(match[1])
        for one in files
        if (match := _NUMBERED.fullmatch(one.rpartition("/")[2]))
        and one.removesuffix(".index") in data
    }
    for state in (one for one in files if one.rpartition("/")[2] == _STATE):
        folder = state.rpartition("/")[0]
        named = _NAMED.search(storage.read_bytes(state).decode("utf-8", "replace"))
        chosen = f"{folder}/{named[1]}" if named else ""
        if chosen in numbers:
            others = [one for one in numbers if one.rpartition("/")[0] == folder]
            numbers = {one: n for one, n in numbers.items() if one == chosen or one not in others}
    return max(numbers, key=lambda one: (numbers[one], one), default=None)
