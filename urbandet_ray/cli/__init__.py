"""The command line: parse, call, print. Heavy imports wait until a command runs."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from urbandet_ray.cli import (
    bench,
    cluster,
    data,
    ground_truth,
    inference,
    interchange,
    models,
    sagemaker,
    training,
)
from urbandet_ray.errors import UrbandetError
from urbandet_ray.version import __version__

app = typer.Typer(
    help="Detect objects on urban drives: records in; detections, mAP and a video out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(inference.app)
app.add_typer(bench.app)
app.add_typer(training.app)
app.add_typer(cluster.app)
app.add_typer(data.app, name="data")
app.add_typer(models.app, name="models")
app.add_typer(sagemaker.app, name="sagemaker")
data.app.add_typer(ground_truth.app)
data.app.add_typer(interchange.app)


def main() -> None:
    """Entry point: a user's mistake is one message and exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # file names may hold bytes that are no text
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except UrbandetError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    del version
