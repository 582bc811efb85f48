"""One file brought to this machine from http(s), s3:// or a folder, in pieces if need be."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from ssl import SSLError
from typing import BinaryIO, cast
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from urbandet_ray.errors import AccessError, NotFoundError, StorageError
from urbandet_ray.storage.files import Storage

Progress = Callable[[int, int | None], None]
"""Called with the bytes there so far and the bytes of the whole file, None where unknown."""

_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 30.0
_GONE = 404, 410
_DENIED = 401, 403, 407
_NO_SUCH_RANGE = 416


@dataclass(frozen=True)
class _Source:
    """An opened file: what is left of it, from where, how large it is, and which version."""

    stream: BinaryIO
    offset: int
    size_bytes: int | None
    version: str


def is_http(uri: str) -> bool:
    """Whether the URI is a web address."""
    return bool(re.match(r"https?://", uri, re.I))


def download(uri: str, path: Path, storage: Storage, progress: Progress) -> None:
    """Copy a file to `path`, whole or not at all.

    What came before a connection broke is kept beside `path` as *.part; the next call goes on
    there, if the server still has the same version, and starts over if not.

    Args:
        uri: http://, https://, s3:// or local.
        path: its folder is made if needed.
        storage: opens what is not on the web.
        progress: told about every piece.

    Raises:
        NotFoundError: no such file.
        AccessError: the server wants other credentials.
        StorageError: nobody answers, or the connection broke: call again to go on.
    """
    part, note = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.part.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    begun = _begun(part, note, uri)
    offset = part.stat().st_size if begun else 0
    with _opened(uri, storage, offset, begun) as source:
        note.write_text(json.dumps({"uri": uri, "version": source.version}), "utf-8")
        done = source.offset
        with part.open("ab" if done else "wb") as out:
            while chunk := source.stream.read(_CHUNK_BYTES):
                out.write(chunk)
                done += len(chunk)
                progress(done, source.size_bytes)
    if source.size_bytes is not None and done != source.size_bytes:
        raise StorageError(
            f"{uri} broke off after {done} of {source.size_bytes} bytes: run it again to go on"
        )
    part.replace(path)
    note.unlink()


def _begun(part: Path, note: Path, uri: str) -> str:
    """The version of which a part is there; "" where there is none to go on with."""
    try:
        told = json.loads(note.read_text("utf-8"))
        known = told["uri"] == uri and part.stat().st_size > 0
        return str(told["version"]) if known else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


@contextmanager
def _opened(uri: str, storage: Storage, offset: int, version: str) -> Iterator[_Source]:
    if is_http(uri):
        with _translated(uri), _ask(uri, offset, version) as answer:
            yield _from_answer(answer)
        return
    info = storage.info(uri)
    start = offset if version == info.version and offset <= info.size_bytes else 0
    with storage.open_read(uri, start, info.version) as stream:
        yield _Source(stream, start, info.size_bytes, info.version)


def _ask(url: str, offset: int, version: str) -> HTTPResponse:
    """GET, from the offset on if the server still has that version (RFC 9110, If-Range)."""
    wanted = {"Range": f"bytes={offset}-", "If-Range": version} if offset else {}
    try:
        answer = urlopen(Request(url, headers=wanted), timeout=_TIMEOUT_S)
    except HTTPError as error:
        if not (offset and error.code == _NO_SUCH_RANGE):
            raise
        error.close()
        answer = urlopen(url, timeout=_TIMEOUT_S)
    return cast("HTTPResponse", answer)


def _from_answer(answer: HTTPResponse) -> _Source:
    # a weak ETag says nothing about bytes: If-Range does not take it
    tag = answer.headers.get("ETag", "")
    version = tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")
    length = answer.headers.get("Content-Length")
    size = int(length) if length and length.isdigit() else None
    span = re.fullmatch(r"bytes (\d+)-\d+/\d+", answer.headers.get("Content-Range", ""))
    offset = int(span[1]) if answer.status == 206 and span else 0
    return _Source(
        cast("BinaryIO", answer), offset, None if size is None else offset + size, version
    )


@contextmanager
def _translated(url: str) -> Iterator[None]:
    try:
        yield
    except HTTPError as error:
        said = f"{url}: the server answers {error.code} {error.reason}"
        error.close()
        if error.code in _GONE:
            raise NotFoundError(f"{said}: check the address") from error
        if error.code in _DENIED:
            raise AccessError(f"{said}: it wants credentials, or does not serve you") from error
        raise StorageError(f"{said}: try again later") from error
    except URLError as error:
        raise StorageError(f"cannot reach {url}: {error.reason}") from error
    except (TimeoutError, ConnectionError, SSLError, HTTPException) as error:
        what = str(error) or type(error).__name__
        raise StorageError(f"{url} broke off ({what}): run it again to go on there") from error
