"""What a job costs at most: AWS's own price list, or a price that was given. None is made up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from urbandet_ray.errors import RunError, StorageError
from urbandet_ray.launch.sagemaker.account import client, translated

Use = Literal["Train", "Host", "Processing"]
"""What an instance does; a price list has a price for each."""

_PRICES_REGION = "us-east-1"  # one of the few that serve the price list, for all regions


@dataclass(frozen=True)
class Estimate:
    """The upper bound of what a job costs for its instances.

    Attributes:
        price: US dollars an hour and instance, on demand.
        source: where the price is from.
        count: instances.
        hours: at most; None runs until it is deleted.
        spot: a spot job costs less, by how much is known afterwards.
    """

    price: float
    source: str
    count: int
    hours: float | None
    spot: bool = False

    def to_text(self) -> str:
        """For the person who decides."""
        hourly = self.price * self.count
        text = f"{self.count} x ${self.price:.4f} an hour ({self.source})"
        if self.hours is None:
            return f"{text} = ${hourly:.2f} an hour, until you delete it"
        text += f" x {self.hours:g} hours at most = ${hourly * self.hours:.2f} at most"
        if self.spot:
            text += "; on spot instances less, by what `urbandet sagemaker status` says afterwards"
        return f"{text}, plus disk, S3 and logs"


def hourly_price(instance: str, region: str, use: Use) -> float:
    """The on-demand price of an instance, US dollars an hour, from AWS's price list.

    Raises:
        RunError: the list does not have exactly one; a price has to be given.
    """
    filters = [
        {"Type": "TERM_MATCH", "Field": "regionCode", "Value": region},
        {"Type": "TERM_MATCH", "Field": "instanceName", "Value": instance},
    ]
    try:
        with translated("pricing:GetProducts"):
            pages = client("pricing", _PRICES_REGION).get_paginator("get_products")
            listed = pages.paginate(ServiceCode="AmazonSageMaker", Filters=filters)
            products = [json.loads(one) for page in listed for one in page["PriceList"]]
    except StorageError as error:
        raise RunError(
            f"{error}\nWithout the price list, give --price (US dollars an hour)"
        ) from None
    prices = {price for one in products if _is_for(one, use) for price in _on_demand(one)}
    if len(prices) != 1:
        found = ", ".join(f"${price}" for price in sorted(prices)) or "none"
        raise RunError(
            f"AWS's price list has {found} for {instance} ({use}) in {region}, expected one: look "
            "it up at https://aws.amazon.com/sagemaker/pricing/ and give --price"
        )
    return prices.pop()


def _is_for(product: Any, use: Use) -> bool:
    """By the usage type: "USE1-Train:ml.g5.xlarge", without a region's prefix in us-east-1."""
    kind = str(product["product"]["attributes"].get("usagetype", "")).partition(":")[0]
    return kind.rpartition("-")[2] == use


def _on_demand(product: Any) -> Iterator[float]:
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in term["priceDimensions"].values():
            price = float(dimension["pricePerUnit"].get("USD", 0))
            if price > 0:
                yield price
