"""The endpoint's request handler, spoken to as SageMaker does: over HTTP."""

import json
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import exif_turn, saved, smooth_picture
from waiting import END_S

from urbandet_ray.entrypoints import serve
from urbandet_ray.entrypoints.serve import Service, load_service, make_server, model_to_serve
from urbandet_ray.errors import ModelError, NotFoundError
from urbandet_ray.records.images import decode_image, encode_jpeg, encode_png
from urbandet_ray.records.sources import list_sources, read_source
from urbandet_ray.storage import Storage
from urbandet_ray.streets import write_drives


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A JPEG of a synthetic street."""
    folder = tmp_path_factory.mktemp("street")
    write_drives(folder, seeds=[1000], frame_count=2, size_wh=(640, 640), progress=lambda _: None)
    (source,) = list_sources(str(folder), Storage())
    record = next(iter(read_source(source, Storage())))
    assert record.frame is not None
    return bytes(record.frame.encoded)


@pytest.fixture(scope="module")
def service() -> Service:
    """The shipped detector."""
    return load_service("shipped", score_min=0.05, most=20)


@pytest.fixture(scope="module")
def address(service: Service) -> Iterator[tuple[str, int]]:
    """Where it listens."""
    server = make_server(service, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[:2]
    server.shutdown()
    server.server_close()
    thread.join()


def ask(
    address: tuple[str, int],
    body: bytes = b"",
    kind: str = "image/jpeg",
    method: str = "POST",
    path: str = "/invocations",
    **headers: str,
) -> tuple[int, Any]:
    """One request; status and answer."""
    connection = HTTPConnection(*address, timeout=END_S)
    connection.request(method, path, body, {"Content-Type": kind, **headers})
    answer = connection.getresponse()
    told = json.loads(answer.read())
    connection.close()
    return answer.status, told


def test_a_jpeg_is_answered_with_the_detectors_own_boxes(
    address: tuple[str, int], service: Service, street: bytes
) -> None:
    """The same boxes, best first, in pixels; a few kilobytes in all."""
    (own,) = service.detector.detect([decode_image(street)])
    assert len(own) > 3
    status, told = ask(address, street)
    assert status == 200
    boxes = np.array([one["box_xyxy"] for one in told["detections"]])
    np.testing.assert_allclose(boxes, own.boxes_xyxy, atol=0.006)
    scores = [one["score"] for one in told["detections"]]
    np.testing.assert_allclose(scores, own.scores, atol=1e-5)
    assert scores == sorted(scores, reverse=True)
    assert [one["class_id"] for one in told["detections"]] == own.class_ids.tolist()
    assert {one["class"] for one in told["detections"]} <= {"vehicle", "pedestrian", "cyclist"}
    assert told["image"] == {"width": 640, "height": 640}
    assert told["model"] == "shipped"
    assert told["ms"] > 0
    assert len(json.dumps(told)) < 4096


def test_a_png_is_answered_too(address: tuple[str, int], street: bytes) -> None:
    """Under the course's content type, with the same boxes as its pixels' JPEG."""
    png = encode_png(decode_image(street))
    status, told = ask(address, png, "application/x-image")
    assert status == 200
    assert told["detections"] == ask(address, street)[1]["detections"]


@pytest.mark.parametrize(
    ("image_format", "turn", "size"),
    [("JPEG", 6, (60, 90)), ("WEBP", 3, (90, 60)), ("PNG", 8, (60, 90)), ("BMP", 1, (90, 60))],
)
def test_pictures_are_answered_upright(
    address: tuple[str, int], image_format: str, turn: int, size: tuple[int, int]
) -> None:
    """As a phone shows them; the answer tells the size that the boxes are for."""
    settings = {} if image_format == "BMP" else {"exif": exif_turn(turn)}
    body = saved(smooth_picture(), image_format, **settings)
    status, told = ask(address, body, f"image/{image_format.lower()}")
    assert (status, told["image"]) == (200, {"width": size[0], "height": size[1]})


def test_ping_answers(address: tuple[str, int]) -> None:
    """Once the model is loaded; the server is made after it."""
    assert ask(address, method="GET", path="/ping") == (200, {"model": "shipped"})


def test_several_at_once(address: tuple[str, int], street: bytes) -> None:
    """Each gets its own image's answer."""
    small = encode_jpeg(np.zeros((48, 64, 3), np.uint8))
    answers: dict[int, Any] = {}

    def one(number: int) -> None:
        answers[number] = ask(address, street if number % 2 else small)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answers[number][1]["image"]["width"] for number in range(6)] == [64, 640] * 3


@pytest.mark.parametrize(
    ("body", "kind", "status", "message"),
    [
        (b"", "image/jpeg", 400, "the image is empty"),
        (b"GIF89a", "image/jpeg", 400, "the GIF of 6 bytes is damaged"),
        (b"\xff\xd8\xff\xe0broken", "image/jpeg", 400, "cut short or damaged"),
        (b'{"instances": []}', "application/json", 415, "Content-Type is application/json: send"),
        (b"x", "", 415, "Content-Type is not given: send one of image/jpeg"),
    ],
)
def test_a_wrong_request_is_told_what_to_send(
    address: tuple[str, int], body: bytes, kind: str, status: int, message: str
) -> None:
    """As a 4xx with one sentence."""
    got, told = ask(address, body, kind)
    assert got == status
    assert message in told["error"]


def test_what_is_too_large_is_refused(
    address: tuple[str, int], street: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its length before it is read, by its header before it is decoded."""
    monkeypatch.setattr(serve, "MOST_PIXELS", 1000)
    status, told = ask(address, street)
    assert (status, "640x640 pixels; at most 1000" in told["error"]) == (413, True)
    monkeypatch.setattr(serve, "MOST_BYTES", 100)
    status, told = ask(address, street)
    assert (status, "at most 100 are taken: send a JPEG" in told["error"]) == (413, True)


def test_another_path_is_not_there(address: tuple[str, int]) -> None:
    """GET or POST."""
    assert ask(address, b"x", path="/")[0] == 404
    assert ask(address, method="GET", path="/")[0] == 404


def test_a_failing_model_is_a_500(street: bytes) -> None:
    """With its message, not a traceback."""

    class Broken:
        labels: Any = None
        batch_size = 1

        def detect(self, images: Any) -> Any:
            raise ModelError("the network's file is damaged")

    server = make_server(Service(Broken(), "broken"), "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    told = ask(server.server_address[:2], street)
    server.shutdown()
    server.server_close()
    assert told == (500, {"error": "the network's file is damaged"})


@pytest.mark.parametrize("name", ["URBANDET_SCORE_MIN", "SAGEMAKER_BIND_TO_PORT"])
def test_a_variable_that_is_no_number_is_a_message(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the endpoint's log, with exit code 1."""
    monkeypatch.setenv("URBANDET_MODEL", "shipped")
    monkeypatch.setenv(name, "many")
    assert serve.main() == 1
    assert capsys.readouterr().err == f"error: {name} is 'many', expected a number\n"


def test_the_networks_of_a_training_job_come_first(tmp_path: Path) -> None:
    """Then the stock export; the label map is the folder's."""
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").touch()
    assert model_to_serve(str(tmp_path)) == (str(tmp_path / "1"), None)
    network = tmp_path / "optimized" / "openvino"
    network.mkdir(parents=True)
    (network / "network.json").touch()
    (tmp_path / "label_map.pbtxt").touch()
    assert model_to_serve(str(tmp_path)) == (str(network), str(tmp_path / "label_map.pbtxt"))
    with pytest.raises(NotFoundError, match="holds no model: expected optimized/FORMAT"):
        model_to_serve(str(tmp_path / "optimized"))
