"""The zoo's archives: fetched once, held to a checksum, unpacked safely, whole or not at all."""

import hashlib
import io
import re
import shutil
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from web import RunningServer, WebServer

from urbandet_ray.errors import ConfigError, ModelError, NotFoundError, StorageError
from urbandet_ray.models import zoo
from urbandet_ray.models.archives import unpack
from urbandet_ray.models.zoo import FetchedModel, fetch_model, zoo_model, zoo_models
from urbandet_ray.storage import Storage

NAME = "ssd_mobilenet_v2_fpnlite_320x320_coco17_tpu-8"
MODEL = zoo_model(NAME)
FILES = {
    "pipeline.config": b"model { }",
    "checkpoint/checkpoint": b'model_checkpoint_path: "ckpt-0"',
    "checkpoint/ckpt-0.index": b"index",
    "checkpoint/ckpt-0.data-00000-of-00001": bytes(range(256)) * 8_000,
    "saved_model/saved_model.pb": b"graph",
}


def archive(files: dict[str, bytes] | None = None, *odd: tarfile.TarInfo) -> bytes:
    """A .tar.gz as the zoo has it, with more members at its end."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz", compresslevel=0) as tar:
        for name, data in (FILES if files is None else files).items():
            member = tarfile.TarInfo(f"{NAME}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for member in odd:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    return held.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    """A member with no business in a zoo archive."""
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, link, 3 if kind == tarfile.REGTYPE else 0
    return made


@pytest.fixture
def web() -> Iterator[WebServer]:
    """A mirror that has the archive."""
    with RunningServer() as server:
        server.files[f"/zoo/{NAME}.tar.gz"] = archive()
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Where models are kept."""
    return tmp_path / "cache"


def fetch(source: object, cache: Path, **more: Any) -> FetchedModel:
    """Fetch the model without showing progress."""
    storage = more.pop("storage", Storage())
    source = None if source is None else str(source)
    return fetch_model(MODEL, storage, lambda *_: None, source=source, folder=cache, **more)


def visible(folder: Path) -> list[str]:
    """What lies in a folder, but for locks."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_the_table_is_the_zoo_s() -> None:
    """Names are unique and dated, figures are in range, and every config named exists."""
    models = zoo_models()
    assert len({model.name for model in models}) == len(models) == 36
    for model in models:
        assert re.fullmatch(r"20(20|21)\d{4}", model.date)
        assert re.fullmatch(r"\d+x\d+", model.input_size)
        assert 20 < model.coco_map < 52 and 5 < model.speed_ms < 330
        assert model.config is None or zoo.model_config_path(model.config).is_file()
    assert zoo_model("efficientdet_d1_coco17_tpu-32").url == (
        "http://download.tensorflow.org/models/object_detection/tf2/20200711/"
        "efficientdet_d1_coco17_tpu-32.tar.gz"
    )


def test_every_config_has_its_archive() -> None:
    """None of configs/models is left without weights to start from."""
    folder = zoo.model_config_path("efficientdet_d0_512").parent
    named = {model.config for model in zoo_models() if model.config}
    named.add("ssd_mobilenet_v2_fpnlite_1280")  # starts from the archive of another size
    assert {path.stem for path in folder.glob("*.config")} == named


def test_a_model_is_found_by_its_config_too() -> None:
    """And by the archive's file name."""
    assert zoo_model("ssd_mobilenet_v2_fpnlite_320") is MODEL
    assert zoo_model(f"{NAME}.tar.gz") is MODEL


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("efficientdet_d1", r"did you mean efficientdet_d1_640\?"),
        ("ssd_mobilenet_v2_fpnlite_320x320", r"did you mean ssd_mobilenet_v2_fpnlite_320"),
        ("yolo", "see `urbandet models list`"),
    ],
)
def test_an_unknown_name(name: str, message: str) -> None:
    """The nearest known one is offered."""
    with pytest.raises(ConfigError, match=f"no model '{name}' in the TF2 detection zoo: {message}"):
        zoo_model(name)


def test_a_config_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Says where it looked."""
    monkeypatch.setattr(zoo, "_PACKAGE", tmp_path / "lib" / "urbandet_ray")
    with pytest.raises(NotFoundError, match=r"no a\.config in .*configs/models"):
        zoo.model_config_path("a")


def test_fetch_from_a_mirror(web: WebServer, cache: Path) -> None:
    """All files are there, the archive is not kept, the checksum is recorded."""
    found = fetch(f"{web.url}/zoo", cache)
    assert found.folder == cache / NAME
    assert found.pipeline_config.read_bytes() == b"model { }"
    assert found.checkpoint == cache / NAME / "checkpoint" / "ckpt-0"
    for name, data in FILES.items():
        assert (found.folder / name).read_bytes() == data
    digest = hashlib.sha256(web.files[f"/zoo/{NAME}.tar.gz"]).hexdigest()
    assert (found.sha256, found.first_seen) == (digest, True)
    assert visible(cache) == [NAME, f"{NAME}.sha256.json"]
    assert found.folder.stat().st_mode & 0o777 == 0o755


def test_fetched_once(web: WebServer, cache: Path) -> None:
    """The second time nobody is asked, not even with the mirror gone."""
    first = fetch(f"{web.url}/zoo", cache)
    again = fetch("http://no-such-host.invalid/zoo", cache)
    assert (again.folder, again.sha256, again.first_seen) == (first.folder, first.sha256, False)
    assert len(web.asked) == 1


def test_the_official_address_is_the_default(
    web: WebServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """<zoo>/<date>/<name>.tar.gz."""
    monkeypatch.setattr(zoo, "ZOO_URL", f"{web.url}/tf2")
    web.files[f"/tf2/20200711/{NAME}.tar.gz"] = archive()
    assert fetch(None, cache).pipeline_config.is_file()


def test_offline(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names the address and the ways around."""
    monkeypatch.setattr(zoo, "ZOO_URL", "http://no-such-host.invalid/tf2")
    with pytest.raises(StorageError, match=r"--from a mirror .* or a folder that has") as caught:
        fetch(None, cache)
    assert f"cannot reach http://no-such-host.invalid/tf2/20200711/{NAME}.tar.gz" in str(
        caught.value
    )


def test_a_mirror_without_it(web: WebServer, cache: Path) -> None:
    """404: the address, and what --from takes."""
    with pytest.raises(NotFoundError, match=r"elsewhere/.*answers 404.*--from takes an archive"):
        fetch(f"{web.url}/elsewhere", cache)
    assert visible(cache) == []


def test_a_truncated_download_goes_on(web: WebServer, cache: Path) -> None:
    """No folder before it is whole; the next call asks for the rest."""
    web.break_after = 1_000_000
    with pytest.raises(StorageError, match=r"broke off.*run it again to go on"):
        fetch(f"{web.url}/zoo", cache)
    assert not (cache / NAME).exists()
    assert fetch(f"{web.url}/zoo", cache).checkpoint.name == "ckpt-0"
    assert web.asked[1][1] is not None


def test_a_wrong_checksum(web: WebServer, cache: Path) -> None:
    """Nothing is unpacked or recorded, and the bad file is not kept."""
    with pytest.raises(ModelError, match=r"has sha256 [0-9a-f]{64}, expected 0{64} \(given\)"):
        fetch(f"{web.url}/zoo", cache, sha256="0" * 64)
    assert visible(cache) == []


def test_the_right_checksum(web: WebServer, cache: Path) -> None:
    """In upper case too; then it is no trust at first sight."""
    digest = hashlib.sha256(web.files[f"/zoo/{NAME}.tar.gz"]).hexdigest()
    assert not fetch(f"{web.url}/zoo", cache, sha256=digest.upper()).first_seen
    assert not fetch(f"{web.url}/zoo", cache, sha256=digest).first_seen
    with pytest.raises(ModelError, match=r"expected 1{64}: delete that folder"):
        fetch(f"{web.url}/zoo", cache, sha256="1" * 64)


def test_later_downloads_are_held_to_the_first(web: WebServer, cache: Path) -> None:
    """Even from another place; a person can say that the change is right."""
    found = fetch(f"{web.url}/zoo", cache)
    shutil.rmtree(found.folder)
    web.files[f"/other/{NAME}.tar.gz"] = archive({**FILES, "pipeline.config": b"model { ssd { } }"})
    with pytest.raises(ModelError, match=rf"first download, from {web.url}/zoo/.*delete .*json"):
        fetch(f"{web.url}/other", cache)
    assert not found.folder.exists()
    assert not fetch(f"{web.url}/zoo", cache).first_seen
    shutil.rmtree(found.folder)
    (cache / f"{NAME}.sha256.json").unlink()
    assert fetch(f"{web.url}/other", cache).first_seen


def test_a_broken_record(cache: Path, web: WebServer) -> None:
    """Named, not passed over: it guards against a changed archive."""
    cache.mkdir()
    (cache / f"{NAME}.sha256.json").write_text("{")
    with pytest.raises(ModelError, match=r"sha256\.json is not readable .*: delete it"):
        fetch(f"{web.url}/zoo", cache)


def test_a_folder_is_not_passed_off_as_the_archive(
    web: WebServer, cache: Path, tmp_path: Path
) -> None:
    """An earlier archive's checksum says nothing about a folder given unpacked."""
    shutil.move(fetch(f"{web.url}/zoo", cache).folder, tmp_path / "mine")
    assert fetch(tmp_path / "mine", cache).sha256 is None
    assert fetch(tmp_path / "mine", cache).sha256 is None


@pytest.mark.parametrize("digest", ["abc", "g" * 64, ""])
def test_a_checksum_that_is_none(cache: Path, digest: str) -> None:
    """Before anything is downloaded."""
    with pytest.raises(ConfigError, match="is no sha256: expected 64 hex digits"):
        fetch("http://no-such-host.invalid", cache, sha256=digest)


UNSAFE = {
    "climbs out": (member(f"{NAME}/../../evil"), "climbs out of its folder with"),
    "absolute": (member("/tmp/evil"), "has the absolute path /tmp/evil"),
    "symlink": (
        member(f"{NAME}/a", tarfile.SYMTYPE, "/etc/passwd"),
        r"has a link, .* -> /etc/passwd",
    ),
    "hard link": (member(f"{NAME}/a", tarfile.LNKTYPE, f"{NAME}/pipeline.config"), "has a link"),
    "device": (member(f"{NAME}/a", tarfile.CHRTYPE), "has .*/a, neither a file nor a folder"),
    "pipe": (member(f"{NAME}/a", tarfile.FIFOTYPE), "has .*/a, neither a file nor a folder"),
}


@pytest.mark.parametrize("kind", UNSAFE)
def test_an_unsafe_archive(cache: Path, tmp_path: Path, kind: str) -> None:
    """Refused by name; nothing of it stays, inside or outside the cache."""
    odd, message = UNSAFE[kind]
    (tmp_path / "bad.tar.gz").write_bytes(archive(None, odd))
    with pytest.raises(ModelError, match=f"not safe to unpack, it {message}.*: not unpacked"):
        fetch(tmp_path / "bad.tar.gz", cache)
    assert visible(cache) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.tar.gz", "cache"]
    assert not Path("/tmp/evil").exists()


def test_an_archive_that_would_fill_the_disk(tmp_path: Path) -> None:
    """Stopped before the member that is too much."""
    (tmp_path / "big.tar.gz").write_bytes(archive())
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match="it unpacks to more than 1000 bytes"):
        unpack(tmp_path / "big.tar.gz", tmp_path / "out", "big", max_bytes=1000)
    assert sum(path.stat().st_size for path in tmp_path.rglob("out/**/*") if path.is_file()) < 1000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>sign in to this network</html>", "damaged or no tar archive"),
        (archive()[:-1000], "damaged or no tar archive"),
        (archive()[:300], "damaged or no tar archive"),
        (archive()[:1000] + b"\xff" * 5000 + archive()[6000:], "damaged or no tar archive"),
        (archive({"readme.txt": b"hello"}), "holds ssd_mobilenet.*: no pipeline.config"),
        (archive({}), "holds nothing: no pipeline.config"),
        (archive({"pipeline.config": b""}), "has no checkpoint/ckpt-0.index with its data"),
        (
            archive({"pipeline.config": b"", "checkpoint/ckpt-0.index": b""}),
            "has no checkpoint/ckpt-0.index with its data",
        ),
    ],
    ids=["html", "cut", "cut short", "overwritten", "another", "empty", "no checkpoint", "no data"],
)
def test_an_archive_that_is_none(cache: Path, tmp_path: Path, content: bytes, message: str) -> None:
    """Said, and no partial folder passes for a model."""
    (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(ModelError, match=message):
        fetch(tmp_path / "a.tar.gz", cache)
    assert visible(cache) == []


def test_from_a_folder_of_archives(cache: Path, tmp_path: Path) -> None:
    """The archive of that name in it; a folder without it says what it needs."""
    (tmp_path / "mirror").mkdir()
    with pytest.raises(NotFoundError, match=r"does not exist.*a place that has ssd_mobilenet"):
        fetch(tmp_path / "mirror", cache)
    (tmp_path / "mirror" / f"{NAME}.tar.gz").write_bytes(archive())
    assert fetch(tmp_path / "mirror", cache).first_seen


@pytest.mark.parametrize("below", ["", NAME])
def test_from_an_unpacked_folder(cache: Path, tmp_path: Path, below: str) -> None:
    """Copied, without a checksum; the folder itself or one that holds it."""
    for name, data in FILES.items():
        path = tmp_path / "mine" / below / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    found = fetch(tmp_path / "mine", cache)
    assert (found.sha256, found.first_seen) == (None, False)
    assert (found.folder / "checkpoint/ckpt-0.index").read_bytes() == b"index"
    shutil.rmtree(found.folder)
    with pytest.raises(ConfigError, match="is an unpacked folder: --sha256 is for an archive"):
        fetch(tmp_path / "mine", cache, sha256="0" * 64)


def test_an_unpacked_folder_without_checkpoint(cache: Path, tmp_path: Path) -> None:
    """Not copied."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "pipeline.config").write_text("model { }")
    with pytest.raises(ModelError, match="mine has no checkpoint"):
        fetch(tmp_path / "mine", cache)
    assert visible(cache) == []


@pytest.mark.s3
def test_from_s3(s3_server, cache: Path) -> None:
    """A mirror in a bucket, by folder; a bucket without it names the key."""
    storage = Storage(s3_server.options)
    bucket = s3_server.make_bucket(f"b-{uuid.uuid4().hex[:12]}")
    with pytest.raises(NotFoundError, match=f"{bucket}/zoo/{NAME}.tar.gz"):
        fetch(f"{bucket}/zoo/", cache, storage=storage)
    storage.write_bytes(f"{bucket}/zoo/{NAME}.tar.gz", archive())
    assert fetch(f"{bucket}/zoo/", cache, storage=storage).checkpoint.name == "ckpt-0"


@pytest.mark.realdata
def test_a_real_checkpoint(realdata: Path, cache: Path) -> None:
    """A folder in the zoo's layout is taken over byte for byte."""
    given = realdata / "zoo" / "ssd_mobilenet_v2_fpnlite_320x320_coco17"
    found = fetch(given, cache)
    for name in ("pipeline.config", "checkpoint/ckpt-0.index", "checkpoint/checkpoint"):
        assert (found.folder / name).read_bytes() == (given / name).read_bytes()
    assert found.checkpoint.with_suffix(".data-00000-of-00001").stat().st_size > 10_000_000
