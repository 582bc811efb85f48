"""From facts of nodes to checks: storage, disks, object stores, GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from urbandet_ray.launch.needs import ConfigPlace, Need
from urbandet_ray.launch.nodes import GpuFacts, NodeFacts
from urbandet_ray.launch.order import is_sent
from urbandet_ray.launch.verdicts import Check, fail, ok, warn

_GB = 1 << 30
_DISK_MIN = 2 * _GB
_DISK_FULL = 0.95
"""Ray makes no objects on a node whose disk is fuller (local_fs_capacity_threshold)."""

_DRIVER_MIN = {11: 450, 12: 525, 13: 580}
"""Oldest driver of each CUDA: https://docs.nvidia.com/deploy/cuda-compatibility."""


def check_buckets(nodes: Sequence[NodeFacts]) -> list[Check]:
    """What S3 says to the driver's node, and what it says otherwise to another."""
    answers = [(node.name, node.buckets.checks) for node in nodes if node.buckets is not None]
    if not answers:
        return []
    checks = list(answers[0][1])
    known = {(one.name, one.verdict) for one in checks}
    for node, found in answers[1:]:
        for one in found:
            if one.verdict != "ok" and (one.name, one.verdict) not in known:
                checks.append(Check(one.verdict, f"{one.name} from node {node}", one.text))
                known.add((one.name, one.verdict))
    return checks


def check_answers(nodes: Sequence[NodeFacts]) -> list[Check]:
    """Nodes that could not be asked."""
    return [fail(f"node {node.name}", node.error) for node in nodes if node.error]


def check_disks(nodes: Sequence[NodeFacts], data_bytes: int, what: str) -> list[Check]:
    """Whether every node's disk has room.

    Args:
        data_bytes: what the run keeps on each node.
        what: whose bytes they are, for the message.
    """
    asked = [node for node in nodes if not node.error]
    checks = []
    wanted = _DISK_MIN + data_bytes
    for node in asked:
        used = 1 - node.disk_free / max(node.disk_total, 1)
        free = f"{node.name} has {_size(node.disk_free)} of {_size(node.disk_total)} free"
        if node.disk_free < wanted:
            extra = f" ({_size(data_bytes)} of it for {what})" if data_bytes else ""
            checks.append(fail("disk", f"{free}, the run needs {_size(wanted)}{extra}"))
        elif used > _DISK_FULL:
            told = f"{free}: Ray makes no objects where less than {1 - _DISK_FULL:.0%} is free"
            checks.append(fail("disk", told))
    least = min((node.disk_free for node in asked), default=0)
    return checks or ([ok("disk", f"at least {_size(least)} free")] if asked else [])


def check_object_stores(nodes: Sequence[NodeFacts], need: Need | None, each: int) -> list[Check]:
    """Whether shards that wait fit into memory; Ray writes what does not to the disk.

    Args:
        each: bytes an actor may have there.
    """
    if need is None or not each:
        return []
    checks = []
    for node in nodes:
        actors = min(need.room(node.resources), need.most)
        store = int(node.resources.get("object_store_memory", 0))
        if actors and store and store < each * actors:
            checks.append(
                warn(
                    "object store",
                    f"{node.name} has {_size(store)}; its {actors} or so actors may need "
                    f"{_size(each * actors)} for large frames; the rest would go by its disk: "
                    "a smaller shard.megabytes, or a larger store",
                )
            )
    stores = [int(node.resources.get("object_store_memory", 0)) for node in nodes]
    return checks[:1] or [ok("object store", f"{_size(min(stores, default=0))} a node or more")]


def check_gpus(nodes: Sequence[NodeFacts], *, tensorflow: bool) -> list[Check]:
    """Whether the driver of GPU nodes fits the CUDA that TensorFlow was built for."""
    having = [node for node in nodes if node.gpu is not None]
    if not having:
        return [warn("gpu", "no GPU node is up: its driver cannot be looked at before it is")]
    checks = {_gpu(node.name, node.gpu, tensorflow): None for node in having if node.gpu}
    return list(checks)


def _gpu(name: str, gpu: GpuFacts, tensorflow: bool) -> Check:
    if gpu.driver is None:
        return (fail if tensorflow else warn)(
            "gpu",
            f"{name} offers Ray a GPU, but has no nvidia-smi: is NVIDIA's driver, or its container "
            "toolkit, there?",
        )
    there = f"driver {gpu.driver}, {len(gpu.names)} x {gpu.names[0] if gpu.names else 'GPU'}"
    if not tensorflow:
        return ok("gpu", there)
    problem = _tensorflow_problem(gpu.driver, gpu)
    if problem is not None:
        return fail("gpu", f"{name}: {there}; {problem}")
    told = gpu.tensorflow or {}
    return ok("gpu", f"{there}; TensorFlow {told['version']} with CUDA {told['cuda']} sees them")


def _tensorflow_problem(driver: str, gpu: GpuFacts) -> str | None:
    """Why TensorFlow would not compute on the GPUs."""
    if gpu.tensorflow is None:
        return f"TensorFlow cannot be asked: {gpu.error}"
    version, cuda = gpu.tensorflow["version"], str(gpu.tensorflow["cuda"] or "")
    if not gpu.tensorflow["is_cuda"]:
        return f"TensorFlow {version} is built without CUDA"
    wanted = _DRIVER_MIN.get(_major(cuda), 0)
    if _major(driver) < wanted:
        return (
            f"TensorFlow {version} is built for CUDA {cuda}, which needs driver {wanted} or newer"
        )
    if not gpu.tensorflow["gpus"]:
        return (
            f"TensorFlow {version} (CUDA {cuda}) sees no GPU: are the libraries of "
            "cluster/cuda.lock in the image?"
        )
    return None


def _major(version: str) -> int:
    digits = version.partition(".")[0]
    return int(digits) if digits.isdigit() else 0


def check_sent(places: Sequence[ConfigPlace], working_dir: Path) -> list[Check]:
    """Local places of a job that runs elsewhere."""
    checks = []
    for place in places:
        name = f"{place.key} {place.uri}"
        if place.uri.startswith(("/", "~")):
            checks.append(warn(name, "a local path: every node has to see the same folder there"))
        elif place.write:
            told = "would be lost with the job's copy of the working directory: give s3://... "
            checks.append(fail(name, told + "or a folder that every node sees"))
        elif not is_sent(place.uri) or not _is_there(place, working_dir):
            told = "is not sent with the job: give s3://..., or a folder that every node sees"
            checks.append(fail(name, told))
    return checks


def check_local(places: Sequence[ConfigPlace]) -> list[Check]:
    """Local places, seen from where the driver runs."""
    checks = []
    for place in places:
        if not place.write and "*" not in place.uri and not _is_there(place, Path()):
            checks.append(fail(f"{place.key} {place.uri}", "is not there"))
    return checks


def _is_there(place: ConfigPlace, base: Path) -> bool:
    """A file or folder, or a checkpoint's prefix, as training finds it."""
    path = base / Path(place.uri).expanduser()
    return path.exists() or (place.checkpoint and path.with_name(f"{path.name}.index").exists())


def _size(size_bytes: float) -> str:
    return f"{size_bytes / _GB:.1f} GB" if size_bytes >= _GB else f"{size_bytes / (1 << 20):.0f} MB"
