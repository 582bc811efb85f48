"""The command line: parse, call, print. Heavy imports wait until a command runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from urbandet_ray import __version__
from urbandet_ray.errors import UrbandetError

app = typer.Typer(
    help="Object detection on urban drives: records in, detections, mAP and the video out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data = typer.Typer(
    help="Look at the data first: validate, stats, show; synth makes some.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(data, name="data")
models = typer.Typer(
    help="The TF2 detection zoo: list, show and fetch the models that training starts from.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(models, name="models")

Config = Annotated[Path | None, typer.Option("--config", help="Run config (YAML).")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any key of the run config; repeatable."),
]
Endpoint = Annotated[str | None, typer.Option("--s3-endpoint", help="Another S3 server.")]
Region = Annotated[str | None, typer.Option("--s3-region", help="AWS region.")]
Anonymous = Annotated[bool | None, typer.Option("--s3-anonymous", help="No credentials.")]
Labels = Annotated[str | None, typer.Option("--labels", help="Our label_map.pbtxt.")]


def main() -> None:
    """Entry point: a user's mistake is one message and exit code 1."""
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
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print and leave.")
    ] = False,
) -> None:
    del version


def _given(**values: Any) -> dict[str, Any]:
    """Options that were given, as dotted config keys (`a__b` is `a.b`)."""
    return {key.replace("__", "."): value for key, value in values.items() if value is not None}


def _load(kind: Any, path: Path | None, given: dict[str, Any], settings: list[str] | None) -> Any:
    from urbandet_ray.config.loading import load_config, split_override

    pairs = dict(split_override(text) for text in settings or ())
    return load_config(kind, path, {**given, **pairs})


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything it makes.")] = Path("demo"),
    frames: Annotated[int, typer.Option(min=2, help="Frames of the drive.")] = 80,
) -> None:
    """A synthetic drive through the shipped detector: mAP, MP4 and GIF."""
    from urbandet_ray.commands.demo import run_demo

    run_demo(out, frames, say=typer.echo)


@app.command()
def infer(
    input_: Annotated[
        str | None, typer.Argument(metavar="INPUT", help="TFRecords, images or a video.")
    ] = None,
    out: Annotated[str | None, typer.Option("--out", help="Run folder, local or s3://.")] = None,
    model: Annotated[
        str | None, typer.Option(help="shipped, a .tflite file or a SavedModel folder.")
    ] = None,
    model_labels: Annotated[str | None, typer.Option(help="The model's own classes.")] = None,
    mapping: Annotated[str | None, typer.Option(help="coco-to-street, or a YAML.")] = None,
    labels: Labels = None,
    score_min: Annotated[float | None, typer.Option(help="Keep detections from here.")] = None,
    draw_score_min: Annotated[float | None, typer.Option(help="Draw detections from here.")] = None,
    draw: Annotated[bool | None, typer.Option(help="Write annotated frames.")] = None,
    coco: Annotated[bool | None, typer.Option(help="Write COCO results JSON too.")] = None,
    actors: Annotated[int | None, typer.Option(help="Model actors.")] = None,
    gpus: Annotated[float | None, typer.Option(help="GPUs an actor.")] = None,
    config: Config = None,
    settings: Settings = None,
    s3_endpoint: Endpoint = None,
    s3_region: Region = None,
    s3_anonymous: Anonymous = None,
) -> None:
    """Detect on every frame; resumes a cut-off run. Exit code 3: done with dead letters."""
    from urbandet_ray.commands.display import infer_progress
    from urbandet_ray.commands.infer import infer as work
    from urbandet_ray.config import InferConfig

    given = _given(
        input=input_,
        output=out,
        model__uri=model,
        model__labels=model_labels,
        model__mapping=mapping,
        model__score_min=score_min,
        labels=labels,
        draw__score_min=draw_score_min,
        draw__enabled=draw,
        coco=coco,
        actors__min=actors,
        actors__gpus=gpus,
        storage__endpoint_url=s3_endpoint,
        storage__region=s3_region,
        storage__anonymous=s3_anonymous,
    )
    loaded = _load(InferConfig, config, given, settings)
    with infer_progress() as on_progress:
        report = work(loaded, on_progress=on_progress)
    typer.echo(report.to_text())
    raise typer.Exit(report.exit_code)


@app.command(name="eval")
def evaluate(
    run: Annotated[str | None, typer.Argument(help="Run folder.")] = None,
    truth: Annotated[str | None, typer.Option(help="Records with labels.")] = None,
    out: Annotated[str | None, typer.Option(help="Where metrics.json goes.")] = None,
    config: Config = None,
    settings: Settings = None,
    s3_endpoint: Endpoint = None,
    s3_region: Region = None,
    s3_anonymous: Anonymous = None,
) -> None:
    """COCO mAP of a run, by class and by box size."""
    from urbandet_ray.commands.evaluate import evaluate as work
    from urbandet_ray.config import EvalConfig

    given = _given(
        run=run,
        truth=truth,
        output=out,
        storage__endpoint_url=s3_endpoint,
        storage__region=s3_region,
        storage__anonymous=s3_anonymous,
    )
    typer.echo(work(_load(EvalConfig, config, given, settings)).to_text())


@app.command()
def video(
    run: Annotated[str | None, typer.Argument(help="Run folder.")] = None,
    out: Annotated[str | None, typer.Option(help="drive.mp4, .webm or .gif.")] = None,
    fps: Annotated[float | None, typer.Option(help="Frames a second.")] = None,
    score_min: Annotated[float | None, typer.Option(help="Show detections from here.")] = None,
    truth: Annotated[bool | None, typer.Option("--truth", help="Show the labels too.")] = None,
    segment: Annotated[str | None, typer.Option(help="Only this segment.")] = None,
    compare: Annotated[str | None, typer.Option(help="A second run, to the right.")] = None,
    input_: Annotated[str | None, typer.Option("--input", help="The input, if it moved.")] = None,
    config: Config = None,
    settings: Settings = None,
    s3_endpoint: Endpoint = None,
    s3_region: Region = None,
    s3_anonymous: Anonymous = None,
) -> None:
    """The animation of a run, frames in drive order; another threshold needs no new inference."""
    from urbandet_ray.commands.display import count_progress
    from urbandet_ray.commands.video import make_video
    from urbandet_ray.config import VideoConfig

    given = _given(
        run=run,
        output=out,
        fps=fps,
        score_min=score_min,
        truth=truth,
        segment=segment,
        compare=compare,
        input=input_,
        storage__endpoint_url=s3_endpoint,
        storage__region=s3_region,
        storage__anonymous=s3_anonymous,
    )
    loaded = _load(VideoConfig, config, given, settings)
    with count_progress("frames") as on_frame:
        report = make_video(loaded, on_frame=on_frame)
    typer.echo(report.to_text())


def _open(endpoint: str | None, region: str | None, anonymous: bool | None) -> Any:
    from urbandet_ray.storage import S3Options, Storage

    return Storage(S3Options(region=region, endpoint_url=endpoint, anonymous=bool(anonymous)))


@app.command()
def doctor(
    config: Annotated[str, typer.Argument(help="pipeline.config of the TF OD API.")],
    data: Annotated[
        str | None, typer.Option(help="Folder with train/, val/ and label_map.pbtxt.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the run.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Each takes the batch_size.")] = 1,
    fix: Annotated[str | None, typer.Option(metavar="OUT", help="Write a corrected copy.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Findings as JSON.")] = False,
    s3_endpoint: Endpoint = None,
    s3_region: Region = None,
    s3_anonymous: Anonymous = None,
) -> None:
    """Mistakes in a pipeline.config, before they cost a run. Exit code 3: errors found."""
    import json

    from urbandet_ray.commands.doctor import diagnose, refuse_existing, write_fixed

    storage = _open(s3_endpoint, s3_region, s3_anonymous)
    if fix is not None:
        refuse_existing(fix, storage)
    found = diagnose(config, storage, data=data, steps=steps, workers=workers)
    diff = write_fixed(found, fix, storage) if fix is not None else None
    if as_json:
        typer.echo(json.dumps(found.to_dict() | ({} if diff is None else {"diff": diff}), indent=2))
    else:
        typer.echo(found.to_text() + ("" if diff is None else f"\n\n{diff}\nwrote {fix}"))
    raise typer.Exit(found.exit_code)


@data.command()
def validate(
    records: Annotated[str, typer.Argument(help="TFRecords, images or a video.")],
    labels: Labels = None,
    s3_endpoint: Endpoint = None,
    s3_region: Region = None,
    s3_anonymous: Anonymous = None,
) -> None:
    """Read and decode everything; list what is broken. Exit code 3: something is."""
    from urbandet_ray.commands.access import read_labels
    from urbandet_ray.commands.display import count_progress
    from urbandet_ray.records.checks import validate as check

    storage = _open(s3_endpoint, s3_region, s3_anonymous)
    with count_progress("files") as progress:
        report = check(records, storage, read_labels(labels, storage), progress=progress)
    typer.echo(report.to_text())
    raise typer.Exit(0 if report.is_clean else 3)


@data.command()
def stats(
    records: Annotated[str, typer.Argument(help="TFRecords with labels.")],
    labels: Labels = None,
    s3_endpoint: Endpoint = None,
    s3_region: Region = None,
    s3_anonymous: Anonymous = None,
) -> None:
    """Counts, class balance and box sizes."""
    from urbandet_ray.commands.access import read_labels
    from urbandet_ray.commands.display import count_progress
    from urbandet_ray.records.stats import statistics

    storage = _open(s3_endpoint, s3_region, s3_anonymous)
    with count_progress("files") as progress:
        found = statistics(records, storage, read_labels(labels, storage), progress=progress)
    typer.echo(found.to_text())


@data.command()
def show(
    records: Annotated[str, typer.Argument(help="TFRecords, images or a video.")],
    out: Annotated[str, typer.Option(help="PNG to write.")] = "contact_sheet.png",
    count: Annotated[int, typer.Option(min=1, help="Frames on the sheet.")] = 12,
    labels: Labels = None,
    s3_endpoint: Endpoint = None,
    s3_region: Region = None,
    s3_anonymous: Anonymous = None,
) -> None:
    """A contact sheet with the labels drawn, frames spread over the whole input."""
    from urbandet_ray.commands.access import read_labels
    from urbandet_ray.commands.data import write_contact_sheet

    storage = _open(s3_endpoint, s3_region, s3_anonymous)
    shown = write_contact_sheet(records, out, count, read_labels(labels, storage), storage)
    typer.echo(f"{out}: {shown} frames")


@data.command()
def synth(
    out: Annotated[Path, typer.Argument(help="Folder for the TFRecords.")],
    drives: Annotated[int, typer.Option(min=1, help="Drives, a TFRecord each.")] = 4,
    frames: Annotated[int, typer.Option(min=1, help="Frames a drive.")] = 40,
    seed: Annotated[int, typer.Option(help="Seed of the first drive.")] = 1000,
    width: Annotated[int, typer.Option(min=160, max=3840)] = 640,
    height: Annotated[int, typer.Option(min=160, max=2160)] = 640,
) -> None:
    """Synthetic street drives with exact boxes; the same seed gives the same bytes."""
    from urbandet_ray.records.streets import write_drives

    write_drives(
        out,
        seeds=range(seed, seed + drives),
        frame_count=frames,
        size_wh=(width, height),
        progress=typer.echo,
    )


@models.command(name="list")
def list_zoo() -> None:
    """The zoo's archives: input, mAP, speed, and our config for each."""
    from urbandet_ray.commands.models import list_models

    typer.echo(list_models())


@models.command(name="show")
def show_zoo(
    name: Annotated[str, typer.Argument(help="An archive's name, or one of our configs'.")],
) -> None:
    """One model: the zoo's figures, our config with its reasons, the classes."""
    from urbandet_ray.commands.models import show_model

    typer.echo(show_model(name))


@models.command()
def fetch(
    name: Annotated[str, typer.Argument(help="An archive's name, or one of our configs'.")],
    source: Annotated[
        str | None, typer.Option("--from", help="Mirror (URL, s3://, folder) or an archive.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps the models.")] = None,
    sha256: Annotated[str | None, typer.Option(help="The archive's checksum, in hex.")] = None,
    s3_endpoint: Endpoint = None,
    s3_region: Region = None,
    s3_anonymous: Anonymous = None,
) -> None:
    """Download and unpack one model, once; run again, it goes on where it broke off."""
    from urbandet_ray.commands.models import fetch as work

    storage = _open(s3_endpoint, s3_region, s3_anonymous)
    work(name, source, cache, sha256, storage, say=typer.echo)


if __name__ == "__main__":
    main()
