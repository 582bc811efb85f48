"""The entry point of the container: `train` and `serve`, as SageMaker calls it.

    first host:   status server, `ray start --head`, all hosts up -> the job -> tell the others
    other hosts:  ask the head, `ray start --address`, watch -> leave as the head says

Whatever goes wrong on one host ends all of them within a minute, with the reason and the host in
output/failure. SIGTERM (a stop, a spot instance that is taken away) ends the job at once: what it
saved is in the checkpoints folder, which SageMaker copies to S3.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from urbandet_ray.errors import RunError, UrbandetError
from urbandet_ray.launch.sagemaker import raynode, staging
from urbandet_ray.launch.sagemaker.container import (
    Container,
    fail,
    failure_file,
    read_container,
    root_of,
)
from urbandet_ray.launch.sagemaker.hyperparameters import Settings, read_hyperparameters
from urbandet_ray.launch.sagemaker.watch import (
    BEAT_EVERY_S,
    FAREWELL_S,
    JOIN_TIMEOUT_S,
    LOST_AFTER_S,
    HeadLink,
    HostBoard,
    Status,
    serve_board,
)

TRAIN_JOB = (sys.executable, "-m", "urbandet_ray.entrypoints.sagemaker_training")
SERVE_JOB = (sys.executable, "-m", "urbandet_ray.entrypoints.serve")
"""Programs, not functions: they stand on a higher floor, and a lost host has to end them."""

REASON_NAME = "job-failure"
"""Where the job leaves why it failed, in the package's own folder."""

_LOOK_EVERY_S = 1.0
_DEFAULT_STORE_MB = 256


class Stopped(BaseException):
    """SageMaker ends this container."""


class NobodyToTellError(RunError):
    """The head says why the job failed, or is lost itself."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what SageMaker asks; 0 done, 1 failed (output/failure says why), 143 stopped."""
    asked = list(sys.argv[1:] if arguments is None else arguments)
    if asked[:1] == ["serve"]:
        os.execv(SERVE_JOB[0], [*SERVE_JOB, *asked[1:]])
    signal.signal(signal.SIGTERM, _stop)
    try:
        container = read_container()
    except UrbandetError as error:
        fail(root_of(os.environ), str(error))
        _say("this host", f"error: {error}")
        return 1
    try:
        _run(container)
    except UrbandetError as error:
        reason = _named(container, str(error))
        fail(container.root, reason)
        _say(container.current_host, f"error: {reason}")
        return 1
    except Stopped:
        _say(container.current_host, "stopped by SageMaker; the run resumes from its checkpoints")
        return 128 + signal.SIGTERM
    except Exception as error:  # a defect of ours or of the machine: the log gets all of it
        fail(container.root, f"host {container.current_host}: {_unforeseen(error)}")
        raise
    return 0


def _run(container: Container) -> None:
    """Raises UrbandetError with what failed the job."""
    failure_file(container.root).unlink(missing_ok=True)
    place = "head" if container.is_head else f"worker of {container.head}"
    _say(container.current_host, f"one of {len(container.hosts)} hosts, {place}")
    (_run_head if container.is_head else _run_worker)(container)


def _prepare(container: Container) -> Settings:
    """The hyperparameters; the data under one name and with one version on all hosts."""
    settings = read_hyperparameters(container.hyperparameters)
    staging.data_folder(container)
    if stuck := staging.stamp_channels(container):
        _say(container.current_host, f"{stuck} files of read-only channels keep their own times")
    return settings


def _run_head(container: Container) -> None:
    peers = container.hosts[1:]
    own = raynode.own_address(container.network_interface, container.current_host)
    run = staging.run_folder(container)
    if mended := staging.mend_checkpoint(run):  # before another host copies it
        _say(container.current_host, mended)
    board = HostBoard(peers, run)
    server = serve_board(board, own, peers) if peers else None
    node = job = None
    try:
        settings = _prepare(container)
        env = raynode.node_env(board.token, own, container.network_interface)
        node = _start_ray(container, settings, env, own)
        _wait_for_peers(board, node)
        board.say("running")
        _say(container.current_host, "all hosts are up: the job starts")
        job = subprocess.Popen(TRAIN_JOB, env=env, start_new_session=True)
        _watch_job(container, settings, board, node, job)
        board.say("done")
    except UrbandetError as error:
        board.say("failed", _named(container, str(error)))
        raise
    except Stopped:
        board.say("failed", f"host {container.current_host} was stopped by SageMaker")
        raise
    except Exception as error:
        board.say("failed", f"host {container.current_host}: {_unforeseen(error)}")
        raise
    finally:
        raynode.end(job)
        _say_farewell(board)
        raynode.end(node)
        if server is not None:
            server.shutdown()
            server.server_close()


def _wait_for_peers(board: HostBoard, node: subprocess.Popen[str]) -> None:
    until = time.monotonic() + JOIN_TIMEOUT_S
    while not board.all_up():
        _check(node)
        if trouble := board.trouble():
            raise RunError(trouble)
        if time.monotonic() > until:
            absent = ", ".join(board.absent())
            raise RunError(f"host {absent} did not join in {JOIN_TIMEOUT_S:.0f} s: see its log")
        time.sleep(_LOOK_EVERY_S / 4)


def _watch_job(
    container: Container,
    settings: Settings,
    board: HostBoard,
    node: subprocess.Popen[str],
    job: subprocess.Popen[bytes],
) -> None:
    """Until the job has ended well.

    Raises:
        RunError: it failed, or a host did.
    """
    events = container.own / "run" / "tensorboard"
    boards = [container.tensorboard]
    boards += [Path(settings.tensorboard)] if settings.tensorboard else []
    while job.poll() is None:
        _check(node)
        if trouble := board.trouble():
            raise RunError(trouble)
        _carry(events, boards)
        time.sleep(_LOOK_EVERY_S)
    _carry(events, boards)
    if job.returncode == 0:
        return
    # a job that loses a host knows of a dead actor only: give the host's own word time to come
    until = time.monotonic() + (LOST_AFTER_S + BEAT_EVERY_S if len(container.hosts) > 1 else 0)
    while time.monotonic() < until:
        if trouble := board.trouble():
            raise RunError(trouble)
        time.sleep(_LOOK_EVERY_S)
    raise RunError(_reason_of(container, job.returncode))


def _carry(events: Path, boards: list[Path]) -> None:
    with contextlib.suppress(OSError):  # a file may go while it is looked at; the next look has it
        staging.keep_state(events.parent)
        staging.follow(events, boards)


def _unforeseen(error: Exception) -> str:
    return f"{type(error).__name__}: {error}; its log has the rest"


def _reason_of(container: Container, code: int) -> str:
    with contextlib.suppress(OSError):
        return (container.own / REASON_NAME).read_text("utf-8").strip()
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"the job ended with {how}; its log has the rest"


def _say_farewell(board: HostBoard) -> None:
    until = time.monotonic() + FAREWELL_S
    while not board.all_gone() and time.monotonic() < until:
        time.sleep(_LOOK_EVERY_S / 4)


def _run_worker(container: Container) -> None:
    link = HeadLink(container.head, container.current_host)
    node = None
    try:
        settings, run = _prepare(container), staging.run_folder(container)
        status = _join(link)
        with link.beating():  # a large checkpoint takes its time
            if link.copy_last(run):
                _say(container.current_host, "the head's checkpoint is here too")
            own = raynode.own_address(container.network_interface, container.current_host)
            head = raynode.own_address("", container.head)
            env = raynode.node_env(status.token, head, container.network_interface)
            _wait_for_ray(head, container.head, link)
            node = _start_ray(container, settings, env, own)
        _follow_head(link, container.head, node)
    except NobodyToTellError:
        raise
    except UrbandetError as error:
        _tell(link, str(error))
        raise
    except Stopped:
        with contextlib.suppress(UrbandetError):
            link.beat("failed", "stopped by SageMaker")
        raise
    except Exception as error:
        _tell(link, _unforeseen(error))
        raise
    finally:
        raynode.end(node)


def _tell(link: HeadLink, reason: str) -> None:
    """Tell the head why this host fails; it may not be listening yet, or not any more."""
    until = time.monotonic() + FAREWELL_S
    with contextlib.suppress(UrbandetError):
        while link.beat("failed", reason) is None and time.monotonic() < until:
            time.sleep(_LOOK_EVERY_S)


def _join(link: HeadLink) -> Status:
    """Ask until the head answers. It may refuse a host whose name it cannot resolve yet.

    Raises:
        RunError: it does not answer, refuses to the end, or the job has failed already.
    """
    while True:
        refusal: RunError | None = None
        try:
            status = link.beat("joining")
        except RunError as error:
            status, refusal = None, error
        if status is not None:
            if status.phase == "failed":
                raise NobodyToTellError(status.reason)
            return status
        if link.silent_s() > JOIN_TIMEOUT_S:
            silent = f"the head did not answer in {JOIN_TIMEOUT_S:.0f} s: see its log"
            raise refusal or RunError(silent)
        time.sleep(BEAT_EVERY_S)


def _wait_for_ray(address: str, head: str, link: HeadLink) -> None:
    """Until the head's Ray listens; `link` is beating meanwhile.

    Raises:
        RunError: it never does, or the head has failed or is lost.
    """
    until = time.monotonic() + JOIN_TIMEOUT_S
    while not raynode.answers(address, raynode.PORT):
        if link.last is not None and link.last.phase == "failed":
            raise NobodyToTellError(link.last.reason)
        if time.monotonic() > until:
            raise RunError(f"the head's Ray is not up after {JOIN_TIMEOUT_S:.0f} s: see its log")
        if link.silent_s() > LOST_AFTER_S:
            raise NobodyToTellError(_lost(head))
        time.sleep(_LOOK_EVERY_S)


def _follow_head(link: HeadLink, head: str, node: subprocess.Popen[str]) -> None:
    """Until the head says that the job is done.

    Raises:
        RunError: it failed, or the head or this host's Ray is lost.
    """
    while True:
        ended = node.poll() is not None  # before the question: its end is then known by the answer
        status = link.beat("up")
        if status is not None and status.phase in ("done", "failed"):
            link.beat("leaving")
            if status.phase == "failed":
                raise NobodyToTellError(status.reason)
            return
        if status is None and link.silent_s() > LOST_AFTER_S:
            raise NobodyToTellError(_lost(head))
        if ended and status is not None:
            raise RunError(f"its Ray node ended with exit code {node.returncode}")
        time.sleep(BEAT_EVERY_S)


def _lost(head: str) -> str:
    return (
        f"the head, host {head}, is lost: it has not answered for {LOST_AFTER_S:.0f} s (taken "
        "away, out of memory, or cut off the network)"
    )


def _start_ray(
    container: Container, settings: Settings, env: dict[str, str], own: str
) -> subprocess.Popen[str]:
    store = settings.overrides.get("ray.object_store_mb", _DEFAULT_STORE_MB)
    return raynode.start_node(
        env,
        own=own,
        is_head=container.is_head,
        object_store_mb=int(store),
        cpus=container.cpus,
        gpus=container.gpus,
    )


def _check(node: subprocess.Popen[str]) -> None:
    if node.poll() is not None:
        raise RunError(f"Ray ended with exit code {node.returncode}; its log has the rest")


def _named(container: Container, reason: str) -> str:
    """The reason with a host's name in front, where none is in it."""
    if any(f"host {host}" in reason for host in container.hosts):
        return reason
    return f"host {container.current_host}: {reason}"


def _say(host: str, text: str) -> None:
    sys.stderr.write(f"{host}: {text}\n")  # the log of the job
    sys.stderr.flush()


def _stop(number: int, frame: FrameType | None) -> None:
    del number, frame
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Stopped


if __name__ == "__main__":
    sys.exit(main())
