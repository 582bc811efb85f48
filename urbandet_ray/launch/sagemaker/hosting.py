"""Endpoints and processing jobs: what SageMaker is asked for beside training."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from urbandet_ray.errors import ConfigError, NotFoundError
from urbandet_ray.launch.sagemaker.account import ENDED, client, translated
from urbandet_ray.launch.sagemaker.request import Machines, check_name, folder_uri, tag_list, vpc
from urbandet_ray.storage import is_remote

PROCESSING_ROOT = "/opt/ml/processing"

_FILE = re.compile(
    r"\.(tfrec\w*|records?|gz|tflite|mp4|mov|avi|mkv|webm|jpe?g|png)(-\d+-of-\d+)?$", re.I
)


@dataclass(frozen=True)
class Endpoint:
    """A model behind an address of AWS's.

    Attributes:
        name: of the endpoint, its config and its model.
        artifact: s3:// place of a model.tar.gz.
        score_min, most: what it answers with: boxes from this score on, best first.
    """

    name: str
    image: str
    role: str
    artifact: str
    machines: Machines
    score_min: float = 0.3
    most: int = 100
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name(self.name)
        if not (is_remote(self.artifact) and self.artifact.endswith(".tar.gz")):
            raise ConfigError(
                f"the model is {self.artifact}, expected s3://.../model.tar.gz, as `urbandet "
                "sagemaker status JOB` names it"
            )

    def to_requests(self) -> dict[str, dict[str, Any]]:
        """CreateModel, CreateEndpointConfig and CreateEndpoint, by boto3's names."""
        tags = tag_list(self.tags)
        model: dict[str, Any] = {
            "ModelName": self.name,
            "ExecutionRoleArn": self.role,
            "PrimaryContainer": {
                "Image": self.image,
                "ModelDataUrl": self.artifact,
                "Environment": {
                    "URBANDET_SCORE_MIN": str(self.score_min),
                    "URBANDET_MAX_DETECTIONS": str(self.most),
                },
            },
            "Tags": tags,
        }
        if self.machines.subnets:
            model["VpcConfig"] = vpc(self.machines)
        variant = {
            "VariantName": "main",
            "ModelName": self.name,
            "InstanceType": self.machines.instance,
            "InitialInstanceCount": self.machines.count,
            "InitialVariantWeight": 1.0,
        }
        return {
            "create_model": model,
            "create_endpoint_config": {
                "EndpointConfigName": self.name,
                "ProductionVariants": [variant],
                "Tags": tags,
            },
            "create_endpoint": {
                "EndpointName": self.name,
                "EndpointConfigName": self.name,
                "Tags": tags,
            },
        }


@dataclass(frozen=True)
class ProcessingJob:
    """Batch inference over records in S3, with the pipeline of `urbandet infer`.

    Attributes:
        records: s3:// prefix or file.
        out: s3:// prefix of the run folder.
        artifact: s3:// place of a model.tar.gz, or the model's own s3:// place; None is the
            shipped detector.
        settings: `key=value` overrides of the run config.
    """

    name: str
    image: str
    role: str
    records: str
    out: str
    machines: Machines
    artifact: str | None = None
    settings: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name(self.name)
        for what, uri in (("records", self.records), ("out", self.out)):
            if not is_remote(uri):
                raise ConfigError(f"{what} is {uri}, expected s3://BUCKET/PREFIX")
        if self.machines.count != 1:
            raise ConfigError("a processing job runs on one instance: more of them form no cluster")

    def to_request(self) -> dict[str, Any]:
        """CreateProcessingJob."""
        inputs = {"records": self.records, "model": self.artifact}
        program: dict[str, Any] = {
            "ImageUri": self.image,
            "ContainerEntrypoint": ["python", "-m", "urbandet_ray.entrypoints.sagemaker_batch"],
        }
        if self.settings:  # an empty list is refused
            program["ContainerArguments"] = list(self.settings)
        request: dict[str, Any] = {
            "ProcessingJobName": self.name,
            "RoleArn": self.role,
            "AppSpecification": program,
            "ProcessingInputs": [
                _processing_input(name, uri) for name, uri in inputs.items() if uri
            ],
            "ProcessingOutputConfig": {
                "Outputs": [
                    {
                        "OutputName": "run",
                        "S3Output": {
                            "S3Uri": self.out,
                            "LocalPath": f"{PROCESSING_ROOT}/output",
                            "S3UploadMode": "EndOfJob",
                        },
                    }
                ]
            },
            "ProcessingResources": {
                "ClusterConfig": {
                    "InstanceCount": 1,
                    "InstanceType": self.machines.instance,
                    "VolumeSizeInGB": self.machines.volume_gb,
                }
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": round(self.machines.hours * 3600)},
            "Tags": tag_list(self.tags),
        }
        if self.machines.subnets:
            request["NetworkConfig"] = {"VpcConfig": vpc(self.machines)}
        return request


@dataclass(frozen=True)
class BatchStatus:
    """A processing job as SageMaker describes it.

    Attributes:
        name, status: SageMaker's words: "InProgress".
        reason: why it failed.
        out: s3:// prefix of the run folder.
    """

    name: str
    status: str
    reason: str
    out: str

    log_group = "/aws/sagemaker/ProcessingJobs"

    @property
    def has_ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.status in ENDED

    def to_text(self) -> str:
        """A few lines for a person."""
        lines = [f"{self.name}: {self.status} (processing job)"]
        lines += [f"why: {self.reason}"] if self.reason else []
        lines += [f"run folder {self.out}"] if self.status == "Completed" else []
        return "\n".join(lines)


def create_endpoint(endpoint: Endpoint, region: str | None) -> None:
    """Create model, config and endpoint; what was made is deleted again where the next one fails.

    Raises:
        UrbandetError: AWS refuses one of them.
    """
    sagemaker = client("sagemaker", region)
    requests = endpoint.to_requests()
    try:
        for call, request in requests.items():
            with translated(_action(call)):
                getattr(sagemaker, call)(**request)
    except Exception:
        delete_endpoint(endpoint.name, region, only=list(requests)[: list(requests).index(call)])
        raise


def delete_endpoint(name: str, region: str | None, only: list[str] | None = None) -> list[str]:
    """Delete endpoint, config and model of a name; what was there. An endpoint costs until then.

    Args:
        only: the create calls whose things are deleted; None is all.
    """
    sagemaker = client("sagemaker", region)
    gone = []
    for thing in ("endpoint", "endpoint_config", "model"):
        if only is not None and f"create_{thing}" not in only:
            continue
        key = f"{thing.title().replace('_', '')}Name"
        with contextlib.suppress(NotFoundError), translated(_action(f"delete_{thing}")):
            getattr(sagemaker, f"delete_{thing}")(**{key: name})
            gone.append(thing.replace("_", " "))
    return gone


def create_processing_job(job: ProcessingJob, region: str | None) -> str:
    """Start a job; its ARN."""
    with translated("sagemaker:CreateProcessingJob"):
        told = client("sagemaker", region).create_processing_job(**job.to_request())
    return str(told["ProcessingJobArn"])


def describe_processing_job(name: str, region: str | None) -> BatchStatus:
    """How a processing job is.

    Raises:
        NotFoundError: there is none of this name in the region.
    """
    with translated("sagemaker:DescribeProcessingJob"):
        told = client("sagemaker", region).describe_processing_job(ProcessingJobName=name)
    outputs = told.get("ProcessingOutputConfig", {}).get("Outputs") or [{}]
    return BatchStatus(
        name=name,
        status=told["ProcessingJobStatus"],
        reason=told.get("ExitMessage") or told.get("FailureReason", ""),
        out=outputs[0].get("S3Output", {}).get("S3Uri", ""),
    )


def stop_processing_job(name: str, region: str | None) -> None:
    """Ask SageMaker to stop a job."""
    with translated("sagemaker:StopProcessingJob"):
        client("sagemaker", region).stop_processing_job(ProcessingJobName=name)


def _processing_input(name: str, uri: str) -> dict[str, Any]:
    return {
        "InputName": name,
        "S3Input": {
            "S3Uri": uri if _FILE.search(uri) else folder_uri(uri),
            "LocalPath": f"{PROCESSING_ROOT}/input/{name}",
            "S3DataType": "S3Prefix",
            "S3InputMode": "File",
            "S3DataDistributionType": "FullyReplicated",
        },
    }


def _action(call: str) -> str:
    return f"sagemaker:{call.title().replace('_', '')}"
