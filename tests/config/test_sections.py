"""A section is checked when it is made, wherever its values come from."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from urbandet_ray import api
from urbandet_ray.config import (
    ActorConfig,
    InferConfig,
    ModelConfig,
    TrackConfig,
    TrainConfig,
    VideoConfig,
    load_config,
)
from urbandet_ray.config.sections import Section
from urbandet_ray.errors import ConfigError
from urbandet_ray.launch.sagemaker.hyperparameters import read_hyperparameters

INFER = {"input": "a", "output": "b"}
TRAIN = {"output": "b", "pipeline": "c"}
OWN = {
    "output": "b",
    "model": "package.module:build",
    "data": "d",
    "steps": 9,
    "batch.per_worker": 2,
    "schedule.rate": 0.1,
    "optimizer.kind": "adam",
    "augmentation.preset": "flip",
}


def test_a_section_made_in_python_says_what_is_wrong() -> None:
    """All its mistakes, a line each, in the words of a config file's."""
    with pytest.raises(ConfigError) as caught:
        ModelConfig(uri="x", score_min=2, thread=2)  # type: ignore[call-arg]
    assert str(caught.value).splitlines() == [
        "this ModelConfig cannot be used:",
        "  score_min: Input should be less than or equal to 1, got 2",
        "  thread: unknown key; did you mean 'threads'?",
    ]


def test_a_section_within_another_keeps_the_place_of_its_keys() -> None:
    """The mistakes of all sections come together, by their dotted keys."""
    wanted = ["  model.score_min: Input should", "  batch_size: Input should"]
    tree = {"input": "a", "output": "b", "model": {"score_min": 2}, "batch_size": 0}
    with pytest.raises(ConfigError) as made:
        InferConfig(**tree)  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as loaded:
        load_config(InferConfig, None, tree)
    for caught, origin in ((made, "this InferConfig"), (loaded, "the settings")):
        head, *lines = str(caught.value).splitlines()
        assert head == f"{origin} cannot be used:"
        assert [line[: len(begin)] for line, begin in zip(lines, wanted, strict=True)] == wanted


def test_a_section_travels_by_pickle() -> None:
    """Actors and workers get it from the driver; it is not checked again."""
    config = load_config(InferConfig, None, {"input": "a", "output": "b", "model.threads": 2})
    assert pickle.loads(pickle.dumps(config)) == config


@pytest.mark.parametrize(
    ("kind", "given", "line"),
    [
        (
            InferConfig,
            INFER | {"actors.min": 4, "actors.max": 2},
            "actors: min is 4, above max 2: the pool starts with min actors and grows up to max; "
            "give a max of at least min, or leave it out",
        ),
        (
            InferConfig,
            INFER | {"output": "a/run"},
            "the output a/run lies inside the input a and would become part of it: choose a run "
            "folder beside it",
        ),
        (
            InferConfig,
            INFER | {"reduced_decode": True},
            "reduced_decode goes with neither drawing nor tiles, which need whole frames: give "
            "--no-draw (urbandet video draws later), or leave it out",
        ),
        (
            InferConfig,
            INFER | {"model.compiler": "tensorrt"},
            "model.compiler is tensorrt, which compiles for GPUs, and actors.gpus is 0: set "
            "actors.gpus, or leave model.compiler out",
        ),
        (
            InferConfig,
            INFER | {"track.score_low": 0.6},
            "track: score_low is 0.6, above score_high 0.5: what lies between the two continues a "
            "track, so score_low has to be the lower one",
        ),
        (
            VideoConfig,
            {"run": "a", "output": "b.mp4", "source": "frames", "tracks": True},
            "source is frames, and the run's annotated frames were drawn before it had tracks: "
            "leave out source=frames, so that they are drawn anew from the run's input",
        ),
        (
            TrainConfig,
            TRAIN | {"workers.count": 2, "workers.min": 3},
            "workers: min is 3, above count 2: a training starts with count workers and goes on "
            "with min where some are lost; give a min of at most count",
        ),
        (
            TrainConfig,
            TRAIN | {"schedule.milestones": [0.85, 0.6]},
            "schedule: milestones are 0.85, 0.6: they have to rise, as in 0.6, 0.85",
        ),
        (
            TrainConfig,
            TRAIN | {"schedule.kind": "exponential", "schedule.final_share": 0},
            "schedule: final_share is 0, which an exponential never reaches: 0.01 is usual",
        ),
        (
            TrainConfig,
            TRAIN | {"schedule.warmup_share": 1},
            "schedule.warmup_share: Input should be less than 1, got 1",
        ),
        (
            TrainConfig,
            TRAIN | {"prune.sparsity": 0.5, "prune.begin": 0.8},
            "prune: begin is 0.8 and end 0.7: pruning begins before its end, and before the "
            "run's; begin has to be below end, and below 1",
        ),
        (
            TrainConfig,
            {"output": "b"},
            "a run trains either a pipeline.config (pipeline: FILE or one of configs/models) or a "
            "model of your own (model: my_package.module:build); set one of them",
        ),
        (
            TrainConfig,
            TRAIN | {"model": "package.module:build"},
            "a run trains either a pipeline.config (pipeline: FILE or one of configs/models) or a "
            "model of your own (model: my_package.module:build); set one of them",
        ),
        (
            TrainConfig,
            {"output": "b", "model": "package.module:build", "data": "d"},
            "a model of your own has no pipeline.config to take defaults from: set steps, "
            "batch.per_worker, schedule.rate, optimizer.kind, augmentation.preset",
        ),
        (
            TrainConfig,
            OWN | {"precision": "bfloat16"},
            "precision cannot be set for a model of your own, which decides that itself: leave it "
            "out",
        ),
        (
            TrainConfig,
            OWN | {"batch_norm.mode": "freeze"},
            "batch_norm.mode cannot be set for a model of your own, which decides that itself: "
            "leave it out",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    kind: type[Section], given: dict[str, Any], line: str
) -> None:
    """One message a mistake: what was got, what is wrong with it, what to do."""
    with pytest.raises(ConfigError) as caught:
        load_config(kind, None, given)
    assert str(caught.value) == f"the settings cannot be used:\n  {line}"


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (InferConfig, INFER | {"actors.min": 2, "actors.max": 2}),
        (InferConfig, INFER | {"output": "a-run"}),
        (InferConfig, INFER | {"input": "s3://b/a", "output": "s3://b/a.run"}),
        (InferConfig, INFER | {"reduced_decode": True, "draw.enabled": False}),
        (InferConfig, INFER | {"model.compiler": "tensorrt", "actors.gpus": 0.5}),
        (InferConfig, INFER | {"model.compiler": "xla"}),
        (TrainConfig, TRAIN | {"prune.begin": 0.8}),
        (TrainConfig, TRAIN | {"prune.sparsity": 0.5, "prune.begin": 0.7}),
        (TrainConfig, TRAIN | {"workers.count": 2, "workers.min": 2}),
        (TrainConfig, OWN),
    ],
)
def test_settings_that_go_together_pass(kind: type[Section], given: dict[str, Any]) -> None:
    """Limits themselves, and rules of what is switched off."""
    load_config(kind, None, given)


def _from_yaml(folder: Path) -> None:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({**TRAIN, "workers": {"count": 2, "min": 3}}))
    load_config(TrainConfig, path)


def _from_options(_: Path) -> None:
    load_config(TrainConfig, None, ["output=b", "pipeline=c", "workers.count=2", "workers.min=3"])


def _from_python(_: Path) -> None:
    api.train("d", "b", pipeline="c", workers={"count": 2, "min": 3})


def _from_sagemaker(_: Path) -> None:
    given = read_hyperparameters({"workers.count": "2", "workers.min": '"3"'})
    load_config(TrainConfig, None, {**TRAIN, **given.overrides})


def _from_a_section(_: Path) -> None:
    TrainConfig(output="b", pipeline="c", workers={"count": 2, "min": 3})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "origin", [_from_yaml, _from_options, _from_python, _from_sagemaker, _from_a_section]
)
def test_a_mistake_has_one_message_wherever_it_comes_from(
    origin: Callable[[Path], None], tmp_path: Path
) -> None:
    """YAML, command line, Python, hyperparameters of SageMaker, the section itself."""
    with pytest.raises(ConfigError) as caught:
        origin(tmp_path)
    lines = str(caught.value).splitlines()
    assert lines[0].endswith(" cannot be used:")
    assert lines[1].startswith("  workers: min is 3, above count 2: a training starts with count")
    assert len(lines) == 2


def test_rules_of_a_section_hold_outside_of_a_config() -> None:
    """`urbandet track` and whoever builds a pool take the section alone."""
    with pytest.raises(ConfigError, match=r"^this TrackConfig cannot be used:\n  score_low is"):
        TrackConfig(score_low=0.6)
    with pytest.raises(ConfigError, match=r"^this ActorConfig cannot be used:\n  min is 2, above"):
        ActorConfig(min=2, max=1)
