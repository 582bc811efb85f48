"""urbandet bench."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from urbandet_ray.cli.options import (
    Actors,
    Anonymous,
    Backend,
    Config,
    Draw,
    Endpoint,
    Gpus,
    Labels,
    Mapping,
    ModelLabels,
    Region,
    RequesterPays,
    Settings,
    given,
    load,
    s3_values,
)

app = typer.Typer()


@app.command()
def bench(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="Models, each as `infer --model` takes it."),
    ],
    data: Annotated[
        str, typer.Option(help="Records, images or a video. With labels the mAP is measured too.")
    ],
    rounds: Annotated[int, typer.Option(min=1, help="Timed runs of each model.")] = 3,
    seconds: Annotated[float, typer.Option(help="Seconds that a run takes, about.")] = 15.0,
    price: Annotated[
        float | None, typer.Option(help="Price of the machine for one hour. Adds a cost column.")
    ] = None,
    backend: Backend = None,
    model_labels: ModelLabels = None,
    mapping: Mapping = None,
    labels: Labels = None,
    draw: Draw = None,
    actors: Actors = None,
    gpus: Gpus = None,
    json_file: Annotated[Path, typer.Option("--json", help="JSON file for all figures.")] = Path(
        "bench.json"
    ),
    picture: Annotated[
        Path | None, typer.Option("--png", help="PNG file for the time of each stage, as bars.")
    ] = None,
    config: Config = None,
    settings: Settings = None,
    s3_endpoint: Endpoint = None,
    s3_region: Region = None,
    s3_anonymous: Anonymous = None,
    s3_requester_pays: RequesterPays = None,
) -> None:
    """Compare models: each runs through the whole pipeline.

    Prints frames/s, time of each stage, memory, mAP and cost.
    """
    from urbandet_ray.commands.bench import bench as work
    from urbandet_ray.commands.bench import write_report
    from urbandet_ray.config import InferConfig

    values = (
        given(input=data, output=os.devnull, labels=labels, backend=backend, draw__enabled=draw)
        | given(model__labels=model_labels, model__mapping=mapping)
        | given(actors__min=actors, actors__gpus=gpus)
        | s3_values(s3_endpoint, s3_region, s3_anonymous, s3_requester_pays)
    )
    loaded = load(InferConfig, config, values, settings)
    report = work(loaded, models, rounds=rounds, seconds=seconds, price=price, say=typer.echo)
    typer.echo(report.to_text())
    write_report(report, json_file, picture)
    typer.echo(f"wrote {json_file}" + (f" and {picture}" if picture else ""))
