"""What SageMaker lays below /opt/ml for a container, and where it looks for what comes out.

    input/config/resourceconfig.json      hosts, this one's name, the network between them
    input/config/hyperparameters.json     {name: text}
    input/config/inputdataconfig.json     {channel: ...}
    input/data/CHANNEL/                   what the channels brought
    checkpoints/                          copied to S3 while the job runs, and back when it restarts
    output/failure                        why the job failed: its first 1,024 characters are shown
    output/tensorboard/                   copied to S3 for TensorBoard
    model/                                becomes model.tar.gz

https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo.html
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from urbandet_ray.errors import ConfigError

DEFAULT_ROOT = "/opt/ml"
ROOT_VARIABLE = "SAGEMAKER_BASE_DIR"
FAILURE_CHARACTERS = 1024
"""What SageMaker shows of output/failure."""

_NO_NAME = "algo-1"
"""What SageMaker calls the first host of a job."""


@dataclass(frozen=True)
class Container:
    """One host of a job, as SageMaker describes it.

    Attributes:
        root: /opt/ml.
        hosts: names of all hosts of the job; the first is the head.
        current_host: this host's.
        network_interface: what the hosts reach each other by, such as "eth0"; "" where unknown.
        hyperparameters: texts by name, as they were given.
        channels: folder of each input channel by name.
        cpus, gpus: of this host; None where Ray shall count them.
    """

    root: Path
    hosts: tuple[str, ...]
    current_host: str
    network_interface: str
    hyperparameters: Mapping[str, str]
    channels: Mapping[str, Path]
    cpus: int | None = None
    gpus: int | None = None

    @property
    def head(self) -> str:
        """The host that the job runs on."""
        return self.hosts[0]

    @property
    def is_head(self) -> bool:
        """Whether this host is the head."""
        return self.current_host == self.head

    @property
    def checkpoints(self) -> Path:
        """Copied to S3 while the job runs."""
        return self.root / "checkpoints"

    @property
    def model(self) -> Path:
        """Becomes model.tar.gz."""
        return self.root / "model"

    @property
    def tensorboard(self) -> Path:
        """Where TensorBoardOutputConfig looks unless it is told otherwise."""
        return self.root / "output" / "tensorboard"

    @property
    def own(self) -> Path:
        """This package's own folder: the run folder's link, the view of the data."""
        return self.root / "urbandet"


def root_of(env: Mapping[str, str]) -> Path:
    """/opt/ml, or what SAGEMAKER_BASE_DIR names instead."""
    return Path(env.get(ROOT_VARIABLE) or DEFAULT_ROOT).absolute()


def failure_file(root: Path) -> Path:
    """Where SageMaker looks for why a job failed."""
    return root / "output" / "failure"


def fail(root: Path, reason: str) -> None:
    """Say why the job failed, where SageMaker shows it."""
    text = reason
    if len(reason) > FAILURE_CHARACTERS:
        text = reason[: FAILURE_CHARACTERS - 1] + "…"
    failure_file(root).parent.mkdir(parents=True, exist_ok=True)
    failure_file(root).write_text(text, "utf-8")


def read_container(env: Mapping[str, str] | None = None) -> Container:
    """Read SageMaker's files; what they do not say comes from the SM_* variables.

    Args:
        env: the environment; None is the process's. SAGEMAKER_BASE_DIR names another root.

    Raises:
        ConfigError: a file is not JSON, or this host is not one of the job's.
    """
    env = os.environ if env is None else env
    root = root_of(env)
    config = root / "input" / "config"
    resources = _read_json(config / "resourceconfig.json")
    hosts = resources.get("hosts") or _json_variable(env, "SM_HOSTS") or [_NO_NAME]
    current = resources.get("current_host") or env.get("SM_CURRENT_HOST") or hosts[0]
    if current not in hosts:
        raise ConfigError(
            f"{config / 'resourceconfig.json'}: current_host is {current!r}, which is not one of "
            f"the hosts {', '.join(hosts)}"
        )
    interface = resources.get("network_interface_name") or env.get("SM_NETWORK_INTERFACE_NAME")
    given = _read_json(config / "hyperparameters.json") or _json_variable(env, "SM_HPS") or {}
    return Container(
        root=root,
        hosts=tuple(str(host) for host in hosts),
        current_host=str(current),
        network_interface=str(interface or ""),
        hyperparameters={str(name): _text(value) for name, value in given.items()},
        channels=_channels(root / "input" / "data", config, env),
        cpus=_count(env, "SM_NUM_CPUS"),
        gpus=_count(env, "SM_NUM_GPUS"),
    )


def _channels(data: Path, config: Path, env: Mapping[str, str]) -> dict[str, Path]:
    """Those of inputdataconfig.json and SM_CHANNEL_*, and every folder that is there."""
    names = set(_read_json(config / "inputdataconfig.json"))
    if data.is_dir():
        names |= {folder.name for folder in data.iterdir() if folder.is_dir()}
    found = {name: data / name for name in sorted(names)}
    known = {_variable(name) for name in found}
    for key, value in env.items():
        if key.startswith("SM_CHANNEL_") and key.removeprefix("SM_CHANNEL_") not in known:
            found[key.removeprefix("SM_CHANNEL_").lower()] = Path(value)
    return found


def _variable(channel: str) -> str:
    return channel.upper().replace("-", "_")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path} holds a {type(found).__name__}, expected an object")
    return found


def _json_variable(env: Mapping[str, str], name: str) -> Any:
    text = env.get(name)
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError:
        raise ConfigError(f"{name} is {text!r}, expected JSON") from None


def _count(env: Mapping[str, str], name: str) -> int | None:
    text = env.get(name, "")
    if not text:
        return None
    if not text.isdecimal():
        raise ConfigError(f"{name} is {text!r}, expected a number")
    return int(text)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
