"""urbandet data import, export."""

from __future__ import annotations

from typing import Annotated

import typer

from urbandet_ray.cli.options import Anonymous, Endpoint, Labels, Region, open_storage

app = typer.Typer()


@app.command(name="import")
def import_(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="Dataset: a folder or its labels file.")
    ],
    out: Annotated[str, typer.Argument(help="Data folder to make, local or s3://.")],
    kind: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="coco, yolo, voc, bdd100k, kitti, cvat or label-studio. Default: recognised.",
        ),
    ] = None,
    images: Annotated[
        str | None, typer.Option(help="Folder of the images, where it is not the labels'.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Shares of train, val and test (80,10,10). Default: the dataset's own parts."
        ),
    ] = None,
    drive: Annotated[
        str | None, typer.Option(help="Regular expression for the drive in an image's name.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    labels: Labels = None,
    s3_endpoint: Endpoint = None,
    s3_region: Region = None,
    s3_anonymous: Anonymous = None,
) -> None:
    """Convert a dataset to TFRecords in train/, val/ and test/, with a label map and a report.

    A drive is never in two parts. Repeat the command to resume it.
    Exit code 3: images or boxes could not be used; the report lists them.
    """
    from urbandet_ray.commands.display import count_progress
    from urbandet_ray.commands.import_data import ImportChoice, import_dataset

    choice = ImportChoice(kind, images, labels, split, drive, seed)
    storage = open_storage(s3_endpoint, s3_region, s3_anonymous)
    with count_progress("images") as progress:
        report = import_dataset(source, out, choice, storage, progress)
    typer.echo(report.to_text())
    raise typer.Exit(3 if report.tally.losses else 0)
