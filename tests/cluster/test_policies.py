"""The IAM policies: by IAM's grammar, and s3-policy.json by an S3 server that enforces it."""

import json
import re
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cluster.deployment import CLUSTER, PLACEHOLDERS, REMOVED, filled, plant
from conftest import S3Server

from urbandet_ray.errors import AccessError
from urbandet_ray.runs.lock import WriterLock
from urbandet_ray.storage import Storage

FILES = ("s3-policy.json", "ec2-policy.json")
BUCKET = PLACEHOLDERS["YOUR-BUCKET"]
DATA = "waymo/test.tfrecord"
RUN = f"s3://{BUCKET}/runs/test"

_KEYS = {"Sid", "Effect", "Action", "Resource", "Condition"}
_ARN = re.compile(r"arn:aws:(?P<service>[a-z0-9]+):(?P<region>[a-z0-9*-]*):(?P<account>[0-9*]*):.+")
_OTHER_OPERATION = {"s3:ListBucket": "ListObjectsV2", "iam:PassRole": "CreateRole"}
"""Actions that are no operation's name; the second is asked for by no call of its own."""


def problems(policy: dict[str, Any]) -> list[str]:
    """What IAM would refuse, or what grants nothing since no such action exists."""
    found = [f"unknown key {key}" for key in policy.keys() - {"Version", "Statement"}]
    if policy.get("Version") != "2012-10-17":
        found.append(f"Version: got {policy.get('Version')}, want 2012-10-17")
    statements = policy.get("Statement")
    if not isinstance(statements, list) or not statements:
        return [*found, "Statement: want a list"]
    sids = [one.get("Sid") for one in statements]
    if len(set(sids)) < len(sids):
        found.append(f"Sid: {sids} are not unique")
    for one in statements:
        where = one.get("Sid", "?")
        found += [f"{where}: unknown key {key}" for key in one.keys() - _KEYS]
        found += [f"{where}: {key} is needed" for key in _KEYS - {"Condition"} - one.keys()]
        if one.get("Effect") != "Allow":
            found.append(f"{where}: Effect {one.get('Effect')}, want Allow")
        found += [f"{where}: {problem}" for problem in _grant_problems(one)]
    return found


def _grant_problems(statement: dict[str, Any]) -> Iterator[str]:
    services = set()
    for action in _listed(statement.get("Action", [])):
        if not re.fullmatch(r"[a-z0-9]+:[A-Za-z]+", str(action)):
            yield f"Action {action!r} is no service:Action; a * would grant more than is needed"
            continue
        services.add(action.split(":")[0])
        if not _operation_exists(action):
            yield f"there is no action {action}"
    for resource in _listed(statement.get("Resource", [])):
        arn = _ARN.fullmatch(str(resource))
        if resource != "*" and not arn:
            yield f"Resource {resource!r} is no ARN"
        elif arn and {arn["service"]} != services:
            yield f"Resource {resource} is not of {sorted(services)}"
        elif resource == "*" and "s3" in services:
            yield "Resource * opens every bucket"


def _operation_exists(action: str) -> bool:
    service, name = action.split(":")
    return _OTHER_OPERATION.get(action, name) in _operations(service)


@cache
def _operations(service: str) -> frozenset[str]:
    from botocore.exceptions import UnknownServiceError
    from botocore.session import get_session

    try:
        return frozenset(get_session().get_service_model(service).operation_names)
    except UnknownServiceError:
        return frozenset()


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def read_policy(name: str) -> dict[str, Any]:
    """A policy of cluster/ with its marked places filled."""
    policy: dict[str, Any] = json.loads(filled((CLUSTER / name).read_text(encoding="utf-8")))
    return policy


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_wrong(name: str) -> None:
    """Each policy as it is."""
    assert problems(read_policy(name)) == []


MISTAKES = {
    "misspelt key": ("Statements", [], "unknown key Statements"),
    "missing field": ("Statement > 0 > Effect", REMOVED, "Effect is needed"),
    "misspelt key of a statement": ("Statement > 0 > Actions", [], "unknown key Actions"),
    "wrong type": ("Statement", {}, "Statement: want a list"),
    "another version": ("Version", "2012-10-18", "Version: got 2012-10-18"),
    "no such action": ("Statement > 0 > Action", "s3:ListBuckits", "no action s3:ListBuckits"),
    "no such service": ("Statement > 0 > Action", "s4:ListBucket", "no action s4:ListBucket"),
    "every action": ("Statement > 0 > Action", "s3:*", "would grant more than is needed"),
    "a bucket's bare name": ("Statement > 0 > Resource", "street-drives", "is no ARN"),
    "a resource of another service": (
        "Statement > 0 > Resource",
        "arn:aws:sqs:::street-drives",
        "is not of",
    ),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_caught(name: str, mistake: str) -> None:
    """In each of the policies."""
    path, value, expected = MISTAKES[mistake]
    policy = plant(read_policy(name), path, value)
    assert re.search(expected, "\n".join(problems(policy)))


@pytest.mark.parametrize("name", FILES)
def test_a_name_given_twice_is_caught(name: str) -> None:
    """IAM refuses two statements of one Sid."""
    policy = read_policy(name)
    policy["Statement"].append(policy["Statement"][0])
    assert re.search("Sid: .* are not unique", "\n".join(problems(policy)))


def test_every_bucket_is_caught() -> None:
    """S3 rights end at the bucket."""
    policy = plant(read_policy("s3-policy.json"), "Statement > 1 > Resource", "*")
    assert problems(policy) == ["ReadDataModelsAndRuns: Resource * opens every bucket"]


@dataclass(frozen=True)
class Enforcing:
    """An S3 server that asks IAM first, and a user whose keys are in the environment."""

    url: str
    iam: Any

    def grant(self, policy: dict[str, Any]) -> None:
        """Give the user this policy and nothing else."""
        self.enforce_after("inf")
        text = json.dumps(policy)
        self.iam.put_user_policy(UserName="node", PolicyName="s3", PolicyDocument=text)
        self.enforce_after("0")

    def enforce_after(self, calls: str) -> None:
        """Let so many calls through before credentials count."""
        ask = urllib.request.Request(
            f"{self.url}/moto-api/reset-auth", calls.encode(), {"Content-Type": "text/plain"}
        )
        urllib.request.urlopen(ask).close()


@pytest.fixture(scope="module")
def enforcing(s3_server: S3Server) -> Iterator[Enforcing]:
    """The shared server, which trusts everybody again when this module is done."""
    import boto3

    url = s3_server.endpoint_url
    Storage(s3_server.options).write_bytes(f"{s3_server.make_bucket(BUCKET)}/{DATA}", b"data")
    server = Enforcing(url, boto3.client("iam", endpoint_url=url))
    server.iam.create_user(UserName="node")
    key = server.iam.create_access_key(UserName="node")["AccessKey"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", url)
        patch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        patch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        yield server
    server.enforce_after("inf")


def list_data(storage: Storage) -> None:
    """s3:ListBucket."""
    assert [one.uri for one in storage.list_files(f"s3://{BUCKET}/waymo")]


def read_data(storage: Storage) -> None:
    """s3:GetObject."""
    assert storage.read_bytes(f"s3://{BUCKET}/{DATA}") == b"data"


def write_run(storage: Storage) -> None:
    """s3:PutObject."""
    storage.write_bytes(f"{RUN}/run.json", b"{}")


def delete_from_run(storage: Storage) -> None:
    """s3:DeleteObject."""
    storage.delete(f"{RUN}/run.json")


USES: dict[str, Callable[[Storage], None]] = {
    "s3:ListBucket": list_data,
    "s3:GetObject": read_data,
    "s3:PutObject": write_run,
    "s3:DeleteObject": delete_from_run,
}


@pytest.mark.s3
def test_the_s3_policy_is_enough_for_a_run(enforcing: Enforcing, tmp_path: Path) -> None:
    """Data listed and read; a run folder locked, written in one go and in parts, read, unlocked."""
    enforcing.grant(read_policy("s3-policy.json"))
    storage = Storage()
    list_data(storage)
    read_data(storage)
    large = tmp_path / "checkpoint"
    large.write_bytes(bytes(40 << 20))
    with WriterLock(storage, f"{RUN}/writer.json", "test") as lock:
        write_run(storage)
        storage.upload_file(large, f"{RUN}/last/checkpoint")
        assert storage.info(f"{RUN}/last/checkpoint").size_bytes == 40 << 20
        delete_from_run(storage)
        lock.check()
    assert not storage.exists(f"{RUN}/writer.json")


@pytest.mark.s3
@pytest.mark.parametrize("action", USES)
def test_the_s3_policy_grants_nothing_in_vain(enforcing: Enforcing, action: str) -> None:
    """Without any one of its actions a run is refused, by a message that names the action."""
    policy = read_policy("s3-policy.json")
    for statement in policy["Statement"]:
        left = [one for one in _listed(statement["Action"]) if one != action]
        statement["Action"] = left or ["s3:AbortMultipartUpload"]
    enforcing.grant(policy)
    with pytest.raises(AccessError, match=action):
        USES[action](Storage())


@pytest.mark.s3
def test_the_s3_policy_protects_the_data(enforcing: Enforcing) -> None:
    """Nothing can be written or deleted outside runs/."""
    enforcing.grant(read_policy("s3-policy.json"))
    with pytest.raises(AccessError, match="s3:PutObject"):
        Storage().write_bytes(f"s3://{BUCKET}/{DATA}", b"")
    with pytest.raises(AccessError, match="s3:DeleteObject"):
        Storage().delete(f"s3://{BUCKET}/{DATA}")
