"""The account's side of SageMaker, by boto3: create, describe, stop, and the logs.

SageMaker's own SDK (3.27: ModelTrainer) makes the same calls for what is a request of ours
(request.py). It brings 150 packages and more than a gigabyte along, and asks IAM to simulate the
role's rights first, which few users may and which no imitation of AWS answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from urbandet_ray.errors import AccessError, NotFoundError, RunError, StorageError
from urbandet_ray.launch.sagemaker.hyperparameters import read_value
from urbandet_ray.storage import is_remote
from urbandet_ray.storage.s3_errors import BAD_CREDENTIALS

ENDED = ("Completed", "Failed", "Stopped")

_DENIED = ("AccessDenied", "NotAuthorized")
_TAKEN = ("ResourceInUse",)
_NOT_THERE = re.compile(r"Could not find|does not exist|not found|NotFound", re.I)


def client(service: str, region: str | None = None) -> Any:
    """A boto3 client with AWS's default credentials; region None is the environment's or profile's.

    Raises:
        RunError: there is no region.
        AccessError: the profile is not there, or cannot be used.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, NoRegionError

    config = Config(
        retries={"mode": "standard", "total_max_attempts": 4}, user_agent_extra="urbandet-ray"
    )
    try:
        session: Any = boto3.session.Session(region_name=region)  # stubs know services by literals
        return session.client(service, config=config)
    except NoRegionError:
        raise RunError("no AWS region: give --region, or set AWS_DEFAULT_REGION") from None
    except BotoCoreError as error:
        raise AccessError(f"no usable AWS credentials for {service}: {error}") from None


@contextmanager
def translated(action: str) -> Iterator[None]:
    """Turn what boto3 raises into this package's errors.

    Raises:
        AccessError: the credentials do not allow the IAM action or another one that it needs,
            are not accepted, or there are none.
        NotFoundError: AWS does not know the thing.
        StorageError: AWS cannot be reached, or refuses for another reason.
    """
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except NoCredentialsError:
        raise AccessError(
            f"no AWS credentials for {action}: set AWS_PROFILE, or sign in (aws sso login)"
        ) from None
    except ClientError as error:
        said = error.response.get("Error", {})
        code, message = str(said.get("Code", "")), str(said.get("Message", "")).strip()
        if code in BAD_CREDENTIALS:
            raise AccessError(f"{action}: {BAD_CREDENTIALS[code]} ({code})") from None
        if code.startswith(_DENIED):  # of a right that the action needs beside itself, perhaps
            raise AccessError(
                f"AWS refuses {action} ({code}): give your user or role that permission, or the "
                f"one that AWS names: {message or 'it names none'}"
            ) from None
        if code.startswith(_TAKEN):
            raise RunError(f"{message or code}: give another --name") from None
        if _NOT_THERE.search(code) or _NOT_THERE.search(message):
            raise NotFoundError(f"{action}: {message or code}") from None
        raise StorageError(
            f"AWS refuses {action} ({code}): {message or 'no reason given'}"
        ) from None
    except BotoCoreError as error:
        raise StorageError(f"{action} did not come through: {error}") from None


@dataclass(frozen=True)
class JobStatus:
    """A training job as SageMaker describes it.

    Attributes:
        name, status, detail: SageMaker's words: "InProgress", "Training".
        reason: why it failed.
        metrics: last values by name.
        artifact: s3:// place of model.tar.gz; "" until the job is completed.
        training_s, billable_s: seconds; None until they are known.
        spot: of spot instances.
        checkpoints, tensorboard: s3:// prefixes.
        run: s3:// place of the run folder, where the run config names one; then no checkpoints
            are at `checkpoints`.
    """

    name: str
    status: str
    detail: str
    reason: str
    metrics: dict[str, float]
    artifact: str
    training_s: int | None
    billable_s: int | None
    spot: bool
    checkpoints: str
    tensorboard: str
    run: str = ""

    log_group = "/aws/sagemaker/TrainingJobs"

    @property
    def has_ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.status in ENDED

    def to_text(self) -> str:
        """A few lines for a person."""
        lines = [f"{self.name}: {self.status} ({self.detail})"]
        lines += [f"why: {self.reason}"] if self.reason else []
        lines += [f"{name} {value:g}" for name, value in sorted(self.metrics.items())]
        if self.training_s is not None and self.billable_s is not None:
            line = f"trained {self.training_s} s, billed {self.billable_s} s for each instance"
            if self.spot and self.training_s:
                line += f": spot saved {1 - self.billable_s / self.training_s:.0%}"
            lines.append(line)
        kept = {"run folder": self.run} if self.run else {"checkpoints": self.checkpoints}
        places = {**kept, "tensorboard": self.tensorboard, "artifact": self.artifact}
        lines += [f"{what} {uri}" for what, uri in places.items() if uri]
        if self.status == "Completed":
            lines.append(f"fetch it: urbandet sagemaker fetch {self.name}")
        elif self.status in ("Failed", "Stopped"):
            how = "" if self.run else " with --checkpoints of this job"
            lines.append(f"the same command{how} resumes (under another --name)")
        return "\n".join(lines)


def create_training_job(request: dict[str, Any], region: str | None) -> str:
    """Start a job; its ARN."""
    with translated("sagemaker:CreateTrainingJob"):
        return str(client("sagemaker", region).create_training_job(**request)["TrainingJobArn"])


def describe_training_job(name: str, region: str | None) -> JobStatus:
    """How a job is.

    Raises:
        NotFoundError: there is none of this name in the region.
    """
    with translated("sagemaker:DescribeTrainingJob"):
        told = client("sagemaker", region).describe_training_job(TrainingJobName=name)
    ended = told["TrainingJobStatus"] == "Completed"
    artifact = told.get("ModelArtifacts", {}).get("S3ModelArtifacts", "") if ended else ""
    metrics = told.get("FinalMetricDataList") or []
    given = told.get("HyperParameters", {})
    named = [str(read_value(given[key])) for key in ("output", "model_dir") if key in given]
    return JobStatus(
        name=name,
        status=told["TrainingJobStatus"],
        detail=told.get("SecondaryStatus", ""),
        reason=told.get("FailureReason", ""),
        metrics={one["MetricName"]: float(one["Value"]) for one in metrics},
        artifact=artifact,
        training_s=told.get("TrainingTimeInSeconds"),
        billable_s=told.get("BillableTimeInSeconds"),
        spot=bool(told.get("EnableManagedSpotTraining")),
        checkpoints=told.get("CheckpointConfig", {}).get("S3Uri", ""),
        tensorboard=told.get("TensorBoardOutputConfig", {}).get("S3OutputPath", ""),
        run=next((uri for uri in named if is_remote(uri)), ""),
    )


def stop_training_job(name: str, region: str | None) -> None:
    """Ask SageMaker to stop a job: its hosts get SIGTERM, and two minutes."""
    with translated("sagemaker:StopTrainingJob"):
        client("sagemaker", region).stop_training_job(TrainingJobName=name)


def log_lines(name: str, group: str, region: str | None, seen: dict[str, str]) -> Iterator[str]:
    """Lines of a job's hosts that were not given yet, each with its host and time.

    Args:
        group: CloudWatch's log group.
        seen: CloudWatch's place in each stream; is brought up to date.
    """
    logs = client("logs", region)
    try:
        with translated("logs:DescribeLogStreams"):
            pages = logs.get_paginator("describe_log_streams").paginate(
                logGroupName=group, logStreamNamePrefix=f"{name}/"
            )
            streams = [one["logStreamName"] for page in pages for one in page["logStreams"]]
    except NotFoundError:
        return  # no job of this account has logged yet
    events = [event for stream in streams for event in _new_events(logs, name, group, stream, seen)]
    for _, line in sorted(events, key=lambda event: event[0]):
        yield line


def _new_events(
    logs: Any, name: str, group: str, stream: str, seen: dict[str, str]
) -> Iterator[tuple[int, str]]:
    host = stream.removeprefix(f"{name}/").rpartition("-")[0] or stream
    while True:
        at = {"nextToken": seen[stream]} if stream in seen else {}
        with translated("logs:GetLogEvents"):
            told = logs.get_log_events(
                logGroupName=group, logStreamName=stream, startFromHead=True, **at
            )
        for event in told["events"]:
            when = datetime.fromtimestamp(event["timestamp"] / 1000, UTC).strftime("%H:%M:%S")
            yield event["timestamp"], f"{host} {when} {event['message'].rstrip()}"
        if told["nextForwardToken"] == seen.get(stream):
            return
        seen[stream] = told["nextForwardToken"]
