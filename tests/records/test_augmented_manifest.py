"""Augmented manifests of SageMaker Ground Truth become TFRecords."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import S3Server
from typer.testing import CliRunner

from urbandet_ray.cli.ground_truth import app
from urbandet_ray.errors import InputError, LabelError
from urbandet_ray.labels import STREET_LABELS, LabelMap
from urbandet_ray.records.augmented_manifest import convert_manifest
from urbandet_ray.records.images import encode_jpeg, encode_png
from urbandet_ray.records.sources import list_sources, read_source
from urbandet_ray.storage import Storage

CLASSES = {"0": "vehicle", "1": "pedestrian"}


def line(
    source: str, *boxes: tuple[int, float, float, float, float], **more: Any
) -> dict[str, Any]:
    """A labelled image of 64 x 48 px."""
    annotations = [
        dict(zip(("class_id", "left", "top", "width", "height"), box, strict=True)) for box in boxes
    ]
    return {
        "source-ref": source,
        "streets": {
            "image_size": [{"width": 64, "height": 48, "depth": 3}],
            "annotations": annotations,
        },
        "streets-metadata": {
            "objects": [{"confidence": 0.9} for _ in boxes],
            "class-map": {str(box[0]): CLASSES.get(str(box[0]), "other") for box in boxes},
            "type": "groundtruth/object-detection",
            "human-annotated": "yes",
            "creation-date": "2026-01-02T03:04:05.678901",
            "job-name": "labeling-job/streets",
        },
        **more,
    }


def write(folder: Path, *rows: Any) -> str:
    """The manifest, with its images a.jpg and b.png."""
    pixels = np.full((48, 64, 3), 90, np.uint8)
    (folder / "a.jpg").write_bytes(encode_jpeg(pixels))
    (folder / "b.png").write_bytes(encode_png(pixels))
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    (folder / "output.manifest").write_text(text + "\n")
    return str(folder / "output.manifest")


def test_boxes_and_classes_arrive(tmp_path: Path) -> None:
    """In pixels, under ids from 1; an image without objects stays one."""
    both = line("b.png", (0, 1, 2, 30, 20), (1, 40, 10, 24.5, 12))
    manifest = write(tmp_path, both, line(str(tmp_path / "a.jpg")))
    report = convert_manifest(manifest, tmp_path / "out", Storage())
    labels = LabelMap.parse((tmp_path / "out/label_map.pbtxt").read_text())
    assert labels.names == {1: "vehicle", 2: "pedestrian"}
    (source,) = list_sources(str(tmp_path / "out"), Storage())
    frames = [record.frame for record in read_source(source, Storage())]
    assert [frame.encoded for frame in frames if frame] == [
        (tmp_path / "b.png").read_bytes(),
        (tmp_path / "a.jpg").read_bytes(),
    ]
    truth = frames[0].truth  # type: ignore[union-attr]
    assert truth is not None
    expected = [[1, 2, 31, 22], [40, 10, 64, 22]]  # half a pixel beyond the edge is cut off
    np.testing.assert_allclose(truth.boxes_xyxy, expected, atol=1e-4)
    assert truth.class_ids.tolist() == [1, 2]
    assert truth.class_texts == ("vehicle", "pedestrian")
    assert len(frames[1].truth or ()) == 0  # type: ignore[union-attr]
    assert "2 frames" in report.to_text()
    assert "1 vehicle, 1 pedestrian" in report.to_text()


def test_ids_of_a_label_map_are_kept(tmp_path: Path) -> None:
    """By the class's name, so that several manifests fit one data set."""
    manifest = write(tmp_path, line("a.jpg", (1, 1, 2, 30, 20)))
    convert_manifest(manifest, tmp_path / "out", Storage(), labels=STREET_LABELS)
    (source,) = list_sources(str(tmp_path / "out"), Storage())
    (record,) = read_source(source, Storage())
    assert record.frame is not None
    assert record.frame.truth is not None
    assert record.frame.truth.class_ids.tolist() == [2]
    with pytest.raises(LabelError, match="no class 'vehicle'"):
        other = write(tmp_path, line("a.jpg", (0, 1, 2, 30, 20)))
        convert_manifest(other, tmp_path / "2", Storage(), labels=LabelMap({1: "pedestrian"}))


def changed(where: str, value: Any) -> dict[str, Any]:
    """A sound line with one of its values replaced."""
    row = line("a.jpg", (0, 1, 2, 30, 20))
    *parents, last = where.split("/")
    at: Any = row
    for part in parents:
        at = at[int(part) if part.isdecimal() else part]
    at[last] = value
    return row


BAD = {
    "no source": (changed("source-ref", None), "no source-ref"),
    "not labelled": (changed("streets", None), "no label attribute streets: the image was not"),
    "failed": (changed("streets-metadata/failure-reason", "blurred"), "labelling failed: blurred"),
    "no size": (changed("streets/image_size", []), "needs image_size and annotations"),
    "no side": (changed("streets/annotations/0/width", None), "box 0 needs class_id, left, top"),
    "no width": (changed("streets/annotations/0/width", 0), "box 0 is 0 x 20 px"),
    "no number": (changed("streets/annotations/0/left", float("nan")), "is no number"),
    "outside": (changed("streets/annotations/0/left", 50), "leaves the image of 64 x 48 px by 16"),
    "no class": (changed("streets/annotations/0/class_id", 7), "class_id 7, which class-map does"),
    "no image": (changed("source-ref", "c.jpg"), "c.jpg"),
    "another size": (
        changed("streets/image_size/0/width", 640),
        "is 64 x 48 px, image_size says 6",
    ),
    "no picture": (changed("source-ref", "output.manifest"), "expected JPEG, PNG, BMP"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, name: str) -> None:
    """Nothing is written; --skip-bad leaves it out and says so."""
    bad, message = BAD[name]
    manifest = write(tmp_path, line("b.png", (0, 1, 2, 30, 20)), "", bad)
    with pytest.raises(InputError) as raised:
        convert_manifest(manifest, tmp_path / "out", Storage())
    assert f"{manifest}:3: " in str(raised.value)
    assert message in str(raised.value)
    assert not list((tmp_path / "out").glob("*"))
    report = convert_manifest(manifest, tmp_path / "out", Storage(), skip_bad=True)
    assert list(report.files.values()) == [1]
    assert message in report.to_text()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("{",), r":1: no JSON"),
        (("[1]",), r":1: a list, expected an object"),
        (("",), "has no lines"),
        ((changed("streets-metadata/type", "groundtruth/image-classification"),), "0 label attr"),
        (
            (line("a.jpg", (0, 1, 2, 3, 4)), changed("streets-metadata/class-map", {"0": "dog"})),
            ":2: ",
        ),
        ((line("a.jpg"),), "no line has a streets-metadata with a class-map"),
    ],
)
def test_a_manifest_that_says_too_little(tmp_path: Path, rows: Any, message: str) -> None:
    """By line where there is one."""
    with pytest.raises((InputError, LabelError), match=message):
        convert_manifest(write(tmp_path, *rows), tmp_path / "out", Storage())


def test_an_image_twice_is_a_bad_line(tmp_path: Path) -> None:
    """Two labelling jobs in one manifest, most likely."""
    row = line("a.jpg", (0, 1, 2, 30, 20))
    with pytest.raises(InputError, match=r":2: .*a.jpg is on an earlier line already"):
        convert_manifest(write(tmp_path, row, row), tmp_path / "out", Storage())


def test_the_command_says_what_it_left_out(tmp_path: Path) -> None:
    """And ends with 3 then."""
    manifest = write(tmp_path, line("a.jpg", (0, 1, 2, 30, 20)), BAD["no source"][0])
    given = [manifest, str(tmp_path / "out"), "--skip-bad", "--name", "streets"]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 3, done.output
    assert (tmp_path / "out" / "streets.tfrecord").is_file()
    assert "left out: " in done.output


def test_a_manifest_without_a_line_that_can_be_used(tmp_path: Path) -> None:
    """Is an error also where bad lines may be left out."""
    manifest = write(tmp_path, BAD["no size"][0])
    with pytest.raises(InputError, match="1 lines cannot be used, and nothing was written"):
        convert_manifest(manifest, tmp_path / "out", Storage(), skip_bad=True)
    assert not list((tmp_path / "out").glob("*"))


def test_nothing_that_is_there_is_replaced(tmp_path: Path) -> None:
    """Neither records nor a label map of other classes; the same classes may stay."""
    out = tmp_path / "out"
    manifest = write(tmp_path, line("a.jpg", (0, 1, 2, 30, 20)))
    out.mkdir()
    (out / "label_map.pbtxt").write_text(LabelMap({7: "tree"}).to_pbtxt())
    with pytest.raises(InputError, match=r"with other classes: keep its ids with --labels"):
        convert_manifest(manifest, out, Storage())
    (out / "label_map.pbtxt").write_text("# ours\n" + LabelMap({1: "vehicle"}).to_pbtxt())
    convert_manifest(manifest, out, Storage())
    assert (out / "label_map.pbtxt").read_text().startswith("# ours\n")
    kept = (out / "output.tfrecord").read_bytes()
    bad = write(tmp_path, BAD["no size"][0])
    with pytest.raises(InputError, match="is there already: give another --name"):
        convert_manifest(bad, out, Storage(), skip_bad=True)
    assert (out / "output.tfrecord").read_bytes() == kept


@pytest.mark.s3
def test_images_come_from_s3(tmp_path: Path, s3_server: S3Server) -> None:
    """As do manifests, since that is where a labelling job leaves both."""
    bucket = s3_server.make_bucket("labelled")
    storage = Storage(s3_server.options)
    write(tmp_path, "")
    storage.upload_file(tmp_path / "a.jpg", f"{bucket}/images/a.jpg")
    row = line(f"{bucket}/images/a.jpg", (0, 1, 2, 30, 20))
    storage.write_bytes(f"{bucket}/out/output.manifest", json.dumps(row).encode())
    report = convert_manifest(f"{bucket}/out/output.manifest", tmp_path / "out", storage)
    assert report.files == {str(tmp_path / "out" / "output.tfrecord"): 1}
