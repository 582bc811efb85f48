"""Hosts of a training job on this machine, each with its own network, processes and /opt/ml."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent.parent.parent
INTERFACE = "eth0"
_SUBNET = "10.213.7"

_ENTER = """\
set -e
mount --make-rprivate /
mount --bind "$HOSTS_FILE" /etc/hosts
mount --bind "$OWN_ROOT" "$SAGEMAKER_BASE_DIR"
mkdir -p /tmp/ray
mount -t tmpfs tmpfs /tmp/ray
mount -t tmpfs tmpfs /dev/shm
hostname "$OWN_NAME"
exec "$@"
"""


@dataclass
class Host:
    """One host: its own root, seen by itself at `mount`.

    Attributes:
        process: the entry point under way; None before the first start.
    """

    name: str
    namespace: str
    root: Path
    mount: Path
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self, hosts_file: Path) -> None:
        """Start the container's entry point, as SageMaker does: with the word `train`."""
        env = {
            key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "SM_"))
        }
        env |= {
            "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}",
            "HOME": str(self.mount),
            "SAGEMAKER_BASE_DIR": str(self.mount),
            "HOSTS_FILE": str(hosts_file),
            "OWN_ROOT": str(self.root),
            "OWN_NAME": self.name,
            "SM_NUM_CPUS": "1",
            "TF_NUM_INTRAOP_THREADS": "1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        command = ["ip", "netns", "exec", self.namespace, "unshare", "--mount", "--uts", "--pid"]
        command += ["--fork", "--mount-proc", "--kill-child=SIGKILL", "sh", "-c", _ENTER, "sh"]
        command += [sys.executable, "-m", "urbandet_ray.entrypoints.sagemaker_container", "train"]
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(command, env=env, stdout=out, stderr=out)

    def kill(self) -> None:
        """Take the host away: all of its processes end at once, without a word."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def ask_to_stop(self) -> None:
        """SIGTERM to the container's first process, as SageMaker sends it."""
        assert self.process is not None
        (first,) = (
            Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        )
        os.kill(int(first), signal.SIGTERM)

    def wait(self, seconds: float) -> int:
        """Its exit code."""
        assert self.process is not None
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end:\n{self.text()}") from None

    def text(self) -> str:
        """All it has printed."""
        return self.log.read_text(errors="replace")

    @property
    def failure(self) -> str:
        """What it left for SageMaker to show."""
        path = self.root / "output" / "failure"
        return path.read_text() if path.exists() else ""


def skip_without_namespaces() -> None:
    """Skip the test where this machine does not let us make hosts."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    for tool in ("ip", "unshare", "mount"):
        if shutil.which(tool) is None:
            pytest.skip(f"there is no {tool} on this machine")
    probe = ["unshare", "--mount", "--uts", "--pid", "--net", "--fork", "--mount-proc", "true"]
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this machine makes no namespaces: {done.stderr.strip()}")


@contextmanager
def two_hosts(folder: Path) -> Iterator[tuple[list[Host], Path]]:
    """algo-1 and algo-2, joined by a cable; and their common /etc/hosts."""
    skip_without_namespaces()
    mount = folder / "ml"
    mount.mkdir()
    spaces = [f"urbandet-{os.getpid()}-{number}" for number in (1, 2)]
    hosts = []
    lines = ["127.0.0.1 localhost"]
    for number, space in enumerate(spaces, 1):
        root = folder / f"algo-{number}"
        root.mkdir()
        hosts.append(Host(f"algo-{number}", space, root, mount, folder / f"algo-{number}.log"))
        lines.append(f"{_SUBNET}.{number} algo-{number}")
    hosts_file = folder / "hosts"
    hosts_file.write_text("\n".join(lines) + "\n")
    try:
        _lay_cable(spaces)
        yield hosts, hosts_file
    finally:
        for host in hosts:
            host.kill()
        for space in spaces:
            subprocess.run(["ip", "netns", "delete", space], check=False, capture_output=True)


def _lay_cable(spaces: list[str]) -> None:
    for space in spaces:
        _ip("netns", "add", space)
        _ip("-n", space, "link", "set", "lo", "up")
    one, other = spaces
    _ip("-n", one, "link", "add", INTERFACE, "type", "veth", "peer", INTERFACE, "netns", other)
    for number, space in enumerate(spaces, 1):
        _ip("-n", space, "address", "add", f"{_SUBNET}.{number}/24", "dev", INTERFACE)
        _ip("-n", space, "link", "set", INTERFACE, "up")


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def write_contract(host: Host, names: list[str], hyperparameters: dict[str, str]) -> None:
    """SageMaker's three files."""
    config = host.root / "input" / "config"
    config.mkdir(parents=True, exist_ok=True)
    resources = {
        "current_host": host.name,
        "current_instance_type": "ml.m5.large",
        "current_group_name": "homogeneousCluster",
        "hosts": names,
        "instance_groups": [
            {
                "instance_group_name": "homogeneousCluster",
                "instance_type": "ml.m5.large",
                "hosts": names,
            }
        ],
        "network_interface_name": INTERFACE,
    }
    channel = {
        "TrainingInputMode": "File",
        "S3DistributionType": "FullyReplicated",
        "RecordWrapperType": "None",
    }
    (config / "resourceconfig.json").write_text(json.dumps(resources))
    (config / "hyperparameters.json").write_text(json.dumps(hyperparameters))
    channels = dict.fromkeys(("train", "val", "config"), channel)
    (config / "inputdataconfig.json").write_text(json.dumps(channels))


def wait_for(what: Callable[[], bool], hosts: list[Host], seconds: float) -> None:
    """Until it is true; a host that ends on the way fails the test with its log."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if what():
            return
        for host in hosts:
            assert host.process is not None
            if host.process.poll() is not None:
                raise AssertionError(f"{host.name} ended early:\n{host.text()}")
        time.sleep(0.2)
    logs = "\n".join(f"--- {host.name}\n{host.text()}" for host in hosts)
    raise AssertionError(f"it never came:\n{logs}")
