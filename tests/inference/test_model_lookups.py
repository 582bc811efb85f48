"""A model on S3 is looked for once: by the driver, which tells the other nodes."""

import pickle
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from drives import write_drive

from urbandet_ray.commands import infer as command
from urbandet_ray.config import InferConfig, ModelConfig
from urbandet_ray.errors import RunError, StorageError
from urbandet_ray.labels import STREET_LABELS
from urbandet_ray.models import loader
from urbandet_ray.models.loader import FoundModel, find_model
from urbandet_ray.models.network.facts import NetworkFacts, Resizing, write_facts
from urbandet_ray.models.shipped import SHIPPED_FOLDER, shipped_model_path
from urbandet_ray.storage import Storage
from urbandet_ray.storage.s3 import S3Files

pytestmark = pytest.mark.s3

FACTS = NetworkFacts(
    runtime="tflite",
    precision="f32",
    answers="detections",
    resizing=Resizing(height=320, width=640),
    rules=None,
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[tuple[str, str]]]:
    """How often the storage was asked what about which place."""
    counts: Counter[tuple[str, str]] = Counter()

    def counted(name: str) -> Any:
        ask = getattr(S3Files, name)

        def wrapped(self: S3Files, at: Any, *given: Any, **named: Any) -> Any:
            counts[name, at.uri.rstrip("/")] += 1
            return ask(self, at, *given, **named)

        return wrapped

    for name in ("list_files", "info", "exists", "open_read"):
        monkeypatch.setattr(S3Files, name, counted(name))
    yield counts


@pytest.fixture
def network(
    request: pytest.FixtureRequest,
    s3_server: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[str, Storage]:
    """A network on S3 with its labels, as far as anybody looks at it; a detector that does nothing
    runs it. The cache is the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "driver"))
    stand_in = SimpleNamespace(batch_size=2, labels=STREET_LABELS)
    monkeypatch.setattr(loader, "NetworkDetector", lambda *_, **__: stand_in)
    bucket = s3_server.make_bucket(request.node.name.replace("_", "-")[:60])
    storage, folder = Storage(s3_server.options), tmp_path / "network"
    folder.mkdir()
    (folder / "model.tflite").write_bytes(b"TFL3")
    write_facts(FACTS, folder)
    (folder / "label_map.pbtxt").write_bytes((SHIPPED_FOLDER / "label_map.pbtxt").read_bytes())
    for file in folder.iterdir():
        storage.upload_file(file, f"{bucket}/best-tflite/{file.name}")
    return f"{bucket}/best-tflite", storage


def test_a_driver_lists_a_models_folder_once(
    network: tuple[str, Storage],
    asked: Counter[tuple[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All of `urbandet infer` up to its first shard: device, fingerprint, decoding, a detector."""
    uri, storage = network
    records = write_drive(tmp_path / "data" / "drive.tfrecord", 2).parent

    def first_shard(*_: Any) -> None:
        raise RunError("the first shard would be read now")

    monkeypatch.setattr(command, "_run", first_shard)
    config = InferConfig(
        input=str(records),
        output=str(tmp_path / "run"),
        model=ModelConfig(uri=uri),
        reduced_decode=True,
        draw={"enabled": False},  # type: ignore[arg-type]
        actors={"gpus": 1},  # type: ignore[arg-type]
        storage=storage.s3,
    )
    with pytest.raises(RunError, match="the first shard"):
        command.infer(config)
    assert {place: n for (name, place), n in asked.items() if name == "list_files"} == {uri: 1}
    twice = {key for key, n in asked.items() if n > 1}
    assert twice == {("open_read", f"{uri}/label_map.pbtxt")}  # of the model, then as its labels
    assert asked["exists", f"{uri}/label_map.pbtxt"] == 0  # the listing tells


def test_another_node_asks_for_the_files_alone(
    network: tuple[str, Storage],
    asked: Counter[tuple[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What travels says where and what they are, and what the classes mean."""
    uri, storage = network
    travelled: FoundModel = pickle.loads(pickle.dumps(find_model(ModelConfig(uri=uri), storage)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "node"))
    asked.clear()
    travelled.load(storage)
    assert (tmp_path / "node" / "urbandet" / "models").is_dir()
    assert asked == {
        ("open_read", f"{uri}/{name}"): 1
        for name in ("label_map.pbtxt", "model.tflite", "network.json")
    }
    asked.clear()
    travelled.load(storage)  # an actor beside it
    assert not asked


def test_another_node_refuses_a_model_that_changed(
    network: tuple[str, Storage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of a run's frames would be another model's."""
    uri, storage = network
    found = find_model(ModelConfig(uri=uri), storage)
    storage.write_bytes(f"{uri}/model.tflite", b"TFL3 trained on")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "node"))
    with pytest.raises(StorageError, match=r"model\.tflite changed .*: start again"):
        found.load(storage)
    assert list((tmp_path / "node" / "urbandet" / "models").iterdir()) == []


def test_a_model_of_one_file_is_asked_for_once(
    s3_server: Any,
    asked: Counter[tuple[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And nothing is listed for it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    place = f"{s3_server.make_bucket('one-file')}/model.tflite"
    storage = Storage(s3_server.options)
    storage.upload_file(shipped_model_path(), place)
    storage.upload_file(SHIPPED_FOLDER / "label_map.pbtxt", f"{place[:-13]}/label_map.pbtxt")
    asked.clear()
    found = find_model(ModelConfig(uri=place), storage)
    found.load(storage)
    assert found.fingerprint(storage) == found.fingerprint(storage)
    assert asked["info", place] == asked["open_read", place] == 1
    assert not [name for name, _ in asked if name == "list_files"]
