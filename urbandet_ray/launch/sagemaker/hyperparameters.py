"""A job's hyperparameters as a run config: ours are its dotted keys, the course's are understood.

SageMaker passes texts, which its SDK may have quoted as JSON. Each is read as YAML:

    steps = "2000"    batch.per_worker = "8"    freeze = '["FeatureExtractor"]'    data = s3://b/waymo
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import BaseModel

from urbandet_ray.config.training_config import TrainConfig
from urbandet_ray.errors import ConfigError

COURSE_NAMES = (
    "model_dir",
    "pipeline_config_path",
    "num_train_steps",
    "sample_1_of_n_eval_examples",
)
"""Flags of the OD API's model_main_tf2.py, as the course's notebook gives them."""
OPTIMIZED = "optimized"
"""Networks to put beside the stock export: formats of `urbandet export`, comma-separated."""
OPTIMIZED_FORMATS = ("savedmodel", "openvino", "onnx", "tflite")

_SDK_PREFIX = "sagemaker_"  # what SageMaker's SDK adds for itself
SUBMITTED = "sagemaker_submit_directory"


@dataclass(frozen=True)
class Settings:
    """What a job's hyperparameters say.

    Attributes:
        overrides: values by dotted key of the run config.
        optimized: formats of the networks beside the stock export.
        tensorboard: a further folder for TensorBoard's events (the course's model_dir); None
            where there is none.
        eval_one_of: judge by one of so many validation frames.
        submitted: tar archive of the notebook's source_dir; a relative pipeline lies in it.
    """

    overrides: Mapping[str, Any]
    optimized: tuple[str, ...] = ("savedmodel",)
    tensorboard: str | None = None
    eval_one_of: int = 1
    submitted: str | None = None


def read_hyperparameters(given: Mapping[str, str]) -> Settings:
    """Turn hyperparameters into settings.

    Raises:
        ConfigError: a name is unknown (the nearest known one is named), a value is not of its
            kind, or one thing is said twice.
    """
    known = {*config_keys(TrainConfig), *COURSE_NAMES, OPTIMIZED}
    unknown = [name for name in given if name not in known and not name.startswith(_SDK_PREFIX)]
    if unknown:
        raise ConfigError("\n".join(_not_known(name, known) for name in sorted(unknown)))
    values = {name: read_value(text) for name, text in given.items()}
    course = {name: values.pop(name) for name in COURSE_NAMES if name in values}
    submitted = values.pop(SUBMITTED, None)
    optimized = _formats(values.pop(OPTIMIZED, "savedmodel"))
    overrides = {name: one for name, one in values.items() if not name.startswith(_SDK_PREFIX)}
    tensorboard = None
    if "model_dir" in course:
        place = str(course["model_dir"])
        if place.startswith("s3://"):
            _put(overrides, "output", place, "model_dir")
        else:
            tensorboard = place
    if "pipeline_config_path" in course:
        _put(overrides, "pipeline", str(course["pipeline_config_path"]), "pipeline_config_path")
    if "num_train_steps" in course:
        steps = _positive(course["num_train_steps"], "num_train_steps")
        _put(overrides, "steps", steps, "num_train_steps")
    one_of = _positive(course.get("sample_1_of_n_eval_examples", 1), "sample_1_of_n_eval_examples")
    return Settings(overrides, optimized, tensorboard, one_of, submitted)


def read_value(text: str) -> Any:
    """A hyperparameter's value: YAML, unwrapped once more where it was quoted as JSON."""
    value = _yaml(text)
    quoted = text.strip().startswith('"') and isinstance(value, str)
    return _yaml(value) if quoted and value else value


def config_keys(kind: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """All dotted keys of a config, sections included."""
    for name, info in kind.model_fields.items():
        yield f"{prefix}{name}"
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from config_keys(info.annotation, f"{prefix}{name}.")


def _yaml(text: str) -> Any:
    try:
        return yaml.safe_load(text) if text else ""
    except yaml.YAMLError:
        return text


def _not_known(name: str, known: set[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.4)
    if not near:  # a key without its section
        near = [key for key in sorted(known) if key.rpartition(".")[2] == name]
    hint = f"did you mean {near[0]!r}?" if near else "see urbandet_ray/config/training_config.py"
    return f"hyperparameter {name!r} is unknown; {hint}"


def _put(overrides: dict[str, Any], key: str, value: Any, course_name: str) -> None:
    if overrides.get(key, value) != value:
        raise ConfigError(
            f"hyperparameters {course_name} ({value!r}) and {key} ({overrides[key]!r}) say "
            "different things: give one of them"
        )
    overrides[key] = value


def _positive(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"hyperparameter {name} is {value!r}, expected a number from 1")
    return value


def _formats(value: Any) -> tuple[str, ...]:
    names = [
        str(one).strip() for one in (value if isinstance(value, list) else str(value).split(","))
    ]
    wanted = tuple(name for name in names if name and name not in ("none", "None"))
    for name in wanted:
        if name not in OPTIMIZED_FORMATS:
            near = difflib.get_close_matches(name, OPTIMIZED_FORMATS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"hyperparameter {OPTIMIZED} names {name!r}: give none, or some of "
                f"{', '.join(OPTIMIZED_FORMATS)}{hint}"
            )
    return wanted
