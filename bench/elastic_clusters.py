"""Clusters for bench/elastic.py: real Ray nodes on this machine, an S3 server, and their end.

Nothing is stopped by name: every process that a cluster starts carries a mark in its environment,
and those with the mark are ended with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent
RAY = str(Path(sys.executable).parent / "ray")
STORE_BYTES = 100 << 20
_COMMANDS = (
    "initialization",
    "setup",
    "head_setup",
    "worker_setup",
    "head_start_ray",
    "worker_start_ray",
)
"""What the autoscaler's config has to hold; the fake provider runs none of them."""

MARK = "URBANDET_BENCH_MARK"
_EARLY = ("No available agent", "Failed to connect", "Connection aborted", "Connection refused")


@contextlib.contextmanager
def environment() -> Iterator[str]:
    """Variables of all processes below: no other Ray, no other AWS, this Python first."""
    before = dict(os.environ)
    mark = uuid.uuid4().hex
    for name in [name for name in os.environ if name.startswith(("RAY_", "AWS_"))]:
        del os.environ[name]
    with tempfile.TemporaryDirectory(
        prefix="ub-", dir="/tmp", ignore_cleanup_errors=True
    ) as scratch:
        os.environ.update(
            {
                MARK: mark,
                "RAY_TMPDIR": scratch,
                "RAY_USAGE_STATS_ENABLED": "0",
                "RAY_AUTH_MODE": "disabled",
                "TF_NUM_INTRAOP_THREADS": "1",
                "TF_USE_LEGACY_KERAS": "1",
                "AWS_ACCESS_KEY_ID": "testing",
                "AWS_SECRET_ACCESS_KEY": "testing",
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_EC2_METADATA_DISABLED": "true",
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{before['PATH']}",
                "PYTHONPATH": str(REPOSITORY),
            }
        )
        try:
            yield mark
        finally:
            _end_marked(mark)
            os.environ.clear()
            os.environ.update(before)


def _end_marked(mark: str) -> None:
    """End what is left of the processes that carry the mark; this one is none of them."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        found = list(_marked(mark))
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sign)
        until = time.monotonic() + 10
        while time.monotonic() < until and any(_marked(mark)):
            time.sleep(0.2)


def _marked(mark: str) -> Iterator[int]:
    wanted = f"{MARK}={mark}".encode()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with contextlib.suppress(OSError):
                alive = b") Z " not in (folder / "stat").read_bytes()
                if alive and wanted in (folder / "environ").read_bytes().split(b"\0"):
                    yield int(folder.name)


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """moto over HTTP; AWS_ENDPOINT_URL points to it. Yields its bucket's URI."""
    import boto3

    log = Path(os.environ["RAY_TMPDIR"]) / "s3.log"
    with log.open("w") as out:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        url = wait_for(
            lambda: re.search(r"Running on (http://[\d.]+:\d+)", log.read_text()),
            60,
            "the S3 server",
        )[1]
        os.environ["AWS_ENDPOINT_URL"] = url
        boto3.client("s3").create_bucket(Bucket="elastic")
        yield "s3://elastic"
    finally:
        process.terminate()
        process.wait()


def wait_for(what: Callable[[], Any], seconds: float, name: str, every_s: float = 0.2) -> Any:
    """The first true answer.

    Raises:
        RuntimeError: there is none within `seconds`.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := what():
            return found
        time.sleep(every_s)
    raise RuntimeError(f"{name} did not come within {seconds:.0f} s")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at."""
    with contextlib.ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


@dataclass
class Cluster:
    """A running cluster.

    Attributes:
        dashboard: http://host:port.
        address: of its GCS.
        nodes: handles of worker nodes that can be killed.
    """

    dashboard: str
    address: str
    fixed: Any = None
    nodes: list[Any] = field(default_factory=list)

    def kill_node(self) -> str:
        """SIGKILL every process of a worker node, as a lost spot node; returns its id."""
        node = self.nodes.pop(0)
        self.fixed.remove_node(node, allow_graceful=False)
        return str(node.node_id)

    def add_node(self, cpus: int) -> None:
        """A worker node, as the autoscaler would bring one.

        Its folder is its own, as on a machine of its own: nodes that share one unpack a job's
        package again below the feet of each other's processes.
        """
        folder = tempfile.mkdtemp(prefix="n", dir=os.environ["RAY_TMPDIR"])
        self.nodes.append(
            self.fixed.add_node(
                num_cpus=cpus, object_store_memory=STORE_BYTES, temp_dir=folder, wait=True
            )
        )


@contextlib.contextmanager
def fixed_cluster(workers: int, cpus: int) -> Iterator[Cluster]:
    """A head that runs nothing but drivers, and worker nodes."""
    from ray.cluster_utils import Cluster as Nodes

    port, agent = free_ports(2)
    nodes = Nodes(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "object_store_memory": STORE_BYTES,
            "include_dashboard": True,
            "dashboard_port": port,
            "dashboard_agent_listen_port": agent,
        },
    )
    cluster = Cluster(f"http://{nodes.webui_url}", nodes.address, nodes)
    try:
        for _ in range(workers):
            cluster.add_node(cpus)
        yield cluster
    finally:
        nodes.shutdown()


@contextlib.contextmanager
def growing_cluster(most: int, idle_s: float) -> Iterator[Cluster]:
    """A head, and an autoscaler that makes up to `most` nodes of one fake GPU each.

    The fake provider's nodes are raylets of their own on this machine, in one folder: jobs on them
    take the repository where it is (`submit(send=False)`). Autoscaler v2.
    """
    from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

    ports = free_ports(4)
    host = "127.0.0.1"
    address = f"{host}:{ports[0]}"
    config = {
        "cluster_name": "elastic",
        "max_workers": most,
        "idle_timeout_minutes": idle_s / 60,
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "head_node_id": FAKE_HEAD_NODE_ID,
            "launch_multiple": True,
            "gcs_address": address,
        },
        "auth": {},
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
            "gpu": {
                "resources": {"CPU": 1, "GPU": 1, "object_store_memory": STORE_BYTES},
                "node_config": {},
                "min_workers": 0,
                "max_workers": most,
            },
        },
        "head_node_type": "ray.head.default",
        "upscaling_speed": 10,
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        "no_restart": False,
        **{f"{name}_commands": [] for name in _COMMANDS},
    }
    path = Path(os.environ["RAY_TMPDIR"]) / "autoscaler.json"
    path.write_text(json.dumps(config))
    command = [RAY, "start", "--head", "--block", f"--node-ip-address={host}", f"--port={ports[0]}"]
    command += [f"--dashboard-port={ports[1]}", f"--dashboard-agent-listen-port={ports[2]}"]
    command += [f"--ray-client-server-port={ports[3]}", f"--autoscaling-config={path}"]
    command += ["--num-cpus=1", "--num-gpus=0", f"--object-store-memory={STORE_BYTES}"]
    env = {
        **os.environ,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
    }
    log = Path(os.environ["RAY_TMPDIR"]) / "head.log"
    with log.open("w") as out:
        process = subprocess.Popen(command, env=env, stdout=out, stderr=out)
    try:
        yield Cluster(f"http://{host}:{ports[1]}", address)
    finally:
        if process.poll() is not None:
            print(f"the head has ended by itself:\n{log.read_text()[-3000:]}", flush=True)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=30)


def submit(
    cluster: Cluster, *words: str, wait: bool = True, send: bool = True
) -> subprocess.Popen[str]:
    """`ray job submit --working-dir . -- WORDS`, its output kept; not sent, without the folder."""
    command = [RAY, "job", "submit", "--address", cluster.dashboard]
    command += ["--working-dir", str(REPOSITORY)] if send else []
    command += ["--", *words]
    until = time.monotonic() + 120
    while True:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if not wait:
            return process
        out, _ = process.communicate()
        early = any(text in out for text in _EARLY)
        if not early or time.monotonic() > until:
            told = [line for line in out.splitlines() if not re.search(r"\b(cli|sdk)\.py:", line)]
            print("\n".join(told[-3:]), flush=True)
            if process.returncode != 0:
                raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}:\n{out}")
            return process
        time.sleep(2)


def wait_for_agent(cluster: Cluster) -> None:
    """Until the head takes jobs; a busy machine starts that part late."""
    submit(cluster, "python", "-c", "print('the cluster takes jobs')", send=False)


def finish(process: subprocess.Popen[str]) -> str:
    """The output of a job that was not waited for.

    Raises:
        RuntimeError: it did not end well.
    """
    out, _ = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"the job ended with {process.returncode}:\n{out}")
    return out
