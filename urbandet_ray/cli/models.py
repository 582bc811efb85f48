"""urbandet models ..."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from urbandet_ray.cli.options import (
    Anonymous,
    Endpoint,
    Region,
    RequesterPays,
    open_storage,
)

app = typer.Typer(
    help="List, show and fetch models to start from.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command(name="list")
def list_zoo() -> None:
    """List the TF2 detection zoo's models.

    Shows input size, mAP, speed, and our config for each.
    """
    from urbandet_ray.commands.models import list_models

    typer.echo(list_models())


@app.command(name="show")
def show_zoo(
    name: Annotated[str, typer.Argument(help="Name of a zoo model, or of one of our configs.")],
) -> None:
    """Show one model: the zoo's figures, our config and its reasons, the classes."""
    from urbandet_ray.commands.models import show_model

    typer.echo(show_model(name))


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="Name of a zoo model, or of one of our configs.")],
    source: Annotated[
        str | None,
        typer.Option("--from", help="Another place: URL, s3://, folder, or an archive file."),
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps the models.")] = None,
    sha256: Annotated[str | None, typer.Option(help="Expected SHA-256 of the archive.")] = None,
    s3_endpoint: Endpoint = None,
    s3_region: Region = None,
    s3_anonymous: Anonymous = None,
    s3_requester_pays: RequesterPays = None,
) -> None:
    """Download and unpack one model. An interrupted download is continued."""
    from urbandet_ray.commands.models import fetch as work

    storage = open_storage(s3_endpoint, s3_region, s3_anonymous, s3_requester_pays)
    work(name, source, cache, sha256, storage, say=typer.echo)
