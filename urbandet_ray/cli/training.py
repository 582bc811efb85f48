"""urbandet doctor, train, export, augment."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from urbandet_ray.cli.options import (
    Anonymous,
    Endpoint,
    Labels,
    Region,
    RequesterPays,
    Settings,
    given,
    load,
    open_storage,
    s3_values,
)

app = typer.Typer()
augment = typer.Typer(
    help="Look at what augmentations do to your frames.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(augment, name="augment")

Data = Annotated[
    str | None, typer.Option(help="Data folder with train/, val/ and label_map.pbtxt.")
]


@app.command()
def doctor(
    config: Annotated[str, typer.Argument(help="pipeline.config of the TF OD API.")],
    data: Data = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimizer steps of the planned run.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Workers of the planned run. Each takes batch_size images.")
    ] = 1,
    fix: Annotated[
        str | None, typer.Option(metavar="OUT", help="Write a corrected copy to OUT.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    s3_endpoint: Endpoint = None,
    s3_region: Region = None,
    s3_anonymous: Anonymous = None,
    s3_requester_pays: RequesterPays = None,
) -> None:
    """Find mistakes in a pipeline.config before training.

    Exit code 3: at least one error was found.
    """
    import json

    from urbandet_ray.commands.doctor import diagnose, refuse_existing, write_fixed

    storage = open_storage(s3_endpoint, s3_region, s3_anonymous, s3_requester_pays)
    if fix is not None:
        refuse_existing(fix, storage)
    found = diagnose(config, storage, data=data, steps=steps, workers=workers)
    diff = write_fixed(found, fix, storage) if fix is not None else None
    if as_json:
        typer.echo(json.dumps(found.to_dict() | ({} if diff is None else {"diff": diff}), indent=2))
    else:
        typer.echo(found.to_text() + ("" if diff is None else f"\n\n{diff}\nwrote {fix}"))
    raise typer.Exit(found.exit_code)


@app.command()
def train(
    config: Annotated[Path | None, typer.Argument(help="Run config (YAML).")] = None,
    pipeline: Annotated[
        str | None, typer.Option(help="pipeline.config, or a name of configs/models.")
    ] = None,
    data: Data = None,
    out: Annotated[str | None, typer.Option("--out", help="Run folder, local or s3://.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps.")] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(help="Checkpoint to start from, or the name of a fetched zoo model."),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Number of workers.")] = None,
    gpus: Annotated[float | None, typer.Option(help="GPUs for each worker.")] = None,
    ignore_doctor: Annotated[
        bool, typer.Option(help="Train although the doctor finds errors.")
    ] = False,
    settings: Settings = None,
    s3_endpoint: Endpoint = None,
    s3_region: Region = None,
    s3_anonymous: Anonymous = None,
    s3_requester_pays: RequesterPays = None,
) -> None:
    """Train a model of the OD API, or your own. An unfinished run is resumed."""
    from urbandet_ray.commands.display import show_findings, train_progress
    from urbandet_ray.commands.train import train as work
    from urbandet_ray.config import TrainConfig

    values = (
        given(pipeline=pipeline, data=data, output=out, steps=steps)
        | given(fine_tune__checkpoint=checkpoint, workers__count=workers, workers__gpus=gpus)
        | given(doctor="ignore" if ignore_doctor else None)
        | s3_values(s3_endpoint, s3_region, s3_anonymous, s3_requester_pays)
    )
    loaded = load(TrainConfig, config, values, settings)
    with train_progress() as on_notice:
        report = work(loaded, on_notice=on_notice, on_findings=show_findings)
    typer.echo(report.to_text())


class ExportFormat(StrEnum):
    """What a trained model is exported to."""

    STOCK = "stock"
    STOCK_TFLITE = "stock-tflite"
    SAVEDMODEL = "savedmodel"
    OPENVINO = "openvino"
    ONNX = "onnx"
    TFLITE = "tflite"


class ExportPrecision(StrEnum):
    """What an export computes in, or its weights are rounded to."""

    F32 = "f32"
    BF16 = "bf16"
    FP16 = "fp16"
    INT8 = "int8"


class Kept(StrEnum):
    """Which of a run's checkpoints."""

    BEST = "best"
    LAST = "last"


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="Run folder of `urbandet train`.")],
    out: Annotated[
        str | None, typer.Option(help="Folder for the export. Default: exports/ in the run folder.")
    ] = None,
    to: Annotated[
        ExportFormat,
        typer.Option(
            "--format",
            help="stock takes one image a call. The others take batches and are faster.",
        ),
    ] = ExportFormat.STOCK,
    checkpoint: Annotated[
        Kept, typer.Option(help="Checkpoint with the best mAP, or the last one.")
    ] = Kept.BEST,
    precision: Annotated[
        ExportPrecision, typer.Option(help="bf16 and int8 are faster where the CPU supports them.")
    ] = ExportPrecision.F32,
    calibrate: Annotated[
        str | None, typer.Option(help="Records or images to calibrate int8 on.")
    ] = None,
    check: Annotated[
        str | None, typer.Option(help="Labelled records: measure the mAP that the precision costs.")
    ] = None,
    s3_endpoint: Endpoint = None,
    s3_region: Region = None,
    s3_anonymous: Anonymous = None,
    s3_requester_pays: RequesterPays = None,
) -> None:
    """Export a trained model for `urbandet infer --model`."""
    from urbandet_ray.commands.export import export as work

    storage = open_storage(s3_endpoint, s3_region, s3_anonymous, s3_requester_pays)
    report = work(
        run,
        out=out,
        storage=storage,
        checkpoint=checkpoint.value,
        format=to.value,
        precision=precision.value,
        calibrate=calibrate,
        check=check,
    )
    typer.echo(report.to_text())


@augment.command()
def preview(
    records: Annotated[str, typer.Argument(help="Data folder, or TFRecords.")],
    out: Annotated[str, typer.Option(help="PNG to write.")] = "augmented.png",
    preset: Annotated[
        str, typer.Option(help="none, flip, course, strong, config, or options as text.")
    ] = "strong",
    pipeline: Annotated[
        str | None, typer.Option(help="pipeline.config for the preset `config`.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Frames on the sheet.")] = 8,
    versions: Annotated[int, typer.Option(min=1, help="Augmented versions of each frame.")] = 2,
    seed: Annotated[int, typer.Option(help="Seed of the random choices.")] = 0,
    labels: Labels = None,
    s3_endpoint: Endpoint = None,
    s3_region: Region = None,
    s3_anonymous: Anonymous = None,
    s3_requester_pays: RequesterPays = None,
) -> None:
    """Draw a contact sheet: frames as they are, and as training would see them."""
    from urbandet_ray.commands.augment import preview as work
    from urbandet_ray.records.data_folder import read_data_folder
    from urbandet_ray.records.own_labels import own_labels

    storage = open_storage(s3_endpoint, s3_region, s3_anonymous, s3_requester_pays)
    data = read_data_folder(records, storage, labels)
    shown = work(
        data,
        out,
        preset,
        own_labels(data, storage, most=20),
        storage,
        pipeline=pipeline,
        count=count,
        versions=versions,
        seed=seed,
    )
    typer.echo(f"{data.to_text()}\n{out}: {shown} frames")
