"""What SageMaker is asked for: plain values in, the API's own requests out. Nothing is sent here.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from urbandet_ray.config.training_config import TrainConfig
from urbandet_ray.errors import ConfigError
from urbandet_ray.launch.sagemaker.container import DEFAULT_ROOT
from urbandet_ray.launch.sagemaker.hyperparameters import OPTIMIZED
from urbandet_ray.launch.secrets import flat, refuse_secrets
from urbandet_ray.storage import is_remote

METRICS: dict[str, str] = {
    "train:loss": r"step \d+ of \d+, loss ([0-9.]+),",
    "train:learning_rate": r", rate ([0-9.e+-]+), ",
    "train:images_per_s": r", ([0-9.]+) images/s,",
    "train:input_wait_percent": r", ([0-9]+)% waiting for input",
    "validation:mAP": r"step \d+: mAP ([0-9.]+), AP50",
    "validation:AP50": r"step \d+: mAP [0-9.]+, AP50 ([0-9.]+) ",
}
"""Metric definitions: they read the lines that commands/display.py prints."""

_MOST_HYPERPARAMETERS, _MOST_CHARACTERS = 100, 2500
_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
_HOUR_S = 3600


@dataclass(frozen=True)
class Machines:
    """What a job runs on.

    Attributes:
        instance: "ml.g5.xlarge".
        count: instances.
        volume_gb: disk of each, for channels and checkpoints.
        hours: it is ended after so long.
        spot_wait_hours: of spot instances, in all, waiting included; None is on demand.
        subnets, security_groups: of a VPC; without them AWS's own network is used.
    """

    instance: str
    count: int = 1
    volume_gb: int = 50
    hours: float = 24.0
    spot_wait_hours: float | None = None
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.instance.startswith("ml."):
            raise ConfigError(f"instance is {self.instance}, expected ml.*, as in ml.g5.xlarge")
        if self.count < 1 or self.volume_gb < 1 or self.hours <= 0:
            raise ConfigError("count, volume and hours have to be above 0")
        if self.spot_wait_hours is not None and self.spot_wait_hours < self.hours:
            raise ConfigError(
                f"a spot job waits {self.spot_wait_hours:g} hours in all, which is less than the "
                f"{self.hours:g} hours that it may train: raise --max-wait or lower --hours"
            )
        if bool(self.subnets) != bool(self.security_groups):
            raise ConfigError("a VPC needs both --subnet and --security-group")


@dataclass(frozen=True)
class TrainingJob:
    """One training job, resolved.

    Attributes:
        name: unique in the account and region.
        image, role: URI in ECR, and ARN.
        out: s3:// prefix; everything goes below it.
        channels: s3:// prefixes by channel name.
        checkpoints: s3:// prefix, kept by a spot restart or another job that goes on; None is
            below `out`, by the job's name.
        hyperparameters: texts by name.
    """

    name: str
    image: str
    role: str
    out: str
    channels: Mapping[str, str]
    hyperparameters: Mapping[str, str]
    machines: Machines
    checkpoints: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name(self.name)
        if not self.role.startswith("arn:"):
            raise ConfigError(f"role is {self.role!r}, expected arn:aws:iam::ACCOUNT:role/NAME")
        places = {"out": self.out, "checkpoints": self.checkpoints or self.out, **self.channels}
        for what, uri in places.items():
            if not is_remote(uri):
                raise ConfigError(
                    f"{what} is {uri}, which SageMaker does not see: copy it to S3 "
                    f"(aws s3 sync {uri} s3://BUCKET/PREFIX) and give that"
                )
        refuse_secrets([f"{name}={one}" for name, one in self.hyperparameters.items()], os.environ)

    def to_request(self) -> dict[str, Any]:
        """CreateTrainingJob."""
        folder = self.out.rstrip("/")
        machines = self.machines
        stop = {"MaxRuntimeInSeconds": round(machines.hours * _HOUR_S)}
        if machines.spot_wait_hours is not None:
            stop["MaxWaitTimeInSeconds"] = round(machines.spot_wait_hours * _HOUR_S)
        metrics = [{"Name": name, "Regex": regex} for name, regex in METRICS.items()]
        request: dict[str, Any] = {
            "TrainingJobName": self.name,
            "AlgorithmSpecification": {
                "TrainingImage": self.image,
                "TrainingInputMode": "File",
                "MetricDefinitions": metrics,
            },
            "RoleArn": self.role,
            "HyperParameters": dict(self.hyperparameters),
            "InputDataConfig": [_channel(*one) for one in self.channels.items()],
            "OutputDataConfig": {"S3OutputPath": folder},
            "ResourceConfig": {
                "InstanceType": machines.instance,
                "InstanceCount": machines.count,
                "VolumeSizeInGB": machines.volume_gb,
            },
            "StoppingCondition": stop,
            "EnableManagedSpotTraining": machines.spot_wait_hours is not None,
            "CheckpointConfig": {
                "S3Uri": self.checkpoints or f"{folder}/{self.name}/checkpoints",
                "LocalPath": f"{DEFAULT_ROOT}/checkpoints",
            },
            "TensorBoardOutputConfig": {
                "S3OutputPath": f"{folder}/{self.name}/tensorboard",
                "LocalPath": f"{DEFAULT_ROOT}/output/tensorboard",
            },
            "RetryStrategy": {"MaximumRetryAttempts": 2},
            "Tags": tag_list(self.tags),
        }
        if machines.subnets:
            request["VpcConfig"] = vpc(machines)
        return request


def hyperparameters_of(config: TrainConfig, optimized: str | None) -> dict[str, str]:
    """A run config as hyperparameters: what differs from the defaults, by dotted key.

    Where the job finds it by itself is left out: a local run folder, the data.

    Raises:
        ConfigError: it does not go into SageMaker's limits.
    """
    given = dict(flat(config.model_dump(mode="json", exclude_unset=True)))
    if not is_remote(str(given.get("output", ""))):
        given.pop("output", None)
    given.pop("data", None)
    texts = {name: one if isinstance(one, str) else json.dumps(one) for name, one in given.items()}
    texts = {name: one or '""' for name, one in texts.items()}  # SageMaker drops empty ones
    if optimized is not None:
        texts[OPTIMIZED] = optimized
    if len(texts) > _MOST_HYPERPARAMETERS:
        raise ConfigError(
            f"{len(texts)} settings, and SageMaker takes {_MOST_HYPERPARAMETERS} hyperparameters"
        )
    for name, text in texts.items():
        if len(text) > _MOST_CHARACTERS:
            raise ConfigError(f"{name} has {len(text)} characters, SageMaker takes 2,500")
    return texts


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """As the API wants them, with ours first."""
    return [{"Key": key, "Value": one} for key, one in {"project": "urbandet-ray", **tags}.items()]


def vpc(machines: Machines) -> dict[str, list[str]]:
    """VpcConfig."""
    return {
        "Subnets": list(machines.subnets),
        "SecurityGroupIds": list(machines.security_groups),
    }


def check_name(name: str) -> None:
    """Refuse a name that SageMaker would."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"the name is {name!r}: SageMaker takes letters, digits and dashes between them, "
            "63 at most"
        )


def _channel(name: str, uri: str) -> dict[str, Any]:
    return {
        "ChannelName": name,
        "DataSource": {
            "S3DataSource": {
                "S3DataType": "S3Prefix",
                "S3Uri": folder_uri(uri),
                "S3DataDistributionType": "FullyReplicated",  # each worker reads its own share
            }
        },
        "InputMode": "File",
    }


def folder_uri(uri: str) -> str:
    """With a slash at its end: an S3Prefix without one also takes in `waymo-old` beside `waymo`."""
    return f"{uri.rstrip('/')}/"
