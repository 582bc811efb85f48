"""The one door to files: local folders and s3://, with the same promises for both."""

from urbandet_ray.storage.files import Storage
from urbandet_ray.storage.policy import FileInfo, RetryPolicy
from urbandet_ray.uris import absolute_uri, is_remote, join_uri

__all__ = [
    "FileInfo",
    "RetryPolicy",
    "Storage",
    "absolute_uri",
    "is_remote",
    "join_uri",
]
