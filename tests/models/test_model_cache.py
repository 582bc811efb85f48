"""Models on S3: downloaded once per version into the user's cache, safely by many at once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest

from urbandet_ray.config import ModelConfig
from urbandet_ray.errors import ModelError, StorageError
from urbandet_ray.models.loader import find_model, load_detector
from urbandet_ray.models.model_cache import cache_folder
from urbandet_ray.models.model_files import find_model_files
from urbandet_ray.storage import RetryPolicy, Storage

pytestmark = pytest.mark.s3

LABELS = b"vehicle\npedestrian\ncyclist\n"


@pytest.fixture(scope="module")
def endpoint():
    """Address of an S3 server that speaks HTTP."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint, monkeypatch, tmp_path):
    """An empty bucket, and a cache folder of the test's own."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = boto3.resource("s3").Bucket("models")
    made.create()
    yield made
    made.objects.delete()


def local_copy(uri):
    """The model on this machine."""
    return find_model_files(uri, Storage()).local(Storage())


def cached():
    """Entries of the cache, finished or not."""
    return sorted(entry.name for entry in cache_folder().iterdir())


def test_a_tflite_file_on_s3_detects_like_a_local_one(bucket, grid, grid_file):
    """Same detections, same fingerprint, labels found beside it."""
    bucket.put_object(Key="v1/grid.tflite", Body=grid.detector())
    bucket.put_object(Key="v1/labels.txt", Body=LABELS)
    remote, local = ModelConfig(uri="s3://models/v1/grid.tflite"), ModelConfig(uri=grid_file())
    image = grid.paint({(1, 1): (255, 0, 0)}, (64, 64))
    answers = [load_detector(model, Storage()).detect([image])[0] for model in (remote, local)]
    assert answers[0].boxes_xyxy.tolist() == answers[1].boxes_xyxy.tolist()
    assert len(answers[0]) == 1
    prints = {find_model(one, Storage()).fingerprint(Storage()) for one in (remote, local)}
    assert len(prints) == 1
    assert len(cached()) == 1


def test_a_new_version_is_downloaded_again(bucket, grid):
    """The cache is keyed by the object's version, so a replaced model is seen."""
    bucket.put_object(Key="grid.tflite", Body=grid.detector())
    first = local_copy("s3://models/grid.tflite")
    bucket.put_object(Key="grid.tflite", Body=grid.detector("UINT8"))
    second = local_copy("s3://models/grid.tflite")
    assert first.read_bytes() == grid.detector()
    assert second.read_bytes() == grid.detector("UINT8")


def test_many_at_once_share_one_download(bucket, grid):
    """Eight racing loaders all get the whole file; one entry stays, nothing half-made."""
    bucket.put_object(Key="grid.tflite", Body=grid.detector())
    gate = threading.Barrier(8)

    def load(_):
        gate.wait()
        return local_copy("s3://models/grid.tflite").read_bytes()

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(load, range(8))) == {grid.detector()}
    assert len(cached()) == 1


def test_a_failed_download_leaves_nothing(bucket, grid, monkeypatch):
    """A copy that breaks off is no model for the next process."""
    bucket.put_object(Key="grid.tflite", Body=grid.detector())

    def break_off(self, uri, local_path, **_):
        local_path.write_bytes(grid.detector()[:100])
        raise StorageError("connection lost")

    with monkeypatch.context() as broken:
        broken.setattr(Storage, "download_file", break_off)
        with pytest.raises(StorageError, match="connection lost"):
            local_copy("s3://models/grid.tflite")
    assert cached() == []
    assert local_copy("s3://models/grid.tflite").read_bytes() == grid.detector()


def test_a_folder_on_s3_is_copied_whole(bucket):
    """A SavedModel arrives with its variables, under its own name."""
    for name in ("saved_model.pb", "variables/variables.index"):
        bucket.put_object(Key=f"export/saved_model/{name}", Body=name.encode())
    folder = local_copy("s3://models/export/")
    assert folder.name == "saved_model"
    assert (folder / "variables" / "variables.index").read_text() == "variables/variables.index"


def test_a_missing_or_foreign_remote_model_is_a_model_error(bucket):
    """Nothing there, a folder without a model, and a bucket that is none."""
    storage = Storage(retries=RetryPolicy(attempts=1, boto_attempts=1))
    with pytest.raises(ModelError, match=r"no model at s3://models/absent.tflite.*expected a \."):
        find_model_files("s3://models/absent.tflite", storage)
    bucket.put_object(Key="notes/a.txt", Body=b"x")
    with pytest.raises(ModelError, match=r"holds a.txt, no saved_model.pb"):
        find_model_files("s3://models/notes", storage)
    with pytest.raises(ModelError, match=r"no model at s3://no-such-bucket/m.tflite"):
        find_model_files("s3://no-such-bucket/m.tflite", storage)
