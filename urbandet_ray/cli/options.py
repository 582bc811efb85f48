"""Options that several commands share, and how they become a config."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Config = Annotated[Path | None, typer.Option("--config", help="Run config (YAML).")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any key of the run config; repeatable."),
]
Endpoint = Annotated[str | None, typer.Option("--s3-endpoint", help="Another S3 server.")]
Region = Annotated[str | None, typer.Option("--s3-region", help="AWS region.")]
Anonymous = Annotated[bool | None, typer.Option("--s3-anonymous", help="No credentials.")]
Labels = Annotated[str | None, typer.Option("--labels", help="Our label_map.pbtxt.")]
Backend = Annotated[
    str | None,
    typer.Option(
        "--backend",
        metavar="auto",
        help="Choose threads, batch and, of a run, the export: measure what is fastest here.",
    ),
]
ModelLabels = Annotated[str | None, typer.Option("--model-labels", help="The model's own classes.")]
Mapping = Annotated[str | None, typer.Option("--mapping", help="coco-to-street, or a YAML.")]
Draw = Annotated[bool | None, typer.Option("--draw/--no-draw", help="Write annotated frames.")]
Actors = Annotated[int | None, typer.Option("--actors", help="Model actors.")]
Gpus = Annotated[float | None, typer.Option("--gpus", help="GPUs an actor.")]


def given(**values: Any) -> dict[str, Any]:
    """Options that were given, as dotted config keys (`a__b` is `a.b`)."""
    return {key.replace("__", "."): value for key, value in values.items() if value is not None}


def s3_values(endpoint: str | None, region: str | None, anonymous: bool | None) -> dict[str, Any]:
    """The S3 options that were given, as config keys."""
    return given(
        storage__endpoint_url=endpoint, storage__region=region, storage__anonymous=anonymous
    )


def read_tiles(text: str) -> tuple[int, int]:
    """Rows and columns of `3x3`.

    Raises:
        ConfigError: it is not of that form.
    """
    from urbandet_ray.errors import ConfigError

    rows, _, columns = text.lower().partition("x")
    if not (rows.isdecimal() and columns.isdecimal()):
        raise ConfigError(
            f"--tiles is {text!r}: give rows x columns, such as 3x3 (--set tiles.overlap=0.3 and "
            "the like for the rest)"
        )
    return int(rows), int(columns)


def load(kind: Any, path: Path | None, values: dict[str, Any], settings: list[str] | None) -> Any:
    """The config of a YAML, options and --set; the later ones win."""
    from urbandet_ray.config.loading import load_config, split_override

    pairs = dict(split_override(text) for text in settings or ())
    return load_config(kind, path, {**values, **pairs})


def open_storage(endpoint: str | None, region: str | None, anonymous: bool | None) -> Any:
    """The storage that the S3 options ask for."""
    from urbandet_ray.config import StorageConfig
    from urbandet_ray.storage import Storage

    return Storage(StorageConfig(region=region, endpoint_url=endpoint, anonymous=bool(anonymous)))
