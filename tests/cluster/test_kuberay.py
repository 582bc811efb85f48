"""The KubeRay files, against the CRDs of the release they are for and the rules of kuberay.py."""

import re
from typing import Any

import pytest
import yaml
from cluster.deployment import CLUSTER, REMOVED, parse_yaml, plant, read
from cluster.kuberay import GPU, problems

JOB_FILES = ("kuberay-train.yaml", "kuberay-batch-infer.yaml")
FILES = ("kuberay-cluster.yaml", *JOB_FILES)


def cluster_path(document: dict[str, Any]) -> str:
    """Where the cluster's spec stands."""
    return "spec" if document["kind"] == "RayCluster" else "spec > rayClusterSpec"


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_wrong(name: str) -> None:
    """Each file can be applied as it is, once the marked places are filled."""
    assert problems(read(name)) == []


def test_all_three_start_the_same_cluster() -> None:
    """A job's own cluster is that of kuberay-cluster.yaml."""
    cluster = read("kuberay-cluster.yaml")["spec"]
    assert all(read(name)["spec"]["rayClusterSpec"] == cluster for name in JOB_FILES)


POD = "template > spec"
MISTAKES = {
    "misspelt key": ("enableInTreeAutoscalling", True, "were unexpected|was unexpected"),
    "misspelt key deep inside": (
        f"headGroupSpec > {POD} > containers > 0 > resource",
        {},
        "'resource' was unexpected",
    ),
    "missing required field": ("workerGroupSpecs > 0 > groupName", REMOVED, "'groupName' is a req"),
    "no pod template": ("headGroupSpec > template", REMOVED, "'template' is a required"),
    "number for a string": (
        "headGroupSpec > rayStartParams > num-cpus",
        0,
        "0 is not of type 'string'",
    ),
    "string for a number": ("workerGroupSpecs > 0 > maxReplicas", "4", "'4' is not of type 'int"),
    "GPUs beside the resources": (
        f"workerGroupSpecs > 0 > {POD} > containers > 0 > {GPU}",
        "1",
        "unexpected",
    ),
    "GPUs as a number of ray start": (
        "workerGroupSpecs > 0 > rayStartParams > num-gpus",
        1,
        "1 is not of type 'string'",
    ),
    "no such quantity": (
        f"workerGroupSpecs > 0 > {POD} > containers > 0 > resources > limits > memory",
        "28 GB",
        "does not match",
    ),
    "no such auth mode": ("authOptions > mode", "tokens", "is not one of"),
    "no token": ("authOptions", REMOVED, "authOptions.mode: want token"),
    "another Ray": ("rayVersion", "2.59.0", "rayVersion: got 2.59.0, the lock has"),
    "autoscaler v1": ("autoscalerOptions > version", "v1", "version v2"),
    "open to the outside": ("headGroupSpec > serviceType", "LoadBalancer", "seen from outside"),
    "tasks on the head": ("headGroupSpec > rayStartParams", {}, 'want rayStartParams num-cpus "0"'),
    "no option of ray start": (
        "workerGroupSpecs > 1 > rayStartParams > num-cpu",
        "8",
        "No such option",
    ),
    "another image": (
        f"workerGroupSpecs > 0 > {POD} > containers > 0 > image",
        "registry/urbandet-ray:0.1.0-cpu",
        "gpu: image .* want urbandet-ray:.*-cuda",
    ),
    "GPU limit without request": (
        f"workerGroupSpecs > 0 > {POD} > containers > 0 > resources > requests > {GPU}",
        REMOVED,
        "gpu: nvidia.com/gpu requests and limits differ",
    ),
    "memory over the request": (
        f"workerGroupSpecs > 1 > {POD} > containers > 0 > resources > limits > memory",
        "32Gi",
        "cpu: memory requests and limits differ",
    ),
    "no toleration": (f"workerGroupSpecs > 0 > {POD} > tolerations", REMOVED, "go together"),
    "no such volume": (
        f"headGroupSpec > {POD} > containers > 0 > volumeMounts > 0 > name",
        "shm",
        "/dev/shm mounts shm, which is no emptyDir",
    ),
    "a claim": (
        f"headGroupSpec > {POD} > volumes > 1",
        {"name": "ray-logs", "persistentVolumeClaim": {"claimName": "logs"}},
        "/tmp/ray mounts ray-logs, which is no emptyDir",
    ),
    "little shared memory": (
        f"workerGroupSpecs > 0 > {POD} > volumes > 0 > emptyDir > sizeLimit",
        "2Gi",
        "smaller than the object store",
    ),
    "root": (f"workerGroupSpecs > 1 > {POD} > securityContext", {}, "cpu: want runAsNonRoot"),
    "no S3 policy": (f"headGroupSpec > {POD} > serviceAccountName", REMOVED, "has the S3 policy"),
    "groups of one name": ("workerGroupSpecs > 1 > groupName", "gpu", "not unique"),
    "no CPU group": ("workerGroupSpecs > 1", REMOVED, "want GPU and CPU groups"),
    "more at least than at most": ("workerGroupSpecs > 0 > minReplicas", 5, "over maxReplicas"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_caught(name: str, mistake: str) -> None:
    """In each of the files."""
    path, value, expected = MISTAKES[mistake]
    document = read(name)
    planted = plant(document, f"{cluster_path(document)} > {path}", value)
    assert re.search(expected, "\n".join(problems(planted)))


JOB_MISTAKES = {
    "misspelt key": ("spec > entryPoint", "python x", "'entryPoint' was unexpected"),
    "number as a string": ("spec > backoffLimit", "2", "'2' is not of type 'integer'"),
    "no cluster": ("spec > rayClusterSpec > headGroupSpec", REMOVED, "'headGroupSpec' is a req"),
    "a cluster that stays": ("spec > shutdownAfterJobFinishes", False, "outlives its job"),
    "one try": ("spec > backoffLimit", 0, "a lost head must not end"),
    "no end": ("spec > activeDeadlineSeconds", REMOVED, "must not cost for ever"),
    "another kind": ("kind", "RayJobs", "kind is none of"),
    "another version": ("apiVersion", "ray.io/v1alpha1", "'ray.io/v1' was expected"),
    "no name": ("metadata", {}, "'name' is a required"),
    "a name too long": ("metadata > name", "urbandet-" + "x" * 60, "does not match"),
    "no such job": (
        "spec > entrypoint",
        "python /srv/urbandet/jobs/trian.py /srv/urbandet/configs/runs/infer.yaml",
        "no jobs/trian.py in the repository",
    ),
    "no such config": (
        "spec > entrypoint",
        "python /srv/urbandet/jobs/train.py /srv/urbandet/configs/runs/d1.yaml",
        "no configs/runs/d1.yaml in the repository",
    ),
    "a path outside the image": (
        "spec > entrypoint",
        "python /home/jobs/train.py /srv/urbandet/configs/runs/train-street.yaml",
        "no /home/jobs/train.py in the repository",
    ),
    "a misspelt override": (
        "spec > entrypoint",
        "python /srv/urbandet/jobs/train.py /srv/urbandet/configs/runs/train-street.yaml "
        "workers.gpu=1",
        "workers.gpu: unknown key; did you mean 'gpus'",
    ),
    "an override of the wrong type": (
        "spec > entrypoint",
        "python /srv/urbandet/jobs/batch_infer.py /srv/urbandet/configs/runs/infer-gpu.yaml "
        "actors.max=many",
        "actors.max: .*got 'many'",
    ),
}


@pytest.mark.parametrize("name", JOB_FILES)
@pytest.mark.parametrize("mistake", JOB_MISTAKES)
def test_a_planted_mistake_in_a_job_is_caught(name: str, mistake: str) -> None:
    """What only a RayJob has."""
    path, value, expected = JOB_MISTAKES[mistake]
    planted = plant(read(name), path, value)
    assert re.search(expected, "\n".join(problems(planted)))


def test_a_key_given_twice_is_caught() -> None:
    """A server refuses what Python's YAML passes."""
    text = (CLUSTER / "kuberay-cluster.yaml").read_text().replace("spec:", "spec:\n  spec: {}", 1)
    doubled = text.replace("kind: RayCluster", "kind: RayCluster\nkind: RayJob")
    with pytest.raises(yaml.YAMLError, match="'kind'] given twice"):
        parse_yaml(doubled)
