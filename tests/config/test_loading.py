"""Run configs: YAML, overrides, and errors that name the key."""

from pathlib import Path

import pytest

from urbandet_ray.config import (
    EvalConfig,
    InferConfig,
    TrackConfig,
    TrainConfig,
    VideoConfig,
    load_config,
)
from urbandet_ray.config.loading import split_override
from urbandet_ray.errors import ConfigError

GIVEN = {"input": "a", "output": "b"}


def test_defaults_need_only_input_and_output() -> None:
    """The rest has sensible values."""
    config = load_config(InferConfig, None, GIVEN)
    assert (config.model.uri, config.batch_size, config.draw.enabled) == ("shipped", None, True)


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    """File first, then the command line."""
    path = tmp_path / "run.yaml"
    path.write_text("input: a\noutput: b\nactors: {min: 1, max: 2}\n")
    config = load_config(InferConfig, path, ["actors.max=6", "draw.enabled=false"])
    assert (config.actors.min, config.actors.max, config.draw.enabled) == (1, 6, False)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ({"batchsize": 4}, "batchsize: unknown key; did you mean 'batch_size'"),
        ({"model.score_mn": 0.1}, r"model.score_mn: unknown key; did you mean 'score_min'"),
        ({"zzz": 1}, "zzz: unknown key; known here: input, output"),
        ({"batch_size": 0}, "batch_size: Input should be greater than or equal to 1, got 0"),
        ({"model.score_min": "high"}, "model.score_min: .*number.* got 'high'"),
        ({"input.x": 1}, "input.x: input is a value, not a section"),
        ({"tiles.row": 2}, "tiles.row: unknown key; did you mean 'rows'"),
        ({"tiles.rows": 0}, "tiles.rows: Input should be greater than or equal to 1, got 0"),
        ({"tiles.overlap": 0.9}, "tiles.overlap: Input should be less than 0.9, got 0.9"),
        ({"tiles.merge": "vote"}, "tiles.merge: Input should be 'nms' or 'fusion', got 'vote'"),
        ({"tiles.iou_max": 0}, "tiles.iou_max: Input should be greater than 0, got 0"),
        ({"track.enable": True}, "track.enable: unknown key; did you mean 'enabled'"),
        ({"track.match_iou": 0}, "track.match_iou: Input should be greater than 0, got 0"),
    ],
)
def test_mistakes_are_named(pairs: dict[str, object], message: str) -> None:
    """Which key, what is wrong, what was meant."""
    with pytest.raises(ConfigError, match=message):
        load_config(InferConfig, None, {**GIVEN, **pairs})


def test_a_missing_key_is_named() -> None:
    """Without a default there must be a value."""
    with pytest.raises(ConfigError, match="truth: is needed"):
        load_config(EvalConfig, None, ["run=x"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the config .*: No such file"),
        ("a: [", "is not YAML"),
        ("- a\n- b\n", "holds a list, expected keys and values"),
    ],
)
def test_unusable_files(tmp_path: Path, content: str | None, message: str) -> None:
    """Missing, broken, or not a mapping."""
    path = tmp_path / "run.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        load_config(VideoConfig, path)


def test_override_without_value_is_refused() -> None:
    """`actors` alone is a slip."""
    with pytest.raises(ConfigError, match="not of the form key=value"):
        split_override("actors")


def test_override_values_are_yaml() -> None:
    """Numbers, booleans and plain text, equals signs included."""
    assert split_override("a.b=0.5") == ("a.b", 0.5)
    assert split_override("x=s3://b/k=1") == ("x", "s3://b/k=1")
    assert split_override("x=") == ("x", None)


def test_tiles_and_tracks_are_off_until_asked_for() -> None:
    """And the run's rules for tracks are those of `urbandet track`."""
    config = load_config(InferConfig, None, GIVEN)
    assert not config.tiles.is_on
    assert not config.track.enabled
    assert config.track.rules == TrackConfig()
    assert load_config(InferConfig, None, {**GIVEN, "tiles.columns": 2}).tiles.is_on


def test_every_committed_run_config_loads() -> None:
    """configs/runs/*.yaml never go stale; each opens with its command."""
    kinds = {"infer": InferConfig, "eval": EvalConfig, "video": VideoConfig, "train": TrainConfig}
    folder = Path(__file__).parent.parent.parent / "configs" / "runs"
    paths = sorted(folder.glob("*.yaml"))
    assert len(paths) >= len(kinds)
    for path in paths:
        load_config(kinds[path.stem.split("-")[0]], path)
        assert path.read_text().startswith("# ray job submit")
