"""`urbandet scale`: so many workers of a running cluster, and back."""

from __future__ import annotations

import shlex
from pathlib import Path

from urbandet_ray.commands.submit import follow_job
from urbandet_ray.config import RayConfig
from urbandet_ray.inference.session import ray_session
from urbandet_ray.launch.jobs import Jobs, Say
from urbandet_ray.launch.order import Order, check_working_dir
from urbandet_ray.launch.scaling import request_workers, standing, wait_for_workers


def scale_here(
    address: str,
    gpu_workers: int | None,
    cpu_workers: int | None,
    *,
    say: Say,
    wait: bool = False,
    timeout_s: float = 900,
) -> None:
    """Ask the autoscaler for workers, from a machine of the cluster; without numbers only look.

    Args:
        gpu_workers, cpu_workers: they replace what was asked for before; where one is given, the
            other one is 0 unless it is given too.

    Raises:
        RunError: no cluster answers, or it can never make so many.
    """
    with ray_session(RayConfig(address=address)):
        if gpu_workers is None and cpu_workers is None:
            say(standing().to_text())
            return
        gpus, cpus = gpu_workers or 0, cpu_workers or 0
        asked = request_workers(gpus, cpus)
        words = f"asked for at least {gpus} GPU workers and {cpus} CPU workers"
        say(words if asked else "the request is taken back")
        if wait:
            wait_for_workers(gpus, cpus, say, timeout_s=timeout_s)
        else:
            say(standing().to_text())


def scale_there(
    jobs: Jobs,
    gpu_workers: int | None,
    cpu_workers: int | None,
    *,
    write: Say,
    wait: bool = False,
    timeout_s: float = 900,
    working_dir: Path = Path(),
    python: str = "python",
) -> int:
    """The same by a short job, from a machine that reaches the dashboard only."""
    words = [python, "-m", "urbandet_ray.cli", "scale", "--address", "auto"]
    words += [] if gpu_workers is None else ["--gpu-workers", str(gpu_workers)]
    words += [] if cpu_workers is None else ["--cpu-workers", str(cpu_workers)]
    words += ["--wait", "--timeout", str(timeout_s)] if wait else []
    order = Order("infer", working_dir=working_dir, python=python)
    check_working_dir(order)
    job_id = jobs.submit(order, shlex.join(words), {}, name="scale")
    state = follow_job(jobs, job_id, say=lambda text: write(f"{text}\n"), write=write)
    return state.exit_code
