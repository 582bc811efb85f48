"""Jobs on a real head over S3: checked, submitted, followed, stopped, resumed."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, S3Server
from waiting import END_S, wait_for

from urbandet_ray.commands.preflight import preflight_here, preflight_there
from urbandet_ray.commands.scale import scale_here
from urbandet_ray.commands.submit import submit
from urbandet_ray.errors import RunError
from urbandet_ray.launch.jobs import Jobs
from urbandet_ray.launch.order import Order
from urbandet_ray.runs.run_folder import RunFolder
from urbandet_ray.storage import Storage

pytestmark = [pytest.mark.ray, pytest.mark.s3]
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfi" + "CYEXAMPLEKEY"
TOKEN = "session-token-of" + "-whoever-submits"  # in two parts: this file is sent, too
BUCKET = "s3://submitted"


@pytest.fixture(scope="module")
def bucket(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    """A drive of 20 frames, one of them damaged, and a sound one of 80; the submitter's shell."""
    from drives import write_drive

    s3_server.make_bucket("submitted")
    storage = Storage(s3_server.options)
    folder = tmp_path_factory.mktemp("drives")
    spoilt = write_drive(folder / "spoilt.tfrecord", 20)
    data = bytearray(spoilt.read_bytes())
    data[100] ^= 1
    spoilt.write_bytes(data)
    storage.upload_file(spoilt, f"{BUCKET}/spoilt/drive.tfrecord")
    storage.upload_file(write_drive(folder / "long.tfrecord", 240), f"{BUCKET}/long/drive.tfrecord")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint_url)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_SESSION_TOKEN", TOKEN)
        yield storage


def order(kind: str, config: str, *overrides: str) -> Order:
    """As from the command line."""
    return Order(kind, f"configs/runs/{config}.yaml", overrides, REPOSITORY, sys.executable)


@dataclass
class Submitted:
    """What a submission printed, and its exit code."""

    code: int
    told: str
    log: str

    @property
    def job_id(self) -> str:
        """The job's."""
        return self.told.partition("job: ")[2].split()[0]


def run(address: str, what: Order, *, follow: bool = True, preflight: bool = False) -> Submitted:
    """`urbandet submit`, within this process."""
    told: list[str] = []
    log: list[str] = []
    code = submit(
        what, address, say=told.append, write=log.append, preflight=preflight, follow=follow
    )
    return Submitted(code, "\n".join(told), "".join(log))


INFER = order(
    "infer",
    "infer",
    f"input={BUCKET}/spoilt",
    f"output={BUCKET}/runs/spoilt",
    "shard.frames=8",
    "model.score_min=0.02",
)


@pytest.fixture(scope="module")
def inferred(ray_dashboard: str, bucket: Storage) -> Submitted:
    """An inference by the command line, preflight first, followed to its end."""
    words = [sys.executable, "-m", "urbandet_ray.cli", "submit", "infer", *INFER.settings]
    words += ["--address", ray_dashboard, "--python", sys.executable]
    words += ["--working-dir", str(REPOSITORY)]
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        timeout=END_S,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Submitted(done.returncode, done.stdout, done.stdout + done.stderr)


def test_an_inference_with_a_dead_letter_ends_with_code_3(inferred: Submitted) -> None:
    """Ray calls it FAILED; the code is passed on, and the words say what it is."""
    assert inferred.code == 3, inferred.log
    assert "done but for dead letters (exit code 3" in inferred.told
    assert f"results: {BUCKET}/runs/spoilt" in inferred.told
    assert "19 frames," in inferred.told


def test_a_submission_says_what_it_checked_and_how_to_follow_it(
    inferred: Submitted, ray_dashboard: str
) -> None:
    """Checks first, then the job."""
    told = inferred.told
    assert told.index("0 failures") < told.index("job: infer-")
    for line in (
        "ok    config: configs/runs/infer.yaml for infer",
        "ok    ray: 2.60.0 on both sides",
        f"ok    input {BUCKET}/spoilt: can be listed and read",
        f"ok    output {BUCKET}/runs/spoilt: can be listed, written, read and cleaned up",
        "ok    clock: within",
        "ok    resources: each actor needs 1 CPU; room for 2 now",
        "ok    disk: ",
    ):
        assert line in told
    assert f"follow it: urbandet job logs {inferred.job_id} --follow --address {ray_dashboard}" in (
        told
    )


def test_no_secret_is_in_the_spec_or_the_log(inferred: Submitted, ray_dashboard: str) -> None:
    """Nor in any file of Ray's session: its logs, its copy of the working directory."""
    import ray

    jobs = Jobs(ray_dashboard)
    spec = repr(jobs._client.get_job_info(inferred.job_id))
    assert "AWS_ENDPOINT_URL" in spec
    assert SECRET not in spec + jobs.logs(inferred.job_id) + inferred.log
    assert TOKEN not in spec + jobs.logs(inferred.job_id) + inferred.log
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    searched = 0
    for path in session.rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            assert TOKEN.encode() not in content, path
            assert SECRET.encode() not in content, path
            searched += 1
    assert searched > 20


def test_evaluation_and_video_of_it(
    inferred: Submitted, ray_dashboard: str, bucket: Storage
) -> None:
    """By the same command; the results are where it said."""
    run_uri = f"{BUCKET}/runs/spoilt"
    scored = run(
        ray_dashboard, order("evaluate", "eval", f"run={run_uri}", f"truth={BUCKET}/spoilt")
    )
    assert scored.code == 0, scored.log
    assert "mAP" in scored.log
    assert f"results: {run_uri}/metrics.json" in scored.told
    assert bucket.exists(f"{run_uri}/metrics.json")
    shown = run(ray_dashboard, order("video", "video", f"run={run_uri}", f"output={run_uri}/d.mp4"))
    assert shown.code == 0, shown.log
    assert f"results: {run_uri}/d.mp4" in shown.told
    assert bucket.info(f"{run_uri}/d.mp4").size_bytes > 2000


@pytest.mark.chaos
def test_a_stopped_job_leaves_a_run_that_resumes(ray_dashboard: str, bucket: Storage) -> None:
    """What was committed stays as it is, the rest is done by the same command."""
    run_uri = f"{BUCKET}/runs/long"
    what = order("infer", "infer", f"input={BUCKET}/long", f"output={run_uri}", "shard.frames=4")
    begun = run(ray_dashboard, what, follow=False)
    folder = RunFolder(run_uri, bucket)
    jobs = Jobs(ray_dashboard)
    wait_for(lambda: len(folder.markers()) >= 2, "two shards of the job")
    stopped = jobs.stop(begun.job_id)
    assert stopped.status == "STOPPED"
    assert f"what it had done is kept in {run_uri}; to resume, submit it again: urbandet " in (
        stopped.to_text()
    )
    kept = {marker.shard for marker in folder.markers()}
    assert 2 <= len(kept) < 60
    resumed = run(ray_dashboard, what)
    assert resumed.code == 0, resumed.log
    assert "240 frames" in resumed.log
    assert "(an earlier try was resumed)" in resumed.log
    assert kept < {marker.shard for marker in folder.markers()}


def test_everything_that_is_wrong_is_said_at_once(ray_dashboard: str, bucket: Storage) -> None:
    """No such bucket, GPUs that nobody has; and the job is not started."""
    what = order(
        "infer",
        "infer-gpu",
        "input=s3://no-such-bucket/drives",
        f"output={BUCKET}/runs/never",
        "model.uri=shipped",
        "actors.gpus=4",
    )
    told: list[str] = []
    with pytest.raises(RunError, match="nothing was started: mend what failed above"):
        submit(what, ray_dashboard, say=told.append, write=told.append)
    lines = told[0].splitlines()
    failed = [line for line in lines if line.startswith("fail")]
    assert len(failed) == 2, lines
    assert "bucket 'no-such-bucket' does not exist" in failed[0]
    assert failed[1].startswith("fail  resources: each actor needs 4 GPU, and none fits: the clus")
    assert "2 CPU, 2 GPU" in failed[1]
    assert not any(line.startswith("job: ") for line in told)


def test_a_job_that_is_not_known(ray_dashboard: str) -> None:
    """By a message."""
    with pytest.raises(RunError, match="knows no job infer-none"):
        Jobs(ray_dashboard).state("infer-none")


def test_checks_without_a_cluster(bucket: Storage) -> None:
    """From this machine, for the Ray that a run would start here."""
    lines = preflight_here(replace(INFER, kind="infer")).to_text()
    assert f"ok    input {BUCKET}/spoilt: can be listed and read" in lines
    assert "1 x this machine" in lines


def test_workers_that_no_node_type_gives_are_refused(ray_dashboard: str) -> None:
    """A Ray without an autoscaler has what it has."""
    told: list[str] = []
    with pytest.raises(
        RunError, match=r"the cluster cannot make 8 workers of .*GPU: it has, or can"
    ):
        scale_here("auto", 8, None, say=told.append)
    scale_here("auto", None, None, say=told.append)
    assert any(line.startswith("up: ") for line in told)


def test_what_makes_the_working_directory_too_large_is_named(
    ray_dashboard: str, tmp_path: Path
) -> None:
    """A run folder beside the code; Ray says "413" alone. What is not sent does not count."""
    for name in ("jobs", "configs"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    for name in ("mine/best/ckpt", "runs/ckpt"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(np.random.default_rng(0).bytes(101 * 2**20))
    with pytest.raises(RunError, match=r"Largest in it: mine \(101 MiB\), \w+ \(.*\.gitignore"):
        run(ray_dashboard, replace(INFER, working_dir=tmp_path))


@pytest.fixture
def old_cluster() -> Iterator[str]:
    """The dashboard of another Ray, as far as its version."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b'{"version": "4", "ray_version": "2.9.3", "ray_commit": "x"}'
            self.send_response(200 if self.path == "/api/version" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_another_ray_is_said_before_anything_is_sent(old_cluster: str) -> None:
    """One line; no job is tried there."""
    with pytest.raises(RunError, match="nothing was started"):
        run(old_cluster, INFER, preflight=True)
    report = preflight_there(INFER, Jobs(old_cluster))
    (line,) = [str(one) for one in report.checks if one.verdict == "fail"]
    assert line.startswith("fail  ray: the cluster runs Ray 2.9.3, this side 2.60.0")


def test_nothing_answers() -> None:
    """Soon, and by a message."""
    with pytest.raises(RunError, match=r"no Ray cluster answers at http://127\.0\.0\.1:9 "):
        Jobs("http://127.0.0.1:9")


def test_packages_cannot_be_installed_without_lock_files(tmp_path: Path) -> None:
    """The order is refused before anything is sent."""
    shutil.copytree(REPOSITORY / "jobs", tmp_path / "jobs")
    from urbandet_ray.errors import ConfigError
    from urbandet_ray.launch.order import runtime_env

    with pytest.raises(ConfigError, match=r"--install needs requirements/all\.lock"):
        runtime_env(replace(INFER, working_dir=tmp_path, install=True), {})
