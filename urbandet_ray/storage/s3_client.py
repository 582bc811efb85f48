"""boto3 clients, one per process and set of options, and the retries on top of boto3's own."""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from urbandet_ray.config import StorageConfig
from urbandet_ray.storage.policy import RetryPolicy

if TYPE_CHECKING:
    from boto3.session import Session

T = TypeVar("T")

_MAX_CONNECTIONS = 32
_THROTTLED = frozenset(
    {
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "RequestLimitExceeded",
        "TooManyRequests",
        "ServiceUnavailable",
        "InternalError",
        "RequestTimeout",
        "500",
        "502",
        "503",
        "504",
        "429",
    }
)


@dataclass(frozen=True)
class Connection:
    """A client together with what error messages want to say about it."""

    client: Any  # an S3 client; its stubs do not allow optional arguments
    session: Session | None
    options: StorageConfig
    policy: RetryPolicy

    @property
    def endpoint(self) -> str:
        """The server's address, without user names or passwords."""
        scheme, _, rest = str(self.client.meta.endpoint_url).partition("://")
        return f"{scheme}://{rest.rpartition('@')[2]}"


_connections: dict[object, Connection] = {}
_lock = threading.Lock()


def connect(options: StorageConfig, policy: RetryPolicy) -> Connection:
    """The process's connection for these options, made on first use; safe in threads and forks."""
    key = (options, policy, os.getpid(), _environment_digest())
    with _lock:
        if key not in _connections:
            _connections[key] = _make(options, policy)
        return _connections[key]


def _environment_digest() -> str:
    relevant = sorted((k, v) for k, v in os.environ.items() if k.startswith("AWS_"))
    return hashlib.sha256(repr(relevant).encode()).hexdigest()


def _make(options: StorageConfig, policy: RetryPolicy) -> Connection:
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    extra: dict[str, Any] = {"signature_version": UNSIGNED} if options.anonymous else {}
    own_server = options.endpoint_url or any(
        os.environ.get(name) for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
    )
    if own_server:  # many S3 work-alikes reject the checksum trailers newer SDKs send unasked
        if "AWS_REQUEST_CHECKSUM_CALCULATION" not in os.environ:
            extra["request_checksum_calculation"] = "when_required"
        if "AWS_RESPONSE_CHECKSUM_VALIDATION" not in os.environ:
            extra["response_checksum_validation"] = "when_required"
    config = Config(
        retries={"mode": "standard", "total_max_attempts": policy.boto_attempts},
        connect_timeout=policy.connect_timeout_s,
        read_timeout=policy.read_timeout_s,
        max_pool_connections=_MAX_CONNECTIONS,
        tcp_keepalive=True,
        user_agent_extra="urbandet-ray",
        **extra,
    )
    session = boto3.session.Session(region_name=options.region)
    client = session.client("s3", endpoint_url=options.endpoint_url, config=config)
    if options.requester_pays:
        client.meta.events.register("before-sign.s3", _accept_charges)
    return Connection(client, None if options.anonymous else session, options, policy)


def _accept_charges(request: Any, **_: Any) -> None:
    """Every request says that its sender pays for it.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/ObjectsinRequesterPaysBuckets.html
    """
    request.headers["x-amz-request-payer"] = "requester"


def retrying(policy: RetryPolicy, call: Callable[[], T]) -> T:
    """Call again while the failure is one that passes (throttling, a broken connection)."""
    for tries in range(policy.attempts):
        try:
            return call()
        except Exception as error:
            if tries + 1 == policy.attempts or not is_passing(error):
                raise
        pause(policy, tries)
    raise AssertionError("unreachable")


def pause(policy: RetryPolicy, tries: int) -> None:
    """Sleep for a random time that grows with the tries."""
    time.sleep(random.uniform(0, min(policy.max_s, policy.base_s * 2**tries)))


def is_passing(error: BaseException) -> bool:
    """Whether the same request may succeed a little later."""
    from botocore.exceptions import ClientError

    if isinstance(error, ClientError):
        return error_code(error) in _THROTTLED or http_status(error) in (500, 502, 503, 504)
    return is_broken_connection(error)


def is_broken_connection(error: BaseException) -> bool:
    """Whether an established connection broke or fell silent; refused connections are not meant."""
    from botocore import exceptions as boto
    from botocore.parsers import ResponseParserError
    from urllib3 import exceptions as http

    return isinstance(
        error,
        (
            boto.ConnectionClosedError,
            boto.ReadTimeoutError,
            boto.IncompleteReadError,
            boto.ResponseStreamingError,
            boto.FlexibleChecksumError,
            ResponseParserError,
            http.ProtocolError,
            http.ReadTimeoutError,
            ConnectionError,
            TimeoutError,
        ),
    )


def whole(answer: Any, field: str) -> Any:
    """The answer itself, if it has the field: http.client takes a cut header block for a whole one.

    Raises:
        ConnectionError: the answer broke off before that field.
    """
    if field not in answer:
        raise ConnectionError(f"the answer broke off: no {field}")
    return answer


def error_code(error: Any) -> str:
    """The S3 error code of a botocore ClientError ("NoSuchKey"; HEAD has only "404")."""
    return str(error.response.get("Error", {}).get("Code", ""))


def http_status(error: Any) -> int:
    """The HTTP status of a botocore ClientError; 0 where unknown."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) or 0)
