"""What S3 lets a run do, asked of a server over HTTP that enforces IAM, and of one that refuses."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import time
from typing import Any

import pytest
from cluster.test_policies import Enforcing, problems
from conftest import S3Server

from urbandet_ray.config import StorageConfig
from urbandet_ray.launch.buckets import PROBE_PREFIX, Findings, check_places, minimal_policy
from urbandet_ray.launch.needs import ConfigPlace
from urbandet_ray.storage import Storage

pytestmark = pytest.mark.s3
BUCKET = "preflight"
READ = ConfigPlace("input", f"s3://{BUCKET}/drives")
WRITE = ConfigPlace("output", f"s3://{BUCKET}/runs/new", write=True)


@pytest.fixture(scope="module")
def server(s3_server: S3Server) -> S3Server:
    """With one drive in the bucket."""
    bucket = s3_server.make_bucket(BUCKET)
    Storage(s3_server.options).write_bytes(f"{bucket}/drives/a.tfrecord", b"data")
    return s3_server


@pytest.fixture(scope="module")
def user(server: S3Server) -> dict[str, str]:
    """A user of its own, as variables of the environment."""
    import boto3

    iam = boto3.client("iam", endpoint_url=server.endpoint_url)
    iam.create_user(UserName="node-of-preflight")
    key = iam.create_access_key(UserName="node-of-preflight")["AccessKey"]
    return {
        "AWS_ENDPOINT_URL": server.endpoint_url,
        "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
    }


@dataclass(frozen=True)
class Asking(Enforcing):
    """The same for that user."""

    def grant(self, policy: dict[str, Any]) -> None:
        """Give the user this policy and nothing else."""
        self.enforce_after("inf")
        self.iam.put_user_policy(
            UserName="node-of-preflight", PolicyName="s3", PolicyDocument=json.dumps(policy)
        )
        self.enforce_after("0")


@pytest.fixture
def enforcing(
    server: S3Server, user: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Enforcing]:
    """The server asks IAM of the user in the environment. Afterwards all may do all."""
    import boto3

    asked = Asking(server.endpoint_url, boto3.client("iam", endpoint_url=server.endpoint_url))
    for name, value in user.items():
        monkeypatch.setenv(name, value)
    yield asked
    asked.enforce_after("inf")


def keys(server: S3Server) -> set[str]:
    """Every object of the bucket."""
    import boto3

    listed = boto3.client("s3", endpoint_url=server.endpoint_url).list_objects_v2(Bucket=BUCKET)
    return {one["Key"] for one in listed.get("Contents", [])}


def failures(found: Findings) -> list[str]:
    """Lines of the checks that failed."""
    return [str(one) for one in found.checks if one.verdict == "fail"]


def test_what_is_allowed_is_said_and_nothing_is_left(server: S3Server) -> None:
    """A line for each place, one for the region, one for the clock."""
    before = keys(server)
    found = check_places([READ, WRITE], server.options)
    assert [(one.verdict, one.name) for one in found.checks] == [
        ("ok", f"input s3://{BUCKET}/drives"),
        ("ok", f"output s3://{BUCKET}/runs/new"),
        ("ok", "region"),
        ("ok", "clock"),
    ]
    assert not found.denied
    assert keys(server) == before


def test_a_video_is_tried_beside_itself(server: S3Server) -> None:
    """The place that is written is a file."""
    place = ConfigPlace("output", f"s3://{BUCKET}/runs/new/drive.mp4", write=True)
    assert failures(check_places([place], server.options)) == []


def test_no_such_bucket_is_one_line(server: S3Server) -> None:
    """However many places are in it."""
    places = [
        ConfigPlace("input", "s3://no-such-bucket/a"),
        ConfigPlace("output", "s3://no-such-bucket/b", write=True),
    ]
    (line,) = failures(check_places(places, server.options))
    assert line.startswith("fail  s3://no-such-bucket: bucket 'no-such-bucket' does not exist")


def test_no_such_folder(server: S3Server) -> None:
    """The bucket is there."""
    (line,) = failures(check_places([ConfigPlace("input", f"s3://{BUCKET}/drivs")], server.options))
    assert f"fail  input s3://{BUCKET}/drivs: no file is at or below" in line


def test_an_empty_folder(server: S3Server) -> None:
    """Is said to be one: there is nothing to read."""
    storage = Storage(server.options)
    storage.write_bytes(f"s3://{BUCKET}/empty/.keep", b"")
    (line,) = failures(check_places([ConfigPlace("input", f"s3://{BUCKET}/empty")], server.options))
    assert line == f"fail  input s3://{BUCKET}/empty: s3://{BUCKET}/empty is an empty folder"
    storage.delete(f"s3://{BUCKET}/empty/.keep")


def test_a_checkpoint_may_be_a_prefix(server: S3Server) -> None:
    """Its .index is the key; the folder of several will do too."""
    storage = Storage(server.options)
    names = [f"s3://{BUCKET}/m/ckpt-0{end}" for end in (".index", ".data-00000-of-00001")]
    for name in names:
        storage.write_bytes(name, b"x")
    places = [
        ConfigPlace("fine_tune.checkpoint", f"s3://{BUCKET}/m{end}", checkpoint=True)
        for end in ("/ckpt-0", "", "/ckpt-1")
    ]
    (line,) = failures(check_places(places, server.options))
    assert line.startswith(f"fail  fine_tune.checkpoint s3://{BUCKET}/m/ckpt-1: no file is at or")
    for name in names:
        storage.delete(name)


def test_a_place_without_a_bucket_is_one_line(server: S3Server) -> None:
    """The others are tried all the same."""
    places = [ConfigPlace("output", "s3://drive.mp4", write=True), READ]
    (line,) = failures(check_places(places, server.options))
    assert line.startswith("fail  output s3://drive.mp4: 's3:' is no S3 URI")
    assert json.loads(minimal_policy(places))["Statement"][0]["Resource"] == [
        f"arn:aws:s3:::{BUCKET}"
    ]


def without(*actions: str) -> dict[str, Any]:
    """The smallest policy of both places, less some actions."""
    policy: dict[str, Any] = json.loads(minimal_policy([READ, WRITE]))
    for statement in policy["Statement"]:
        left = [one for one in statement["Action"] if one not in actions]
        statement["Action"] = left or ["s3:GetBucketTagging"]
    return policy


def test_the_smallest_policy_is_enough_and_sound(enforcing: Enforcing) -> None:
    """By IAM's grammar, and by the server that enforces it."""
    assert problems(without()) == []
    enforcing.grant(without())
    assert failures(check_places([READ, WRITE], StorageConfig())) == []


@pytest.mark.parametrize(
    ("action", "count"),
    [("s3:PutObject", 1), ("s3:ListBucket", 2), ("s3:GetObject", 2), ("s3:DeleteObject", 1)],
)
def test_a_missing_right_is_named(
    enforcing: Enforcing, server: S3Server, action: str, count: int
) -> None:
    """Denied on that alone, it is one line for each place that needs it."""
    enforcing.grant(without(action))
    found = check_places([READ, WRITE], StorageConfig())
    lines = failures(found)
    assert len(lines) == count, lines
    assert all(f"access denied: {action} on bucket" in line for line in lines)
    assert found.denied
    enforcing.enforce_after("inf")
    left = {key for key in keys(server) if PROBE_PREFIX in key}
    assert bool(left) == (action == "s3:DeleteObject")
    for key in left:
        assert key in lines[0]
        Storage(server.options).delete(f"s3://{BUCKET}/{key}")


def test_two_missing_rights_are_named_at_once(enforcing: Enforcing) -> None:
    """Put and delete are tried each for itself."""
    enforcing.grant(without("s3:PutObject", "s3:DeleteObject"))
    (line,) = failures(check_places([WRITE], StorageConfig()))
    assert "s3:PutObject on" in line
    assert "s3:DeleteObject on" in line


def test_a_bucket_of_another_region(server: S3Server) -> None:
    """Said before the redirections and the bill."""
    import boto3

    far = boto3.client("s3", endpoint_url=server.endpoint_url, region_name="eu-central-1")
    far.create_bucket(
        Bucket="far-away", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    place = ConfigPlace("output", "s3://far-away/run", write=True)
    (line,) = failures(check_places([place], server.options))
    assert line == (
        "fail  s3://far-away: the bucket is in eu-central-1, the run would look for it in "
        "us-east-1: set storage.region=eu-central-1"
    )
    there = StorageConfig(endpoint_url=server.endpoint_url, region="eu-central-1")
    assert failures(check_places([place], there)) == []
    both = check_places([READ, place], server.options)
    assert failures(both) == []
    assert any(one.verdict == "warn" and "between regions" in one.text for one in both.checks)


@dataclass
class Refusing:
    """Answers everything with one S3 error, by a clock of its own."""

    code: str = "ExpiredToken"
    status: int = 400
    ahead_s: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    url: str = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """One request."""
        body = f"<Error><Code>{self.code}</Code><Message>The token has expired</Message></Error>"
        request.send_response_only(self.status)
        request.send_header("Date", formatdate(time() + self.ahead_s, usegmt=True))
        for name, value in self.headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body.encode())


@pytest.fixture
def refusing(aws_test_credentials: None) -> Iterator[Refusing]:
    """An S3 server that refuses."""
    refusal = Refusing()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            refusal.answer(self)

        do_GET = do_HEAD = do_PUT = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    refusal.url = f"http://127.0.0.1:{server.server_port}"
    yield refusal
    server.shutdown()
    server.server_close()


def test_an_expired_token_is_one_line(refusing: Refusing) -> None:
    """For the bucket, not for every place in it."""
    found = check_places([READ, WRITE], StorageConfig(endpoint_url=refusing.url))
    (line,) = failures(found)
    assert "the session token is expired or invalid: sign in again" in line
    assert not found.denied


def test_a_wrong_clock_is_told_by_what_s3_says(refusing: Refusing) -> None:
    """Whatever else it refuses."""
    refusing.code, refusing.status, refusing.ahead_s = "RequestTimeTooSkewed", 403, 1200
    lines = failures(check_places([READ], StorageConfig(endpoint_url=refusing.url)))
    assert "this machine's clock is wrong" in lines[0]
    assert lines[1].startswith("fail  clock: 1200 s behind S3's") or "1199 s" in lines[1]


def test_a_server_that_does_not_answer(aws_test_credentials: None) -> None:
    """One line, soon."""
    found = check_places([READ, WRITE], StorageConfig(endpoint_url="http://127.0.0.1:9"))
    (line,) = failures(found)
    assert "cannot reach the server at http://127.0.0.1:9" in line
