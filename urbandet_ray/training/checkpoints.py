"""Checkpoints of a run: last/ to go on from, best/ to export; local or s3://.

    last/ckpt-120.index, .data-00000-of-00001, checkpoint    readable by the OD API's own tools
    last/state.json                                          written last: it makes the others count

A step waits for a copy of the variables only: TensorFlow writes that to a local folder and a thread
carries the files to the run folder meanwhile, so that neither holds the steps up.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from urbandet_ray.errors import NotFoundError, RunError
from urbandet_ray.json_files import read_value
from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.storage import Storage, join_uri

LAST, BEST = "last", "best"
STATE_NAME = "state.json"

State = dict[str, Any]


@dataclass(frozen=True)
class RestorePoint:
    """A checkpoint on this machine: TensorFlow's prefix, and what else the run knew then."""

    prefix: Path
    state: State

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return int(self.state["step"])


class RunCheckpoints:
    """Saves and finds the checkpoints of one run; one an own thread carries away.

    Args:
        run_uri: the run folder.
        scratch: a local folder of this worker's.
        carries: whether this worker's files go to the run folder; with several workers all have to
            save, since batch-norm averages are collected from each, and one carries.
        alone: no other worker saves with this one; with several, TensorFlow writes while they wait.
        keep: checkpoints left in last/.
        beside: called in the same thread before a checkpoint counts, to bring logs along.
    """

    def __init__(
        self,
        run_uri: str,
        storage: Storage,
        scratch: Path,
        *,
        carries: bool,
        alone: bool = False,
        keep: int = 2,
        beside: Callable[[], None] = lambda: None,
    ) -> None:
        self._run_uri = run_uri
        self._storage = storage
        self._scratch = scratch
        self._carries = carries
        self._alone = alone
        self._keep = keep
        self._beside = beside
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._under_way: Future[None] | None = None

    def save(self, kind: str, checkpoint: Any, state: State) -> None:
        """Save a tf.train.Checkpoint as it is now; what it holds may change when this returns.

        Waits for the one before to arrive first, so at most one is on its way.

        Raises:
            StorageError: the one before could not be carried to the run folder.
        """
        self.wait()
        folder = self._scratch / kind
        folder.mkdir(parents=True, exist_ok=True)
        name = f"ckpt-{state['step']}"
        checkpoint.save_counter  # noqa: B018 - makes it: the OD API's exporter looks for one
        options = None
        if self._alone:
            options = open_odapi().tf.train.CheckpointOptions(enable_async=True)
        checkpoint.write(str(folder / name), options=options)
        if self._carries:
            self._under_way = self._thread.submit(
                self._carry, kind, folder, name, state, checkpoint.sync
            )
        else:
            checkpoint.sync()
            _remove(folder, name)

    def wait(self) -> None:
        """Until what was saved has arrived.

        Raises:
            StorageError: it could not be written.
        """
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def close(self) -> None:
        """Wait, and end the thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    def restore_point(self, kind: str = LAST) -> RestorePoint | None:
        """The newest whole checkpoint, brought to this machine; None where there is none."""
        return fetch_checkpoint(self._run_uri, kind, self._storage, self._scratch / "restored")

    def _carry(
        self, kind: str, folder: Path, name: str, state: State, written: Callable[[], None]
    ) -> None:
        written()  # waits for it
        uri = join_uri(self._run_uri, kind)
        for path in sorted(folder.glob(f"{name}.*")):
            self._storage.upload_file(path, join_uri(uri, path.name))
        index = f'model_checkpoint_path: "{name}"\nall_model_checkpoint_paths: "{name}"\n'
        self._storage.write_bytes(join_uri(uri, "checkpoint"), index.encode())
        self._beside()
        text = json.dumps({**state, "checkpoint": name}, indent=1, sort_keys=True) + "\n"
        self._storage.write_bytes(join_uri(uri, STATE_NAME), text.encode())
        _remove(folder, name)
        self._prune(uri, state["step"], self._keep if kind == LAST else 1)

    def _prune(self, uri: str, named: int, keep: int) -> None:
        """Delete all but the newest up to the step that state.json names.

        Later steps go too: a killed try left them, maybe half written, and this one resumed below.
        """
        files: dict[int, list[str]] = {}
        for info in self._storage.list_files(uri):
            stem, dash, number = PurePosixPath(info.uri).name.partition(".")[0].partition("-")
            if stem == "ckpt" and dash and number.isdigit():
                files.setdefault(int(number), []).append(info.uri)
        kept = sorted(step for step in files if step <= named)[-max(keep, 1) :]
        for step in files.keys() - set(kept):
            for old in files[step]:
                self._storage.delete(old)


def fetch_checkpoint(
    run_uri: str, kind: str, storage: Storage, folder: Path
) -> RestorePoint | None:
    """Bring a run's checkpoint to a local folder, with TensorFlow's `checkpoint` file beside it.

    Returns:
        None where the run has no such checkpoint.

    Raises:
        RunError: its state.json is damaged, or its files are not all there.
        StorageError: it cannot be read.
    """
    uri = join_uri(run_uri, kind)
    remedy = "Delete it to train from the beginning"
    place = join_uri(uri, STATE_NAME)
    try:
        state = read_value(place, storage, dict[str, Any], remedy)
    except NotFoundError:
        return None
    name = state.get("checkpoint")
    if not isinstance(name, str):
        raise RunError(f"{place} is damaged: it does not name a checkpoint. {remedy}")
    local = folder / kind
    local.mkdir(parents=True, exist_ok=True)
    found = [
        info
        for info in storage.list_folder(uri)
        if PurePosixPath(info.uri).name.startswith(f"{name}.")
    ]
    if len(found) < 2:
        raise RunError(
            f"{place} names {name}, whose index or data file is not in {uri}: restore it from a "
            f"copy of the run, or delete {place} to train from the beginning"
        )
    for info in found:
        storage.download_file(info.uri, local / PurePosixPath(info.uri).name)
    (local / "checkpoint").write_text(f'model_checkpoint_path: "{name}"\n', "utf-8")
    return RestorePoint(local / name, state)


def _remove(folder: Path, name: str) -> None:
    for path in folder.glob(f"{name}.*"):
        path.unlink()
