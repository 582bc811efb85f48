"""A model behind HTTP, as a SageMaker endpoint calls it: an image in, its best boxes out as JSON.

    GET  /ping          200 once the model is loaded
    POST /invocations   image/jpeg, png, bmp, gif, webp or tiff, or application/x-image
                        -> {"detections": [{box_xyxy, score, class, class_id}], image, model, ms}

Python's own HTTP server will do: a thread for each connection, and one image at a time in the
model, whose runtime uses all cores. A framework would not make the model faster.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from urbandet_ray.config import ModelConfig
from urbandet_ray.detections import Detections
from urbandet_ray.errors import ConfigError, ModelError, NotFoundError, RecordError, UrbandetError
from urbandet_ray.label_files import read_labels
from urbandet_ray.models.detector import Detector
from urbandet_ray.models.loader import load_detector
from urbandet_ray.records.images import decode_image
from urbandet_ray.records.orientation import exif_orientation
from urbandet_ray.runs.manifest import run_instead_of_model
from urbandet_ray.storage import Storage

PORT = 8080
MODEL_FOLDER = "/opt/ml/model"
MOST_BYTES = 6 << 20
"""A request of more is refused: SageMaker's own limit for a real-time endpoint."""
MOST_PIXELS = 50_000_000
TYPES = (
    *(f"image/{name}" for name in ("jpeg", "png", "bmp", "gif", "webp", "tiff")),
    "application/x-image",
    "application/octet-stream",
)

_READ_TIMEOUT_S = 30.0


class RequestError(Exception):
    """What is wrong with a request: an HTTP status and what to do."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass
class Service:
    """A loaded model that answers for images, one at a time.

    Attributes:
        name: of the model, for the answers.
    """

    detector: Detector
    name: str

    def __post_init__(self) -> None:
        self._turn = threading.Lock()

    def answer(self, encoded: bytes) -> dict[str, Any]:
        """The best boxes of an image, in its pixels once its EXIF tag has turned it upright.

        Raises:
            RequestError: it is no image that can be used.
        """
        begun = time.perf_counter()
        try:
            turn = exif_orientation(encoded)
            image = decode_image(encoded, max_pixels=MOST_PIXELS, orientation=turn)
        except RecordError as error:
            status = 413 if error.reason == "image-too-large" else 400
            raise RequestError(status, error.detail) from None
        with self._turn:
            (found,) = self.detector.detect([image])
        height, width = image.shape[:2]
        return {
            "detections": _rows(found, self.detector),
            "image": {"width": width, "height": height},
            "model": self.name,
            "ms": round(1000 * (time.perf_counter() - begun), 1),
        }


def _rows(found: Detections, detector: Detector) -> list[dict[str, Any]]:
    columns = (found.boxes_xyxy.tolist(), found.scores.tolist(), found.class_ids.tolist())
    return [
        {
            "box_xyxy": [round(side, 2) for side in box],
            "score": round(score, 5),
            "class": detector.labels.name_of(class_id),
            "class_id": class_id,
        }
        for box, score, class_id in zip(*columns, strict=True)
    ]


def make_server(service: Service, address: str = "0.0.0.0", port: int = PORT) -> Any:
    """An HTTP server for a service; serve_forever() runs it, shutdown() ends it."""

    class DetectionHandler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = _READ_TIMEOUT_S

        def do_GET(self) -> None:
            if self.path != "/ping":
                return self._send(404, {"error": "there are GET /ping and POST /invocations"})
            return self._send(200, {"model": service.name})

        def do_POST(self) -> None:
            try:
                answer = service.answer(self._read_image())
            except RequestError as error:
                self.close_connection = True  # its body may be unread
                return self._send(error.status, {"error": str(error)})
            except UrbandetError as error:
                return self._send(500, {"error": str(error)})
            return self._send(200, answer)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: /ping comes every few seconds."""

        def _read_image(self) -> bytes:
            if self.path != "/invocations":
                raise RequestError(404, "there are GET /ping and POST /invocations")
            kind = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            if kind not in TYPES:
                raise RequestError(
                    415, f"Content-Type is {kind or 'not given'}: send one of {', '.join(TYPES)}"
                )
            length = self.headers.get("Content-Length", "")
            if not length.isdecimal():
                raise RequestError(411, "send the image's Content-Length")
            if int(length) > MOST_BYTES:
                raise RequestError(
                    413, f"{length} bytes, and at most {MOST_BYTES} are taken: send a JPEG"
                )
            body = self.rfile.read(int(length))
            if len(body) < int(length):
                raise RequestError(400, f"{len(body)} of {length} bytes came")
            return body

        def _send(self, status: int, answer: dict[str, Any]) -> None:
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer((address, port), DetectionHandler)
    server.daemon_threads = True
    return server


def load_service(
    model: str, *, score_min: float = 0.3, most: int = 100, threads: int | None = None
) -> Service:
    """Load a model to serve.

    Args:
        model: `shipped`, a model's place, or a folder that a training job left (its network first,
            else the stock export).
        threads: CPU threads of its runtime; None is all cores.

    Raises:
        UrbandetError: there is no model that can be loaded.
    """
    uri, labels = model_to_serve(model)
    storage = Storage()
    served = ModelConfig(
        uri=uri,
        labels=labels,
        score_min=score_min,
        max_detections=most,
        threads=threads or os.cpu_count() or 1,
    )
    name = "shipped" if uri == "shipped" else Path(uri).relative_to(Path(uri).parent.parent)
    return Service(load_detector(served, storage, read_labels(labels, storage)), str(name))


def model_to_serve(model: str) -> tuple[str, str | None]:
    """A model's place and its label map's; None where that lies beside the model, or in it.

    Raises:
        NotFoundError: the folder holds none.
        ModelError: it is a run folder.
    """
    folder = Path(model)
    if model == "shipped" or not folder.is_dir():
        return model, None
    labels = folder / "label_map.pbtxt"
    given = str(labels) if labels.is_file() else None
    networks = sorted(folder.glob("optimized/*/network.json"))
    if networks:
        return str(networks[0].parent), given
    for name in ("1", "saved_model", "."):
        if (folder / name / "saved_model.pb").is_file() or (
            folder / name / "network.json"
        ).is_file():
            return str(folder / name), given
    if told := run_instead_of_model(model, Storage()):
        raise ModelError(told)
    raise NotFoundError(
        f"{folder} holds no model: expected optimized/FORMAT/network.json or 1/saved_model.pb, as "
        "a training job's model.tar.gz has"
    )


def main() -> int:
    """Serve until SIGTERM, set up by URBANDET_* variables; 1 where it cannot begin."""
    try:
        service = load_service(
            os.environ.get("URBANDET_MODEL", MODEL_FOLDER),
            score_min=float(_number("URBANDET_SCORE_MIN", 0.3)),
            most=int(_number("URBANDET_MAX_DETECTIONS", 100)),
        )
        port = int(_number("SAGEMAKER_BIND_TO_PORT", PORT))
    except UrbandetError as error:
        sys.stderr.write(f"error: {error}\n")  # the endpoint's log
        return 1
    server = make_server(service, port=port)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    sys.stderr.write(f"{service.name} answers at port {server.server_port}\n")
    sys.stderr.flush()
    server.serve_forever()
    server.server_close()
    return 0


def _number(name: str, otherwise: float) -> float:
    text = os.environ.get(name, "")
    try:
        return float(text) if text else otherwise
    except ValueError:
        raise ConfigError(f"{name} is {text!r}, expected a number") from None


if __name__ == "__main__":
    sys.exit(main())
