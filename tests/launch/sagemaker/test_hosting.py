"""Prices, endpoints and processing jobs."""

import json
from pathlib import Path
from typing import Any

import pytest
from launch.sagemaker.launching import IMAGE, ROLE, call, hold_to_golden, train

from urbandet_ray.errors import ConfigError, NotFoundError, RunError
from urbandet_ray.launch.sagemaker.hosting import ProcessingJob
from urbandet_ray.launch.sagemaker.price import hourly_price
from urbandet_ray.launch.sagemaker.request import Machines

pytestmark = pytest.mark.s3


def product(usage: str, price: str) -> str:
    """A product of the price list, with what is read of it."""
    terms = {"OnDemand": {"a": {"priceDimensions": {"b": {"pricePerUnit": {"USD": price}}}}}}
    return json.dumps({"product": {"attributes": {"usagetype": usage}}, "terms": terms})


def test_the_price_is_the_price_lists(canned: Any) -> None:
    """That of training, not of hosting or a notebook, in the region that is used."""
    listed = [product("EUW1-Train:ml.g5.xlarge", "1.25"), product("EUW1-Host:ml.g5.xlarge", "9.75")]
    server = canned("pricing", {"GetProducts": (200, {"PriceList": listed})})
    assert hourly_price("ml.g5.xlarge", "eu-west-1", "Train") == 1.25
    assert hourly_price("ml.g5.xlarge", "eu-west-1", "Host") == 9.75
    (_, asked), *_ = server.asked
    fields = {one["Field"]: one["Value"] for one in asked["Filters"]}
    assert fields == {"regionCode": "eu-west-1", "instanceName": "ml.g5.xlarge"}


def test_no_price_is_made_up(canned: Any) -> None:
    """Neither where the list has none nor where it cannot be read."""
    canned("pricing", {"GetProducts": (200, {"PriceList": []})})
    with pytest.raises(
        RunError, match=r"has none for ml.g5.xlarge \(Train\) in us-east-1.*--price"
    ):
        hourly_price("ml.g5.xlarge", "us-east-1", "Train")
    canned("pricing", {"GetProducts": (400, {"__type": "InvalidParameterException"})})
    with pytest.raises(RunError, match="Without the price list, give --price"):
        hourly_price("ml.g5.xlarge", "us-east-1", "Train")


def test_an_endpoint_is_made_and_deleted(
    bucket: str, run_yaml: Path, sent: list[dict[str, Any]]
) -> None:
    """Model, config and endpoint of one name; delete leaves none of them."""
    import boto3

    train(run_yaml, "streets-9")
    sent.clear()
    done = call(
        *("deploy", "streets-9", "--image", IMAGE, "--role", ROLE, "--instance", "ml.c5.xlarge"),
        *("--name", "streets", "--price", "0.25", "--yes", "--score-min", "0.4"),
    )
    assert "1 x $0.2500 an hour (--price) = $0.25 an hour, until you delete it" in done.output
    hold_to_golden("endpoint_requests", [one for one in sent if "TrainingJobName" not in one])
    client = boto3.client("sagemaker")
    assert client.describe_endpoint(EndpointName="streets")["EndpointConfigName"] == "streets"
    assert call("delete", "streets").output == "deleted: endpoint, endpoint config, model streets\n"
    with pytest.raises(NotFoundError, match="no endpoint, endpoint config or model streets"):
        call("delete", "streets")


def test_a_processing_job_has_every_field_right(bucket: str, sent: list[dict[str, Any]]) -> None:
    """What is sent for batch inference."""
    done = call(
        *("batch", "s3://drives/test", "--image", IMAGE, "--role", ROLE, "--name", "streets-batch"),
        *("--out", "s3://drives/runs/test", "--model", "s3://drives/model.tar.gz"),
        *("--instance", "ml.c6i.4xlarge", "--hours", "2", "--price", "1", "--yes"),
        *("--set", "track.enabled=true"),
    )
    assert done.exit_code == 0, done.output
    (request,) = sent
    hold_to_golden("processing_job_request", request)


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("s3://b/waymo", "s3://b/waymo/"),
        ("s3://b/waymo-1.4.1/", "s3://b/waymo-1.4.1/"),
        ("s3://b/tfrecords", "s3://b/tfrecords/"),
        ("s3://b/a.tfrecord", "s3://b/a.tfrecord"),
        ("s3://b/a.tfrecord-00000-of-00010", "s3://b/a.tfrecord-00000-of-00010"),
        ("s3://b/drive.MP4", "s3://b/drive.MP4"),
    ],
)
def test_a_folder_is_asked_for_without_its_siblings(given: str, asked: str) -> None:
    """S3Prefix goes by the beginning of the key: waymo would bring waymo-old along."""
    job = ProcessingJob("a", IMAGE, ROLE, given, "s3://b/run", Machines("ml.c6i.xlarge"))
    request = job.to_request()
    assert request["ProcessingInputs"][0]["S3Input"]["S3Uri"] == asked
    assert "ContainerArguments" not in request["AppSpecification"]  # AWS takes no empty list


def batch(*settings: str, name: str = "streets-batch-2") -> Any:
    """Batch inference over s3://drives/test."""
    more = [word for setting in settings for word in ("--set", setting)]
    order = ("--image", IMAGE, "--role", ROLE, "--price", "1", "--yes", "--name", name)
    return call("batch", "s3://drives/test", "--out", "s3://drives/runs/test", *order, *more)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("trak.enabled=true", "did you mean 'track'"),
        ("actors.max=many", "actors.max"),
        ("labels=AKIA" + "A" * 16, "labels holds what looks like an AWS access key id"),
        ("labels=correct-horse", "labels holds the value of MY_PASSWORD"),
    ],
)
def test_settings_of_a_batch_are_looked_at_before_anything_costs(
    bucket: str,
    sent: list[dict[str, Any]],
    setting: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As those of a training are."""
    monkeypatch.setenv("MY_PASSWORD", "correct-horse")
    with pytest.raises(ConfigError, match=message):
        batch(setting)
    assert sent == []


def test_a_processing_job_has_a_status_too(bucket: str) -> None:
    """By the command that training jobs have."""
    batch()
    assert call("status", "streets-batch-2").output == (
        "streets-batch-2: Completed (processing job)\nrun folder s3://drives/runs/test\n"
    )
    assert "has ended already: Completed" in call("stop", "streets-batch-2").output


def test_a_running_processing_job_is_stopped(canned: Any) -> None:
    """And one that failed says why, in its own words before SageMaker's."""
    nobody = {"__type": "ValidationException", "message": "Requested resource not found."}
    running = {"ProcessingJobStatus": "InProgress"}
    answers = {
        "DescribeTrainingJob": (400, nobody),
        "DescribeProcessingJob": (200, running),
        "StopProcessingJob": (200, {}),
    }
    server = canned("sagemaker", answers)
    assert "streets is stopping" in call("stop", "streets").output
    assert server.asked[-1] == ("StopProcessingJob", {"ProcessingJobName": "streets"})
    running |= {
        "ProcessingJobStatus": "Failed",
        "FailureReason": "AlgorithmError: exit code 1",
        "ExitMessage": "no model there",
    }
    assert (
        "streets: Failed (processing job)\nwhy: no model there" in call("status", "streets").output
    )
    canned("cloudwatch_logs", {"DescribeLogStreams": (200, {"logStreams": []})})
    assert call("logs", "streets").output == "streets: Failed (processing job)\n"
