"""Keeps keys out of a job: its spec, command and log can be read by all who see the dashboard."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from urbandet_ray.errors import ConfigError

FORWARDED = (
    "AWS_DEFAULT_REGION",
    "AWS_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_RESPONSE_CHECKSUM_VALIDATION",
)
"""Variables of the submitting shell that a job gets: where S3 is, never who asks."""

_SHORTEST = 8
"""A secret of the environment shorter than this is a word, not a key."""

_SECRET_NAME = re.compile(r"secret|passw|token|access_?key|credential|api_?key|private_?key", re.I)
_LOOKS_LIKE = {
    "an AWS access key id": re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a password within an address": re.compile(r"://[^/\s@]+@"),
    "a signed address": re.compile(r"[?&](X-Amz-\w+|Signature|sig)=", re.I),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY"),
    "an access token": re.compile(r"\b(gh[pousr]|hf|glpat|xox[bp])[_-][A-Za-z0-9_-]{20,}"),
    "an AWS secret key": re.compile(
        r"(?<![\w/+=])(?=[\w/+]*[a-z])(?=[\w/+]*[A-Z])(?=[\w/+]*\d)[A-Za-z0-9/+]{40}(?![\w/+=])"
    ),
}


def forwarded(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that travel with a job.

    Raises:
        ConfigError: one of them holds a password.
    """
    found = {name: environ[name] for name in FORWARDED if environ.get(name)}
    refuse_secrets([f"{name}={value}" for name, value in found.items()], {})
    return found


def refuse_secrets(settings: Iterable[str], environ: Mapping[str, str]) -> None:
    """Refuse `key=value` settings that would put a secret into a job's spec.

    Args:
        settings: what the job's command would hold.
        environ: whose secrets must not be among the values.

    Raises:
        ConfigError: names the setting and what it looks like, never the value.
    """
    for setting in settings:
        key, _, value = setting.partition("=")
        looks = _looks_like_secret(key, value, environ)
        if looks is not None:
            raise ConfigError(
                f"{key} holds {looks}: a job's spec and log can be read by everybody who sees the "
                "dashboard, so nothing was sent. Nodes get their rights from their own role "
                "(docs/how-to/submit-jobs.md)"
            )


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a config's tree by dotted key; a list is one value."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _looks_like_secret(key: str, value: str, environ: Mapping[str, str]) -> str | None:
    if value and _SECRET_NAME.search(key):
        return "a secret, by its name"
    for kind, pattern in _LOOKS_LIKE.items():
        if pattern.search(value):
            return f"what looks like {kind}"
    for name, secret in environ.items():
        if _SECRET_NAME.search(name) and len(secret) >= _SHORTEST and secret in value:
            return f"the value of {name}"
    return None
