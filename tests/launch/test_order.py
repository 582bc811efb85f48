"""What is sent as a job, and what never is."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import REPOSITORY

from urbandet_ray.errors import ConfigError, RunError
from urbandet_ray.launch.jobs import JobState, dashboard_address
from urbandet_ray.launch.order import (
    Order,
    check_secrets,
    check_working_dir,
    is_sent,
    read_order,
    runtime_env,
)
from urbandet_ray.launch.secrets import forwarded, refuse_secrets

INFER = Order("infer", "configs/runs/infer.yaml", ("actors.max=4",), REPOSITORY)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["configs/runs/infer.yaml"], "infer"),
        (["configs/runs/train-street.yaml"], "train"),
        (["configs/runs/eval.yaml", "run=s3://b/run"], "evaluate"),
        (["configs/runs/video.yaml"], "video"),
        (["video", "run=a", "output=b.mp4"], "video"),
    ],
)
def test_the_run_config_shows_its_kind(
    words: list[str], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the keys that only one kind has."""
    monkeypatch.chdir(REPOSITORY)
    assert read_order(words).kind == kind


def test_a_run_config_that_shows_nothing_asks_for_the_kind() -> None:
    """And so does a misspelt kind."""
    with pytest.raises(ConfigError, match="which job\\? Add one of train, infer, evaluate, video"):
        read_order(["actors.max=4"])
    with pytest.raises(ConfigError, match="cannot make sense of inferr"):
        read_order([], "inferr")


def test_the_command_is_that_of_ray_job_submit() -> None:
    """What docs/how-to/cluster.md and the README give it."""
    order = replace(INFER, overrides=("input=s3://b/my drives",))
    assert order.entrypoint == (
        "python jobs/batch_infer.py configs/runs/infer.yaml 'input=s3://b/my drives'"
    )
    assert replace(order, working_dir=Path()).command("http://h:8265") == (
        "urbandet submit infer configs/runs/infer.yaml 'input=s3://b/my drives' "
        "--address http://h:8265"
    )


AWS_ID = "AKIA" + "ABCDEFGHIJKLMNOP"
AWS_SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfi" + "CYEXAMPLEKEY"


@pytest.mark.parametrize(
    ("setting", "looks"),
    [
        (f"labels={AWS_ID}", "an AWS access key id"),
        (f"input={AWS_SECRET}", "an AWS secret key"),
        ("storage.endpoint_url=http://user:word@host:9000", "a password within an address"),
        ("storage.endpoint_url=http://word@host:9000", "a password within an address"),
        ("input=https://b.s3.amazonaws.com/k?X-Amz-Signature=ab", "a signed address"),
        ("storage.secret_key=abc", "a secret, by its name"),
        ("aws_session_token=abc", "a secret, by its name"),
        ("input=s3://b/correct-horse", "the value of MY_PASSWORD"),
    ],
)
def test_what_looks_like_a_key_is_refused(setting: str, looks: str) -> None:
    """Named by its key; its value is not in the message."""
    with pytest.raises(ConfigError) as caught:
        check_secrets(replace(INFER, overrides=(setting,)), None, {"MY_PASSWORD": "correct-horse"})
    key, _, value = setting.partition("=")
    assert looks in str(caught.value)
    assert str(caught.value).startswith(key)
    assert value not in str(caught.value).replace(looks, "")


def test_the_shipped_run_configs_hold_nothing_that_looks_like_a_key() -> None:
    """Neither do their usual overrides."""
    for path in sorted((REPOSITORY / "configs/runs").glob("*.yaml")):
        kind = "train" if path.name.startswith("train") else "infer"
        kind = {"eval.yaml": "evaluate", "video.yaml": "video"}.get(path.name, kind)
        order = Order(kind, f"configs/runs/{path.name}", (), REPOSITORY)
        check_secrets(order, order.config(), {})
    refuse_secrets(
        [
            "input=s3://street-drives/segments/2026/01/drive-000123/left-camera/records-00001",
            "fine_tune.checkpoint=ssd_mobilenet_v2_fpnlite_640x640_coco17_tpu-8",
            "storage.endpoint_url=http://minio.example:9000",
        ],
        {},
    )


def test_a_key_in_the_yaml_is_refused(tmp_path: Path) -> None:
    """The YAML travels with the job, too."""
    (tmp_path / "run.yaml").write_text(
        "input: a\noutput: b\nstorage: {endpoint_url: 'http://me:word@host'}\n"
    )
    order = Order("infer", "run.yaml", (), tmp_path)
    with pytest.raises(ConfigError, match=r"storage\.endpoint_url holds what looks like a passw"):
        check_secrets(order, order.config(), {})


def test_a_key_in_a_list_of_the_yaml_is_refused(tmp_path: Path) -> None:
    """As deep as it may lie."""
    (tmp_path / "run.yaml").write_text(
        f"output: b\npipeline: c\nfreeze: [FeatureExtractor, {AWS_SECRET}]\n"
    )
    order = Order("train", "run.yaml", (), tmp_path)
    with pytest.raises(ConfigError, match="freeze holds what looks like an AWS secret key"):
        check_secrets(order, order.config(), {})


def test_only_the_listed_variables_travel() -> None:
    """Where S3 is, not who asks."""
    environ = {
        "AWS_ACCESS_KEY_ID": AWS_ID,
        "AWS_SECRET_ACCESS_KEY": AWS_SECRET,
        "AWS_SESSION_TOKEN": "token",
        "AWS_PROFILE": "me",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL": "http://host:9000",
        "HOME": "/home/me",
    }
    env = runtime_env(INFER, environ)
    assert env["env_vars"] == {
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL": "http://host:9000",
    }
    assert AWS_SECRET not in json.dumps(env)
    with pytest.raises(ConfigError, match="AWS_ENDPOINT_URL holds what looks like a password"):
        forwarded({"AWS_ENDPOINT_URL": "http://me:word@host:9000"})


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("configs/runs/infer.yaml", True),
        ("urbandet_ray/models/loader.py", True),
        ("urbandet_ray/records/data/x", True),
        ("models/x.tflite", False),
        ("data/waymo", False),
        ("runs/mine.yaml", False),
        (".env", False),
        (".env.local", False),
        ("cluster/my.pem", False),
        (".git/config", False),
    ],
)
def test_what_is_sent(path: str, sent: bool) -> None:
    """Code and configs; no records, models, runs or keys."""
    assert is_sent(path) is sent


def test_ray_leaves_out_what_is_not_sent(tmp_path: Path) -> None:
    """By its own packaging: our patterns mean the same to it."""
    from ray._private.runtime_env.packaging import create_package

    for name in ("jobs/a.py", "models/m", "urbandet_ray/models/b.py", ".env", "sub/c.pem"):
        (tmp_path / "work" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "work" / name).write_text("x")
    (tmp_path / "work" / ".gitignore").write_text("/ignored\n")
    (tmp_path / "work" / "ignored").write_text("x")
    package = tmp_path / "package.zip"
    excludes = runtime_env(replace(INFER, working_dir=tmp_path), {})["excludes"]
    create_package(
        str(tmp_path / "work"),
        package,
        include_gitignore=True,
        include_parent_dir=False,
        excludes=excludes,
    )
    import zipfile

    with zipfile.ZipFile(package) as opened:
        names = {name for name in opened.namelist() if not name.endswith("/")}
    assert names == {"jobs/a.py", "urbandet_ray/models/b.py", ".gitignore"}


def test_the_working_directory_must_hold_the_job_and_its_config(tmp_path: Path) -> None:
    """Each mistake by its own message."""
    with pytest.raises(ConfigError, match=r"no jobs/batch_infer\.py in .*--working-dir"):
        check_working_dir(replace(INFER, working_dir=tmp_path))
    with pytest.raises(ConfigError, match=r"/tmp/x\.yaml is not below the working directory"):
        check_working_dir(replace(INFER, run_config="/tmp/x.yaml"))
    with pytest.raises(ConfigError, match=r"runs/x\.yaml is not sent with the job"):
        check_working_dir(replace(INFER, run_config="runs/x.yaml"))


def test_installing_goes_by_the_lock_files() -> None:
    """With their hashes; the spec holds their digest, not the files."""
    env = runtime_env(replace(INFER, install=True), {})
    assert env["config"] == {"setup_timeout_seconds": 1800}  # Ray's own 600 s are too few
    pip = env["pip"]
    assert "--require-hashes" in pip["pip_install_options"]
    *files, digest = pip["packages"]
    assert [line.rpartition("/")[2] for line in files] == ["all.lock", "odapi.lock"]
    assert digest.startswith("# ")
    assert len(json.dumps(pip)) < 1000


def test_which_cluster_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """RAY_ADDRESS counts where it is a dashboard's."""
    monkeypatch.setenv("RAY_ADDRESS", "http://head:8265")
    assert dashboard_address(None) == "http://head:8265"
    assert dashboard_address("http://other:8265/") == "http://other:8265"
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    with pytest.raises(RunError, match="which cluster\\? head:6379 is no dashboard's"):
        dashboard_address(None)


@pytest.mark.parametrize(
    ("status", "code", "ends", "says"),
    [
        ("SUCCEEDED", 0, 0, "done\nresults: s3://b/run"),
        ("FAILED", 3, 3, "done but for dead letters (exit code 3, which Ray shows as FAILED)\nres"),
        ("FAILED", 1, 1, "failed with exit code 1\nwhat it had done is kept in s3://b/run; to re"),
        ("FAILED", None, 1, "failed; the node died\nwhat it had"),
        ("STOPPED", -15, 1, "stopped\nwhat it had done is kept in s3://b/run; to resume, submit i"),
        ("RUNNING", None, 1, "running"),
    ],
)
def test_how_a_job_ended(status: str, code: int | None, ends: int, says: str) -> None:
    """In words, and as an exit code."""
    state = JobState("j", status, code, "the node died", "e", "infer", "s3://b/run", "again")
    assert state.exit_code == ends
    assert state.to_text().startswith(f"j: {says}")


def test_dead_letters_are_an_inferences_alone() -> None:
    """Another job's exit code 3 is a failure."""
    assert not JobState("j", "FAILED", 3, "", "python x.py", "train").dead_letters
    assert JobState("j", "FAILED", 3, "", "python jobs/batch_infer.py x.yaml").dead_letters
