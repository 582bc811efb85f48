"""A web server in a thread, with ranges and with the troubles that real ones have."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class WebServer:
    """Files by path, and what was asked for; `files` may be changed between requests."""

    files: dict[str, bytes] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)
    """Paths that are answered with an error."""
    break_after: int | None = None
    """Bytes after which the next answer's connection is cut; then None again."""
    ranges: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """(path, Range header) of every request."""
    url: str = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Serve one GET."""
        wanted = request.headers.get("Range") if self.ranges else None
        self.asked.append((request.path, request.headers.get("Range")))
        code = self.status.get(request.path, 200 if request.path in self.files else 404)
        if code != 200:
            request.send_error(code)
            return
        data = self.files[request.path]
        tag, start = f'"{hash(data)}"', 0
        if wanted and request.headers.get("If-Range", tag) == tag:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            if start >= len(data):
                request.send_error(416)
                return
        request.send_response(206 if start else 200)
        request.send_header("ETag", tag)
        request.send_header("Content-Length", str(len(data) - start))
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        request.end_headers()
        stop, self.break_after = self.break_after, None
        request.wfile.write(data[start : None if stop is None else start + stop])


class RunningServer:
    """Serves a WebServer on loopback while the block runs."""

    def __init__(self) -> None:
        self.web = web = WebServer()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        web.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> WebServer:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self.web

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
