"""Checkpoints of a run folder: what counts, what is kept, what comes back."""

import json
import os
import threading
from pathlib import Path

import pytest

from urbandet_ray.errors import RunError, StorageError
from urbandet_ray.storage import Storage
from urbandet_ray.training.checkpoints import BEST, LAST, RunCheckpoints

# read while tests are collected, so before any of them imports TensorFlow into this process
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")


class Written:
    """Writes what a tf.train.Checkpoint writes: an index and a data file."""

    save_counter = 0

    def __init__(self, content: str) -> None:
        self.content = content

    def write(self, prefix: str, options: None = None) -> None:
        assert options is None
        Path(f"{prefix}.index").write_text(f"index {self.content}")
        Path(f"{prefix}.data-00000-of-00001").write_text(self.content)

    def sync(self) -> None:
        pass


def checkpoints(tmp_path: Path, storage: Storage | None = None, **options: object):
    """Of the run in tmp_path/run, carried by this worker."""
    given = {"carries": True, **options}
    return RunCheckpoints(str(tmp_path / "run"), storage or Storage(), tmp_path / "local", **given)


def names(tmp_path: Path, kind: str) -> list[str]:
    """Files of last/ or best/."""
    return sorted(path.name for path in (tmp_path / "run" / kind).iterdir())


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    """With its state, and a `checkpoint` file for the OD API's exporter."""
    first = checkpoints(tmp_path)
    first.save(LAST, Written("weights"), {"step": 7, "mAP": 0.25})
    first.close()
    point = checkpoints(tmp_path).restore_point()
    assert (point.step, point.state["mAP"]) == (7, 0.25)
    assert Path(f"{point.prefix}.data-00000-of-00001").read_text() == "weights"
    assert 'model_checkpoint_path: "ckpt-7"' in (point.prefix.parent / "checkpoint").read_text()


def test_a_run_without_checkpoints_has_none(tmp_path: Path) -> None:
    """No restore point, and no error."""
    assert checkpoints(tmp_path).restore_point() is None


def test_files_without_their_state_do_not_count(tmp_path: Path) -> None:
    """A crash between the files and the state leaves the checkpoint before."""
    one = checkpoints(tmp_path)
    one.save(LAST, Written("whole"), {"step": 5})
    one.close()
    Written("torn").write(str(tmp_path / "run/last/ckpt-6"))
    assert checkpoints(tmp_path).restore_point().step == 5


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    """As many as asked for in last/, one in best/."""
    one = checkpoints(tmp_path, keep=2)
    for step in (8, 9, 10, 11):
        one.save(LAST, Written("w"), {"step": step})
        one.save(BEST, Written("w"), {"step": step})
    one.close()
    files = ["data-00000-of-00001", "index"]
    kept = [f"ckpt-{step}.{file}" for step in (10, 11) for file in files]
    assert names(tmp_path, LAST) == ["checkpoint", *kept, "state.json"]
    assert names(tmp_path, BEST) == ["checkpoint", *kept[2:], "state.json"]


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("kind", [LAST, BEST])
@pytest.mark.parametrize("left", [(12,), (12, 15), (9, 12)])
def test_what_state_json_names_is_never_pruned(
    tmp_path: Path, kind: str, keep: int, left: tuple[int, ...]
) -> None:
    """A killed try left later steps, one half written; the run goes on below them, and they go."""
    one = checkpoints(tmp_path, keep=keep)
    one.save(kind, Written("w"), {"step": 8})
    one.wait()
    for step in left:
        (tmp_path / "run" / kind / f"ckpt-{step}.index").write_text("of a killed try")
    one.save(kind, Written("new"), {"step": 10})
    one.close()
    point = checkpoints(tmp_path).restore_point(kind)
    assert point is not None and point.step == 10
    assert Path(f"{point.prefix}.data-00000-of-00001").read_text() == "new"
    steps = {int(name[5:].partition(".")[0]) for name in names(tmp_path, kind) if "-" in name}
    earlier = 9 if 9 in left else 8
    assert steps == ({earlier, 10} if keep == 2 and kind == LAST else {10})


def test_a_worker_that_does_not_carry_leaves_nothing(tmp_path: Path) -> None:
    """It has to take part in writing; its copy goes nowhere."""
    one = checkpoints(tmp_path, carries=False)
    one.save(LAST, Written("w"), {"step": 3})
    one.close()
    assert not (tmp_path / "run").exists()
    assert list((tmp_path / "local/last").iterdir()) == []


def test_saving_returns_before_a_slow_store_has_it(tmp_path: Path) -> None:
    """The upload is under way while the steps go on, and its end is waited for."""
    go_on = threading.Event()

    class Slow(Storage):
        def upload_file(self, local_path: Path, uri: str) -> None:
            assert go_on.wait(10)
            super().upload_file(local_path, uri)

    one = checkpoints(tmp_path, Slow())
    one.save(LAST, Written("w"), {"step": 1})
    assert not (tmp_path / "run/last/state.json").exists()
    go_on.set()
    one.close()
    assert json.loads((tmp_path / "run/last/state.json").read_text())["step"] == 1


@pytest.mark.train
def test_a_single_worker_goes_on_while_tensorflow_writes(tmp_path: Path) -> None:
    """What is saved is what the variables were when it was asked for, slots and counters too."""
    from urbandet_ray.models.odapi import open_odapi

    tf = open_odapi().tf
    weight, step = tf.Variable([1.0, 2.0]), tf.Variable(0, dtype=tf.int64)
    optimizer = tf.keras.optimizers.legacy.SGD(1.0, momentum=0.5)
    whole = tf.train.Checkpoint(weight=weight, optimizer=optimizer, step=step)
    optimizer.apply_gradients([(tf.ones(2), weight)])
    one = checkpoints(tmp_path, alone=True, keep=9)
    expected = {}
    for number in range(3):
        slot = optimizer.get_slot(weight, "momentum")
        expected[number] = [*weight.numpy().tolist(), *slot.numpy().tolist(), int(step)]
        one.save(LAST, whole, {"step": number})
        optimizer.apply_gradients([(tf.ones(2), weight)])
        step.assign_add(1)
    one.close()
    for number, values in expected.items():
        read = tf.train.load_checkpoint(str(tmp_path / f"run/last/ckpt-{number}"))
        slot = "weight/.OPTIMIZER_SLOT/optimizer/momentum/.ATTRIBUTES/VARIABLE_VALUE"
        found = [
            *read.get_tensor("weight/.ATTRIBUTES/VARIABLE_VALUE").tolist(),
            *read.get_tensor(slot).tolist(),
            int(read.get_tensor("step/.ATTRIBUTES/VARIABLE_VALUE")),
        ]
        assert found == values


def test_an_upload_that_failed_is_an_error(tmp_path: Path) -> None:
    """At the next save, so that a run does not go on for hours without a checkpoint."""

    class Full(Storage):
        def upload_file(self, local_path: Path, uri: str) -> None:
            raise StorageError("the disk is full")

    one = checkpoints(tmp_path, Full())
    one.save(LAST, Written("w"), {"step": 1})
    with pytest.raises(StorageError, match="the disk is full"):
        one.save(LAST, Written("w"), {"step": 2})
    one.close()


def test_a_checkpoint_with_a_missing_file_is_named(tmp_path: Path) -> None:
    """Somebody took a part of it away."""
    one = checkpoints(tmp_path)
    one.save(LAST, Written("w"), {"step": 4})
    one.close()
    (tmp_path / "run/last/ckpt-4.index").unlink()
    wanted = (
        r"last/state\.json names ckpt-4, whose index or data file is not in .*restore it from a"
    )
    with pytest.raises(RunError, match=wanted):
        checkpoints(tmp_path).restore_point()
    (tmp_path / "run/last/ckpt-4.data-00000-of-00001").unlink()
    with pytest.raises(RunError, match=wanted):
        checkpoints(tmp_path).restore_point()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"checkpoint": "ckp', "it is no whole JSON"),
        ("[1]", "it is a list, expected an object"),
        ('{"step": 4}', "it does not name a checkpoint"),
    ],
)
def test_a_damaged_state_file_is_refused_in_words(tmp_path: Path, text: str, words: str) -> None:
    """The next step is in the message."""
    one = checkpoints(tmp_path)
    one.save(LAST, Written("w"), {"step": 4})
    one.close()
    (tmp_path / "run/last/state.json").write_text(text)
    with pytest.raises(
        RunError, match=rf"state\.json is damaged: {words}.*Delete it to train from"
    ):
        checkpoints(tmp_path).restore_point()
