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

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
ENDED = ("Completed", "Failed", "Stopped")

_DENIED = (
    "AccessDenied",
    "UnrecognizedClient",
    "InvalidClientToken",
    "ExpiredToken",
    "NotAuthorized",
)
_TAKEN = ("ResourceInUse",)
_NOT_THERE = re.compile(r"Could not find|does not exist|not found|NotFound", re.I)


def client(service: str, region: str | None = None) -> Any:
    """A boto3 client with AWS's default credentials; region None is the environment's or profile's.

    Raises:
        RunError: there is no region.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import NoRegionError

    config = Config(
        retries={"mode": "standard", "total_max_attempts": 4}, user_agent_extra="urbandet-ray"
    )
    try:
        session: Any = boto3.session.Session(region_name=region)  # stubs know services by literals
        return session.client(service, config=config)
    except NoRegionError:
        raise RunError("no AWS region: give --region, or set AWS_DEFAULT_REGION") from None


@contextmanager
def translated(action: str) -> Iterator[None]:
    """Turn what boto3 raises into this package's errors.

    Raises:
        AccessError: the credentials do not allow the IAM action, or there are none.
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
        if code.startswith(_DENIED):
            raise AccessError(
                f"AWS refuses {action} ({code}): give your user or role that permission"
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
        for what in ("checkpoints", "tensorboard", "artifact"):
            if uri := getattr(self, what):
                lines.append(f"{what} {uri}")
        if self.status == "Completed":
            lines.append(f"fetch it: urbandet sagemaker fetch {self.name}")
        elif self.status in ("Failed", "Stopped"):
            lines.append("the same command with --checkpoints of this job goes on from there")
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
    )


def stop_training_job(name: str, region: str | None) -> None:
    """Ask SageMaker to stop a job: its hosts get SIGTERM, and two minutes."""
    with translated("sagemaker:StopTrainingJob"):
        client("sagemaker", region).stop_training_job(TrainingJobName=name)


def log_lines(name: str, region: str | None, seen: dict[str, str]) -> Iterator[str]:
    """Lines of a job's hosts that were not given yet, each with its host and time.

    Args:
        seen: CloudWatch's place in each stream; is brought up to date.
    """
    logs = client("logs", region)
    try:
        with translated("logs:DescribeLogStreams"):
            pages = logs.get_paginator("describe_log_streams").paginate(
                logGroupName=LOG_GROUP, logStreamNamePrefix=f"{name}/"
            )
            streams = [one["logStreamName"] for page in pages for one in page["logStreams"]]
    except NotFoundError:
        return  # no job of this account has logged yet
    events = [event for stream in streams for event in _new_events(logs, name, stream, seen)]
    for _, line in sorted(events, key=lambda event: event[0]):
        yield line


def _new_events(
    logs: Any, name: str, stream: str, seen: dict[str, str]
) -> Iterator[tuple[int, str]]:
    host = stream.removeprefix(f"{name}/").rpartition("-")[0] or stream
    while True:
        at = {"nextToken": seen[stream]} if stream in seen else {}
        with translated("logs:GetLogEvents"):
            told = logs.get_log_events(
                logGroupName=LOG_GROUP, logStreamName=stream, startFromHead=True, **at
            )
        for event in told["events"]:
            when = datetime.fromtimestamp(event["timestamp"] / 1000, UTC).strftime("%H:%M:%S")
            yield event["timestamp"], f"{host} {when} {event['message'].rstrip()}"
        if told["nextForwardToken"] == seen.get(stream):
            return
        seen[stream] = told["nextForwardToken"]
