"""urbandet demo, infer, track, eval, video."""

from __future__ import annotations

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
    open_storage,
    read_names,
    read_tiles,
    s3_values,
)

app = typer.Typer()

Input = Annotated[str | None, typer.Argument(metavar="INPUT", help="TFRecords, images or a video.")]
Model = Annotated[
    str | None, typer.Option(help="`shipped`, an export, a .tflite file or a SavedModel.")
]
Tiles = Annotated[
    str | None,
    typer.Option(
        metavar="ROWSxCOLUMNS", help="Detect on parts of each frame too, for small objects: 3x3."
    ),
]
Track = Annotated[
    bool | None,
    typer.Option("--track", help="Give track ids at the end, as `urbandet track` does."),
]


Every = Annotated[
    int | None, typer.Option("--every", metavar="N", help="Look at every N-th frame only.")
]
PerSecond = Annotated[
    float | None, typer.Option("--per-second", help="Of videos, look at so many frames a second.")
]
Classes = Annotated[
    str | None, typer.Option("--classes", help="Keep these classes only: vehicle,cyclist.")
]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for all results.")] = Path("demo"),
    frames: Annotated[int, typer.Option(min=2, help="Frames of the drive.")] = 80,
) -> None:
    """Detect, evaluate and film a synthetic drive."""
    from urbandet_ray.commands.demo import run_demo

    run_demo(out, frames, say=typer.echo)


@app.command()
def infer(
    input_: Input = None,
    out: Annotated[str | None, typer.Option("--out", help="Run folder, local or s3://.")] = None,
    model: Model = None,
    backend: Backend = None,
    model_labels: ModelLabels = None,
    mapping: Mapping = None,
    labels: Labels = None,
    tiles: Tiles = None,
    every: Every = None,
    per_second: PerSecond = None,
    classes: Classes = None,
    score_min: Annotated[float | None, typer.Option(help="Lowest score that is kept.")] = None,
    draw_score_min: Annotated[
        float | None, typer.Option(help="Lowest score that is drawn.")
    ] = None,
    draw: Draw = None,
    track: Track = None,
    coco: Annotated[bool | None, typer.Option(help="Write COCO results JSON too.")] = None,
    coco_images: Annotated[
        str | None, typer.Option(help="COCO file of the input, whose ids the results take.")
    ] = None,
    actors: Actors = None,
    gpus: Gpus = None,
    config: Config = None,
    settings: Settings = None,
    s3_endpoint: Endpoint = None,
    s3_region: Region = None,
    s3_anonymous: Anonymous = None,
    s3_requester_pays: RequesterPays = None,
) -> None:
    """Detect objects on every frame. An unfinished run is resumed.

    Exit code 3: done, with dead letters.
    """
    from urbandet_ray.commands.display import infer_progress
    from urbandet_ray.commands.infer import infer as work
    from urbandet_ray.config import InferConfig

    rows, columns = (None, None) if tiles is None else read_tiles(tiles)
    values = (
        given(input=input_, output=out, labels=labels, backend=backend, coco=coco)
        | given(coco_images=coco_images)
        | given(model__uri=model, model__labels=model_labels, model__mapping=mapping)
        | given(model__score_min=score_min, tiles__rows=rows, tiles__columns=columns)
        | given(sample__every=every, sample__per_second=per_second)
        | given(model__classes=None if classes is None else read_names(classes))
        | given(draw__enabled=draw, draw__score_min=draw_score_min, track__enabled=track)
        | given(actors__min=actors, actors__gpus=gpus)
        | s3_values(s3_endpoint, s3_region, s3_anonymous, s3_requester_pays)
    )
    loaded = load(InferConfig, config, values, settings)
    with infer_progress() as on_progress:
        report = work(loaded, on_progress=on_progress, say=typer.echo)
    typer.echo(report.to_text())
    raise typer.Exit(report.exit_code)


@app.command()
def track(
    run: Annotated[str, typer.Argument(help="Run folder of a finished inference.")],
    score_high: Annotated[
        float | None, typer.Option(help="Lowest score that can start a track (0.5).")
    ] = None,
    score_low: Annotated[
        float | None, typer.Option(help="Lowest score that can continue a track (0.1).")
    ] = None,
    match_iou: Annotated[
        float | None, typer.Option(help="Overlap (IoU) with a track's predicted box (0.2).")
    ] = None,
    match_iou_low: Annotated[
        float | None, typer.Option(help="The same overlap, for scores below --score-high (0.3).")
    ] = None,
    frames_kept: Annotated[
        int | None, typer.Option(help="Frames that a track lives without a match (10).")
    ] = None,
    min_hits: Annotated[int | None, typer.Option(help="Fewest detections of a track (3).")] = None,
    s3_endpoint: Endpoint = None,
    s3_region: Region = None,
    s3_anonymous: Anonymous = None,
    s3_requester_pays: RequesterPays = None,
) -> None:
    """Give each object of a run one id over its frames."""
    from urbandet_ray.commands.track import track as work
    from urbandet_ray.config import TrackConfig

    values = given(
        score_high=score_high,
        score_low=score_low,
        match_iou=match_iou,
        match_iou_low=match_iou_low,
        frames_kept=frames_kept,
        min_hits=min_hits,
    )
    rules = load(TrackConfig, None, values, None)
    typer.echo(
        work(
            run, rules, open_storage(s3_endpoint, s3_region, s3_anonymous, s3_requester_pays)
        ).to_text()
    )


@app.command(name="eval")
def evaluate(
    run: Annotated[str | None, typer.Argument(help="Run folder of an inference.")] = None,
    truth: Annotated[
        str | None, typer.Option(help="Records with labels, or a dataset such as COCO.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="Folder for metrics.json. Default: the run folder.")
    ] = None,
    config: Config = None,
    settings: Settings = None,
    s3_endpoint: Endpoint = None,
    s3_region: Region = None,
    s3_anonymous: Anonymous = None,
    s3_requester_pays: RequesterPays = None,
) -> None:
    """Measure the COCO mAP of a run.

    Prints it by class and by box size.
    """
    from urbandet_ray.commands.evaluate import evaluate as work
    from urbandet_ray.config import EvalConfig

    values = given(run=run, truth=truth, output=out)
    values |= s3_values(s3_endpoint, s3_region, s3_anonymous, s3_requester_pays)
    typer.echo(work(load(EvalConfig, config, values, settings)).to_text())


@app.command()
def video(
    run: Annotated[str | None, typer.Argument(help="Run folder of an inference.")] = None,
    out: Annotated[str | None, typer.Option(help="Video to write: .mp4, .webm or .gif.")] = None,
    fps: Annotated[
        float | None, typer.Option(help="Frames a second. Default: the pace of the frames' times.")
    ] = None,
    score_min: Annotated[float | None, typer.Option(help="Lowest score that is shown.")] = None,
    truth: Annotated[bool | None, typer.Option("--truth", help="Show the labels too.")] = None,
    segment: Annotated[str | None, typer.Option(help="Show this segment only.")] = None,
    compare: Annotated[str | None, typer.Option(help="Second run, shown on the right.")] = None,
    tracks: Annotated[
        bool | None, typer.Option("--tracks", help="Show the tracks of `urbandet track`.")
    ] = None,
    input_: Annotated[
        str | None, typer.Option("--input", help="Input of the run, if it was moved.")
    ] = None,
    config: Config = None,
    settings: Settings = None,
    s3_endpoint: Endpoint = None,
    s3_region: Region = None,
    s3_anonymous: Anonymous = None,
    s3_requester_pays: RequesterPays = None,
) -> None:
    """Make a video of a run.

    Frames are in drive order. Another score threshold needs no new inference.
    """
    from urbandet_ray.commands.display import count_progress
    from urbandet_ray.commands.video import make_video
    from urbandet_ray.config import VideoConfig

    values = (
        given(run=run, output=out, fps=fps, score_min=score_min, truth=truth)
        | given(segment=segment, compare=compare, tracks=tracks, input=input_)
        | s3_values(s3_endpoint, s3_region, s3_anonymous, s3_requester_pays)
    )
    loaded = load(VideoConfig, config, values, settings)
    with count_progress("frames") as on_frame:
        report = make_video(loaded, on_frame=on_frame)
    typer.echo(report.to_text())
