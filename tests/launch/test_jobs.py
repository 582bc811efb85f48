"""What the jobs' client makes of a dashboard that refuses, does not know, or goes away."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from urbandet_ray.commands.submit import follow_job
from urbandet_ray.errors import RunError
from urbandet_ray.launch import jobs
from urbandet_ray.launch.jobs import Jobs

Answer = tuple[int, str]
VERSION = json.dumps({"version": "4", "ray_version": "2.60.0", "ray_commit": "x"})


def details(status: str) -> Answer:
    """A job, as the dashboard describes it."""
    return 200, json.dumps({"type": "SUBMISSION", "status": status, "entrypoint": "python x.py"})


@pytest.fixture
def dashboard() -> Iterator[Callable[..., str]]:
    """Serves one that answers each path in turn from its list, the last one again and again.

    Where it has no answer it drops the connection.
    """
    servers: list[ThreadingHTTPServer] = []

    def serve(**answers: list[Answer | None]) -> str:
        table = {"version": [(200, VERSION)], **answers}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                turn = table[self.path.rpartition("/")[2].replace("-", "_")]
                answer = turn.pop(0) if len(turn) > 1 else turn[0]
                if answer is None:
                    return
                status, text = answer
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format: str, *args: object) -> None:
                """Keep quiet."""

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("status", [401, 403])
def test_a_dashboard_that_wants_a_token(dashboard: Callable[..., str], status: int) -> None:
    """Is told so by a message: Ray's error for it is of a tree of its own."""
    address = dashboard(version=[(status, "no")])
    with pytest.raises(RunError, match=f"the cluster at {address} wants its token: set RAY_AUTH"):
        Jobs(address)


def test_an_id_is_not_taken_for_a_status(dashboard: Callable[..., str]) -> None:
    """Ids hold digits and words."""
    address = dashboard(token_401_404=[(500, "no agent for token-401-404")])
    with pytest.raises(RunError, match="says: Request failed with status code 500: no agent"):
        Jobs(address).state("token-401-404")


def test_a_job_that_is_not_known_is_not_followed(dashboard: Callable[..., str]) -> None:
    """One message, whatever its id looks like."""
    address = dashboard(job_403=[(404, "Job job-403 does not exist")], tail=[(404, "")])
    with pytest.raises(RunError, match="knows no job job-403: `ray job list` shows them"):
        follow_job(Jobs(address), "job-403", say=lambda _: None, write=lambda _: None)


def test_a_log_that_breaks_off_does_not_end_the_wait(dashboard: Callable[..., str]) -> None:
    """Nor does a dashboard that is away for a moment; how the job ended is told."""
    turns = [details("RUNNING"), None, (503, "restarts"), details("RUNNING"), details("SUCCEEDED")]
    address = dashboard(long=turns, tail=[None])
    log: list[str] = []
    assert Jobs(address).follow("long", log.append).status == "SUCCEEDED"
    assert "the log broke off (" in log[0]
    assert len(turns) == 1


def test_a_dashboard_that_stays_away_is_given_up(
    dashboard: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After minutes; here, after a moment."""
    monkeypatch.setattr(jobs, "_BREAK_S", 0.1)
    address = dashboard(long=[details("RUNNING"), None], tail=[None])
    with pytest.raises(RunError, match="no Ray cluster answers at"):
        Jobs(address).follow("long", lambda _: None)
