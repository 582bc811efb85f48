"""urbandet sagemaker ..."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from urbandet_ray.cli.options import Settings, given, load

app = typer.Typer(
    help="Training, endpoints and batch inference on Amazon SageMaker (docs/sagemaker.md).",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Image = Annotated[str, typer.Option(help="The training image in ECR.", envvar="URBANDET_IMAGE")]
Role = Annotated[str, typer.Option(help="ARN of the job's role.", envvar="URBANDET_ROLE")]
Out = Annotated[str, typer.Option("--out", help="s3:// prefix that everything goes below.")]
Instance = Annotated[str, typer.Option(help="Such as ml.g5.xlarge.")]
Count = Annotated[int, typer.Option(min=1, help="Instances.")]
Volume = Annotated[int, typer.Option("--volume-gb", min=1, help="Disk of each.")]
Hours = Annotated[float, typer.Option(help="The job is ended after so long.")]
Subnet = Annotated[list[str] | None, typer.Option(help="Of a VPC; repeatable.")]
Group = Annotated[list[str] | None, typer.Option("--security-group", help="Of a VPC; repeatable.")]
Tag = Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Repeatable.")]
Name = Annotated[str | None, typer.Option(help="Of the job; made of the time.")]
Price = Annotated[float | None, typer.Option(help="US dollars an hour; else AWS is asked.")]
Region = Annotated[str | None, typer.Option(help="AWS region.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Job = Annotated[str, typer.Argument(help="Name of the job.")]


@app.command()
def train(
    image: Image,
    role: Role,
    out: Out,
    config: Annotated[Path | None, typer.Argument(help="Run config (YAML).")] = None,
    data: Annotated[
        str | None, typer.Option(help="s3:// folder with train/, val/ and label_map.pbtxt.")
    ] = None,
    pipeline: Annotated[str | None, typer.Option(help="pipeline.config, or our name.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps.")] = None,
    pretrained: Annotated[
        str | None, typer.Option(help="s3:// folder of a checkpoint to start from.")
    ] = None,
    optimized: Annotated[
        str | None, typer.Option(help="Networks beside the stock export: savedmodel,openvino.")
    ] = None,
    instance: Instance = "ml.g5.xlarge",
    count: Count = 1,
    volume_gb: Volume = 50,
    hours: Hours = 24.0,
    spot: Annotated[bool, typer.Option(help="Spot instances; a restart resumes.")] = False,
    max_wait: Annotated[
        float | None, typer.Option(help="Hours of a spot job in all; twice --hours.")
    ] = None,
    checkpoints: Annotated[
        str | None, typer.Option(help="s3:// checkpoints of an earlier job, to go on from.")
    ] = None,
    subnet: Subnet = None,
    security_group: Group = None,
    tag: Tag = None,
    name: Name = None,
    price: Price = None,
    region: Region = None,
    yes: Yes = False,
    settings: Settings = None,
) -> None:
    """Start a training job with the run config of `urbandet train`; asks with its price first."""
    from urbandet_ray.commands.sagemaker import train as work
    from urbandet_ray.config import TrainConfig

    values = given(data=data, pipeline=pipeline, steps=steps)
    loaded = load(
        TrainConfig, config, {"output": "-", **values} if config is None else values, settings
    )
    wait = (max_wait or 2 * hours) if spot else None
    size = {"count": count, "volume_gb": volume_gb, "hours": hours, "spot_wait_hours": wait}
    machines = _machines(instance, subnet, security_group, **size)
    _start(
        work,
        _order(image, role, out, machines, region, price, name, tag),
        yes,
        config=loaded,
        storage=_storage(region),
        pretrained=pretrained,
        checkpoints=checkpoints,
        optimized=optimized,
    )


@app.command()
def status(name: Job, region: Region = None) -> None:
    """How a training or processing job is: metrics, times, places, why it failed."""
    from urbandet_ray.commands.sagemaker import status as work

    typer.echo(work(name, region).to_text())


@app.command()
def logs(
    name: Job,
    follow: Annotated[bool, typer.Option("--follow", help="Until the job ends.")] = False,
    region: Region = None,
) -> None:
    """What the hosts of a training or processing job have printed."""
    from urbandet_ray.commands.sagemaker import follow_logs

    follow_logs(name, region, follow=follow, say=typer.echo)


@app.command()
def fetch(
    name: Job,
    out: Annotated[Path, typer.Option(help="Folder for the model.")] = Path("model"),
    region: Region = None,
) -> None:
    """Bring a completed job's model here."""
    from urbandet_ray.commands.sagemaker import fetch as work

    for path in work(name, out, region, _storage(region)):
        typer.echo(out / path)


@app.command()
def stop(name: Job, region: Region = None) -> None:
    """Stop a training or processing job; a training resumes from its checkpoints."""
    from urbandet_ray.commands.sagemaker import stop as work

    typer.echo(work(name, region))


@app.command()
def deploy(
    model: Annotated[str, typer.Argument(help="A completed training job, or a model.tar.gz.")],
    image: Image,
    role: Role,
    score_min: Annotated[float, typer.Option(help="Answer with boxes from this score.")] = 0.3,
    max_detections: Annotated[int, typer.Option(min=1, help="Boxes of an image.")] = 100,
    instance: Instance = "ml.c6i.xlarge",
    count: Count = 1,
    subnet: Subnet = None,
    security_group: Group = None,
    tag: Tag = None,
    name: Name = None,
    price: Price = None,
    region: Region = None,
    yes: Yes = False,
) -> None:
    """An endpoint that takes a JPEG and answers its best boxes; costs until it is deleted."""
    from urbandet_ray.commands.sagemaker import deploy as work

    machines = _machines(instance, subnet, security_group, count=count)
    order = _order(image, role, "", machines, region, price, name, tag)
    _start(work, order, yes, model=model, score_min=score_min, most=max_detections)


@app.command()
def delete(
    name: Annotated[str, typer.Argument(help="Name of the endpoint.")], region: Region = None
) -> None:
    """Delete an endpoint, its config and its model."""
    from urbandet_ray.commands.sagemaker import delete as work

    typer.echo(work(name, region))


@app.command(name="batch")
def batch_infer(
    records: Annotated[str, typer.Argument(help="s3:// records.")],
    image: Image,
    role: Role,
    out: Out,
    model: Annotated[str | None, typer.Option(help="s3:// model.tar.gz; else shipped.")] = None,
    instance: Instance = "ml.c6i.4xlarge",
    volume_gb: Volume = 50,
    hours: Hours = 24.0,
    subnet: Subnet = None,
    security_group: Group = None,
    tag: Tag = None,
    name: Name = None,
    price: Price = None,
    region: Region = None,
    yes: Yes = False,
    settings: Settings = None,
) -> None:
    """Infer records in S3 as a processing job, with the pipeline of `urbandet infer`."""
    from urbandet_ray.commands.sagemaker import batch as work

    machines = _machines(instance, subnet, security_group, volume_gb=volume_gb, hours=hours)
    order = _order(image, role, out, machines, region, price, name, tag)
    _start(work, order, yes, records=records, model=model, settings=tuple(settings or ()))


def _start(work: Any, order: Any, yes: bool, **asked: Any) -> None:
    """Start what costs, once its price is agreed to; exit code 1 where it is not."""
    confirm = (lambda _: True) if yes else typer.confirm
    started = work(order=order, say=typer.echo, confirm=confirm, **asked)
    raise typer.Exit(0 if started else 1)


def _machines(
    instance: str, subnet: list[str] | None, security_group: list[str] | None, **size: Any
) -> Any:
    from urbandet_ray.launch.sagemaker.request import Machines

    subnets, groups = tuple(subnet or ()), tuple(security_group or ())
    return Machines(instance, **size, subnets=subnets, security_groups=groups)


def _order(
    image: str,
    role: str,
    out: str,
    machines: Any,
    region: str | None,
    price: float | None,
    name: str | None,
    tag: list[str] | None,
) -> Any:
    from urbandet_ray.commands.sagemaker import Order
    from urbandet_ray.errors import ConfigError

    tags = {}
    for text in tag or ():
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise ConfigError(f"--tag is {text!r}, expected KEY=VALUE")
        tags[key] = value
    return Order(image, role, out, machines, region, price, name, tags)


def _storage(region: str | None) -> Any:
    from urbandet_ray.cli.options import open_storage

    return open_storage(None, region, None)
