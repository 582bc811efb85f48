"""Options that several commands share, and how they become a config."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Config = Annotated[Path | None, typer.Option("--config", help="Run config (YAML).")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set a key of the run config. Repeatable."),
]
Endpoint = Annotated[str | None, typer.Option("--s3-endpoint", help="URL of another S3 server.")]
Region = Annotated[str | None, typer.Option("--s3-region", help="AWS region.")]
Anonymous = Annotated[
    bool | None, typer.Option("--s3-anonymous", help="Read public buckets without credentials.")
]
RequesterPays = Annotated[
    bool | None,
    typer.Option("--s3-requester-pays", help="Pay for reading a bucket whose readers pay."),
]
Labels = Annotated[str | None, typer.Option("--labels", help="label_map.pbtxt of your classes.")]
Backend = Annotated[
    str | None,
    typer.Option(
        "--backend",
        metavar="auto",
        help="Measure what is fastest here: threads, batch and, for a training run, the export.",
    ),
]
ModelLabels = Annotated[
    str | None, typer.Option("--model-labels", help="Classes of the model: a label map or a list.")
]
Mapping = Annotated[
    str | None,
    typer.Option("--mapping", help="Map the model's classes to yours: coco-to-street, or a YAML."),
]
Draw = Annotated[bool | None, typer.Option("--draw/--no-draw", help="Write annotated frames.")]
Actors = Annotated[int | None, typer.Option("--actors", help="Model actors.")]
Gpus = Annotated[
    float | None,
    typer.Option("--gpus", help="GPUs for each actor. 0.5 puts two actors on one GPU."),
]


def given(**values: Any) -> dict[str, Any]:
    """Options that were given, as dotted config keys (`a__b` is `a.b`)."""
    return {key.replace("__", "."): value for key, value in values.items() if value is not None}


def read_names(text: str) -> list[str]:
    """`vehicle, cyclist` as names."""
    return [name.strip() for name in text.split(",") if name.strip()]


def s3_values(
    endpoint: str | None, region: str | None, anonymous: bool | None, requester_pays: bool | None
) -> dict[str, Any]:
    """The S3 options that were given, as config keys."""
    return given(
        storage__endpoint_url=endpoint,
        storage__region=region,
        storage__anonymous=anonymous,
        storage__requester_pays=requester_pays,
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


def open_storage(
    endpoint: str | None, region: str | None, anonymous: bool | None, requester_pays: bool | None
) -> Any:
    """The storage that the S3 options ask for."""
    from urbandet_ray.config import StorageConfig
    from urbandet_ray.storage import Storage

    return Storage(
        StorageConfig(
            region=region,
            endpoint_url=endpoint,
            anonymous=bool(anonymous),
            requester_pays=bool(requester_pays),
        )
    )
