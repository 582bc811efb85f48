"""urbandet preflight, submit, job, scale."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer()
job = typer.Typer(
    help="What has become of a submitted job.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(job, name="job")

Address = Annotated[
    str | None,
    typer.Option(help="The cluster's dashboard, http://HOST:8265; RAY_ADDRESS where not given."),
]
WorkingDir = Annotated[Path, typer.Option(help="The checkout that is sent with the job.")]
Python = Annotated[str, typer.Option(help="The cluster's interpreter.")]
JobId = Annotated[str, typer.Argument(metavar="ID", help="As `urbandet submit` printed it.")]
Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RUN.yaml] [KEY=VALUE]...", help="As jobs/*.py take them."),
]


def _write(text: str) -> None:
    typer.echo(text, nl=False)


def _order(words: list[str] | None, kind: str | None, **more: Any) -> Any:
    from urbandet_ray.launch.order import read_order

    return replace(read_order(words or [], kind), **more)


@app.command()
def submit(
    kind: Annotated[str, typer.Argument(help="train, infer, evaluate or video.")],
    arguments: Words = None,
    address: Address = None,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Show its log until it ends.")
    ] = True,
    preflight: Annotated[
        bool, typer.Option("--preflight/--no-preflight", help="Check everything first.")
    ] = True,
    install: Annotated[
        bool, typer.Option("--install", help="Install the locked packages for the job.")
    ] = False,
    working_dir: WorkingDir = Path(),
    python: Python = "python",
) -> None:
    """Run jobs/*.py on a cluster. Ends with the job's exit code (infer: 3 is dead letters)."""
    from urbandet_ray.commands.submit import submit as work

    order = _order(arguments, kind, working_dir=working_dir, python=python, install=install)
    code = work(order, address, say=typer.echo, write=_write, preflight=preflight, follow=follow)
    raise typer.Exit(code)


@app.command()
def preflight(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN.yaml [KIND] [KEY=VALUE]...",
            help="KIND is train, infer, evaluate or video, where the YAML does not show it.",
        ),
    ],
    address: Annotated[
        str | None,
        typer.Option(
            help="Checks run on this cluster: http://HOST:8265, or `auto` on one of its nodes. "
            "RAY_ADDRESS where not given; this machine without either."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON.")] = False,
    working_dir: WorkingDir = Path(),
    python: Python = "python",
) -> None:
    """What would keep a run from ending well, a line a check. Exit code 3: a check failed."""
    from urbandet_ray.commands.preflight import EXIT_FAILED, preflight_here, preflight_there
    from urbandet_ray.launch.jobs import Jobs

    order = _order(arguments, None, working_dir=working_dir, python=python)
    where = address or os.environ.get("RAY_ADDRESS")
    if where and where.startswith(("http://", "https://")):
        report = preflight_there(order, Jobs(where))
    else:
        report = preflight_here(order, where)
    typer.echo(report.to_json() if as_json else report.to_text())
    raise typer.Exit(EXIT_FAILED if report.failed else 0)


@app.command()
def scale(
    gpu_workers: Annotated[
        int | None, typer.Option(min=0, help="At least so many; one that is not given is 0.")
    ] = None,
    cpu_workers: Annotated[int | None, typer.Option(min=0, help="The same without GPU.")] = None,
    address: Annotated[
        str | None,
        typer.Option(help="http://HOST:8265, or `auto` on a node; RAY_ADDRESS where not given."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until they are up.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait at most.")] = 900.0,
    working_dir: WorkingDir = Path(),
    python: Python = "python",
) -> None:
    """So many workers of a running cluster; without numbers what is up, pending or infeasible.

    A request stands until the next one, which replaces it; 0 takes it back.
    """
    from urbandet_ray.commands.scale import scale_here, scale_there
    from urbandet_ray.launch.jobs import Jobs

    where = address or os.environ.get("RAY_ADDRESS") or "auto"
    if not where.startswith(("http://", "https://")):
        scale_here(where, gpu_workers, cpu_workers, say=typer.echo, wait=wait, timeout_s=timeout)
        return
    code = scale_there(
        Jobs(where),
        gpu_workers,
        cpu_workers,
        write=_write,
        wait=wait,
        timeout_s=timeout,
        working_dir=working_dir,
        python=python,
    )
    raise typer.Exit(code)


@job.command()
def status(job_id: JobId, address: Address = None) -> None:
    """How it stands, where its results are, and how to resume it."""
    from urbandet_ray.commands.submit import open_jobs

    typer.echo(open_jobs(address).state(job_id).to_text())


@job.command()
def stop(job_id: JobId, address: Address = None) -> None:
    """End it; its run resumes when it is submitted again."""
    from urbandet_ray.commands.submit import open_jobs

    typer.echo(open_jobs(address).stop(job_id).to_text())


@job.command()
def logs(
    job_id: JobId,
    address: Address = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Until it ends, and with its exit code.")
    ] = False,
) -> None:
    """What it has printed."""
    from urbandet_ray.commands.submit import follow_job, open_jobs

    jobs = open_jobs(address)
    if not follow:
        _write(jobs.logs(job_id))
        return
    raise typer.Exit(follow_job(jobs, job_id, say=typer.echo, write=_write).exit_code)
