"""urbandet data from-manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from urbandet_ray.cli.options import (
    Anonymous,
    Endpoint,
    Labels,
    Region,
    RequesterPays,
    open_storage,
)

app = typer.Typer()


@app.command()
def from_manifest(
    manifest: Annotated[str, typer.Argument(help="SageMaker's augmented manifest (JSON Lines).")],
    out: Annotated[Path, typer.Argument(help="Folder for the TFRecord and label_map.pbtxt.")],
    attribute: Annotated[
        str | None, typer.Option(help="Label attribute. Needed where there are several.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the TFRecord. Default: the manifest's.")
    ] = None,
    skip_bad: Annotated[bool, typer.Option(help="Leave out lines that cannot be used.")] = False,
    labels: Labels = None,
    s3_endpoint: Endpoint = None,
    s3_region: Region = None,
    s3_anonymous: Anonymous = None,
    s3_requester_pays: RequesterPays = None,
) -> None:
    """Convert labels of SageMaker Ground Truth to a TFRecord and a label map.

    Exit code 3: lines were left out (--skip-bad).
    """
    from urbandet_ray.commands.display import count_progress
    from urbandet_ray.label_files import read_labels
    from urbandet_ray.records.augmented_manifest import convert_manifest

    storage = open_storage(s3_endpoint, s3_region, s3_anonymous, s3_requester_pays)
    with count_progress("images") as progress:
        report = convert_manifest(
            manifest,
            out,
            storage,
            attribute=attribute,
            labels=None if labels is None else read_labels(labels, storage),
            name=name,
            skip_bad=skip_bad,
            progress=progress,
        )
    typer.echo(report.to_text())
    raise typer.Exit(3 if report.left_out else 0)
