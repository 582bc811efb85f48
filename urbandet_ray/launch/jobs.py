"""Ray jobs: submitted, followed, stopped, and what became of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import shlex
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from urbandet_ray.errors import RunError
from urbandet_ray.launch.order import Order, runtime_env, told_too_large

Say = Callable[[str], None]

AGENT_WAIT_S = 90
"""How long a cluster that has just come up may take before it accepts jobs."""

_TALKATIVE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
    "ray._private.runtime_env.working_dir",
)
_POLL_S = 0.5
_BREAK_S = 300.0
"""A cluster that does not answer for so long while a job is followed is given up."""
_DEAD_LETTERS = 3
_EARLY = ("No available agent", "Failed to connect to the agent")


class NoAnswerError(RunError):
    """Nothing answers at the dashboard's address, or nothing that could tell how a job stands."""


@dataclass(frozen=True)
class JobState:
    """A job as the cluster knows it.

    Attributes:
        status: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        driver_code: exit code of the job's command; None before it ended, or where it never began.
        message: Ray's own words.
        kind: train, infer, evaluate or video; "" for a job of another making.
        results: where the results are; "" where that is not known.
        again: the command that submits it again, which resumes it.
    """

    job_id: str
    status: str
    driver_code: int | None
    message: str
    entrypoint: str
    kind: str = ""
    results: str = ""
    again: str = ""

    @property
    def ended(self) -> bool:
        """Whether it will not change any more."""
        return self.status in ("SUCCEEDED", "FAILED", "STOPPED")

    @property
    def dead_letters(self) -> bool:
        """An inference that is done but for its dead letters; Ray calls it FAILED."""
        script = "infer" in (self.kind or self.entrypoint)
        return self.status == "FAILED" and self.driver_code == _DEAD_LETTERS and script

    @property
    def exit_code(self) -> int:
        """What the command that followed it ends with: the job's own code, else 1."""
        if self.status == "SUCCEEDED":
            return 0
        return (self.driver_code or 1) if self.status == "FAILED" else 1

    def to_text(self) -> str:
        """How it stands, and what to do next."""
        lines = [f"{self.job_id}: {self._standing()}"]
        if self.results and (self.status == "SUCCEEDED" or self.dead_letters):
            lines.append(f"results: {self.results}")
        elif self.ended and self.status != "SUCCEEDED":
            lines.append(f"what it had done is kept{f' in {self.results}' * bool(self.results)}; ")
            lines[-1] += f"to resume, submit it again: {self.again or self.entrypoint}"
        return "\n".join(lines)

    def _standing(self) -> str:
        if self.dead_letters:
            return "done but for dead letters (exit code 3, which Ray shows as FAILED)"
        if self.status == "FAILED":
            code = "" if self.driver_code is None else f" with exit code {self.driver_code}"
            told = f"; {_short(self.message)}" if self.driver_code is None else ""
            return f"failed{code}{told}"
        words = {"SUCCEEDED": "done", "STOPPED": "stopped", "PENDING": "waits to start"}
        return words.get(self.status, self.status.lower())


class Jobs:
    """The jobs of one cluster.

    Args:
        address: the dashboard's, http://host:8265.

    Raises:
        RunError: nothing answers there, or it asks for a token.
    """

    def __init__(self, address: str) -> None:
        from ray.job_submission import JobSubmissionClient

        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
        self.address = address.rstrip("/")
        with _explained(self.address), _only(self.address):
            self._client = JobSubmissionClient(self.address)

    @property
    def ray_version(self) -> str:
        """The cluster's Ray."""
        return str(self._client._server_ray_version)

    def submit(
        self,
        order: Order,
        entrypoint: str,
        metadata: Mapping[str, str],
        *,
        name: str,
        environ: Mapping[str, str] = os.environ,
    ) -> str:
        """Send the working directory and start a command there; returns the job's id."""
        env = runtime_env(order, environ)
        job_id = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
        until = time.monotonic() + AGENT_WAIT_S
        while True:
            try:
                with _explained(self.address):
                    self._client.submit_job(
                        entrypoint=entrypoint,
                        runtime_env=env,
                        metadata=dict(metadata),
                        submission_id=job_id,
                    )
                    return job_id
            except RunError as error:
                if re.search(r"status code 413\b", str(error)):
                    raise RunError(told_too_large(order.working_dir)) from None
                early = any(words in str(error) for words in _EARLY)
                if not early or time.monotonic() > until:
                    raise
            time.sleep(2)

    def state(self, job_id: str) -> JobState:
        """How a job stands."""
        with _explained(self.address, job_id):
            told = self._client.get_job_info(job_id)
        about = dict(told.metadata or {})
        return JobState(
            job_id,
            str(told.status.value),
            told.driver_exit_code,
            told.message or "",
            told.entrypoint,
            about.get("kind", ""),
            about.get("results", ""),
            about.get("again", ""),
        )

    def logs(self, job_id: str) -> str:
        """All it has printed."""
        with _explained(self.address, job_id):
            return str(self._client.get_job_logs(job_id))

    def wait(self, job_id: str, timeout_s: float = float("inf"), *, break_s: float = 0) -> JobState:
        """Until it has ended.

        Args:
            break_s: bear a cluster that does not answer for so long.

        Raises:
            RunError: it takes longer than `timeout_s`, or the cluster knows no such job.
        """
        heard = time.monotonic()
        until = heard + timeout_s
        while True:
            try:
                state = self.state(job_id)
                heard = time.monotonic()
            except NoAnswerError:
                if time.monotonic() - heard > break_s:
                    raise
                time.sleep(_POLL_S)
                continue
            if state.ended:
                return state
            if time.monotonic() > until:
                raise RunError(
                    f"{job_id} is still {state.status} after {timeout_s:.0f} s "
                    f"({_short(state.message)}): {follow_command(job_id, self.address)}"
                )
            time.sleep(_POLL_S)

    def follow(self, job_id: str, write: Say) -> JobState:
        """Pass its output on as it comes, until it has ended; a lost connection is waited out.

        Raises:
            RunError: the cluster knows no such job, or does not answer for minutes.
        """
        import aiohttp

        self.state(job_id)  # a job that is not known has no log to wait for
        try:
            asyncio.run(self._tail(job_id, write))
        except (RuntimeError, OSError, aiohttp.ClientError) as error:
            told = _short(str(error)) or type(error).__name__
            write(f"[the log broke off ({told}); the job goes on]\n")
        return self.wait(job_id, break_s=_BREAK_S)

    async def _tail(self, job_id: str, write: Say) -> None:
        async for text in self._client.tail_job_logs(job_id):
            write(text)

    def stop(self, job_id: str, timeout_s: float = 60) -> JobState:
        """End a job, and wait until it has ended."""
        with _explained(self.address, job_id):
            self._client.stop_job(job_id)
        return self.wait(job_id, timeout_s)

    def ask(self, order: Order, entrypoint: str, *, name: str, timeout_s: float) -> dict[str, Any]:
        """Run a short command on the cluster and return the JSON object it prints last.

        The job is taken off the cluster's list again.

        Raises:
            RunError: it failed, or printed no such thing; with the end of its log.
        """
        job_id = self.submit(order, entrypoint, {}, name=name)
        try:
            state = self.wait(job_id, timeout_s)
            log = self.logs(job_id)
        except RunError:
            with contextlib.suppress(RunError):
                self.stop(job_id)
            raise
        with contextlib.suppress(RuntimeError, OSError):  # its answer is here already
            self._client.delete_job(job_id)
        for line in reversed(log.splitlines()):
            if line.startswith("{"):
                with contextlib.suppress(ValueError):
                    return dict(json.loads(line))
        ending = " / ".join(line.strip() for line in log.splitlines()[-4:] if line.strip())
        raise RunError(ending or _short(state.message))


def follow_command(job_id: str, address: str) -> str:
    """The command that follows a job."""
    return shlex.join(["urbandet", "job", "logs", job_id, "--follow", "--address", address])


def dashboard_address(given: str | None) -> str:
    """The dashboard's address: as given, else RAY_ADDRESS.

    Raises:
        RunError: there is none, or it is no dashboard's.
    """
    address = given or os.environ.get("RAY_ADDRESS") or ""
    if not address.startswith(("http://", "https://")):
        raise RunError(
            f"which cluster? {address or 'No address'} is no dashboard's: give --address "
            "http://HOST:8265, or set RAY_ADDRESS to it "
            "(docs/how-to/cluster.md says how to reach one)"
        )
    return address.rstrip("/")


@contextlib.contextmanager
def _only(address: str) -> Iterator[None]:
    """The client would rather believe RAY_ADDRESS than its argument."""
    name = "RAY_API_SERVER_ADDRESS"
    before = os.environ.get(name)
    os.environ[name] = address
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextlib.contextmanager
def _explained(address: str, job_id: str = "") -> Iterator[None]:
    """The client's errors as messages."""
    import requests
    from ray.exceptions import AuthenticationError

    try:
        yield
    except RunError:
        raise
    except AuthenticationError:
        raise RunError(_wants_token(address)) from None
    except (OSError, requests.exceptions.RequestException) as error:
        raise NoAnswerError(
            f"no Ray cluster answers at {address} ({type(error).__name__}): is it up, and is the "
            "port forwarded? docs/how-to/cluster.md has the commands"
        ) from None
    except (RuntimeError, ValueError, ImportError) as error:
        said = str(error)
        kind = NoAnswerError if re.search(r"status code 5\d\d\b", said) else RunError
        raise kind(_told(said, address, job_id)) from None


def _told(said: str, address: str, job_id: str) -> str:
    if job_id and (re.search(r"status code 404\b", said) or "does not exist" in said):
        return f"the cluster at {address} knows no job {job_id}: `ray job list` shows them"
    if re.search(r"status code 40[13]\b", said) or "unauthorized" in said.lower():
        return _wants_token(address)
    return f"the cluster at {address} says: {_short(said)}"


def _wants_token(address: str) -> str:
    return (
        f"the cluster at {address} wants its token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN "
        "(or have ~/.ray/auth_token); docs/how-to/cluster.md says where it is"
    )


def _short(text: str, limit: int = 300) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[:limit]} ..."
