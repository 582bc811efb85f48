"""urbandet data ..."""

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

app = typer.Typer(
    help="Check, count, show, render or convert data.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def validate(
    records: Annotated[str, typer.Argument(help="Data folder, TFRecords, images or a video.")],
    labels: Labels = None,
    s3_endpoint: Endpoint = None,
    s3_region: Region = None,
    s3_anonymous: Anonymous = None,
    s3_requester_pays: RequesterPays = None,
) -> None:
    """Read and decode every record. List the broken ones.

    Exit code 3: at least one record is broken.
    """
    from urbandet_ray.commands.display import count_progress
    from urbandet_ray.records.data_folder import read_data_folder
    from urbandet_ray.records.soundness import validate as check

    storage = open_storage(s3_endpoint, s3_region, s3_anonymous, s3_requester_pays)
    data = read_data_folder(records, storage, labels)
    with count_progress("files") as progress:
        report = check(data, storage, data.labels, progress=progress)
    typer.echo(f"{data.to_text()}\n{report.to_text()}")
    raise typer.Exit(0 if report.is_clean else 3)


@app.command()
def stats(
    records: Annotated[str, typer.Argument(help="Data folder, or TFRecords with labels.")],
    labels: Labels = None,
    s3_endpoint: Endpoint = None,
    s3_region: Region = None,
    s3_anonymous: Anonymous = None,
    s3_requester_pays: RequesterPays = None,
) -> None:
    """Count frames and boxes, by class and by box size."""
    from urbandet_ray.commands.display import count_progress
    from urbandet_ray.records.data_folder import read_data_folder
    from urbandet_ray.records.stats import statistics

    storage = open_storage(s3_endpoint, s3_region, s3_anonymous, s3_requester_pays)
    data = read_data_folder(records, storage, labels)
    with count_progress("files") as progress:
        found = statistics(data, storage, data.labels, progress=progress)
    typer.echo(f"{data.to_text()}\n{found.to_text()}")


@app.command()
def show(
    records: Annotated[str, typer.Argument(help="Data folder, TFRecords, images or a video.")],
    out: Annotated[str, typer.Option(help="PNG file to write.")] = "contact_sheet.png",
    count: Annotated[int, typer.Option(min=1, help="Frames on the sheet.")] = 12,
    labels: Labels = None,
    s3_endpoint: Endpoint = None,
    s3_region: Region = None,
    s3_anonymous: Anonymous = None,
    s3_requester_pays: RequesterPays = None,
) -> None:
    """Draw a contact sheet: frames from the whole input, with their labels."""
    from urbandet_ray.commands.data import write_contact_sheet
    from urbandet_ray.records.data_folder import read_data_folder

    storage = open_storage(s3_endpoint, s3_region, s3_anonymous, s3_requester_pays)
    data = read_data_folder(records, storage, labels)
    shown = write_contact_sheet(data, out, count, data.labels, storage)
    short = "" if shown == count else f" of the {count} asked for: the input has no more to show"
    typer.echo(f"{data.to_text()}\n{out}: {shown} frames{short}")


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(help="Folder for the TFRecords.")],
    drives: Annotated[int, typer.Option(min=1, help="Drives to render. Each is one TFRecord.")] = 4,
    frames: Annotated[int, typer.Option(min=1, help="Frames of each drive.")] = 40,
    seed: Annotated[
        int, typer.Option(help="Seed of the first drive. The next drives count up.")
    ] = 1000,
    width: Annotated[int, typer.Option(min=160, max=3840, help="Pixels.")] = 640,
    height: Annotated[int, typer.Option(min=160, max=2160, help="Pixels.")] = 640,
) -> None:
    """Render synthetic street drives with exact boxes.

    The same seed gives the same bytes.
    """
    from urbandet_ray.streets import write_drives

    write_drives(
        out,
        seeds=range(seed, seed + drives),
        frame_count=frames,
        size_wh=(width, height),
        progress=typer.echo,
    )
