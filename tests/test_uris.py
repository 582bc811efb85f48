"""URIs and patterns."""

import fnmatch
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from urbandet_ray.errors import StorageError
from urbandet_ray.storage import is_remote, join_uri
from urbandet_ray.uris import S3Location, glob_regex, is_hidden, parent_uri, parse_uri


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("/data/a b.txt", Path("/data/a b.txt")),
        ("data", Path.cwd() / "data"),
        ("~/x", Path.home() / "x"),
        ("file:///data/a%20b", Path("/data/a b")),
        ("file://localhost/data", Path("/data")),
        ("s3://bucket", S3Location("bucket", "")),
        ("s3://bucket/a/b.txt", S3Location("bucket", "a/b.txt")),
        ("s3://bucket/a//b/", S3Location("bucket", "a//b/")),
    ],
)
def test_parses_what_is_supported(uri: str, expected: object) -> None:
    """Local paths become absolute, S3 URIs keep their key as it is."""
    assert parse_uri(uri) == expected


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("gs://b/x", r"gs:// is not supported; expected a local path, file:///path or s3://"),
        ("http://host/x", r"http:// is not supported"),
        ("s3:/bucket/x", r"no S3 URI: expected s3://bucket/key, with two slashes"),
        ("s3a:bucket/x", r"no S3 URI"),
        ("s3://", r"names no bucket"),
        ("s3:///key", r"names no bucket"),
        ("s3://a b/key", r"'a b' is no bucket name"),
        ("file://data", r"needs an absolute path"),
        ("file://host/data", r"needs an absolute path"),
        ("", r"'' is no place for files"),
        ("a\0b", r"no place for files"),
        ("~nobody-of-this-name/x", r"no home folder known"),
    ],
)
def test_refuses_other_places(uri: str, message: str) -> None:
    """Anything else is refused with what is supported."""
    with pytest.raises(StorageError, match=message):
        parse_uri(uri)


@given(st.text(max_size=30))
def test_parsing_never_crashes(text: str) -> None:
    """Any text is a place or a StorageError."""
    for uri in (text, "s3://" + text, "file:" + text):
        try:
            parse_uri(uri)
        except StorageError as error:
            assert str(error)


@pytest.mark.parametrize(
    ("base", "parts", "expected"),
    [
        ("/run", ("a", "b.txt"), "/run/a/b.txt"),
        ("/run/", ("a/b",), "/run/a/b"),
        ("s3://b", ("run", "", "x"), "s3://b/run/x"),
        ("s3://b/run/", ("x",), "s3://b/run/x"),
        ("run", (), "run"),
    ],
)
def test_joins_with_single_slashes(base: str, parts: tuple[str, ...], expected: str) -> None:
    """Joining works the same for paths and S3 URIs."""
    assert join_uri(base, *parts) == expected


@pytest.mark.parametrize("part", ["/etc/passwd", "../x", "a/../../x", "s3://other/x"])
def test_join_stays_below_its_base(part: str) -> None:
    """Joining refuses parts that lead elsewhere."""
    with pytest.raises(ValueError, match="is not a relative path below"):
        join_uri("/run", part)


def test_knows_remote_from_local() -> None:
    """Only S3 counts as remote."""
    assert is_remote("s3://b/x")
    assert not is_remote("/s3/x")
    assert not is_remote("file:///x")


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.tfrecord", "a.tfrecord", True),
        ("*.tfrecord", "d/a.tfrecord", False),
        ("**/*.tfrecord", "a.tfrecord", True),
        ("**/*.tfrecord", "d/e/a.tfrecord", True),
        ("d/**", "d/e/f", True),
        ("seg-[0-9]/x", "seg-7/x", True),
        ("seg-[!0-9]/x", "seg-7/x", False),
        ("a[", "a[", True),
        ("a?c", "a/c", False),
        ("a.c", "abc", False),
        ("[!a]b", "/b", False),
    ],
)
def test_patterns(pattern: str, path: str, matches: bool) -> None:
    """* and ? stay within a folder, ** spans folders."""
    assert bool(glob_regex(pattern).fullmatch(path)) is matches


def test_a_range_that_runs_backwards_is_refused() -> None:
    """fnmatch would match nothing without a word."""
    with pytest.raises(
        StorageError, match=r"the pattern 'seg-\[9-0\]' is not understood: bad char"
    ):
        glob_regex("seg-[9-0]")


@given(st.text("ab*?[]!-^\\&", max_size=8), st.text("ab[]!-^\\", max_size=6))
def test_patterns_agree_with_fnmatch(pattern: str, name: str) -> None:
    """Within one folder the patterns mean what the shell's mean."""
    try:
        ours = glob_regex(pattern).fullmatch(name)
    except StorageError as error:
        assert re.search("is not understood", str(error))
        return
    assert bool(ours) is fnmatch.fnmatchcase(name, pattern)


@pytest.mark.parametrize("scheme", ["s3a", "s3n", "S3", "S3A"])
def test_hadoop_s_names_of_s3_are_s3(scheme: str) -> None:
    """Spark and EMR write s3a:// and s3n:// for the same objects."""
    at = parse_uri(f"{scheme}://bucket/drives/a")
    assert isinstance(at, S3Location)
    assert at.uri == "s3://bucket/drives/a"
    assert is_remote(f"{scheme}://bucket/drives/a")


@pytest.mark.parametrize("part", ["..", ".", "a/../b"])
def test_dots_in_a_key_are_a_name(part: str) -> None:
    """S3 has no folders to climb out of; a local path has."""
    assert join_uri("s3://bucket/x", part) == f"s3://bucket/x/{part}"
    assert not is_hidden(part)
    if ".." in part:
        with pytest.raises(ValueError, match="not a relative path"):
            join_uri("/data", part)


@pytest.mark.parametrize(
    ("uri", "above"),
    [
        ("s3://drives/val/a.tfrecord", "s3://drives/val"),
        ("s3://drives/val/", "s3://drives"),
        ("s3://drives", None),
        ("s3://drives/", None),
        ("/data/val", "/data"),
        ("/data", "/"),
        ("/", None),
    ],
)
def test_the_folder_above(uri: str, above: str | None) -> None:
    """A bucket and the root lie in nothing."""
    assert parent_uri(uri) == above
