"""urbandet data import, urbandet data export."""

from __future__ import annotations

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
            help="coco, yolo, voc, bdd100k, kitti, cvat, label-studio, waymo-v1 or waymo-v2. "
            "Default: recognised.",
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
    on_ray: Annotated[
        bool | None,
        typer.Option(
            "--ray/--no-ray", help="Write in parallel, through Ray. Default: from 20,000 images on."
        ),
    ] = None,
    labels: Labels = None,
    s3_endpoint: Endpoint = None,
    s3_region: Region = None,
    s3_anonymous: Anonymous = None,
    s3_requester_pays: RequesterPays = None,
) -> None:
    """Convert a dataset to TFRecords in train/, val/ and test/, with a label map and a report.

    A drive is never in two parts. Repeat the command to resume it.
    Exit code 3: images or boxes could not be used; the report lists them.
    """
    from urbandet_ray.commands.display import count_progress
    from urbandet_ray.commands.import_data import ImportChoice, import_dataset

    choice = ImportChoice(kind, images, labels, split, drive, seed)
    storage = open_storage(s3_endpoint, s3_region, s3_anonymous, s3_requester_pays)
    with count_progress("images") as progress:
        report = import_dataset(source, out, choice, storage, progress, on_ray=on_ray)
    typer.echo(report.to_text())
    raise typer.Exit(3 if report.tally.losses else 0)


@app.command()
def export(
    source: Annotated[
        str, typer.Argument(metavar="RUN|RECORDS", help="Finished run, or records with labels.")
    ],
    out: Annotated[str, typer.Argument(help="Empty folder, local or s3://.")],
    kind: Annotated[str, typer.Option("--to", help="coco, yolo, voc, label-studio or cvat.")],
    score_min: Annotated[
        float | None, typer.Option(help="Lowest score of a run's boxes. Default: as it draws.")
    ] = None,
    input_: Annotated[
        str | None, typer.Option("--input", help="Input of the run, if it was moved.")
    ] = None,
    labels: Labels = None,
    s3_endpoint: Endpoint = None,
    s3_region: Region = None,
    s3_anonymous: Anonymous = None,
    s3_requester_pays: RequesterPays = None,
) -> None:
    """Write records, or the boxes of a run, as a dataset that labelling tools open.

    Exit code 3: frames or boxes could not be written.
    """
    from urbandet_ray.commands.display import count_progress
    from urbandet_ray.commands.export_data import export_dataset
    from urbandet_ray.label_files import read_labels

    storage = open_storage(s3_endpoint, s3_region, s3_anonymous, s3_requester_pays)
    with count_progress("files") as progress:
        report = export_dataset(
            source,
            out,
            kind,
            storage,
            labels=None if labels is None else read_labels(labels, storage),
            score_min=score_min,
            input_uri=input_,
            progress=progress,
        )
    typer.echo(report.to_text())
    raise typer.Exit(3 if report.tally.losses else 0)
