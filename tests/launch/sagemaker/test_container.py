"""What SageMaker lays below /opt/ml, as this package reads it."""

import json
import os
from pathlib import Path

import pytest

from urbandet_ray.errors import ConfigError, NotFoundError
from urbandet_ray.launch.sagemaker import staging
from urbandet_ray.launch.sagemaker.container import Container, fail, read_container
from urbandet_ray.launch.sagemaker.hyperparameters import read_hyperparameters, read_value


def write(root: Path, **files: object) -> dict[str, str]:
    """Files of input/config; the environment that names the root."""
    folder = root / "input" / "config"
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        text = value if isinstance(value, str) else json.dumps(value)
        (folder / f"{name}.json").write_text(text)
    return {"SAGEMAKER_BASE_DIR": str(root)}


def container(root: Path, host: str = "algo-1", **channels: Path) -> Container:
    """One of two hosts."""
    return Container(root, ("algo-1", "algo-2"), host, "eth0", {}, channels)


def test_the_files_say_who_is_who(tmp_path: Path) -> None:
    """The head is the first host by order, not by name."""
    resources = {
        "current_host": "algo-1",
        "hosts": ["algo-2", "algo-1"],
        "network_interface_name": "ethwe",
    }
    env = write(
        tmp_path,
        resourceconfig=resources,
        hyperparameters={"steps": "20"},
        inputdataconfig={"train": {}, "val": {}},
    )
    found = read_container(env)
    assert (found.head, found.is_head) == ("algo-2", False)
    assert found.network_interface == "ethwe"
    assert found.hyperparameters == {"steps": "20"}
    assert found.channels["val"] == tmp_path / "input/data/val"


def test_variables_fill_what_the_files_leave_open(tmp_path: Path) -> None:
    """As SageMaker's SDK and other launchers set them."""
    env = {
        "SAGEMAKER_BASE_DIR": str(tmp_path),
        "SM_HOSTS": '["a", "b"]',
        "SM_CURRENT_HOST": "b",
        "SM_HPS": '{"steps": 20}',
        "SM_CHANNEL_TRAIN": "/somewhere/train",
        "SM_NUM_GPUS": "4",
    }
    found = read_container(env)
    assert (found.hosts, found.current_host, found.gpus) == (("a", "b"), "b", 4)
    assert found.hyperparameters == {"steps": "20"}
    assert found.channels == {"train": Path("/somewhere/train")}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [("SM_HPS", "{steps: 20", "expected JSON"), ("SM_NUM_GPUS", "four", "expected a number")],
)
def test_a_broken_variable_is_named(tmp_path: Path, name: str, text: str, expected: str) -> None:
    """With what it holds."""
    with pytest.raises(ConfigError, match=rf"^{name} is '{text}', {expected}$"):
        read_container({"SAGEMAKER_BASE_DIR": str(tmp_path), name: text})


def test_without_anything_there_is_one_host(tmp_path: Path) -> None:
    """And the root is /opt/ml."""
    assert read_container({}).root == Path("/opt/ml")
    assert read_container({"SAGEMAKER_BASE_DIR": str(tmp_path)}).hosts == ("algo-1",)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("resourceconfig", "{", "resourceconfig.json cannot be read"),
        ("hyperparameters", [1], "holds a list, expected an object"),
        ("resourceconfig", {"hosts": ["a"], "current_host": "b"}, "'b', which is not one of"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, value: object, message: str) -> None:
    """With what is wrong in it."""
    with pytest.raises(ConfigError, match=message):
        read_container(write(tmp_path, **{name: value}))


def test_a_failure_is_cut_to_what_sagemaker_shows(tmp_path: Path) -> None:
    """1,024 characters."""
    fail(tmp_path, "x" * 3000)
    assert len((tmp_path / "output" / "failure").read_text()) == 1024


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("20", 20),
        ('"20"', 20),
        ("0.5", 0.5),
        ('"flip"', "flip"),
        ("flip", "flip"),
        ("true", True),
        ('["a", "b"]', ["a", "b"]),
        ('""', ""),
        ("", ""),
        ("null", None),
        ("s3://bucket/waymo", "s3://bucket/waymo"),
        ('"a: b: c"', "a: b: c"),
    ],
)
def test_values_are_yaml_quoted_or_not(text: str, value: object) -> None:
    """SageMaker's SDK quotes, the API does not."""
    assert read_value(text) == value


def test_the_courses_names_are_understood() -> None:
    """Those that its notebook gives, with what SageMaker's SDK adds for itself."""
    settings = read_hyperparameters(
        {
            "model_dir": '"/opt/training"',
            "pipeline_config_path": '"pipeline.config"',
            "num_train_steps": '"2000"',
            "sample_1_of_n_eval_examples": '"2"',
            "sagemaker_program": '"run_training.sh"',
            "sagemaker_submit_directory": '"s3://bucket/sourcedir.tar.gz"',
            "batch.per_worker": "8",
        }
    )
    assert settings.overrides == {
        "pipeline": "pipeline.config",
        "steps": 2000,
        "batch.per_worker": 8,
    }
    assert settings.tensorboard == "/opt/training"
    assert (settings.eval_one_of, settings.submitted) == (2, "s3://bucket/sourcedir.tar.gz")
    assert settings.optimized == ("savedmodel",)


def test_a_model_dir_on_s3_is_the_run_folder() -> None:
    """As the OD API writes there."""
    assert read_hyperparameters({"model_dir": "s3://b/run"}).overrides == {"output": "s3://b/run"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_trian_steps": "2"}, "'num_trian_steps' is unknown; did you mean 'num_train_steps'"),
        ({"bach.per_worker": "2"}, "did you mean 'batch.per_worker'"),
        ({"warmup_share": "0.1"}, "did you mean 'schedule.warmup_share'"),
        ({"steps": "3", "num_train_steps": "4"}, "say different things"),
        ({"num_train_steps": "many"}, "'many', expected a number from 1"),
        ({"optimized": "openvin"}, "did you mean 'openvino'"),
    ],
)
def test_a_wrong_hyperparameter_is_refused(given: dict[str, str], message: str) -> None:
    """With the nearest known name."""
    with pytest.raises(ConfigError, match=message):
        read_hyperparameters(given)


def channel(root: Path, *names: str) -> Path:
    """A folder with files."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def test_channels_become_a_data_folder(tmp_path: Path) -> None:
    """Whatever the validation channel is called; the label map comes along."""
    here = container(
        tmp_path,
        train=channel(tmp_path / "t", "a.tfrecord"),
        validation=channel(tmp_path / "v", "b.tfrecord"),
        config=channel(tmp_path / "c", "label_map.pbtxt", "other.pbtxt"),
    )
    folder = staging.data_folder(here)
    assert folder == tmp_path / "urbandet" / "data"
    assert (folder / "train" / "a.tfrecord").is_file()
    assert (folder / "val" / "b.tfrecord").is_file()
    assert (folder / "label_map.pbtxt").read_text() == "label_map.pbtxt"


@pytest.mark.parametrize(
    ("train", "val"), [("train", "val"), ("train", "valid"), ("training", "eval")]
)
def test_one_channel_may_hold_everything(tmp_path: Path, train: str, val: str) -> None:
    """As `urbandet sagemaker train` gives it; the parts are named as in any data folder."""
    data = channel(tmp_path / "d", f"{train}/a.tfrecord", f"{val}/b.tfrecord", "label_map.pbtxt")
    assert staging.data_folder(container(tmp_path, data=data)) == data
    assert staging.data_folder(container(tmp_path)) is None


def test_training_records_alone_are_refused(tmp_path: Path) -> None:
    """There is nothing to judge by."""
    with pytest.raises(ConfigError, match="channels are train: training needs train and val"):
        staging.data_folder(container(tmp_path, train=channel(tmp_path / "t", "a.tfrecord")))


def test_two_label_maps_are_refused(tmp_path: Path) -> None:
    """Unless one has the usual name."""
    config = channel(tmp_path / "c", "one.pbtxt", "two.pbtxt")
    with pytest.raises(ConfigError, match=r"several label maps \(one.pbtxt, two.pbtxt\)"):
        staging.label_map(container(tmp_path, config=config))


def test_the_newest_checkpoint_of_the_channel_is_found(tmp_path: Path) -> None:
    """However deep it lies."""
    folder = channel(
        tmp_path / "p",
        *(f"zoo/checkpoint/ckpt-{n}.{end}" for n in (9, 10) for end in ("index", "data-0-of-1")),
    )
    found = staging.pretrained_checkpoint(container(tmp_path, pretrained=folder))
    assert found == folder / "zoo/checkpoint/ckpt-10"
    with pytest.raises(NotFoundError, match="holds no checkpoint"):
        empty = channel(tmp_path / "e", "x")
        staging.pretrained_checkpoint(container(tmp_path, pretrained=empty))


def test_files_get_times_by_their_content(tmp_path: Path) -> None:
    """The same on each host and at each start; another content has another."""
    one = channel(tmp_path / "1", "a.tfrecord")
    other = channel(tmp_path / "2", "a.tfrecord")
    os.utime(other / "a.tfrecord", (1, 1))
    for folder in (one, other):
        assert staging.stamp_channels(container(tmp_path, train=folder)) == 0
    times = [(folder / "a.tfrecord").stat().st_mtime_ns for folder in (one, other)]
    assert times[0] == times[1]
    (one / "a.tfrecord").write_text("changed")
    staging.stamp_channels(container(tmp_path, train=one))
    assert (one / "a.tfrecord").stat().st_mtime_ns != times[1]


def test_only_the_head_has_the_checkpoints_folder_as_its_run_folder(tmp_path: Path) -> None:
    """SageMaker would copy another host's over the head's."""
    head = container(tmp_path / "1")
    folder = staging.run_folder(head)
    assert folder.resolve() == head.checkpoints
    other = container(tmp_path / "2", "algo-2")
    assert staging.run_folder(other).is_dir()
    assert not other.checkpoints.exists()
    assert staging.run_folder(head) == folder  # again, after a restart in place


def checkpoint(run: Path, step: int, *, data: bool = True) -> None:
    """A checkpoint with its state, as training leaves it."""
    last = run / "last"
    last.mkdir(parents=True, exist_ok=True)
    (last / f"ckpt-{step}.index").touch()
    if data:
        (last / f"ckpt-{step}.data-00000-of-00001").touch()
    (last / "state.json").write_text(json.dumps({"step": step, "checkpoint": f"ckpt-{step}"}))


def test_a_checkpoint_that_came_half_is_not_gone_on_from(tmp_path: Path) -> None:
    """The one before it is, with its own state; the lock of the container that is gone goes too."""
    for step in (8, 12):
        checkpoint(tmp_path, step)
        staging.keep_state(tmp_path)
        staging.keep_state(tmp_path)
    checkpoint(tmp_path, 16, data=False)
    (tmp_path / "writer.json").touch()
    told = staging.mend_checkpoint(tmp_path)
    assert told == "the checkpoint ckpt-16 did not come whole: going on from ckpt-12"
    assert json.loads((tmp_path / "last/state.json").read_text())["step"] == 12
    assert not (tmp_path / "writer.json").exists()
    assert staging.mend_checkpoint(tmp_path) == ""


def test_without_any_whole_checkpoint_it_begins_anew(tmp_path: Path) -> None:
    """An error would need a person, and a spot restart has none."""
    assert staging.mend_checkpoint(tmp_path) == ""
    staging.keep_state(tmp_path)
    checkpoint(tmp_path, 4, data=False)
    assert "there is no other: from the beginning" in staging.mend_checkpoint(tmp_path)
    assert not (tmp_path / "last/state.json").exists()


def test_states_of_deleted_checkpoints_are_not_kept(tmp_path: Path) -> None:
    """Training keeps two checkpoints."""
    checkpoint(tmp_path, 4)
    staging.keep_state(tmp_path)
    (tmp_path / "last/ckpt-4.index").unlink()
    checkpoint(tmp_path, 8)
    staging.keep_state(tmp_path)
    assert [path.name for path in (tmp_path / "states").iterdir()] == ["ckpt-8.json"]


def test_events_are_followed_as_they_grow(tmp_path: Path) -> None:
    """What was appended is appended; a file that begins anew is copied anew."""
    source, target = channel(tmp_path / "s", "events.1"), tmp_path / "t"
    for text in ("events.1", "events.1 and more", "new"):
        (source / "events.1").write_text(text)
        staging.follow(source, [target])
        assert (target / "events.1").read_text() == text
    staging.follow(tmp_path / "not there", [target])
