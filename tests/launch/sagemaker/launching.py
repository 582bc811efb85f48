"""The launcher's command line, and servers that stand in for AWS."""

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from urbandet_ray.cli.sagemaker import app

GOLDEN = Path(__file__).parent / "golden"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/urbandet-sagemaker:0.1.0"
ROLE = "arn:aws:iam::123456789012:role/urbandet-sagemaker"
RUN = """\
output: runs/street
data: s3://drives/waymo
pipeline: PIPELINE
steps: 2000
batch:
  per_worker: 16
fine_tune:
  checkpoint: ssd_mobilenet_v2_fpnlite_640x640_coco17_tpu-8
schedule:
  rate: 0.002
evaluation:
  every: 80
"""


def call(*arguments: str) -> Any:
    """The command line; what it raises is what a user is told."""
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=True)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def train(run: Path, name: str, *more: str, answer: tuple[str, ...] = ("--yes",)) -> Any:
    """Start a job on two spot GPU instances."""
    arguments = ["train", str(run), "--image", IMAGE, "--role", ROLE, "--out", "s3://drives/jobs"]
    arguments += ["--instance", "ml.g5.xlarge", "--count", "2", "--hours", "5", "--spot"]
    arguments += ["--max-wait", "12", "--pretrained", "s3://drives/models/ssd", "--price", "1.5"]
    arguments += ["--optimized", "savedmodel,openvino", "--tag", "team=streets", "--name", name]
    return call(*arguments, *more, *answer)


def hold_to_golden(name: str, found: Any) -> None:
    """Equal to the file; URBANDET_GOLDEN=write writes it anew."""
    path = GOLDEN / f"{name}.json"
    text = json.dumps(found, indent=2, sort_keys=True) + "\n"
    if os.environ.get("URBANDET_GOLDEN") == "write":
        path.write_text(text)
    assert json.loads(path.read_text()) == json.loads(text)


class Canned:
    """A server that answers AWS's JSON calls from a table, by the operation's name."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        canned = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                name = self.headers["X-Amz-Target"].rpartition(".")[2]
                body = self.rfile.read(int(self.headers["Content-Length"]))
                canned.asked.append((name, json.loads(body)))
                status, answer = answers[name]
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server.server_port}"
