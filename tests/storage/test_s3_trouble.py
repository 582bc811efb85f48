"""What happens when S3 is slow, breaks off or refuses."""

import contextlib
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from urbandet_ray.config import StorageConfig
from urbandet_ray.errors import AccessError, ConflictError, NotFoundError, StorageError
from urbandet_ray.storage import RetryPolicy, Storage

pytestmark = pytest.mark.s3

QUICK = RetryPolicy(attempts=4, base_s=0.01, boto_attempts=1)


class CuttingProxy:
    """A TCP proxy that cuts its n-th connection after so many bytes of answer."""

    def __init__(self, target_url: str, cuts: list[int], hang: bool = False) -> None:
        self._target = (urlsplit(target_url).hostname, urlsplit(target_url).port)
        self._cuts, self._hang = list(cuts), hang
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = [self._listener]
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._open += [client, server]
                self.connections += 1
                budget = self._cuts.pop(0) if self._cuts else 1 << 60
                for pair in ((client, server, 1 << 60), (server, client, budget)):
                    threading.Thread(target=self._relay, args=pair, daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, budget: int) -> None:
        with contextlib.suppress(OSError):
            while budget and (data := source.recv(min(budget, 65536))):
                sink.sendall(data)
                budget -= len(data)
            if budget == 0:
                source.recv(1)  # the request was carried out, its answer gets lost
                if self._hang:
                    return
            for end in (source, sink):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for end in self._open:
            end.close()


class ScriptedServer:
    """Answers each request with the next (status, error code, headers) of a list, then with 200."""

    def __init__(self) -> None:
        self.script: list[tuple[int, str, dict[str, str]]] = []
        self.requests: list[str] = []
        script, asked = self.script, self.requests

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked.append(f"{self.command} {self.path}")
                status, code, headers = script.pop(0) if script else (200, "", {})
                body = b"hello" if self.command == "GET" else b""
                if status != 200 and self.command != "HEAD":
                    body = f"<Error><Code>{code}</Code><Message>said</Message></Error>".encode()
                self.send_response(status)
                for name, value in {"ETag": '"v1"', **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PUT = do_HEAD = do_DELETE = answer

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def storage(
        self,
        *script: tuple[int, str, dict[str, str]],
        retries: RetryPolicy = QUICK,
        **options: object,
    ) -> Storage:
        """A storage whose requests get these answers."""
        self.script[:], self.requests[:] = script, []
        return Storage(StorageConfig(endpoint_url=self.url, **options), retries)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def opened(aws_test_credentials: None) -> Iterator[contextlib.ExitStack]:
    """Closes what a test opens."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture(scope="module")
def server(aws_test_credentials: None) -> Iterator[ScriptedServer]:
    """One for the module, so that its client is made once."""
    with contextlib.closing(ScriptedServer()) as scripted:
        yield scripted


@pytest.fixture
def large(s3_server) -> tuple[str, bytes]:
    """URI and content of an object of 3 MB."""
    uri = s3_server.make_bucket(f"b-{uuid.uuid4().hex[:12]}") + "/large"
    content = bytes(range(256)) * 12_000
    Storage(s3_server.options).write_bytes(uri, content)
    return uri, content


def _through(opened: contextlib.ExitStack, proxy: CuttingProxy) -> Storage:
    opened.callback(proxy.close)
    return Storage(StorageConfig(endpoint_url=proxy.url), QUICK)


def test_goes_on_where_a_connection_broke(s3_server, opened, large: tuple[str, bytes]) -> None:
    """A body cut three times midway arrives whole, from an offset too."""
    uri, content = large
    proxy = CuttingProxy(s3_server.endpoint_url, [900_000, 500_000, 1_000_000])
    with _through(opened, proxy).open_read(uri, offset=1000) as stream:
        assert stream.read() == content[1000:]
    assert proxy.connections == 4


def test_goes_on_where_a_connection_fell_silent(
    s3_server, opened, large: tuple[str, bytes]
) -> None:
    """A server that stops sending is given up after the read timeout and asked again."""
    uri, content = large
    proxy = CuttingProxy(s3_server.endpoint_url, [900_000], hang=True)
    opened.callback(proxy.close)
    # attempts in plenty: a busy server may be silent for as long
    quick = RetryPolicy(attempts=50, base_s=0.01, boto_attempts=1, read_timeout_s=0.5)
    assert Storage(StorageConfig(endpoint_url=proxy.url), quick).read_bytes(uri) == content
    assert proxy.connections >= 2


def test_gives_up_when_it_keeps_breaking(s3_server, opened, large: tuple[str, bytes]) -> None:
    """Attempts without progress are bounded; the error names file and server."""
    uri, _ = large
    proxy = CuttingProxy(s3_server.endpoint_url, [900_000, *[100] * 10])
    stream = _through(opened, proxy).open_read(uri)
    with pytest.raises(
        StorageError, match=r"/large: the connection failed .* at http.* after retries"
    ):
        stream.read()
    assert proxy.connections == QUICK.attempts


def test_content_changed_while_reading_is_told(s3_server, opened, large: tuple[str, bytes]) -> None:
    """After a break the rest must be of the same version: no mix of old and new bytes."""
    uri, content = large
    proxy = CuttingProxy(s3_server.endpoint_url, [900_000])
    stream = _through(opened, proxy).open_read(uri)
    stream.read(10)
    Storage(s3_server.options).write_bytes(uri, content[::-1])
    with pytest.raises(StorageError, match=r"changed while it was read .*start again"):
        stream.read()


def test_a_put_whose_answer_got_lost_is_not_a_conflict(s3_server, opened) -> None:
    """The repeated conditional put finds its own first try, and knows it."""
    bucket = s3_server.make_bucket(f"b-{uuid.uuid4().hex[:12]}")
    proxy = CuttingProxy(s3_server.endpoint_url, [0])
    version = _through(opened, proxy).write_bytes(f"{bucket}/a", b"x", if_absent=True)
    assert proxy.connections > 1
    assert Storage(s3_server.options).info(f"{bucket}/a").version == version


def test_an_answer_cut_in_its_headers_is_asked_for_again(s3_server, opened) -> None:
    """Half an answer is no answer: neither an empty listing nor a file without a version."""
    bucket = s3_server.make_bucket(f"b-{uuid.uuid4().hex[:12]}")
    Storage(s3_server.options).write_bytes(f"{bucket}/d/a", b"x")
    for ask in (
        lambda storage: [info.uri for info in storage.list_files(f"{bucket}/d/")],
        lambda storage: storage.info(f"{bucket}/d/a").uri,
        lambda storage: storage.read_bytes(f"{bucket}/d/a"),
        lambda storage: storage.write_bytes(f"{bucket}/d/a", b"x"),
    ):
        whole = ask(Storage(s3_server.options))
        proxy = CuttingProxy(s3_server.endpoint_url, [60, 30])
        assert ask(_through(opened, proxy)) == whole
        assert proxy.connections == 3


def test_a_server_without_ranges_is_refused(server) -> None:
    """A server that answers a part with the whole would give wrong bytes."""
    with pytest.raises(StorageError, match="does not honour the Range header"):
        server.storage().open_read("s3://bucket/key", offset=2)


def test_throttling_is_waited_out(server) -> None:
    """SlowDown and other passing failures are tried again."""
    script = [(503, "SlowDown", {}), (500, "InternalError", {}), (503, "", {})]
    assert server.storage(*script).read_bytes("s3://bucket/key") == b"hello"
    assert len(server.requests) == 4


def test_throttling_is_not_waited_for_ever(server) -> None:
    """After all attempts the server's own words are passed on."""
    script = [(503, "SlowDown", {})] * 20
    with pytest.raises(
        StorageError, match=r"s3:PutObject on s3://.* after retries .*SlowDown said"
    ):
        server.storage(*script).write_bytes("s3://bucket/key", b"x")
    assert len(server.requests) == QUICK.attempts


def test_backoff_grows_and_is_random(server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits are drawn below base * 2**try, capped."""
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    policy = RetryPolicy(attempts=8, base_s=1, max_s=10, boto_attempts=1)
    script = [(503, "SlowDown", {})] * 20
    with pytest.raises(StorageError, match="SlowDown"):
        server.storage(*script, retries=policy).delete("s3://bucket/key")
    ours = waits[-7:]
    assert all(0 <= wait <= min(10, 2**tries) for tries, wait in enumerate(ours))
    assert len(set(ours)) == 7


def test_a_conditional_conflict_is_tried_once_more(server) -> None:
    """409 means another write was under way: once more, then it is lost."""
    busy = (409, "ConditionalRequestConflict", {})
    assert server.storage(busy).write_bytes("s3://bucket/key", b"", if_absent=True) == "v1"
    with pytest.raises(ConflictError, match="s3://bucket/key exists already"):
        server.storage(busy, busy).write_bytes("s3://bucket/key", b"", if_absent=True)


def test_where_it_is_unknown_who_wrote_no_conflict_is_claimed(server) -> None:
    """The put is refused, perhaps by its own first try; the question who wrote is not answered."""
    script = [(412, "PreconditionFailed", {})] + [(503, "SlowDown", {})] * QUICK.attempts
    with pytest.raises(StorageError, match=r"s3:GetObject .* failed after retries") as raised:
        server.storage(*script).write_bytes("s3://bucket/key", b"", if_absent=True)
    assert not isinstance(raised.value, ConflictError)


@pytest.mark.parametrize(
    ("status", "code", "headers", "kind", "message"),
    [
        (
            403,
            "AccessDenied",
            {},
            AccessError,
            r"s3:GetObject on bucket 'bucket', key 'a/key', with the credentials from env. Missing "
            r"permission: s3:GetObject on arn:aws:s3:::bucket/a/key; s3:ListBucket on "
            r"arn:aws:s3:::bucket. Without s3:ListBucket.*does not exist, too. "
            r"A bucket whose readers pay .*--s3-requester-pays.*; .*says: said",
        ),
        (400, "ExpiredToken", {}, AccessError, "session token is expired or invalid: sign in"),
        (403, "InvalidAccessKeyId", {}, AccessError, "not accept the access key.*credentials from"),
        (403, "SignatureDoesNotMatch", {}, AccessError, "does not accept the access key"),
        (403, "RequestTimeTooSkewed", {}, AccessError, "clock is wrong"),
        (404, "NoSuchBucket", {}, NotFoundError, "bucket 'bucket' does not exist"),
        (404, "NoSuchKey", {}, NotFoundError, "s3://bucket/a/key does not exist"),
        (501, "NotImplemented", {}, StorageError, "the server lacks this feature"),
        (400, "Odd", {}, StorageError, r"failed after retries \(region.*\): Odd said"),
        (
            301,
            "PermanentRedirect",
            {"x-amz-bucket-region": "eu-central-1"},
            StorageError,
            r"not in region 'us-east-1'; it is in eu-central-1: set region 'eu-central-1' \(or AWS",
        ),
    ],
)
def test_refusals_are_explained(
    server: ScriptedServer,
    status: int,
    code: str,
    headers: dict[str, str],
    kind: type[Exception],
    message: str,
) -> None:
    """Each refusal says what was asked, why it failed and what to do, without any secret."""
    script = [(status, code, headers)] * 9
    with pytest.raises(kind, match=message) as told:
        server.storage(*script).read_bytes("s3://bucket/a/key")
    assert type(told.value) is kind
    assert "testing" not in str(told.value)


def test_a_denied_listing_names_its_permission(server) -> None:
    """Listing needs s3:ListBucket on the bucket, not on keys."""
    script = [(403, "AccessDenied", {})] * 9
    needs = r"Missing permission: s3:ListBucket on arn:aws:s3:::bucket\..*the server says: said$"
    with pytest.raises(AccessError, match=needs):
        server.storage(*script).list_files("s3://bucket/data")


def test_a_denied_upload_names_its_permission(server, tmp_path: Path) -> None:
    """The errors of boto3's transfer layer are unwrapped."""
    script = [(403, "AccessDenied", {})] * 9
    (tmp_path / "x").write_bytes(b"x")
    with pytest.raises(AccessError, match="Missing permission: s3:PutObject on arn:aws:s3:::b"):
        server.storage(*script).upload_file(tmp_path / "x", "s3://bucket/x")


def test_a_head_without_permission_does_not_mean_missing(server) -> None:
    """403 on HEAD is no answer to whether a file exists."""
    script = [(403, "", {})]
    with pytest.raises(
        AccessError, match="Without s3:ListBucket, S3 says this of a file that does"
    ):
        server.storage(*script).exists("s3://bucket/key")


def test_no_credentials(server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any credentials it says where they may come from, and that anonymous works."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(AccessError, match=r"no AWS credentials found. Run 'aws configure', or set"):
        server.storage().read_bytes("s3://bucket/key")
    assert server.storage(anonymous=True).read_bytes("s3://bucket/key") == b"hello"


def test_an_unknown_profile(aws_test_credentials: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt AWS_PROFILE is named."""
    monkeypatch.setenv("AWS_PROFILE", "nosuch")
    with pytest.raises(AccessError, match=r"no usable AWS credentials .*nosuch"):
        Storage().read_bytes("s3://bucket/key")


def test_an_unreachable_server(aws_test_credentials: None) -> None:
    """A refused connection names the endpoint, without the password in its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    options = StorageConfig(endpoint_url=f"http://user:secret@127.0.0.1:{port}")
    with pytest.raises(StorageError, match=rf"cannot reach .* http://127.0.0.1:{port}") as told:
        Storage(options, QUICK).read_bytes("s3://bucket/key")
    assert "secret" not in str(told.value)


def test_options_that_make_no_sense(aws_test_credentials: None) -> None:
    """A malformed endpoint is the user's mistake, not a traceback."""
    with pytest.raises(StorageError, match=r"s3://bucket/key cannot be asked for: .*nonsense"):
        Storage(StorageConfig(endpoint_url="nonsense")).read_bytes("s3://bucket/key")
    with pytest.raises(ValueError, match="at least one attempt is needed"):
        RetryPolicy(attempts=0)
