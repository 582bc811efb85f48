"""Prices, endpoints and processing jobs."""

import json
from pathlib import Path
from typing import Any

import pytest
from launch.sagemaker.launching import IMAGE, ROLE, call, hold_to_golden, train

from urbandet_ray.errors import NotFoundError, RunError
from urbandet_ray.launch.sagemaker.price import hourly_price

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
