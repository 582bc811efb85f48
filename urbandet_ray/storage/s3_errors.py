"""The one place where botocore's errors become ours, in words that tell what to do."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from urbandet_ray.errors import (
    AccessError,
    ArchivedError,
    ConflictError,
    NotFoundError,
    StorageError,
    UrbandetError,
)
from urbandet_ray.storage.s3_client import Connection, error_code, http_status
from urbandet_ray.uris import S3Location

_DENIED = {"AccessDenied", "403", "Forbidden", "AllAccessDisabled", "AccountProblem"}
_NO_SUCH = {"NoSuchBucket", "NoSuchKey", "404", "NotFound"}
_SIGN_IN = "the session token is expired or invalid: sign in again (aws sso login) or renew it"
_CHECK_KEY = (
    "the server does not accept the access key: check it with 'aws sts get-caller-identity'"
)
BAD_CREDENTIALS = {
    "ExpiredToken": _SIGN_IN,
    "ExpiredTokenException": _SIGN_IN,
    "TokenRefreshRequired": _SIGN_IN,
    "InvalidToken": _SIGN_IN,
    "InvalidAccessKeyId": _CHECK_KEY,
    "SignatureDoesNotMatch": _CHECK_KEY,
    "InvalidSecurity": _CHECK_KEY,
    "NotSignedUp": _CHECK_KEY,
    "UnrecognizedClientException": _CHECK_KEY,
    "InvalidClientTokenId": _CHECK_KEY,
    "InvalidSignatureException": _CHECK_KEY,
    "RequestTimeTooSkewed": "this machine's clock is wrong: set it (NTP)",
}
"""What to do, by S3's code or another AWS service's."""
_MOVED = {
    "PermanentRedirect",
    "301",
    "307",
    "TemporaryRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
}
_LOST = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}


@contextmanager
def translated(connection: Connection, action: str, at: S3Location) -> Iterator[None]:
    """Raise our own error for whatever boto3 raises within; `action` is the IAM name."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (
        ClientError,
        BotoCoreError,
        HTTPClientError,
        Boto3Error,
        HTTPError,
        ResponseParserError,
        ConnectionError,
        TimeoutError,
    ) as error:
        raise translate(error, connection, action, at) from error


def translate(
    error: BaseException, connection: Connection, action: str, at: S3Location
) -> UrbandetError:
    """Our error for botocore's.

    Args:
        error: what boto3 raised.
        connection: the client it used, for the endpoint and whose credentials they were.
        action: IAM action, such as "s3:GetObject".
        at: bucket and key that were asked for.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import ClientError

    if isinstance(error, Boto3Error) and isinstance(error.__context__, Exception):
        error = error.__context__  # s3transfer wraps the interesting one
    if isinstance(error, ClientError):
        if error_code(error) == "InvalidObjectState":
            return _archived(error, at)
        return _of_response(error, connection, action, at)
    return _of_client(error, connection, action, at)


def _of_response(error: Any, connection: Connection, action: str, at: S3Location) -> UrbandetError:
    code, status = error_code(error), http_status(error)
    said = str(error.response.get("Error", {}).get("Message", ""))
    if code in _NO_SUCH:
        return _missing(code, connection, at)
    if code in _DENIED or (status == 403 and not code):
        return _denied(said, connection, action, at)
    if code in BAD_CREDENTIALS:
        return AccessError(
            f"{action} on {at.uri}: {BAD_CREDENTIALS[code]} "
            f"({code}, with {_identity(connection)}, {_where(connection)})"
        )
    if code in _MOVED:
        return _moved(error, connection, action, at)
    if code in _LOST:
        return ConflictError(f"{at.uri} was written by somebody else meanwhile")
    lacks = " (the server lacks this feature)" if status == 501 else ""
    return StorageError(
        f"{action} on {at.uri} failed after retries ({_where(connection)}): "
        f"{code or status} {said}{lacks}".rstrip()
    )


def _missing(code: str, connection: Connection, at: S3Location) -> NotFoundError:
    if code == "NoSuchBucket" or not at.key:
        return NotFoundError(
            f"bucket {at.bucket!r} does not exist ({_where(connection)}): check its name, "
            "and the endpoint if it lives on another server"
        )
    return NotFoundError(f"{at.uri} does not exist ({_where(connection)})")


def _archived(error: Any, at: S3Location) -> ArchivedError:
    kept = error.response.get("Error", {}).get("StorageClass") or "S3 Glacier"
    return ArchivedError(
        f"{at.uri} is archived ({kept}), so S3 does not hand it out: restore it first "
        f"(aws s3api restore-object --bucket {at.bucket} --key {shlex.quote(at.key)} "
        "--restore-request Days=7), which takes minutes to hours"
    )


def _denied(said: str, connection: Connection, action: str, at: S3Location) -> AccessError:
    needs = f"{action} on arn:aws:s3:::{at.bucket}"
    hint = ""
    if action != "s3:ListBucket":
        needs += f"/{at.key}"
    if action == "s3:GetObject":
        needs += f"; s3:ListBucket on arn:aws:s3:::{at.bucket}"
        hint = ". Without s3:ListBucket, S3 says this of a file that does not exist, too"
    if action in ("s3:GetObject", "s3:ListBucket") and not connection.options.requester_pays:
        hint += (
            ". A bucket whose readers pay (Requester Pays) says this too, without "
            "--s3-requester-pays (storage.requester_pays)"
        )
    server = (
        f"; the server says: {said}" if said and said not in ("Forbidden", "Access Denied") else ""
    )
    return AccessError(
        f"access denied: {action} on bucket {at.bucket!r}, key {at.key!r}, with "
        f"{_identity(connection)}. Missing permission: {needs}{hint}{server}"
    )


def _moved(error: Any, connection: Connection, action: str, at: S3Location) -> StorageError:
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    told = error.response.get("Error", {})
    region = headers.get("x-amz-bucket-region") or told.get("Region") or told.get("BucketRegion")
    advice = (
        f"it is in {region}: set region {region!r} (or AWS_REGION={region})"
        if region
        else "set the region the bucket was made in"
    )
    return StorageError(
        f"{action} on {at.uri}: bucket {at.bucket!r} is not in region "
        f"{connection.client.meta.region_name!r}; {advice}"
    )


def _of_client(
    error: BaseException, connection: Connection, action: str, at: S3Location
) -> UrbandetError:
    from botocore import exceptions as boto

    if isinstance(error, (boto.NoCredentialsError, boto.NoAuthTokenError)):
        return AccessError(
            f"{action} on {at.uri}: no AWS credentials found. Run 'aws configure', or set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give this machine a "
            "role; for a public bucket use the anonymous option"
        )
    return session_error(error, at) or StorageError(
        f"{action} on {at.uri}: {_network_trouble(error)} at {connection.endpoint} "
        "after retries: check the endpoint, the network and the proxy"
    )


def session_error(error: BaseException, at: S3Location) -> UrbandetError | None:
    """Our error where credentials or options are at fault before any request; else None."""
    from botocore import exceptions as boto

    credentials = (
        boto.ProfileNotFound,
        boto.PartialCredentialsError,
        boto.CredentialRetrievalError,
        boto.MetadataRetrievalError,
        boto.TokenRetrievalError,
        boto.SSOError,
    )
    if isinstance(error, credentials):
        return AccessError(f"no usable AWS credentials for {at.uri}: {error}")
    if isinstance(error, (boto.ParamValidationError, boto.InvalidRegionError, ValueError)):
        return StorageError(f"{at.uri} cannot be asked for: {' '.join(str(error).split())}")
    return None


def _network_trouble(error: BaseException) -> str:
    from botocore import exceptions as boto

    if isinstance(error, boto.SSLError):
        return "TLS failed"
    if isinstance(error, boto.ProxyConnectionError):
        return "the proxy cannot be reached, asking"
    if isinstance(error, (boto.EndpointConnectionError, boto.ConnectTimeoutError)):
        return "cannot reach the server"
    return f"the connection failed ({type(error).__name__})"


def _where(connection: Connection) -> str:
    return f"region {connection.client.meta.region_name}, endpoint {connection.endpoint}"


def _identity(connection: Connection) -> str:
    """Whose credentials they were, without any part of them."""
    if connection.session is None:
        return "anonymous access"
    method = None
    with suppress(Exception):  # a hint for a message must not raise another error
        credentials = connection.session.get_credentials()
        method = credentials.method if credentials else None
    profile = os.environ.get("AWS_PROFILE")
    named = f" of profile {profile!r}" if profile and method != "env" else ""
    return f"the credentials{named} from {method or 'an unknown source'}"
