"""What is wrong with a RayCluster or RayJob: by KubeRay's schema, by its operator, by our rules."""

import gzip
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from cluster.deployment import (
    entrypoint_problems,
    image_problems,
    ray_start_problems,
    ray_version,
)

SCHEMAS = Path(__file__).parent / "schemas"
GPU = "nvidia.com/gpu"
_OBJECT_STORE_SHARE = 0.3  # of a node's memory: Ray's default
_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "m": 1e-3, "": 1}
_FILES = {"RayCluster": "ray.io_rayclusters.yaml.gz", "RayJob": "ray.io_rayjobs.yaml.gz"}
_METADATA = {
    "type": "object",
    "required": ["name"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z]([-a-z0-9]{0,45}[a-z0-9])?$"},
        "namespace": {"type": "string"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}


def problems(document: Any) -> list[str]:
    """Everything that is wrong with one document; empty where it can be applied."""
    if not isinstance(document, dict) or document.get("kind") not in _FILES:
        return [f"kind is none of {sorted(_FILES)}"]
    found = list(_schema_problems(document))
    if found:
        return found
    spec = document["spec"]
    if document["kind"] == "RayJob":
        return [*_job_problems(spec), *_cluster_problems(spec["rayClusterSpec"])]
    return list(_cluster_problems(spec))


def _schema_problems(document: dict[str, Any]) -> Iterator[str]:
    validator = jsonschema.Draft202012Validator(_schema(document["kind"]))
    for error in validator.iter_errors(document):
        yield f"{error.json_path}: {error.message}"


@cache
def _schema(kind: str) -> dict[str, Any]:
    """The served version's OpenAPI schema as a JSON schema that knows every key."""
    definition = yaml.load(gzip.decompress((SCHEMAS / _FILES[kind]).read_bytes()), _loader())
    spec = definition["spec"]
    (version,) = [one for one in spec["versions"] if one["storage"]]
    schema: dict[str, Any] = _closed(version["schema"]["openAPIV3Schema"])
    schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
    schema["properties"] |= {
        "apiVersion": {"const": f"{spec['group']}/{version['name']}"},
        "kind": {"const": kind},
        "metadata": _METADATA,
    }
    return schema


def _loader() -> Any:
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _closed(schema: Any) -> Any:
    """The schema with unknown keys refused where it is silent, as a strict server refuses them."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    silent = "additionalProperties" not in schema
    if "properties" in schema and silent and isinstance(schema["properties"], dict):
        closed["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    return closed


def _job_problems(spec: dict[str, Any]) -> Iterator[str]:
    if "rayClusterSpec" not in spec:
        yield "spec.rayClusterSpec: is needed"
    if not spec.get("shutdownAfterJobFinishes") or not spec.get("ttlSecondsAfterFinished"):
        yield "the cluster outlives its job: shutdownAfterJobFinishes, ttlSecondsAfterFinished"
    if not spec.get("backoffLimit"):
        yield "backoffLimit: a lost head must not end the run"
    if not spec.get("activeDeadlineSeconds"):
        yield "activeDeadlineSeconds: a job that hangs must not cost for ever"
    yield from entrypoint_problems(spec.get("entrypoint", ""))


def _cluster_problems(spec: dict[str, Any]) -> Iterator[str]:
    if spec.get("authOptions", {}).get("mode") != "token":
        yield "authOptions.mode: want token"
    if spec.get("rayVersion") != ray_version():
        yield f"rayVersion: got {spec.get('rayVersion')}, the lock has {ray_version()}"
    scaler = spec.get("autoscalerOptions", {})
    if not spec.get("enableInTreeAutoscaling") or scaler.get("version") != "v2":
        yield "autoscaling: want enableInTreeAutoscaling and autoscalerOptions.version v2"
    yield from _resource_problems(scaler.get("resources", {}), "autoscaler")
    yield from _head_problems(spec["headGroupSpec"])
    groups = spec.get("workerGroupSpecs", [])
    names = [group["groupName"] for group in groups]
    if len(set(names)) < len(names):
        yield f"groupName: {names} are not unique"
    if not any(_is_gpu(group) for group in groups) or all(_is_gpu(group) for group in groups):
        yield "workerGroupSpecs: want GPU and CPU groups"
    for group in groups:
        yield from _group_problems(group)


def _is_gpu(group: dict[str, Any]) -> bool:
    resources = group["template"]["spec"]["containers"][0].get("resources", {})
    return bool(resources.get("limits", {}).get(GPU))


def _head_problems(head: dict[str, Any]) -> Iterator[str]:
    if head.get("serviceType", "ClusterIP") != "ClusterIP" or head.get("enableIngress"):
        yield "head: its service and dashboard must not be seen from outside"
    parameters = head.get("rayStartParams", {})
    if parameters.get("num-cpus") != "0" or _is_gpu(head):
        yield 'head: want rayStartParams num-cpus "0" and no GPU, so that no task runs there'
    options = [f"--{key}={value}" for key, value in parameters.items()]
    yield from ray_start_problems(["--head", *options], "head")
    yield from _pod_problems(head["template"]["spec"], "head", "cpu")


def _group_problems(group: dict[str, Any]) -> Iterator[str]:
    name, gpu = group["groupName"], _is_gpu(group)
    if not 0 <= group["minReplicas"] <= group["maxReplicas"]:
        yield f"{name}: minReplicas {group['minReplicas']} over maxReplicas"
    options = [f"--{key}={value}" for key, value in group.get("rayStartParams", {}).items()]
    yield from ray_start_problems(["--address=head:6379", *options], name)
    pod = group["template"]["spec"]
    tolerated = any(one.get("key") == GPU for one in pod.get("tolerations", []))
    if tolerated != gpu:
        yield f"{name}: a GPU limit and a toleration of {GPU} go together"
    yield from _pod_problems(pod, name, "cuda" if gpu else "cpu")


def _pod_problems(pod: dict[str, Any], where: str, target: str) -> Iterator[str]:
    (container,) = pod["containers"]
    yield from image_problems(container.get("image", ""), target, where)
    yield from _resource_problems(container.get("resources", {}), where)
    security = pod.get("securityContext", {}) | container.get("securityContext", {})
    if not security.get("runAsNonRoot") or security.get("allowPrivilegeEscalation") is not False:
        yield f"{where}: want runAsNonRoot and no allowPrivilegeEscalation"
    if pod.get("serviceAccountName") != "urbandet":
        yield f"{where}: serviceAccountName urbandet has the S3 policy"
    volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
    mounts = {mount["mountPath"]: mount["name"] for mount in container.get("volumeMounts", [])}
    for path, name in mounts.items():
        if "emptyDir" not in volumes.get(name, {}):
            yield f"{where}: {path} mounts {name}, which is no emptyDir of the pod"
    # by these names the operator shares the second with the autoscaler and adds neither again
    if mounts.get("/dev/shm") != "shared-mem" or mounts.get("/tmp/ray") != "ray-logs":
        yield f"{where}: want shared-mem at /dev/shm and ray-logs at /tmp/ray"
        return
    shared = volumes.get("shared-mem", {}).get("emptyDir", {})
    store = _OBJECT_STORE_SHARE * _amount(container["resources"]["limits"].get("memory", 0))
    if shared.get("medium") != "Memory" or _amount(shared.get("sizeLimit", 0)) < store:
        yield f"{where}: /dev/shm is no memory, or smaller than the object store"


def _resource_problems(resources: dict[str, Any], where: str) -> Iterator[str]:
    """Memory over the request is what a node takes back; GPUs can't be overcommitted."""
    requests, limits = resources.get("requests", {}), resources.get("limits", {})
    for name in ("memory", GPU):
        if requests.get(name) != limits.get(name):
            yield f"{where}: {name} requests and limits differ"
    if "memory" not in limits or "cpu" not in limits:
        yield f"{where}: cpu and memory limits are what Ray offers to tasks"


def _amount(quantity: int | str) -> float:
    text = str(quantity)
    unit = text.lstrip("0123456789.")
    return float(text.removesuffix(unit)) * _UNITS[unit]
