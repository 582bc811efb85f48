"""What a folder is that somebody took for a run folder, so that a refusal can say so."""

from __future__ import annotations

from fnmatch import fnmatch
from itertools import islice

from urbandet_ray.errors import NotFoundError, StorageError
from urbandet_ray.phrases import some_of
from urbandet_ray.storage.files import Storage

_LOOKED_AT = 500
"""Files listed at most: a bucket may hold millions."""

_SIGNS = (
    ("checkpoint_manager_snapshot.json", "it is Ray Train's own folder of a training"),
    ("tuner.pkl", "it is Ray Tune's own folder"),
    ("*.tar.gz", "it holds {name}, as the output of a SageMaker job does"),
    ("export.json", "it is an export, a model to infer with"),
    ("network.json", "it is an export, a model to infer with"),
    ("saved_model.pb", "it is a SavedModel, a model to infer with"),
    ("ckpt-*.index", "it holds checkpoints"),
    ("*.tfrecord", "it holds records, which are a run's input"),
    ("*.tfrecords", "it holds records, which are a run's input"),
    ("*.record", "it holds records, which are a run's input"),
)


def describe_place(uri: str, storage: Storage) -> str:
    """What is at a place that has no run.json, in words that go on a sentence."""
    try:
        files = [file.uri for file in islice(storage.list_files(uri), _LOOKED_AT)]
    except NotFoundError:
        return "nothing is there"
    except StorageError as error:  # it may be no folder, or not be ours to list
        return f"it cannot be listed ({error})"
    return _describe(files, uri.rstrip("/"))


def _describe(files: list[str], uri: str) -> str:
    if not files or files == [uri]:
        return "it is a file" if files else "it is empty"
    names = [file.rpartition("/")[2] for file in files]
    runs = [file.rpartition("/")[0] for file in files if file.endswith("/run.json")]
    if f"{uri}/run.json" in files:
        return "it is a run folder"
    if runs:
        return f"there is a run in {some_of(runs, 1)}"
    for sign, words in _SIGNS:
        found = next((name for name in names if fnmatch(name, sign)), None)
        if found is not None:
            return words.format(name=found)
    return f"it holds {some_of(names, 3)}"
