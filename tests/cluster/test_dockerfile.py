"""cluster/Dockerfile and its lock of CUDA libraries."""

import re
import runpy
import subprocess
from importlib.metadata import requires
from importlib.util import find_spec
from pathlib import Path

import pytest
from cluster.deployment import CLUSTER, REPOSITORY, pins
from cluster.dockerfile_rules import problems
from packaging.requirements import Requirement

TEXT = (CLUSTER / "Dockerfile").read_text(encoding="utf-8")


def test_nothing_is_wrong() -> None:
    """Parsed by Docker's parser; sources, stages and locks are there."""
    assert problems(TEXT) == []


MISTAKES = {
    "misspelt instruction": ("RUN apt-get", "RUM apt-get", "no instruction RUM"),
    "no argument": ("USER 1000:1000", "USER", "USER without an argument"),
    "nothing at all": (TEXT, "", "no Dockerfile: file with no instructions"),
    "no such source": ("COPY jobs jobs", "COPY job jobs", "there is no job in the repository"),
    "no such lock": ("all.lock", "train.lock", "no requirements/train.lock in the repository"),
    "an ignored source": ("COPY jobs jobs", "COPY tests jobs", "keeps tests from the build"),
    "no such stage": ("--from=wheel", "--from=wheels", "there is no stage wheels above"),
    "no such base": ("FROM packages AS cpu", "FROM package AS cpu", "package is no stage above"),
    "no version": ("python:3.11-slim-bookworm", "python:slim", "python:slim is no stage above"),
    "no such target": ("AS cuda\n", "AS gpu\n", "there is no target cuda"),
    "no hashes": ("--require-hashes --no-deps -r", "--no-deps -r", "without --require-hashes"),
    "a lock that was not copied": (
        "COPY cluster/cuda.lock",
        "COPY pyproject.toml",
        "/tmp/requirements/cuda.lock was not copied",
    ),
    "a package without a lock": (
        "RUN pip install --no-deps /tmp/wheels/*.whl",
        "RUN pip install ray",
        "installs what no lock file names: pip install ray",
    ),
    "root": ("USER 1000:1000", "USER root", "cpu: USER root, want the number"),
    "no home": ("HOME=/home/ray", "HOUSE=/home/ray", "ENV HOME is ''"),
    "no token": ("RAY_AUTH_MODE=token", "RAY_AUTH_MODE=disabled", "want ENV RAY_AUTH_MODE=token"),
    "another folder": ("WORKDIR /srv/urbandet", "WORKDIR /srv", "cuda: WORKDIR /srv, the run"),
    "no configs": ("COPY configs configs\nCOPY --from", "COPY --from", "cuda: has no configs/"),
    "CUDA for CPUs": ("FROM packages AS cpu", "FROM cuda-packages AS cpu", "cpu: cuda.lock belong"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_caught(mistake: str) -> None:
    """Each where it first can stand."""
    right, wrong, expected = MISTAKES[mistake]
    assert right in TEXT
    assert re.search(expected, "\n".join(problems(TEXT.replace(right, wrong))))


def test_a_source_missing_from_dockerignore_is_caught() -> None:
    """What is not let through does not reach the build."""
    ignore = (CLUSTER / "Dockerfile.dockerignore").read_text().replace("!configs\n", "")
    assert any("keeps configs from the build" in found for found in problems(TEXT, ignore))


def make(*words: str) -> "subprocess.CompletedProcess[str]":
    """What make would run."""
    command = ["make", "--dry-run", *words]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_make_builds_and_pushes_each_target() -> None:
    """Those of the Dockerfile, and SageMaker's of each; every image that is built is pushed."""
    done = make("images", "sagemaker-images", "REGISTRY=registry.example")
    lines = done.stdout.replace("\\\n", " ").splitlines()
    assert done.returncode == 0, done.stderr
    built = [line for line in lines if line.startswith("docker build ")]
    targets = re.findall(r"--file cluster/Dockerfile --target (\S+)", done.stdout)
    assert targets == ["cpu", "cuda"]
    assert set(targets) <= set(re.findall(r"^FROM \S+ AS (\S+)$", TEXT, re.M))
    tags = [re.findall(r"--tag (\S+)", line)[0] for line in built]
    assert tags == [line.split()[-1] for line in lines if line.startswith("docker push ")]
    bases = re.findall(r"--build-arg (\w+)=(\S+)", done.stdout)
    sagemaker = (CLUSTER / "sagemaker.Dockerfile").read_text(encoding="utf-8")
    assert {name for name, _ in bases} == set(re.findall(r"^ARG (\w+)$", sagemaker, re.M))
    assert [base for _, base in bases] == tags[:2]
    assert done.stdout.count("- < cluster/sagemaker.Dockerfile") == len(targets)


def test_make_asks_where_the_images_go() -> None:
    """Before it builds for half an hour."""
    done = make("images", "REGISTRY=")
    assert done.returncode != 0
    assert "REGISTRY is not given: where the images go" in done.stderr


def test_the_image_has_the_locks_that_make_test_has() -> None:
    """What runs on a node is what the tests ran with."""
    made = re.search(r"^\.venv/all:.*?\n\n", (REPOSITORY / "Makefile").read_text(), re.M | re.S)
    assert made
    in_makefile = re.findall(r"-r requirements/(\S+)", made[0])
    packages = TEXT[TEXT.index("AS packages") : TEXT.index("AS cuda-packages")]
    assert re.findall(r"-r /tmp/requirements/(\S+)", packages) == in_makefile


def test_cuda_is_what_tensorflow_asks_for() -> None:
    """cuda.lock has each package of TensorFlow's extra and-cuda, within its bounds."""
    asked = [Requirement(line) for line in requires("tensorflow") or []]
    wanted = {one.name: one.specifier for one in asked if "and-cuda" in str(one.marker)}
    locked = pins(CLUSTER / "cuda.lock")
    assert locked.keys() == wanted.keys()
    assert [name for name, version in locked.items() if version not in wanted[name]] == []


def test_cuda_is_what_tensorflow_was_built_with() -> None:
    """The same CUDA release, and a cuDNN of the same major version."""
    tensorflow = find_spec("tensorflow")  # found, not imported: that takes ten seconds
    assert tensorflow
    assert tensorflow.origin
    facts = Path(tensorflow.origin).parent / "python" / "platform" / "build_info.py"
    build_info = runpy.run_path(str(facts))["build_info"]
    locked = pins(CLUSTER / "cuda.lock")
    release = ".".join(build_info["cuda_version"].split(".")[:2])
    assert locked["nvidia-cuda-runtime-cu12"].startswith(f"{release}.")
    assert locked["nvidia-cudnn-cu12"].split(".")[0] == build_info["cudnn_version"]
