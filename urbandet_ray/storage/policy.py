"""How long storage insists, and what it says about a file: plain values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RetryPolicy:
    """How long to insist. Waits are random in [0, min(max_s, base_s * 2**try)] (full jitter).

    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """

    attempts: int = 5
    """Tries of one operation, and re-opens of a stream without progress in between."""
    base_s: float = 0.5
    max_s: float = 20.0
    boto_attempts: int = 4
    """Tries that boto3 makes by itself within each of ours (its standard mode)."""
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 60.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.boto_attempts < 1:
            raise ValueError(f"at least one attempt is needed, got {self}")


@dataclass(frozen=True)
class FileInfo:
    """A file as it was found.

    Attributes:
        uri: absolute local path, or s3://bucket/key.
        size_bytes: its length.
        version: differs when the content does: the ETag on S3, the mtime in ns on local disks.
    """

    uri: str
    size_bytes: int
    version: str
