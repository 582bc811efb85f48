"""An imitation of AWS, a run config, and what goes over the wire."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import S3Server
from launch.sagemaker.launching import RUN, Canned


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket, with everything of AWS's at the imitation."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint_url)
    return s3_server.make_bucket("drives")


@pytest.fixture
def run_yaml(tmp_path: Path) -> Path:
    """A run config whose pipeline.config is on this machine."""
    (tmp_path / "mine.config").write_text("model { }\n")
    path = tmp_path / "run.yaml"
    path.write_text(RUN.replace("PIPELINE", str(tmp_path / "mine.config")))
    return path


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What goes over the wire to SageMaker, beside being answered by moto."""
    import boto3

    bodies: list[dict[str, Any]] = []
    session = boto3.session.Session

    def note(request: Any, **_: Any) -> None:
        bodies.append(json.loads(request.body))

    def listening(*arguments: Any, **named: Any) -> Any:
        made = session(*arguments, **named)
        made.events.register("before-send.sagemaker.*", note)
        return made

    monkeypatch.setattr(boto3.session, "Session", listening)
    yield bodies


@pytest.fixture
def canned(monkeypatch: pytest.MonkeyPatch, aws_test_credentials: None) -> Iterator[Any]:
    """Makes such a server and points one service at it."""
    made: list[Canned] = []

    def make(service: str, answers: dict[str, Any]) -> Canned:
        made.append(Canned(answers))
        monkeypatch.setenv(f"AWS_ENDPOINT_URL_{service.upper()}", made[-1].url)
        return made[-1]

    yield make
    for one in made:
        one.server.shutdown()
        one.server.server_close()
