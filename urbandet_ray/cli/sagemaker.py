"""urbandet sagemaker ..."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from urbandet_ray.cli.options import Settings, given, load

app = typer.Typer(
    help="Train, deploy and infer on SageMaker.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Image = Annotated[str, typer.Option(help="Image in ECR.", envvar="URBANDET_IMAGE")]
Role = Annotated[
    str, typer.Option(help="ARN of the role that the job runs as.", envvar="URBANDET_ROLE")
]
Out = Annotated[str, typer.Option("--out", help="s3:// prefix for all results.")]
Instance = Annotated[str, typer.Option(help="Instance type, for example ml.g5.xlarge.")]
Count = Annotated[int, typer.Option(min=1, help="Number of instances.")]
Volume = Annotated[int, typer.Option("--volume-gb", min=1, help="Disk of each instance, in GB.")]
Hours = Annotated[float, typer.Option(help="Longest time of the job, in hours.")]
Subnet = Annotated[list[str] | None, typer.Option(help="Subnet of a VPC. Repeatable.")]
Group = Annotated[
    list[str] | None, typer.Option("--security-group", help="Security group of a VPC. Repeatable.")
]
Tag = Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="AWS tag. Repeatable.")]
Name = Annotated[str | None, typer.Option(help="Name. Default: made from the time.")]
Price = Annotated[float | None, typer.Option(help="US dollars an hour. Default: AWS is asked.")]
Region = Annotated[str | None, typer.Option(help="AWS region.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask before it starts.")]
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
    pipeline: Annotated[
        str | None, typer.Option(help="pipeline.config, or a name of configs/models.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps.")] = None,
    pretrained: Annotated[
        str | None, typer.Option(help="s3:// folder of a checkpoint to start from.")
    ] = None,
    optimized: Annotated[
        str | None, typer.Option(help="Exports beside the stock one: savedmodel,openvino.")
    ] = None,
    instance: Instance = "ml.g5.xlarge",
    count: Count = 1,
    volume_gb: Volume = 50,
    hours: Hours = 24.0,
    spot: Annotated[
        bool, typer.Option(help="Use spot instances. A restart resumes the run.")
    ] = False,
    max_wait: Annotated[
        float | None,
        typer.Option(
            help="Longest time of a spot job with its waits, in hours. Default: 2 x --hours."
        ),
    ] = None,
    checkpoints: Annotated[
        str | None, typer.Option(help="s3:// checkpoints of an earlier job, to resume from.")
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
    """Start a training job, with the run config of `urbandet train`.

    Prints the highest possible price and asks first.
    """
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
    """Show a training or processing job: metrics, times, places, why it failed."""
    from urbandet_ray.commands.sagemaker import status as work

    typer.echo(work(name, region).to_text())


@app.command()
def logs(
    name: Job,
    follow: Annotated[bool, typer.Option("--follow", help="Follow until the job ends.")] = False,
    region: Region = None,
) -> None:
    """Show what the hosts of a training or processing job have printed."""
    from urbandet_ray.commands.sagemaker import follow_logs

    follow_logs(name, region, follow=follow, say=typer.echo)


@app.command()
def fetch(
    name: Job,
    out: Annotated[Path, typer.Option(help="Folder for the model.")] = Path("model"),
    region: Region = None,
) -> None:
    """Download the model of a completed job."""
    from urbandet_ray.commands.sagemaker import fetch as work

    for path in work(name, out, region, _storage(region)):
        typer.echo(out / path)


@app.command()
def stop(name: Job, region: Region = None) -> None:
    """Stop a training or processing job. A training can be resumed from its checkpoints."""
    from urbandet_ray.commands.sagemaker import stop as work

    typer.echo(work(name, region))


@app.command()
def deploy(
    model: Annotated[str, typer.Argument(help="Completed training job, or a model.tar.gz.")],
    image: Image,
    role: Role,
    score_min: Annotated[float, typer.Option(help="Lowest score in an answer.")] = 0.3,
    max_detections: Annotated[int, typer.Option(min=1, help="Most boxes in an answer.")] = 100,
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
    """Start an endpoint that takes a JPEG and answers with its best boxes.

    It costs money until it is deleted.
    """
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
    records: Annotated[str, typer.Argument(help="Records on S3.")],
    image: Image,
    role: Role,
    out: Out,
    model: Annotated[
        str | None, typer.Option(help="model.tar.gz on S3. Default: the shipped detector.")
    ] = None,
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
    from urbandet_ray.commands.sagemaker import JobOrder
    from urbandet_ray.errors import ConfigError

    tags = {}
    for text in tag or ():
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise ConfigError(f"--tag is {text!r}, expected KEY=VALUE")
        tags[key] = value
    return JobOrder(image, role, out, machines, region, price, name, tags)


def _storage(region: str | None) -> Any:
    from urbandet_ray.cli.options import open_storage

    return open_storage(None, region, None, None)
