"""URIs: a local path (relative, absolute, ~, file://) or s3://bucket/key, and patterns in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote

from urbandet_ray.errors import StorageError

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_PLAIN_PATH = re.compile(r"(/[^/\0]+)+")
_BUCKET = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$")
_SUPPORTED = "a local path, file:///path or s3://bucket/key"


@dataclass(frozen=True)
class S3Location:
    """A bucket and a key; the key is "" for the whole bucket and ends with "/" for a folder."""

    bucket: str
    key: str

    @property
    def uri(self) -> str:
        """The location as s3://bucket/key."""
        return f"s3://{self.bucket}/{self.key}"


def parse_uri(uri: str) -> Path | S3Location:
    """Tell local paths (made absolute) from S3 locations.

    Raises:
        StorageError: empty, another scheme, or an s3 URI without a proper bucket.
    """
    text = str(uri)
    if _PLAIN_PATH.fullmatch(text):
        return Path(text)
    if not text or "\0" in text:
        raise StorageError(f"{text!r} is no place for files: expected {_SUPPORTED}")
    if is_remote(text):
        return _parse_s3(text)
    scheme = _SCHEME.match(text)
    if text.startswith("file:"):
        return _parse_file(text)
    if scheme:
        raise StorageError(
            f"{text!r}: the scheme {scheme[1]}:// is not supported; expected {_SUPPORTED}"
        )
    return _absolute(Path(text))


def _parse_s3(text: str) -> S3Location:
    scheme = re.match(r"s3[an]?://", text, re.I)
    if scheme is None:
        raise StorageError(f"{text!r} is no S3 URI: expected s3://bucket/key, with two slashes")
    bucket, _, key = text[scheme.end() :].partition("/")
    if not bucket:
        raise StorageError(f"{text!r} names no bucket: expected s3://bucket/key")
    if not _BUCKET.match(bucket):
        raise StorageError(
            f"{text!r}: {bucket!r} is no bucket name (letters, digits, '.', '-'; 3 to 63 long)"
        )
    return S3Location(bucket, key)


def _parse_file(text: str) -> Path:
    path = unquote(re.sub(r"^file:(//(localhost)?(?=/))?", "", text))
    if not path.startswith("/") or path.startswith("//"):
        raise StorageError(
            f"{text!r}: a file URI needs an absolute path, as in file:///data/drives"
        )
    return _absolute(Path(path))


def _absolute(path: Path) -> Path:
    try:
        return Path(*path.expanduser().absolute().parts)
    except RuntimeError as error:
        raise StorageError(f"{path}: no home folder known for '~': give a full path") from error


def absolute_uri(uri: str) -> str:
    """The URI as a process with another working directory reads it: a local path made absolute.

    Raises:
        StorageError: no home folder is known for its `~`.
    """
    return uri if "://" in uri else str(_absolute(Path(uri)))


def is_remote(uri: str) -> bool:
    """Whether the URI is on S3 (or looks meant to be); s3a:// and s3n:// are Hadoop's names."""
    return bool(re.match(r"^s3[an]?:", str(uri), re.I))


def join_uri(base: str, *parts: str) -> str:
    """Put parts below a base, local or s3://, with single slashes: ("s3://b/", "run", "a.txt").

    Raises:
        ValueError: a part is absolute, has its own scheme, or climbs out of a local folder by "..".
    """
    joined = str(base)
    for part in parts:
        climbs = ".." in part.split("/") and not is_remote(base)  # in a key it is a name
        if part.startswith("/") or _SCHEME.match(part) or climbs:
            raise ValueError(f"{part!r} is not a relative path below {base!r}")
        if part:
            joined = f"{joined}{'' if joined.endswith('/') else '/'}{part}"
    return joined


def parent_uri(uri: str) -> str | None:
    """The folder that holds a file or folder; None for a bucket and for the root.

    "s3://drives/val" lies in "s3://drives", and that in nothing; "/data" lies in "/".
    """
    at = parse_uri(uri)
    if isinstance(at, Path):
        return str(at.parent) if at.parent != at else None
    key = at.key.rstrip("/")
    if not key:
        return None
    above = key.rpartition("/")[0]
    return join_uri(f"s3://{at.bucket}", above)


def has_glob(text: str) -> bool:
    """Whether the text holds a pattern character: *, ? or [."""
    return any(sign in text for sign in "*?[")


def split_glob(path: str) -> tuple[str, str]:
    """Split at the first folder that holds a pattern: "a/b/seg-*/x" -> ("a/b", "seg-*/x")."""
    parts = path.split("/")
    first = next(i for i, part in enumerate(parts) if has_glob(part))
    return "/".join(parts[:first]), "/".join(parts[first:])


@lru_cache(maxsize=64)
def glob_regex(pattern: str) -> re.Pattern[str]:
    """A regex for a whole relative path: * and ? stay within a folder, ** spans folders."""
    out, at = "", 0
    while at < len(pattern):
        rest = pattern[at:]
        if rest.startswith("**/") and (at == 0 or pattern[at - 1] == "/"):
            out, at = out + r"(?:[^/]+/)*", at + 3
        elif rest.startswith("**"):
            out, at = out + ".*", at + 2
        elif rest[0] in "*?":
            out, at = out + ("[^/]*" if rest[0] == "*" else "[^/]"), at + 1
        elif rest[0] == "[" and (group := re.match(r"\[(!?)(\]?[^\]/]*)\]", rest)) and group[2]:
            members = re.sub(r"([\\\[\]^&~|])", r"\\\1", group[2])
            out, at = f"{out}(?!/)[{'^' if group[1] else ''}{members}]", at + group.end()
        else:
            out, at = out + re.escape(rest[0]), at + 1
    try:
        return re.compile(out, re.S)
    except re.error as error:
        raise StorageError(f"the pattern {pattern!r} is not understood: {error}") from error


def is_hidden(relative: str) -> bool:
    """Whether listings pass over it: a part that starts with ".", or an unfinished *.tmp file.

    On S3 "." and ".." are names as any other, which some programs leave in keys: not hidden.
    """
    return bool(hidden_part(relative))


def hidden_part(relative: str) -> str:
    """A path down to its first hidden part, with "/" behind a folder; "" where nothing is hidden.

    `a/.git/config` is hidden by `a/.git/`.
    """
    parts = relative.split("/")
    for depth, part in enumerate(parts, start=1):
        if part.startswith(".") and part not in (".", ".."):
            return "/".join(parts[:depth]) + "/" * (depth < len(parts))
    return relative if relative.endswith(".tmp") else ""
