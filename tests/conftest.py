"""Fixtures shared by all tests."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from rays import OPEN, ray_head
from waiting import wait_for

from urbandet_ray.config import StorageConfig

REPOSITORY = Path(__file__).parent.parent
EXAMPLES = REPOSITORY / "docs/examples"
OWN_MODELS = os.pathsep.join(map(str, (EXAMPLES, REPOSITORY / "tests")))
"""PYTHONPATH of processes that train a model of one's own."""

# how long an example takes says more of a busy machine than of the code
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest come first: begun last, one would run beside an idle process."""
    costs_s: Counter[str] = Counter()
    for item in items:
        costs_s[_process_of(item.path)] += _cost_s(item)
    items.sort(key=lambda item: (-costs_s[_process_of(item.path)], item.path))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file's tests run in one process, and files that share a Ray in one: a Ray for each process
    costs more than it brings."""
    from xdist.scheduler import LoadFileScheduling

    class FewRays(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _process_of(config.rootpath / nodeid.partition("::")[0])

    return FewRays(config, log)


@cache
def _process_of(file: Path) -> str:
    """Which files run in one process: those that return the same."""
    if "ray_dashboard: " not in file.read_text("utf-8"):
        return str(file)
    return "trainings on a Ray" if "training" in file.parts else "a Ray"  # about as long


class _Failures:
    """Names each failure as it comes: a run that is cut short has no summary."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self._terminal = terminal

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._terminal.write_line(f" {report.nodeid} ({report.when})")


@pytest.hookimpl(trylast=True)  # after pytest has made its reporter
def pytest_configure(config: pytest.Config) -> None:
    """Names failures where somebody can read it: not in the processes of pytest-xdist."""
    terminal = config.pluginmanager.getplugin("terminalreporter")
    if terminal is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Failures(terminal))


def _cost_s(item: pytest.Item) -> float:
    """About what a test takes, by its marks."""
    marks = {mark.name for mark in item.iter_markers()}
    for needed, cost_s in (({"ray", "train"}, 20), ({"ray"}, 6), ({"train"}, 2), ({"s3"}, 0.2)):
        if needed <= marks:
            return cost_s
    return 0.05


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of real records, models and frames; tests that need it skip without it."""
    folder = Path(
        os.environ.get("URBANDET_REALDATA", REPOSITORY.parent / "shared" / "data")
    ).resolve()
    if not (folder / "waymo").is_dir():
        pytest.skip(f"no real data in {folder}; set URBANDET_REALDATA to a folder that has it")
    return folder


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def urbandet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in this process; exit code, output, error output."""
    from urbandet_ray import cli

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["urbandet", *map(str, arguments)])
        code: object = 0
        try:
            cli.main()
        except SystemExit as leave:
            code = leave.code or 0
        shown = capsys.readouterr()
        return int(str(code)), shown.out, shown.err

    return run


_NO_OTHER_AWS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass(frozen=True)
class S3Server:
    """An S3 server (moto) in a process of its own, spoken to over HTTP on loopback."""

    endpoint_url: str

    @property
    def options(self) -> StorageConfig:
        """What Storage needs to reach it."""
        return StorageConfig(endpoint_url=self.endpoint_url)

    @property
    def env(self) -> dict[str, str]:
        """What a subprocess needs to reach it through s3:// alone."""
        return {**_NO_OTHER_AWS, "AWS_ENDPOINT_URL": self.endpoint_url}

    def make_bucket(self, name: str) -> str:
        """Make a bucket; returns its URI, s3://name."""
        import boto3

        boto3.client("s3", endpoint_url=self.endpoint_url).create_bucket(Bucket=name)
        return f"s3://{name}"


@pytest.fixture(scope="session")
def aws_test_credentials() -> Iterator[None]:
    """Made-up credentials, and nothing of the AWS set-up of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in _NO_OTHER_AWS.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def s3_server(
    tmp_path_factory: pytest.TempPathFactory, aws_test_credentials: None
) -> Iterator[S3Server]:
    """One moto server for the whole session; make a bucket of your own in it."""
    log = tmp_path_factory.mktemp("moto") / "log.txt"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
            env={**os.environ, "MOTO_S3_DEFAULT_MAX_KEYS": "50"},  # longer listings come in pages
            stdout=out,
            stderr=out,
        )
    try:
        yield S3Server(_wait_for_url(process, log))
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="session")
def ray_dashboard(aws_test_credentials: None) -> Iterator[str]:
    """A local Ray with a dashboard, for runs and for `ray job submit`; its address."""
    os.environ.pop("RAY_ADDRESS", None)
    os.environ |= OPEN
    import ray

    folder = tempfile.mkdtemp(prefix="ray-")
    # GPUs in name only: how GPU actors are placed, not what they compute
    found = {**OPEN, "PYTHONPATH": OWN_MODELS}  # by the workers
    with ray_head(found, "--num-gpus=2", f"--temp-dir={folder}") as head:
        ray.init(address=head.address, log_to_driver=False, logging_level="ERROR")
        yield head.dashboard
        ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def _wait_for_url(process: "subprocess.Popen[bytes]", log: Path) -> str:
    def told() -> re.Match[str] | None:
        if process.poll() is not None:
            raise RuntimeError(f"moto did not start: {log.read_text()}")
        return re.search(r"Running on (http://[\d.]+:\d+)", log.read_text())

    return str(wait_for(told, "moto to say where it runs")[1])
