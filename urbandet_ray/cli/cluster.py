"""urbandet preflight, submit, job, scale."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer()
job = typer.Typer(
    help="Look at, follow or stop a submitted job.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(job, name="job")

Address = Annotated[
    str | None,
    typer.Option(help="Cluster's dashboard, http://HOST:8265. Default: RAY_ADDRESS."),
]
WorkingDir = Annotated[Path, typer.Option(help="Folder that is sent with the job: your checkout.")]
Python = Annotated[str, typer.Option(help="Python interpreter on the cluster.")]
JobId = Annotated[str, typer.Argument(metavar="ID", help="Job id, as `urbandet submit` prints it.")]
Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RUN.yaml] [KEY=VALUE]...", help="Run config and overrides."),
]


def _write(text: str) -> None:
    typer.echo(text, nl=False)


def _order(words: list[str] | None, kind: str | None, **more: Any) -> Any:
    from urbandet_ray.launch.order import read_order

    return replace(read_order(words or [], kind), **more)


@app.command()
def submit(
    kind: Annotated[str, typer.Argument(help="Kind of job: train, infer, evaluate or video.")],
    arguments: Words = None,
    address: Address = None,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Show the job's log until it ends.")
    ] = True,
    preflight: Annotated[
        bool,
        typer.Option(
            "--preflight/--no-preflight", help="Run the checks of `urbandet preflight` first."
        ),
    ] = True,
    install: Annotated[
        bool, typer.Option("--install", help="Let Ray install the locked packages first.")
    ] = False,
    working_dir: WorkingDir = Path(),
    python: Python = "python",
) -> None:
    """Check a job and run it on a cluster.

    The exit code is the job's. For `infer`, 3 means: done, with dead letters.
    """
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
            help="Run config and overrides. KIND (train, infer, evaluate or video) is needed only "
            "where the YAML does not show it.",
        ),
    ],
    address: Annotated[
        str | None,
        typer.Option(
            help="Cluster to check: http://HOST:8265, or `auto` on one of its nodes. "
            "Default: RAY_ADDRESS; without it, this machine is checked."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
    working_dir: WorkingDir = Path(),
    python: Python = "python",
) -> None:
    """Check what a run needs, before it starts. Prints one line for each check.

    Exit code 3: at least one check failed.
    """
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
        int | None, typer.Option(min=0, help="GPU workers to keep up, at least. Default: 0.")
    ] = None,
    cpu_workers: Annotated[int | None, typer.Option(min=0, help="Workers without GPU.")] = None,
    address: Annotated[
        str | None,
        typer.Option(help="http://HOST:8265, or `auto` on a node. Default: RAY_ADDRESS."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the workers are up.")] = False,
    timeout: Annotated[float, typer.Option(help="Longest wait, in seconds.")] = 900.0,
    working_dir: WorkingDir = Path(),
    python: Python = "python",
) -> None:
    """Ask a running cluster for workers. Without numbers: show what is up.

    The request stands until the next one replaces it. 0 takes it back.
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
    """Show a job: state, results, how to resume it."""
    from urbandet_ray.commands.submit import open_jobs

    typer.echo(open_jobs(address).state(job_id).to_text())


@job.command()
def stop(job_id: JobId, address: Address = None) -> None:
    """Stop a job. Submit it again, and its run is resumed."""
    from urbandet_ray.commands.submit import open_jobs

    typer.echo(open_jobs(address).stop(job_id).to_text())


@job.command()
def logs(
    job_id: JobId,
    address: Address = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Follow until the job ends. Exit with its code.")
    ] = False,
) -> None:
    """Show what a job has printed."""
    from urbandet_ray.commands.submit import follow_job, open_jobs

    jobs = open_jobs(address)
    if not follow:
        _write(jobs.logs(job_id))
        return
    raise typer.Exit(follow_job(jobs, job_id, say=typer.echo, write=_write).exit_code)
