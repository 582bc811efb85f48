"""`urbandet sagemaker` against moto, which imitates AWS over HTTP."""

import io
import json
import re
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from launch.sagemaker.launching import GOLDEN, IMAGE, ROLE, call, hold_to_golden, train
from typer.testing import CliRunner

from urbandet_ray.cli.sagemaker import app
from urbandet_ray.commands import sagemaker as work
from urbandet_ray.commands.display import TrainProgress
from urbandet_ray.errors import (
    AccessError,
    ConfigError,
    ModelError,
    NotFoundError,
    RunError,
    StorageError,
)
from urbandet_ray.launch.sagemaker import account
from urbandet_ray.launch.sagemaker.request import METRICS

pytestmark = pytest.mark.s3


def described(name: str) -> dict[str, Any]:
    """What moto knows of a job, without times, and with what moto makes up itself taken out."""
    import boto3

    told = boto3.client("sagemaker").describe_training_job(TrainingJobName=name)
    told["AlgorithmSpecification"].pop("MetricDefinitions")
    made_up = ("ResponseMetadata", "TrainingJobArn", "ModelArtifacts", "FinalMetricDataList")
    made_up += ("SecondaryStatusTransitions", "TrainingJobStatus", "SecondaryStatus")
    return {
        key: value
        for key, value in told.items()
        if key not in made_up and not key.endswith("Time") and value not in ({}, [])
    }


def test_a_job_has_every_field_right(
    bucket: str, run_yaml: Path, sent: list[dict[str, Any]]
) -> None:
    """What is sent, what moto made of it, and the price in front."""
    done = train(run_yaml, "streets-1")
    assert done.exit_code == 0, done.output
    assert "2 x $1.5000 an hour (--price) x 5 hours at most = $15.00 at most" in done.output
    assert "on spot instances less" in done.output
    (request,) = [one for one in sent if "ResourceConfig" in one]
    hold_to_golden("training_job_request", request)
    hold_to_golden("training_job_described", described("streets-1"))


def test_files_of_this_machine_come_along(bucket: str, run_yaml: Path) -> None:
    """A pipeline.config, into the channel where the container looks for it."""
    import boto3

    train(run_yaml, "streets-files")
    found = boto3.client("s3").get_object(
        Bucket="drives", Key="jobs/streets-files/config/mine.config"
    )
    assert found["Body"].read() == b"model { }\n"


def test_a_no_starts_nothing(bucket: str, run_yaml: Path) -> None:
    """Not even an upload."""
    done = CliRunner().invoke(
        app,
        [
            *("train", str(run_yaml), "--image", IMAGE, "--role", ROLE),
            *("--out", "s3://drives/jobs", "--price", "1.5"),
            *("--pretrained", "s3://drives/models", "--name", "streets-no"),
        ],
        input="n\n",
    )
    assert done.exit_code == 1
    assert "Start it? [y/N]" in done.output
    with pytest.raises(NotFoundError):
        account.describe_training_job("streets-no", None)
    import boto3

    assert "Contents" not in boto3.client("s3").list_objects_v2(
        Bucket="drives", Prefix="jobs/streets-no/"
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--set", "data=data/waymo"), "data is data/waymo, which SageMaker does not see"),
        (("--set", "bach.per_worker=2"), "did you mean 'batch'"),
        (("--instance", "g5.xlarge"), "expected ml.*, as in ml.g5.xlarge"),
        (("--max-wait", "2"), "waits 2 hours in all, which is less than the 5"),
        (("--role", "urbandet"), "expected arn:aws:iam::ACCOUNT:role/NAME"),
        (("--name", "my_job"), "letters, digits and dashes"),
        (("--tag", "streets"), "expected KEY=VALUE"),
        (("--hours", "0"), "count, volume and hours have to be above 0"),
        (("--set", "cache=" + "a/" * 1300), "cache has 2600 characters, SageMaker takes 2,500"),
        (("--subnet", "subnet-1"), "needs both --subnet and --security-group"),
        (("--set", "pipeline=no_such_model"), "no_such_model"),
        (("--set", "labels=labels.pbtxt"), "labels is labels.pbtxt: copy it to S3"),
        (("--set", "fine_tune.mapping=mine.yaml"), "fine_tune.mapping is mine.yaml: copy it to"),
        (("--set", "fine_tune.labels=coco.txt"), "fine_tune.labels is coco.txt: copy it to S3"),
        (("--set", "cache=AKIA" + "A" * 16), "looks like an AWS access key id"),
        (("--set", "cache=correct-horse"), "cache holds the value of MY_PASSWORD"),
    ],
)
def test_what_is_wrong_is_said_before_anything_costs(
    bucket: str,
    run_yaml: Path,
    more: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And no key is repeated."""
    monkeypatch.setenv("MY_PASSWORD", "correct-horse")
    with pytest.raises((ConfigError, NotFoundError), match=re.escape(message)) as raised:
        train(run_yaml, "streets-wrong", *more)
    assert "AKIA" not in str(raised.value)
    assert "correct-horse" not in str(raised.value)


def test_a_checkpoint_of_this_machine_is_refused(bucket: str, run_yaml: Path) -> None:
    """The job's hosts do not have it."""
    with pytest.raises(ConfigError, match="the job's hosts do not have: fetch it"):
        call(
            *("train", str(run_yaml), "--image", IMAGE, "--role", ROLE),
            *("--out", "s3://drives/jobs", "--price", "1", "--yes"),
        )


def create(canned: Any, code: str, message: str) -> None:
    """Create a job where AWS answers so."""
    refusal = {"__type": code, "Message": message}
    canned("sagemaker", {"CreateTrainingJob": (400, refusal)})
    account.create_training_job(
        json.loads((GOLDEN / "training_job_request.json").read_text()), None
    )


def test_a_name_that_is_taken(canned: Any) -> None:
    """moto, unlike AWS, takes a name twice."""
    with pytest.raises(RunError, match="names must be unique: give another --name"):
        create(canned, "ResourceInUse", "Training job names must be unique")


def test_a_right_beside_the_calls_own_is_named(canned: Any) -> None:
    """As AWS names it: the role has to be passed on, tags to be set."""
    said = "User: ann is not authorized to perform: iam:PassRole on resource: arn:aws:iam::1:role/r"
    with pytest.raises(AccessError, match=re.escape(said)):
        create(canned, "AccessDeniedException", said)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("ExpiredTokenException", "expired or invalid: sign in again"),
        ("UnrecognizedClientException", "does not accept the access key: check it with"),
    ],
)
def test_credentials_that_are_not_accepted(canned: Any, code: str, advice: str) -> None:
    """Are renewed or checked; no permission would help."""
    with pytest.raises(AccessError, match=advice) as raised:
        create(canned, code, "The security token included in the request is expired")
    assert "permission" not in str(raised.value)


def test_a_misspelt_profile_is_a_message(
    aws_test_credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found out before any request."""
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    with pytest.raises(AccessError, match=r"no usable AWS credentials for sagemaker: .*no-such-"):
        call("status", "streets")


def test_two_jobs_of_one_second_have_two_names(bucket: str, run_yaml: Path) -> None:
    """Where none was given."""
    said = []
    for _ in range(2):
        order = ("--image", IMAGE, "--role", ROLE, "--out", "s3://drives/jobs", "--price", "1")
        done = call("train", str(run_yaml), *order, "--pretrained", "s3://drives/m", "--yes")
        said.append(done.output.splitlines()[-1].split()[0])
    assert re.fullmatch(r"urbandet-\d{8}-\d{6}-[0-9a-f]{6}", said[0])
    assert said[0] != said[1]


def test_status_says_how_it_is(bucket: str, run_yaml: Path) -> None:
    """With the command that comes next."""
    train(run_yaml, "streets-2")
    text = call("status", "streets-2").output
    assert "streets-2: Completed (Completed)" in text
    assert "artifact s3://drives/jobs/streets-2/output/model.tar.gz" in text
    assert "checkpoints s3://drives/jobs/streets-2/checkpoints" in text
    assert "fetch it: urbandet sagemaker fetch streets-2" in text


def test_a_job_that_is_not_there(bucket: str) -> None:
    """Is said so."""
    with pytest.raises(NotFoundError, match="sagemaker:DescribeTrainingJob: Could not find"):
        call("status", "nobody")


def test_spot_savings_are_told() -> None:
    """From the two times that SageMaker gives."""
    told = account.JobStatus(
        "a", "Completed", "Completed", "", {"x": 1.5}, "", 1000, 300, True, "", ""
    )
    assert "trained 1000 s, billed 300 s for each instance: spot saved 70%" in told.to_text()
    failed = account.JobStatus(
        "a", "Failed", "Failed", "host algo-2 is lost", {}, "", None, None, True, "", ""
    )
    assert "why: host algo-2 is lost" in failed.to_text()
    assert "the same command with --checkpoints of this job resumes" in failed.to_text()


@pytest.mark.parametrize("name", ["output", "model_dir"])
def test_a_run_folder_on_s3_resumes_by_itself(canned: Any, name: str) -> None:
    """Nothing is at the job's own checkpoints then."""
    job = {
        "TrainingJobStatus": "Stopped",
        "SecondaryStatus": "Stopped",
        "HyperParameters": {name: '"s3://drives/runs/streets"'},
        "CheckpointConfig": {"S3Uri": "s3://drives/jobs/streets/checkpoints"},
    }
    canned("sagemaker", {"DescribeTrainingJob": (200, job)})
    text = call("status", "streets").output
    assert "run folder s3://drives/runs/streets\n" in text
    assert "the same command resumes (under another --name)" in text
    assert "checkpoints" not in text


def test_a_completed_job_is_not_stopped(bucket: str, run_yaml: Path) -> None:
    """moto's jobs complete at once."""
    train(run_yaml, "streets-3")
    assert "streets-3 has ended already: Completed" in call("stop", "streets-3").output


def test_an_answer_500_is_one_message(bucket: str, run_yaml: Path) -> None:
    """moto does not know StopTrainingJob."""
    train(run_yaml, "streets-4")
    with pytest.raises(StorageError, match="AWS refuses sagemaker:StopTrainingJob"):
        account.stop_training_job("streets-4", None)


def test_a_running_job_is_stopped(canned: Any) -> None:
    """By its name; its checkpoints are named."""
    running = {
        "TrainingJobStatus": "InProgress",
        "SecondaryStatus": "Training",
        "CheckpointConfig": {"S3Uri": "s3://drives/checkpoints"},
    }
    server = canned(
        "sagemaker", {"DescribeTrainingJob": (200, running), "StopTrainingJob": (200, {})}
    )
    text = call("stop", "streets").output
    assert server.asked[-1] == ("StopTrainingJob", {"TrainingJobName": "streets"})
    assert "streets is stopping; its checkpoints stay at s3://drives/checkpoints" in text


def test_a_missing_permission_is_named(canned: Any) -> None:
    """As the IAM action."""
    denied = {"__type": "AccessDeniedException", "Message": "User is not authorized"}
    canned("sagemaker", {"DescribeTrainingJob": (400, denied)})
    with pytest.raises(AccessError, match="refuses sagemaker:DescribeTrainingJob"):
        call("status", "streets")


def test_logs_come_with_host_and_time_once(
    bucket: str, run_yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of all hosts in order; a second look gives what is new."""
    import boto3

    monkeypatch.setattr(work, "_LOOK_EVERY_S", 0.0)
    train(run_yaml, "streets-5")
    group = account.JobStatus.log_group
    logs = boto3.client("logs")
    logs.create_log_group(logGroupName=group)
    now = round(time.time()) * 1000
    for host, lines in (("algo-1", (0, 2)), ("algo-2", (1, 3))):
        stream = f"streets-5/{host}-1790000000"
        logs.create_log_stream(logGroupName=group, logStreamName=stream)
        events = [{"timestamp": now + at * 1000, "message": f"line {at}\n"} for at in lines]
        logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)
    lines = call("logs", "streets-5", "--follow").output.splitlines()
    assert [re.sub(r"\d\d:\d\d:\d\d", "TIME", line) for line in lines] == [
        "algo-1 TIME line 0",
        "algo-2 TIME line 1",
        "algo-1 TIME line 2",
        "algo-2 TIME line 3",
        "streets-5: Completed (Completed)",
    ]
    seen: dict[str, str] = {}
    assert len(list(account.log_lines("streets-5", group, None, seen))) == 4
    assert list(account.log_lines("streets-5", group, None, seen)) == []


def test_the_last_lines_of_a_log_are_waited_for(
    canned: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CloudWatch has them some seconds after the job has ended."""
    monkeypatch.setattr(work, "_LOOK_EVERY_S", 0.0)
    job = {"TrainingJobStatus": "Failed", "SecondaryStatus": "Failed"}
    canned("sagemaker", {"DescribeTrainingJob": (200, job)})
    server = canned("cloudwatch_logs", {"DescribeLogStreams": (200, {"logStreams": []})})
    said: list[str] = []
    work.follow_logs("streets", None, follow=True, say=said.append)
    assert said == ["streets: Failed (Failed)"]
    assert len(server.asked) == 2


def put_artifact(name: str, **files: bytes) -> None:
    """model.tar.gz where SageMaker leaves it; __ in a name is a slash."""
    import boto3

    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for path, content in files.items():
            member = tarfile.TarInfo(path.replace("__", "/"))
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    key = f"jobs/{name}/output/model.tar.gz"
    boto3.client("s3").put_object(Bucket="drives", Key=key, Body=made.getvalue())


def test_a_model_is_fetched_and_unpacked(bucket: str, run_yaml: Path, tmp_path: Path) -> None:
    """Into an empty place only."""
    train(run_yaml, "streets-6")
    put_artifact("streets-6", **{"1__saved_model.pb": b"graph", "label_map.pbtxt": b"item {}"})
    text = call("fetch", "streets-6", "--out", str(tmp_path / "model")).output
    assert (tmp_path / "model/1/saved_model.pb").read_bytes() == b"graph"
    assert "label_map.pbtxt" in text
    with pytest.raises(RunError, match="is there already: give another --out"):
        call("fetch", "streets-6", "--out", str(tmp_path / "model"))


def test_an_archive_that_climbs_out_is_refused(bucket: str, run_yaml: Path, tmp_path: Path) -> None:
    """And leaves nothing behind."""
    train(run_yaml, "streets-7")
    put_artifact("streets-7", **{"..__evil": b"x"})
    with pytest.raises(ModelError, match="climbs out of its folder"):
        call("fetch", "streets-7", "--out", str(tmp_path / "here" / "model"))
    assert list((tmp_path / "here").iterdir()) == []
    with pytest.raises(NotFoundError):
        train(run_yaml, "streets-8")
        call("fetch", "streets-8", "--out", str(tmp_path / "none"))


def test_the_metric_definitions_match_what_is_printed() -> None:
    """The lines of a training's log, made by what prints them."""
    lines: list[str] = []
    progress = TrainProgress(lambda _, text: lines.append(text), lines.append)
    progress({"kind": "plan", "steps": 400, "images": 16, "data": None})
    figures = {"total": 1.234, "rate": 0.00015, "images_per_s": 5.12, "input_wait": 0.014}
    by_class = {"vehicle": {"ap": 0.207}, "cyclist": {"ap": None}}
    metrics = {"map": 0.196, "ap50": 0.376, "by_class": by_class}
    progress({"kind": "evaluation", "step": 80, "metrics": metrics, "best": True})
    progress({"kind": "steps", "step": 90, **figures})
    progress({"kind": "event", "step": 95, "text": "checkpoint"})
    found = {
        name: [match[1] for line in lines if (match := re.search(regex, line))]
        for name, regex in METRICS.items()
    }
    assert found == {
        "train:loss": ["1.234"],
        "train:learning_rate": ["0.00015"],
        "train:images_per_s": ["5.1"],
        "train:input_wait_percent": ["1"],
        "validation:mAP": ["0.196"],
        "validation:AP50": ["0.376"],
    }
