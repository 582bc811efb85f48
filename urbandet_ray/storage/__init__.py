"""The one door to files: local folders and s3://, with the same promises for both."""

from urbandet_ray.storage.files import Storage
from urbandet_ray.storage.lock import WriterLock
from urbandet_ray.storage.options import FileInfo, RetryPolicy, S3Options
from urbandet_ray.storage.uris import is_remote, join_uri

__all__ = [
    "FileInfo",
    "RetryPolicy",
    "S3Options",
    "Storage",
    "WriterLock",
    "is_remote",
    "join_uri",
]
