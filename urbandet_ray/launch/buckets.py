"""Does S3 let this process do what the run will do? Asked with the same client and credentials.

for each bucket: does it exist, where is it, how late is it there, may it be listed
for each place:  is something there, can it be read; can it be written, read back and removed
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from urbandet_ray.config import StorageConfig
from urbandet_ray.errors import AccessError, NotFoundError, StorageError, UrbandetError
from urbandet_ray.launch.needs import ConfigPlace
from urbandet_ray.launch.verdicts import Check, fail, ok, warn
from urbandet_ray.storage import RetryPolicy, Storage, join_uri
from urbandet_ray.storage.s3_client import Connection, connect
from urbandet_ray.storage.s3_errors import session_error, translate
from urbandet_ray.uris import S3Location, has_glob, parse_uri, split_glob

SKEW_MAX_S = 300
"""Signatures of a clock that is further off are refused."""

PROBE_PREFIX = ".urbandet-preflight-"

_QUICK = RetryPolicy(
    attempts=2, base_s=0.2, max_s=1, boto_attempts=2, connect_timeout_s=5, read_timeout_s=20
)


@dataclass(frozen=True)
class Looked:
    """What S3 says of a bucket.

    Attributes:
        region: where it is; None where the server does not say.
        ahead_s: how far its clock is ahead of ours, in seconds; None where unknown.
        problem: why it cannot be listed; `unusable` is that nothing else will work either.
    """

    region: str | None = None
    ahead_s: float | None = None
    problem: UrbandetError | None = None
    unusable: bool = False


@dataclass(frozen=True)
class Findings:
    """Checks, and whether a right is missing."""

    checks: tuple[Check, ...]
    denied: bool


def check_places(places: Sequence[ConfigPlace], options: StorageConfig) -> Findings:
    """Try what the run will do at each s3:// place; nothing is left behind.

    A place that is written gets one tiny object, which is read back and removed.
    """
    checks: list[Check] = []
    storage = Storage(options, _QUICK)
    looked: dict[str, Looked] = {}
    refused: set[str] = set()
    for place in places:
        try:
            at = _location(place)
        except StorageError as error:
            checks.append(fail(f"{place.key} {place.uri}", str(error)))
            continue
        if at.bucket not in looked:
            looked[at.bucket] = _look(at, options)
        found = looked[at.bucket]
        if found.unusable:
            if at.bucket not in refused:
                checks.append(fail(f"s3://{at.bucket}", str(found.problem)))
            refused.add(at.bucket)
            continue
        checks.append(_check_place(place, storage))
    checks += _regions(looked, options)
    checks += _clock(looked)
    denied = any("Missing permission" in one.text for one in checks)
    return Findings(tuple(checks), denied)


def _location(place: ConfigPlace) -> S3Location:
    """The folder or key that a place stands for, without pattern.

    Raises:
        StorageError: it names no bucket.
    """
    at = parse_uri(place.folder)
    if not isinstance(at, S3Location):
        raise StorageError(f"{place.folder!r} is not on S3: expected s3://BUCKET/KEY")
    return S3Location(at.bucket, split_glob(at.key)[0]) if has_glob(at.key) else at


def _look(at: S3Location, options: StorageConfig) -> Looked:
    """List a bucket below a prefix, and see what the answer says of time and place."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        connection = connect(options, _QUICK)
    except (BotoCoreError, ValueError) as error:
        refusal = session_error(error, at) or StorageError(f"{at.uri}: {error}")
        return Looked(problem=refusal, unusable=True)
    problem, headers = _asked(
        connection,
        at,
        lambda: connection.client.list_objects_v2(Bucket=at.bucket, Prefix=at.key, MaxKeys=1),
    )
    ahead_s = _ahead(headers)
    if problem is not None and "access denied" not in str(problem):
        return Looked(_region(headers), ahead_s, problem, unusable=True)
    try:
        answer = connection.client.head_bucket(Bucket=at.bucket)
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
    except ClientError as error:
        headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    except BotoCoreError:
        headers = {}
    return Looked(_region(headers), ahead_s, problem)


def _asked(
    connection: Connection, at: S3Location, call: Callable[[], Any]
) -> tuple[UrbandetError | None, dict[str, str]]:
    """Our error for what a call raised, if it did, and the headers of its answer."""
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

    try:
        return None, dict(call()["ResponseMetadata"]["HTTPHeaders"])
    except ClientError as error:
        headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        return translate(error, connection, "s3:ListBucket", at), headers
    except (BotoCoreError, HTTPClientError) as error:
        return translate(error, connection, "s3:ListBucket", at), {}


def _region(headers: dict[str, str]) -> str | None:
    return headers.get("x-amz-bucket-region")


def _ahead(headers: dict[str, str]) -> float | None:
    try:
        return parsedate_to_datetime(headers["date"]).timestamp() - time.time()
    except (KeyError, ValueError, TypeError):
        return None


def _check_place(place: ConfigPlace, storage: Storage) -> Check:
    name = f"{place.key} {place.uri}"
    try:
        if place.write:
            return ok(name, f"can {_write(place, storage)}")
        return ok(name, f"can {_read(place, storage)}")
    except UrbandetError as error:
        return fail(name, str(error))


def _read(place: ConfigPlace, storage: Storage) -> str:
    uri = place.uri
    if place.checkpoint and storage.exists(f"{uri}.index"):  # a prefix, as training takes it
        uri = f"{uri}.index"
    first = next(storage.list_files(uri), None)
    if first is None:
        raise NotFoundError(f"{uri} is an empty folder")
    with storage.open_read(first.uri) as stream:
        stream.read(1)
    return "be listed and read"


def _write(place: ConfigPlace, storage: Storage) -> str:
    with suppress(NotFoundError):  # a new run
        next(storage.list_files(f"{place.folder}/"), None)
    uri = join_uri(place.folder, f"{PROBE_PREFIX}{uuid.uuid4().hex}")
    steps: dict[str, Callable[[], object]] = {
        "put": lambda: storage.write_bytes(uri, b"urbandet preflight; may be deleted\n"),
        "get": lambda: storage.read_bytes(uri),
        "delete": lambda: storage.delete(uri),  # asked even where nothing was put: S3 answers
    }
    problems: dict[str, UrbandetError] = {}
    for name, step in steps.items():
        if name == "get" and "put" in problems:
            continue
        try:
            step()
        except UrbandetError as error:
            problems[name] = error
    if "delete" in problems and "put" not in problems:
        problems["left"] = StorageError(f"{uri} is left there: delete it")
    if problems:
        raise AccessError("; ".join(str(error) for error in problems.values()))
    return "be listed, written, read and cleaned up"


def _regions(looked: dict[str, Looked], options: StorageConfig) -> list[Check]:
    """A bucket elsewhere than the client thinks is found by redirection, or not at all."""
    where = {name: one.region for name, one in looked.items() if one.region}
    if not where:
        return []
    try:
        mine = connect(options, _QUICK).client.meta.region_name
    except Exception:  # reported by _look already
        return []
    checks = []
    for name, region in where.items():
        if region == mine or (region == "us-east-1" and mine == "aws-global"):
            continue
        told = f"the bucket is in {region}, the run would look for it in {mine}"
        if mine in where.values():
            checks.append(warn(f"s3://{name}", f"{told}: traffic between regions costs"))
        else:
            checks.append(fail(f"s3://{name}", f"{told}: set storage.region={region}"))
    return checks or [ok("region", f"{', '.join(sorted(set(filter(None, where.values()))))}")]


def _clock(looked: dict[str, Looked]) -> list[Check]:
    told = [one.ahead_s for one in looked.values() if one.ahead_s is not None]
    if not told:
        return []
    off = max(told, key=abs)
    if abs(off) > SKEW_MAX_S:
        way = "behind" if off > 0 else "ahead of"
        return [
            fail(
                "clock",
                f"{abs(off):.0f} s {way} S3's: requests are refused beyond {SKEW_MAX_S} s. "
                "Set this machine's clock (NTP)",
            )
        ]
    return [ok("clock", f"within {max(1, round(abs(off)))} s of S3's")]


def minimal_policy(places: Sequence[ConfigPlace]) -> str:
    """The smallest IAM policy that the run needs, as JSON text."""
    buckets: dict[str, None] = {}
    read: dict[str, None] = {}
    written: dict[str, None] = {}
    for place in places:
        try:
            at = _location(place)
        except StorageError:
            continue  # check_places says so
        buckets[f"arn:aws:s3:::{at.bucket}"] = None
        key = at.key.rstrip("/")
        resource = f"arn:aws:s3:::{at.bucket}/{key}{'/' if key and place.write else ''}*"
        read[resource] = None
        if place.write:
            written[resource] = None
    statements = [
        _statement("List", ["s3:ListBucket"], list(buckets)),
        _statement("Read", ["s3:GetObject"], list(read)),
    ]
    if written:
        actions = ["s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
        statements.append(_statement("Write", actions, list(written)))
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, indent=2)


def _statement(sid: str, actions: list[str], resources: list[str]) -> dict[str, Any]:
    return {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources}
