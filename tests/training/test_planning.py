"""From a config to a plan: what is found, filled in and refused."""

from pathlib import Path

import pytest

from urbandet_ray.config import TrainConfig, load_config
from urbandet_ray.errors import NotFoundError
from urbandet_ray.storage import Storage
from urbandet_ray.training.doctor.checkpoint import _meant
from urbandet_ray.training.doctor.planned_run import examine_plan
from urbandet_ray.training.planning import find_checkpoint, plan_run

pytestmark = pytest.mark.train


@pytest.fixture
def pipeline(tmp_path: Path, data: Path, sound_config: str) -> Path:
    """The sound config, with its paths."""
    path = tmp_path / "pipeline.config"
    path.write_text(sound_config.replace("{data}", str(data)))
    return path


def config_of(tmp_path: Path, **settings: object) -> TrainConfig:
    """A config for a run in tmp_path/run."""
    return load_config(TrainConfig, None, {"output": str(tmp_path / "run"), **settings})


def test_the_pipeline_config_fills_in_what_is_not_said(tmp_path: Path, pipeline: Path) -> None:
    """Steps, batch, records, labels; evaluations and checkpoints follow from the steps."""
    plan = plan_run(config_of(tmp_path, pipeline=str(pipeline)), Storage())
    assert (plan.steps, plan.batch_size) == (100, 2)
    assert (plan.evaluate_every, plan.checkpoint_every) == (10, 5)
    assert [source.segment for source in plan.train] == ["one", "two"]
    assert [source.segment for source in plan.val] == ["three"]
    assert dict(plan.labels.names) == {1: "vehicle", 2: "pedestrian", 3: "cyclist"}
    assert plan.fine_tune is None


def test_the_plan_s_pipeline_config_says_what_is_trained(
    tmp_path: Path, pipeline: Path, data: Path
) -> None:
    """Steps, batch, records and label map of the run stand in it, whatever the file had."""
    given = {"steps": 40, "batch.per_worker": 4, "data": str(data)}
    plan = plan_run(config_of(tmp_path, pipeline=str(pipeline), **given), Storage())
    message = plan.pipeline_message()
    assert (message.train_config.num_steps, message.train_config.batch_size) == (40, 4)
    assert message.train_input_reader.label_map_path == str(data / "label_map.pbtxt")
    assert list(message.eval_input_reader[0].tf_record_input_reader.input_path) == [
        str(data / "val/*.tfrecord")
    ]


def test_what_the_run_does_not_take_from_the_file_is_no_finding(
    tmp_path: Path, pipeline: Path
) -> None:
    """A cosine over 300,000 steps is an error of a run that follows it, and of no other."""
    pipeline.write_text(pipeline.read_text().replace("total_steps: 100", "total_steps: 300000"))

    def codes(**settings: object) -> set[str]:
        config = config_of(tmp_path, pipeline=str(pipeline), **settings)
        return {one.code for one in examine_plan(plan_run(config, Storage()))}

    assert "schedule-longer-than-run" in codes(**{"schedule.kind": "config"})
    assert "schedule-longer-than-run" not in codes()


def test_a_tuned_rate_in_the_file_is_the_run_s(tmp_path: Path, pipeline: Path) -> None:
    """The line at the start of the run names the line of the file, however much is filled in."""
    plan = plan_run(config_of(tmp_path, pipeline=str(pipeline)), Storage())
    rows = pipeline.read_text().split("\n")
    (line,) = [n for n, row in enumerate(rows, 1) if "learning_rate_base" in row]
    assert plan.rate.highest(8) == pytest.approx(0.00125)
    assert f"{pipeline}:{line} (learning_rate_base)" in plan.rate.told(8)


@pytest.mark.parametrize(
    ("rate", "settings", "found"),
    [
        ("0.08", {}, "error"),
        ("0.05", {}, "warning"),
        ("0.08", {"schedule.rate": 0.001}, None),
        ("0.08", {"optimizer.kind": "adam"}, None),
    ],
)
def test_a_rate_far_from_the_reference_is_found_where_it_is_taken(
    tmp_path: Path, pipeline: Path, rate: str, settings: dict[str, object], found: str | None
) -> None:
    """A stock rate for 128 images stops a run of 2; one that somebody chose is warned of."""
    pipeline.write_text(pipeline.read_text().replace("base: 0.00125", f"base: {rate}"))
    findings = examine_plan(
        plan_run(config_of(tmp_path, pipeline=str(pipeline), **settings), Storage())
    )
    told = {one.code: one for one in findings}.get("learning-rate-high")
    assert (told and told.severity) == found
    if told:
        assert told.fix.endswith("or schedule.rate=0.00125 in a run config")


def test_an_unknown_pipeline_names_what_there_is(tmp_path: Path) -> None:
    """The configs that come with the package."""
    with pytest.raises(NotFoundError, match=r"no pipeline\.config nonsense.*efficientdet_d1_640"):
        plan_run(config_of(tmp_path, pipeline="nonsense"), Storage())


@pytest.mark.parametrize(
    "given",
    [
        "ckpt/checkpoint/ckpt-12",
        "ckpt/checkpoint/ckpt-12.index",
        "ckpt/checkpoint/ckpt-12.data-00000-of-00001",
        "ckpt",
        "ckpt/checkpoint",
    ],
)
def test_a_checkpoint_is_found_by_prefix_or_folder(tmp_path: Path, given: str) -> None:
    """The newest whole one by number, not by name; the doctor means the same one."""
    folder = tmp_path / "ckpt/checkpoint"
    folder.mkdir(parents=True)
    for name in ("ckpt-9", "ckpt-12", "ckpt-100"):
        (folder / f"{name}.index").touch()
        if name != "ckpt-100":  # half copied
            (folder / f"{name}.data-00000-of-00001").touch()
    assert _meant(given, tmp_path) == str(folder / "ckpt-12")
    assert find_checkpoint(str(tmp_path / given), Storage()) == str(folder / "ckpt-12")


def test_a_missing_checkpoint_says_what_was_expected(tmp_path: Path) -> None:
    """The file that would have to be there."""
    with pytest.raises(NotFoundError, match=r"no checkpoint .*nothing: expected .*nothing\.index"):
        find_checkpoint(str(tmp_path / "nothing"), Storage())
