"""`urbandet submit` and `urbandet job`: a run as a Ray job, and what becomes of it."""

from __future__ import annotations

import os

from urbandet_ray.commands.preflight import preflight_there
from urbandet_ray.errors import RunError
from urbandet_ray.launch.jobs import Jobs, JobState, Say, dashboard_address, follow_command
from urbandet_ray.launch.needs import results_of
from urbandet_ray.launch.order import Order, check_secrets, check_working_dir


def submit(
    order: Order,
    address: str | None,
    *,
    say: Say,
    write: Say,
    preflight: bool = True,
    follow: bool = True,
) -> int:
    """Check, then start the job; follow it to its end where asked to.

    Args:
        address: the dashboard's; None is RAY_ADDRESS.
        say: told what was done, a line each.
        write: gets the job's output as it comes.

    Returns:
        The job's exit code (3: an inference that is done but for dead letters); 0 where it is not
        followed.

    Raises:
        ConfigError: the order cannot be sent.
        RunError: no cluster answers, or a check failed.
    """
    jobs = Jobs(dashboard_address(address))
    if preflight:
        report = preflight_there(order, jobs)
        say(report.to_text())
        if report.failed:
            raise RunError(
                "nothing was started: mend what failed above (--no-preflight starts it anyway)"
            )
    config = order.config()
    check_working_dir(order)
    check_secrets(order, config, os.environ)
    about = {
        "kind": order.kind,
        "results": results_of(config),
        "again": order.command(jobs.address),
    }
    job_id = jobs.submit(order, order.entrypoint, about, name=order.kind)
    say(f"job: {job_id}")
    say(f"command: {order.entrypoint}")
    say(f"results will be in {results_of(config)}")
    say(f"follow it: {follow_command(job_id, jobs.address)}")
    if not follow:
        return 0
    return follow_job(jobs, job_id, say=say, write=write).exit_code


def follow_job(jobs: Jobs, job_id: str, *, say: Say, write: Say) -> JobState:
    """Its output to its end, then how it ended."""
    try:
        state = jobs.follow(job_id, write)
    except KeyboardInterrupt:
        say(f"\nno longer followed; the job goes on: {follow_command(job_id, jobs.address)}")
        raise
    say(state.to_text())
    return state


def open_jobs(address: str | None) -> Jobs:
    """The jobs of the cluster at a dashboard's address; None is RAY_ADDRESS."""
    return Jobs(dashboard_address(address))
