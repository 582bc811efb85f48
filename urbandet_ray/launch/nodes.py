"""What the nodes of a cluster are and have: asked of Ray, and of a task on each of them."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from urbandet_ray.config import StorageConfig
from urbandet_ray.errors import last_line
from urbandet_ray.launch.buckets import Findings, check_places
from urbandet_ray.launch.needs import ConfigPlace
from urbandet_ray.launch.room import NodeKind, describe

NODES_ASKED = 8
"""A task on each of so many nodes, of every shape in turn."""

ANSWER_TIMEOUT_S = 120

HEAD = "the head"

_TF_TIMEOUT_S = 100
_ASK_TF = """
import json, tensorflow as tf
info = tf.sysconfig.get_build_info()
print(json.dumps({"cuda": info.get("cuda_version"), "is_cuda": bool(info.get("is_cuda_build")),
                  "version": tf.__version__, "gpus": len(tf.config.list_physical_devices("GPU"))}))
"""


@dataclass(frozen=True)
class GpuFacts:
    """A node's GPUs, as NVIDIA's driver and as TensorFlow see them.

    Attributes:
        driver: version; None where nvidia-smi is not there.
        names: of each GPU.
        tensorflow: its version, CUDA version and count of GPUs; None where it was not asked.
        error: why TensorFlow could not be asked.
    """

    driver: str | None = None
    names: tuple[str, ...] = ()
    tensorflow: dict[str, Any] | None = None
    error: str = ""


@dataclass(frozen=True)
class NodeFacts:
    """What was found on a node.

    Attributes:
        name: for people.
        disk_free, disk_total: bytes, of the file system that Ray and the cache write to.
        buckets: what S3 says to this node; None where it was not asked.
        gpu: None where the node has none, or the run wants none.
        resources: Ray's, the object store's bytes among them.
    """

    name: str
    python: str = ""
    disk_free: int = 0
    disk_total: int = 0
    buckets: Findings | None = None
    gpu: GpuFacts | None = None
    resources: dict[str, float] = field(default_factory=dict)
    error: str = ""


def look(
    name: str,
    resources: dict[str, float],
    places: Sequence[ConfigPlace],
    options: StorageConfig,
    *,
    gpus: bool = False,
    tensorflow: bool = False,
    folder: str = "",
) -> NodeFacts:
    """Facts of the node that this runs on.

    Args:
        places: s3:// places to try; none are tried where there are none.
        gpus: look at its GPUs.
        tensorflow: have TensorFlow look at them too.
        folder: where data will be kept; "" is Ray's own folder for temporary files.
    """
    disk = shutil.disk_usage(_existing(folder or tempfile.gettempdir()))
    return NodeFacts(
        name=name,
        python=platform.python_version(),
        disk_free=disk.free,
        disk_total=disk.total,
        buckets=check_places(places, options) if places else None,
        gpu=_gpu_facts(tensorflow) if gpus else None,
        resources=resources,
    )


def _existing(folder: str) -> Path:
    path = Path(folder).expanduser().absolute()
    while not path.exists():
        path = path.parent
    return path


def _gpu_facts(tensorflow: bool) -> GpuFacts:
    query = ["nvidia-smi", "--query-gpu=driver_version,name", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return GpuFacts()
    rows = [line.split(",", 1) for line in done.stdout.splitlines() if "," in line]
    driver = rows[0][0].strip() if rows else None
    names = tuple(row[1].strip() for row in rows)
    if not tensorflow:
        return GpuFacts(driver, names)
    # a process of its own: this one was told by Ray that it has no GPU, and must stay light
    env = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
    command = [sys.executable, "-c", _ASK_TF]
    try:
        asked = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=_TF_TIMEOUT_S, env=env
        )
        return GpuFacts(driver, names, dict(json.loads(asked.stdout.splitlines()[-1])))
    except subprocess.CalledProcessError as error:
        return GpuFacts(driver, names, error=last_line(error.stderr or ""))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        return GpuFacts(driver, names, error=f"TensorFlow did not answer ({type(error).__name__})")


def look_here(
    cpus: int | None,
    object_store_mb: int,
    places: Sequence[ConfigPlace],
    options: StorageConfig,
    **more: Any,
) -> NodeFacts:
    """Facts of this machine, as the Ray that a run would start on it offers it.

    Args:
        cpus: of that Ray; None is as many as Ray itself would count, within the limits of a
            container.
    """
    from ray._private.utils import get_num_cpus

    found = look("this machine", {}, places, options, **more)
    gpus = len(found.gpu.names) if found.gpu is not None else 0
    resources = {
        "CPU": float(cpus or get_num_cpus(override_docker_cpu_warning=True)),
        "GPU": float(gpus),
        "object_store_memory": float(object_store_mb << 20),
    }
    return NodeFacts(**{**vars(found), "resources": resources})


def look_everywhere(
    places: Sequence[ConfigPlace], options: StorageConfig, **more: Any
) -> list[NodeFacts]:
    """Facts of the nodes of the Ray that is initialised, the driver's first."""
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]
    here = ray.get_runtime_context().get_node_id()
    chosen = _of_every_shape(alive, here)
    # asked in turn where few answers are wanted: a node's worker is a process that takes a second
    tasks = {_ask(node, places, options, more): node for node in chosen}
    ready, _ = ray.wait(list(tasks), num_returns=len(tasks), timeout=ANSWER_TIMEOUT_S)
    return [_answer(task, node, task in ready) for task, node in tasks.items()]


def node_resources() -> list[dict[str, float]]:
    """Resources of each node alive of the Ray that is initialised, the driver's first."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    alive = [node for node in ray.nodes() if node["Alive"]]
    alive.sort(key=lambda node: node["NodeID"] != here)
    return [_plain(node["Resources"]) for node in alive]


def _ask(
    node: Any, places: Sequence[ConfigPlace], options: StorageConfig, more: dict[str, Any]
) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(look)
    resources = _plain(node["Resources"])
    wants = {**more, "gpus": more.get("gpus", False) and resources.get("GPU", 0) > 0}
    pinned = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
    return task.options(scheduling_strategy=pinned).remote(
        _node_name(node), resources, list(places), options, **wants
    )


def _answer(task: Any, node: Any, ready: bool) -> NodeFacts:
    import ray

    resources = _plain(node["Resources"])
    if not ready:
        ray.cancel(task, force=True)
        return NodeFacts(
            _node_name(node), resources=resources, error=f"no answer in {ANSWER_TIMEOUT_S} s"
        )
    try:
        found: NodeFacts = ray.get(task)
    except ray.exceptions.RayError as error:
        return NodeFacts(_node_name(node), resources=resources, error=last_line(error))
    return found


def _of_every_shape(alive: list[Any], first: str) -> list[Any]:
    """Up to NODES_ASKED nodes: the driver's, then one of each shape, then a second of each."""
    shapes: dict[str, list[Any]] = {}
    for node in sorted(alive, key=lambda node: (node["NodeID"] != first, node["NodeID"])):
        shapes.setdefault(_shape(node), []).append(node)
    chosen: list[Any] = []
    while shapes and len(chosen) < NODES_ASKED:
        for shape in list(shapes):
            chosen.append(shapes[shape].pop(0))
            if not shapes[shape]:
                del shapes[shape]
    return chosen[:NODES_ASKED]


def _shape(node: Any) -> str:
    return describe(_plain(node["Resources"]))


def _node_name(node: Any) -> str:
    return f"{node['NodeManagerAddress']} ({_shape(node)})"


def _plain(resources: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in resources.items() if not key.startswith("node:")}


def node_kinds() -> tuple[list[NodeKind], bool]:
    """Shapes of nodes of the Ray that is initialised, and those that its autoscaler can make.

    Returns:
        The kinds, and whether there may be more that cannot be seen from here.
    """
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]
    config, unseen = autoscaler_config()
    types = config.get("available_node_types", {})
    kinds: list[NodeKind] = []
    counted: list[Any] = []
    for name, kind in types.items():
        wanted = {key: float(value) for key, value in kind.get("resources", {}).items()}
        same = [node for node in alive if node not in counted and _is_of(node, name, wanted)]
        counted += same
        top = kind.get("max_workers", config.get("max_workers", 0))
        shown = HEAD if name == config.get("head_node_type") else name
        kinds.append(NodeKind(shown, wanted, len(same), max(len(same), int(top))))
    rest: dict[str, list[Any]] = {}
    for node in alive:
        if node not in counted:
            rest.setdefault(_shape(node), []).append(node)
    for nodes in rest.values():
        name = HEAD if any(is_head(node["Resources"]) for node in nodes) else "node"
        kinds.append(NodeKind(name, _plain(nodes[0]["Resources"]), len(nodes), len(nodes)))
    return kinds, unseen


def _is_of(node: Any, name: str, wanted: dict[str, float]) -> bool:
    labels = node.get("Labels", {})
    told = labels.get("ray.io/node-group") or labels.get("ray.io/node-type")
    if told:
        return bool(told == name)
    have = node["Resources"]
    return bool(wanted) and all(have.get(key, 0) == value for key, value in wanted.items())


def is_head(resources: Mapping[str, float]) -> bool:
    """Whether they are those of a cluster's head."""
    return "node:__internal_head__" in resources


def autoscaler_config() -> tuple[dict[str, Any], bool]:
    """The config of this Ray's autoscaler, where this process is on its node.

    Returns:
        The config, {} where there is none; and whether an autoscaler may run unseen.
    """
    import ray
    import yaml

    address = ray.get_runtime_context().gcs_address
    on_head = False
    for command in _monitors(address):
        on_head = True
        for word in command:
            if word.startswith("--autoscaling-config="):
                try:
                    return dict(yaml.safe_load(Path(word.partition("=")[2]).read_text())), False
                except (OSError, yaml.YAMLError, TypeError, ValueError):
                    return {}, True
    # on Kubernetes the autoscaler is another container; on a worker node it is another machine
    return {}, not on_head


def _monitors(address: str) -> Iterator[list[str]]:
    """Command lines of the autoscaler of the Ray at this address, on this machine."""
    port = address.rpartition(":")[2]
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            words = (folder / "cmdline").read_text().split("\0")
        except OSError:
            continue
        ours = any(f":{port}" in word for word in words if "gcs-address" in word)
        if any(word.endswith("/monitor.py") for word in words[:4]) and ours:
            yield words
