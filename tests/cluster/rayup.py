"""What is wrong with a `ray up` YAML: by Ray's schema, by EC2's, and by our rules."""

import shlex
from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema
from cluster.deployment import image_problems, ray_start_problems

TOKEN = "~/.ray/auth_token"
NAME = "urbandet"
_HEAD_PROFILE, _WORKER_PROFILE = "urbandet-head", "urbandet-worker"


def problems(config: dict[str, Any]) -> list[str]:
    """Everything that is wrong; empty where `ray up` may read it."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        prepared = prepare_config(config)
        validate_config(prepared)
    except (jsonschema.ValidationError, ValueError, TypeError, AssertionError) as error:
        return [getattr(error, "message", None) or f"{type(error).__name__}: {error}"]
    return [
        *_access_problems(prepared),
        *_command_problems(prepared),
        *_size_problems(prepared),
        *(
            problem
            for name, node in prepared["available_node_types"].items()
            for problem in _node_problems(prepared, name, node)
        ),
    ]


def _access_problems(config: dict[str, Any]) -> Iterator[str]:
    docker, auth = config["docker"], config["auth"]
    if config["cluster_name"] != NAME:
        yield f"cluster_name: got {config['cluster_name']}, ec2-policy.json knows {NAME}"
    if "-e RAY_AUTH_MODE=token" not in docker.get("run_options", []):
        yield "docker.run_options: want -e RAY_AUTH_MODE=token"
    if config["file_mounts"].get(TOKEN) != TOKEN:
        yield f"file_mounts: want your {TOKEN} on all nodes"
    if (
        not auth.get("ssh_proxy_use_node_id")
        or "ssm start-session" not in auth["ssh_proxy_command"]
    ):
        yield "auth: want ssh through the Session Manager, by instance id"
    elif not {"%h", "portNumber=%p"} <= set(shlex.split(auth["ssh_proxy_command"])):
        yield "auth.ssh_proxy_command: want %h and portNumber=%p"
    if "security_group" in config["provider"]:
        yield "provider.security_group: what Ray makes opens port 22 to everybody"


def _command_problems(config: dict[str, Any]) -> Iterator[str]:
    for key in ("setup_commands", "head_setup_commands", "worker_setup_commands"):
        if config[key]:
            yield f"{key}: the image has everything, got {config[key]}"
    head = list(_ray_starts(config["head_start_ray_commands"]))
    worker = list(_ray_starts(config["worker_start_ray_commands"]))
    for where, found in (("head", head), ("worker", worker)):
        if len(found) != 1:
            yield f"{where}: want one ray start, got {len(found)}"
            return
        yield from ray_start_problems(found[0], where)
    if "--dashboard-host=127.0.0.1" not in head[0]:
        yield "head: want --dashboard-host=127.0.0.1"
    if "--autoscaling-config=~/ray_bootstrap_config.yaml" not in head[0]:
        yield "head: without --autoscaling-config no worker is ever started"
    if "--address=$RAY_HEAD_IP:6379" not in worker[0] or "--port=6379" not in head[0]:
        yield "the workers do not meet the head: want --port=6379 and $RAY_HEAD_IP:6379"


def _ray_starts(commands: list[str]) -> Iterator[list[str]]:
    """Arguments of each `ray start` among shell commands."""
    for command in commands:
        for part in command.split(";"):
            words = shlex.split(part)
            if words[:2] == ["ray", "start"]:
                yield words[2:]


def _size_problems(config: dict[str, Any]) -> Iterator[str]:
    nodes, head = config["available_node_types"], config["head_node_type"]
    most = sum(node["max_workers"] for name, node in nodes.items() if name != head)
    if most != config["max_workers"]:
        yield f"max_workers: {config['max_workers']}, the node types together allow {most}"
    if not 0 < config["idle_timeout_minutes"] <= 60:
        yield "idle_timeout_minutes: idle workers cost money"
    if config["provider"].get("cache_stopped_nodes", True):
        yield "provider.cache_stopped_nodes: stopped workers still pay for their disks"
    gpus = [bool(node["resources"].get("GPU")) for node in nodes.values()]
    if not any(gpus) or sum(gpus) > len(nodes) - 2:
        yield "available_node_types: want GPU and CPU workers"


def _node_problems(config: dict[str, Any], name: str, node: dict[str, Any]) -> Iterator[str]:
    is_head = name == config["head_node_type"]
    launch, resources = node["node_config"], node["resources"]
    yield from _ec2_problems(launch, name)
    docker = config["docker"] | node.get("docker", {})
    image = docker.get("head_image" if is_head else "worker_image", docker.get("image", ""))
    yield from image_problems(image, "cuda" if resources.get("GPU") else "cpu", name)
    profile = launch.get("IamInstanceProfile", {}).get("Name")
    expected = _HEAD_PROFILE if is_head else _WORKER_PROFILE
    if profile != expected:
        yield f"{name}: IamInstanceProfile {profile}, want {expected}"
    if not launch.get("SecurityGroupIds"):
        yield f"{name}: without SecurityGroupIds Ray makes a group that opens ssh to everybody"
    if launch.get("MetadataOptions", {}).get("HttpTokens") != "required":
        yield f"{name}: MetadataOptions.HttpTokens: want required"
    market = launch.get("InstanceMarketOptions", {}).get("MarketType")
    if is_head:
        if market == "spot" or resources.get("CPU") != 0 or resources.get("GPU"):
            yield f"{name}: want an on-demand head that takes no tasks (resources CPU: 0)"
    elif market != "spot" or node["min_workers"] != 0:
        yield f"{name}: want spot workers, none while there is no work"


def _ec2_problems(launch: dict[str, Any], where: str) -> Iterator[str]:
    """What EC2's own model says to the launch; SubnetIds is Ray's key, not EC2's."""
    from botocore.validate import ParamValidator

    model = _run_instances()
    asked = {key: value for key, value in launch.items() if key != "SubnetIds"}
    report = ParamValidator().validate(asked | {"MinCount": 1, "MaxCount": 1}, model)
    if report.has_errors():
        yield f"{where}: {report.generate_report()}"
    for key in ("InstanceType", "ImageId"):
        if key not in launch:
            yield f"{where}: {key} is needed"
    types = model.members["InstanceType"].enum
    if "InstanceType" in launch and launch["InstanceType"] not in types:
        yield f"{where}: EC2 has no instance type {launch['InstanceType']}"


@cache
def _run_instances() -> Any:
    """The shape of RunInstances' arguments."""
    from botocore.session import get_session

    return get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
