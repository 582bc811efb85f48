"""cluster/aws.yaml: against Ray's own validation, EC2's model, the rules of rayup.py, and moto."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cluster.deployment import CLUSTER, PLACEHOLDERS, REMOVED, filled, plant, read
from cluster.rayup import problems
from conftest import S3Server


def test_nothing_is_wrong() -> None:
    """The file as it is, once the marked places are filled."""
    assert problems(read("aws.yaml")) == []


NODES = "available_node_types"
MISTAKES = {
    "misspelt key": ("idle_timeout_minute", 5, "'idle_timeout_minute' was unexpected"),
    "misspelt node key": (f"{NODES} > gpu > max_worker", 4, "'max_worker' was unexpected"),
    "misspelt node type": ("head_node_type", "haed", "must be one of `available_node_types`"),
    "no resources": (f"{NODES} > cpu > resources", REMOVED, "'resources' is a required property"),
    "no cluster name": ("cluster_name", REMOVED, "cluster_name: got default"),
    "string for a number": ("max_workers", "12", "'12' is not of type 'integer'|TypeError"),
    "GPUs as a string": (f"{NODES} > gpu > resources > GPU", "1", "'1' is not of type 'integer'"),
    "GPUs in the launch": (f"{NODES} > gpu > node_config > GPU", 1, 'Unknown parameter.*"GPU"'),
    "misspelt launch key": (
        f"{NODES} > gpu > node_config > InstanceTypes",
        "g5.2xlarge",
        'Unknown parameter.*"InstanceTypes"',
    ),
    "wrong type in the launch": (
        f"{NODES} > cpu > node_config > BlockDeviceMappings > 0 > Ebs > VolumeSize",
        "150",
        "Invalid type for parameter .*VolumeSize",
    ),
    "no instance type": (f"{NODES} > cpu > node_config > InstanceType", REMOVED, "cpu: InstanceT"),
    "no such instance type": (
        f"{NODES} > gpu > node_config > InstanceType",
        "g5.2xlrage",
        "EC2 has no instance type g5.2xlrage",
    ),
    "no machine image": (f"{NODES} > head > node_config > ImageId", REMOVED, "head: ImageId is ne"),
    "no image": ("docker > image", REMOVED, "Must provide a container & image name"),
    "no CUDA": (f"{NODES} > gpu > docker", REMOVED, "gpu: image .*-cpu, want .*-cuda"),
    "another version": (
        "docker > image",
        "registry/urbandet-ray:latest",
        "head: image .*latest, want urbandet-ray:",
    ),
    "no token": ("docker > run_options", [], "want -e RAY_AUTH_MODE=token"),
    "no token file": ("file_mounts", {}, "want your ~/.ray/auth_token on all nodes"),
    "a security group of Ray's": (
        f"{NODES} > cpu > node_config > SecurityGroupIds",
        REMOVED,
        "cpu: without SecurityGroupIds",
    ),
    "ssh by address": ("auth > ssh_proxy_use_node_id", False, "want ssh through the Session Man"),
    "ssh without a port": (
        "auth > ssh_proxy_command",
        "aws ssm start-session --target %h",
        "want %h and portNumber=%p",
    ),
    "the head's role on workers": (
        f"{NODES} > gpu > node_config > IamInstanceProfile",
        {"Name": "urbandet-head"},
        "gpu: IamInstanceProfile urbandet-head, want urbandet-worker",
    ),
    "dashboard for all": (
        "head_start_ray_commands > 1",
        "ray start --head --port=6379 --dashboard-host=0.0.0.0 "
        "--autoscaling-config=~/ray_bootstrap_config.yaml",
        "want --dashboard-host=127.0.0.1",
    ),
    "no option of ray start": (
        "worker_start_ray_commands > 1",
        "ray start --adress=$RAY_HEAD_IP:6379",
        "No such option",
    ),
    "no autoscaler": (
        "head_start_ray_commands > 1",
        "ray start --head --port=6379 --dashboard-host=127.0.0.1",
        "no worker is ever started",
    ),
    "Ray's default installs": ("setup_commands", REMOVED, "setup_commands: the image has every"),
    "workers that stay": (f"{NODES} > gpu > min_workers", 1, "gpu: want spot workers, none while"),
    "GPUs on demand": (
        f"{NODES} > gpu > node_config > InstanceMarketOptions",
        REMOVED,
        "gpu: want spot workers",
    ),
    "a head on spot": (
        f"{NODES} > head > node_config > InstanceMarketOptions",
        {"MarketType": "spot"},
        "head: want an on-demand head",
    ),
    "tasks on the head": (f"{NODES} > head > resources", {"CPU": 4}, "head that takes no tasks"),
    "room for fewer": ("max_workers", 4, "max_workers: 4, the node types together allow 12"),
    "no CPU workers": (f"{NODES} > cpu", REMOVED, "want GPU and CPU workers"),
    "disks that stay": ("provider > cache_stopped_nodes", REMOVED, "still pay for their disks"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_caught(mistake: str) -> None:
    """By Ray's validation where it knows, else by ours."""
    path, value, expected = MISTAKES[mistake]
    assert re.search(expected, "\n".join(problems(plant(read("aws.yaml"), path, value))), re.S)


@dataclass(frozen=True)
class Account:
    """An AWS account with what docs/how-to/cluster.md makes before `ray up`."""

    home: Path
    group: str
    ec2: Any

    def boot(self) -> dict[str, Any]:
        """What `ray up` would launch, resources left for Ray to find."""
        from ray.autoscaler._private.commands import _bootstrap_config

        config = plant(read("aws.yaml"), f"{NODES} > * > resources", {})
        groups = f"{NODES} > * > node_config > SecurityGroupIds"
        booted: dict[str, Any] = _bootstrap_config(
            plant(config, groups, [self.group]), no_config_cache=True
        )
        return booted


@pytest.fixture(scope="module")
def account(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """In moto, which speaks EC2 and IAM over HTTP beside S3."""
    import boto3

    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint_url)
        patch.setenv("HOME", str(home))  # `ray up` keeps its ssh key there
        iam = boto3.client("iam")
        for name in ("urbandet-head", "urbandet-worker"):
            iam.create_instance_profile(InstanceProfileName=name)
        ec2 = boto3.client("ec2", region_name=PLACEHOLDERS["YOUR-REGION"])
        (vpc,) = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
        made = ec2.create_security_group(GroupName="u", Description="u", VpcId=vpc["VpcId"])
        yield Account(home, made["GroupId"], ec2)


@pytest.fixture(scope="module")
def booted(account: Account) -> dict[str, Any]:
    """What `ray up` would launch the head with, and the head its workers."""
    return account.boot()


@pytest.mark.s3
def test_ray_up_adds_no_rights_and_no_open_port(account: Account, booted: dict[str, Any]) -> None:
    """`ray up` takes our roles and group; of its own it adds subnets and an ssh key."""
    for name, asked in read("aws.yaml")[NODES].items():
        launch = booted[NODES][name]["node_config"]
        assert launch.keys() - asked["node_config"].keys() == {"SubnetIds", "KeyName"}
        assert launch["IamInstanceProfile"] == asked["node_config"]["IamInstanceProfile"]
    assert "IamInstanceProfile" not in booted["head_node"]
    found = account.ec2.describe_security_groups(GroupIds=[account.group])["SecurityGroups"]
    assert [group["IpPermissions"] for group in found] == [[]]
    assert (account.home / ".ssh" / "urbandet.pem").exists()


@pytest.mark.s3
@pytest.mark.parametrize("name", ["gpu", "cpu"])
def test_the_resources_are_those_of_the_instance_type(name: str, booted: dict[str, Any]) -> None:
    """What a worker type offers is what Ray finds by itself."""
    asked = read("aws.yaml")[NODES][name]["resources"]
    found = booted[NODES][name]["resources"]
    assert {key: found.get(key) for key in ("CPU", "GPU") if key in found} == asked


@pytest.mark.s3
def test_the_heads_policy_allows_what_the_autoscaler_asks_for(booted: dict[str, Any]) -> None:
    """Its calls over a worker's life are in ec2-policy.json, and nothing else is."""
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    provider = AWSNodeProvider(booted["provider"], booted["cluster_name"])
    asked: set[str] = set()
    for resource in (provider.ec2, provider.ec2_fail_fast):
        resource.meta.client.meta.events.register(
            "before-call.ec2", lambda model, **_: asked.add(f"ec2:{model.name}")
        )
    launch = dict(booted[NODES]["gpu"]["node_config"], ImageId="ami-12c6146b")  # one of moto's
    tags = {"ray-node-type": "worker", "ray-user-node-type": "gpu", "ray-launch-config": "x"}
    provider.create_node(launch, tags, 1)
    (node,) = provider.non_terminated_nodes({"ray-node-type": "worker"})
    provider.set_node_tags(node, {"ray-node-status": "up-to-date"})
    provider.terminate_node(node)
    assert provider.non_terminated_nodes({}) == []

    policy = json.loads(filled((CLUSTER / "ec2-policy.json").read_text()))
    granted = {action for one in policy["Statement"] for action in _listed(one["Action"])}
    assert asked == {action for action in granted if action.startswith("ec2:")}
    own_tag = policy["Statement"][-1]["Condition"]["StringEquals"][
        "aws:ResourceTag/ray-cluster-name"
    ]
    assert own_tag == booted["cluster_name"]


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
