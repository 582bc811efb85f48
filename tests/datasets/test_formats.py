"""What each format says in its own odd ways: read as its field reads it, and counted."""

from pathlib import Path
from typing import Any

import pytest
from small_sets import (
    BOXES,
    HEIGHT,
    WIDTH,
    picture,
    region,
    write_bdd,
    write_json,
    write_pictures,
    write_text,
    write_voc,
    write_yolo,
    yolo_rows,
)

from urbandet_ray.datasets.annotated import AnnotatedImage, Dataset
from urbandet_ray.datasets.recognition import read_dataset
from urbandet_ray.errors import InputError, LabelError
from urbandet_ray.storage import Storage

STORAGE = Storage()
CAR = "0 0.5 0.5 0.25 0.25"


def read(folder: Path) -> tuple[Dataset, dict[str, AnnotatedImage], dict[str, int]]:
    """A dataset, its images by stem, and the counts of what is odd."""
    dataset = read_dataset(str(folder), STORAGE)
    images = {Path(image.name).stem: image for image in dataset.images}
    return dataset, images, dataset.tally.counts


def one_picture(folder: Path, name: str = "a.jpg") -> None:
    """An image on its own."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(picture(0))


@pytest.mark.parametrize(
    ("row", "xyxy", "odd"),
    [
        ("0 0.1 0.1 0.5 0.1 0.5 0.4", (0.1, 0.1, 0.5, 0.4), "box-from-polygon"),
        ("0 0.1 0.1 0.5 0.1 0.5 0.4 0.1 0.4", (0.1, 0.1, 0.5, 0.4), "box-from-polygon"),
        ("0 0.5 0.5 0.5 0.5 0.9", (0.25, 0.25, 0.75, 0.75), "score-left-out"),
        ("0 48 32 20 10", None, "box-looks-like-pixels"),
        ("0 0.5 0.5 0.5", None, "label-damaged"),
        ("car 0.5 0.5 0.5 0.5", None, "label-damaged"),
        ("9 0.5 0.5 0.5 0.5", None, "class-unknown"),
        ("0.5 0.5 0.5 0.5 0.5", None, "class-unknown"),
        ("nan 0.5 0.5 0.5 0.5", None, "label-damaged"),
        (CAR, None, "box-twice"),
    ],
    ids=["outline", "four corners", "score", "pixels", "short", "name", "high class",
         "half class", "nan", "twice"],
)  # fmt: skip
def test_rows_of_yolo(row: str, xyxy: tuple[float, ...] | None, odd: str, tmp_path: Path) -> None:
    """A box, an outline, a prediction; what is none of them is counted by its line."""
    one_picture(tmp_path / "images")
    write_text(tmp_path / "labels" / "a.txt", f"\ufeff{CAR}\n\n{row}\n")
    write_text(tmp_path / "data.yaml", "train: images\nval: images\nnames: [car]\n")
    dataset, images, counts = read(tmp_path)
    assert counts.pop("part-again") == 1  # one folder is both parts
    assert counts == {odd: 1}
    assert "labels/a.txt:3" in dataset.tally.places[odd][0]
    assert images["a"].boxes[0].xyxy == (0.375, 0.375, 0.625, 0.625)
    assert [box.xyxy for box in images["a"].boxes[1:]] == [
        pytest.approx(one) for one in [xyxy] if one
    ]


@pytest.mark.parametrize(
    "parts",
    [
        "train: ../train/images\nval: ../valid/images\n",
        "path: /content/set\ntrain: train/images\nval: valid/images\n",
        "path: .\ntrain: [train/images]\nval: valid.txt\n",
    ],
    ids=["as Roboflow writes", "of another machine", "lists"],
)
def test_parts_of_a_data_yaml(parts: str, tmp_path: Path) -> None:
    """Found wherever the folder was when the file was written, as Ultralytics finds them."""
    for part, name in (("train", "a"), ("valid", "b")):
        one_picture(tmp_path / part / "images", f"{name}.jpg")
        write_text(tmp_path / part / "labels" / f"{name}.txt", CAR)
    write_text(tmp_path / "valid.txt", "./valid/images/b.jpg\n")
    write_text(tmp_path / "data.yaml", f"{parts}nc: 1\nnames: ['car']\n")
    _, images, counts = read(tmp_path)
    assert counts == {}
    assert {stem: image.split for stem, image in images.items()} == {"a": "train", "b": "val"}
    assert all(len(image.boxes) == 1 for image in images.values())


def test_a_part_that_is_gone_and_keypoints_of_yolo(tmp_path: Path) -> None:
    """The part is named; keypoints stand behind a box and are no outline."""
    one_picture(tmp_path / "images" / "train")
    write_text(tmp_path / "labels" / "train" / "a.txt", "0 0.5 0.5 0.5 0.5 0.1 0.1 2 0.2 0.2 2\n")
    text = "train: images/train\nval: images/val\nkpt_shape: [2, 3]\nnames: {0: person}\n"
    write_text(tmp_path / "data.yaml", text)
    dataset, images, counts = read(tmp_path)
    assert counts == {"part-missing": 1}
    assert dataset.tally.places["part-missing"] == ["val: images/val"]
    assert images["a"].boxes[0].xyxy == (0.25, 0.25, 0.75, 0.75)


def test_images_of_yolo_without_labels_are_negatives(tmp_path: Path) -> None:
    """As YOLO trains on them; their number is said."""
    write_yolo(tmp_path)
    _, images, counts = read(tmp_path)
    assert counts == {"image-negative": 1}
    assert images["oak_0003"].boxes == ()


@pytest.mark.parametrize(
    ("yaml", "error", "message"),
    [
        ("train: nowhere\nval: nowhere\nnames: [car]\n", InputError, "names no image that is"),
        ("train: images\nval: images\nnames: 3\n", LabelError, "names is 3, expected a list"),
    ],
    ids=["no folder", "no names"],
)
def test_a_data_yaml_that_leads_nowhere(
    yaml: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    """The file and what it lacks."""
    one_picture(tmp_path / "images")
    write_text(tmp_path / "data.yaml", yaml)
    with pytest.raises(error, match=message):
        read(tmp_path)


VOC_OBJECT = "<object><name>car</name>{}<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>{}</xmax>"
VOC_OBJECT += "<ymax>20</ymax></bndbox></object>"


def voc(folder: Path, body: str, filename: str = "a.jpg") -> None:
    """One XML file beside its image."""
    one_picture(folder)
    write_text(folder / "a.xml", f"<annotation><filename>{filename}</filename>{body}</annotation>")


def test_flags_of_voc(tmp_path: Path) -> None:
    """Difficult, truncated and occluded; corners may have decimals."""
    flags = "<difficult>1</difficult><truncated>1</truncated><occluded>0</occluded>"
    voc(tmp_path, VOC_OBJECT.format(flags, "30.5"))
    _, images, counts = read(tmp_path)
    (box,) = images["a"].boxes
    assert (box.difficult, box.truncated, box.occluded, box.crowd) == (True, 1.0, 0, False)
    assert (box.xyxy, counts) == ((1, 2, 30.5, 20), {})


@pytest.mark.parametrize(
    ("body", "odd"),
    [
        (VOC_OBJECT.format("", "wide"), "label-damaged"),
        ("<object><name>car</name></object>", "label-without-box"),
        ("<object><name/><bndbox/></object>", "label-damaged"),
    ],
    ids=["no number", "no box", "no name"],
)
def test_odd_objects_of_voc(body: str, odd: str, tmp_path: Path) -> None:
    """Each costs itself alone."""
    voc(tmp_path, VOC_OBJECT.format("", "30") + body)
    dataset, images, counts = read(tmp_path)
    assert counts == {odd: 1}
    assert "a.xml, object 2" in dataset.tally.places[odd][0]
    assert len(images["a"].boxes) == 1


def test_files_of_voc_around_the_labels(tmp_path: Path) -> None:
    """A renamed image is found by the XML's name; what is listed nowhere or damaged is counted."""
    write_voc(tmp_path)
    path = tmp_path / "Annotations" / "oak_0001.xml"
    path.write_text(path.read_text().replace("oak_0001.jpg", "C:\\old\\x.png"))
    (tmp_path / "Annotations" / "oak_0002.xml").write_text("<annotation>")
    one_picture(tmp_path / "JPEGImages", "new.jpg")
    write_text(tmp_path / "Annotations" / "new.xml", "<annotation><filename>new.jpg</filename>")
    _, images, counts = read(tmp_path)
    assert images.keys() == BOXES.keys() - {"oak_0002"}
    assert counts == {"image-unlisted": 1, "label-damaged": 1, "image-unlabelled": 1}


def test_entities_in_xml_are_refused(tmp_path: Path) -> None:
    """A file from anywhere may grow to gigabytes when it is read."""
    voc(tmp_path, VOC_OBJECT.format("", "30"))
    bomb = '<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>'
    write_text(tmp_path / "b.xml", bomb)
    dataset, _, counts = read(tmp_path)
    assert counts == {"label-damaged": 1}
    assert "EntitiesForbidden" in dataset.tally.places["label-damaged"][0]


def test_lanes_and_videos_of_bdd(tmp_path: Path) -> None:
    """What has no box is counted; a video is a drive; times are milliseconds."""
    one_picture(tmp_path / "images" / "v1", "v1-0000001.jpg")
    lane = {"id": "1", "category": "lane", "poly2d": [{"vertices": [[1, 2], [3, 4]]}]}
    crowd = {"id": "2", "category": "car", "attributes": {"Crowd": True, "Occluded": True},
             "box2d": {"x1": 1, "y1": 2, "x2": 3, "y2": 4}}  # fmt: skip
    one = {"name": "v1-0000001.jpg", "videoName": "v1", "timestamp": 1500, "labels": [lane, crowd]}
    unlabelled = {"name": "v1-0000002.jpg", "videoName": "v1"}
    write_json(tmp_path / "box_track_val.json", {"frames": [one, unlabelled], "config": None})
    _, images, counts = read(tmp_path)
    image = images["v1-0000001"]
    assert counts == {"label-without-box": 1, "image-unlabelled": 1}
    assert (image.drive, image.split, image.timestamp_us) == ("v1", "val", 1_500_000)
    assert (image.boxes[0].crowd, image.boxes[0].occluded) == (True, 1)


def test_a_file_an_image_of_bdd(tmp_path: Path) -> None:
    """Its first edition."""
    one_picture(tmp_path / "images", "a.jpg")
    box = {"category": "bus", "id": 0, "box2d": {"x1": 1, "y1": 2, "x2": 30, "y2": 40}}
    area = {"category": "area/drivable", "id": 1, "poly2d": [[1, 2, "L"]]}
    content = {"name": "a", "frames": [{"timestamp": 10000, "objects": [box, area]}]}
    write_json(tmp_path / "labels" / "a.json", content)
    dataset, images, counts = read(tmp_path)
    assert (dataset.kind, counts) == ("BDD100K", {"label-without-box": 1})
    assert dataset.class_ids == {"bus": 1}
    assert images["a"].boxes[0].xyxy == (1, 2, 30, 40)


def test_bdd_without_its_images(tmp_path: Path) -> None:
    """Each is named."""
    write_bdd(tmp_path)
    for name in ("oak_0001", "elm_0001"):
        (tmp_path / "images" / "100k" / "val" / f"{name}.jpg").unlink()
    dataset, images, counts = read(tmp_path)
    assert (len(images), counts) == (4, {"image-missing": 2})
    assert dataset.tally.places["image-missing"] == ["oak_0001.jpg", "elm_0001.jpg"]


def test_odd_rows_of_kitti(tmp_path: Path) -> None:
    """DontCare has no class; a short row is no label; an image without a file is not labelled."""
    one_picture(tmp_path / "training" / "image_2", "000001.png")
    one_picture(tmp_path / "training" / "image_2", "000002.png")
    tail = "1.5 1.6 3.9 1 2 20 0.1"
    rows = [f"Car 0.5 1 0 1 2 30 40 {tail}", f"DontCare -1 -1 -10 5 5 9 9 {tail}", "Van 0 0"]
    write_text(tmp_path / "training" / "label_2" / "000001.txt", "\n".join(rows))
    write_text(tmp_path / "training" / "label_2" / "000009.txt", rows[0])
    _, images, counts = read(tmp_path)
    assert counts == {
        "region-ignored": 1,
        "label-damaged": 1,
        "image-missing": 1,
        "image-unlabelled": 1,
    }
    (box,) = images["000001"].boxes
    assert (box.class_name, box.truncated, box.occluded) == ("Car", 0.5, 1)


def test_drives_of_kittis_tracking_part(tmp_path: Path) -> None:
    """One label file a drive; a frame without a line is a negative."""
    for frame in range(3):
        one_picture(tmp_path / "image_02" / "0004", f"{frame:06d}.png")
    tail = "0 0 0 1 2 30 40 1.5 1.6 3.9 1 2 20 0.1"
    write_text(
        tmp_path / "label_02" / "0004.txt", f"0 7 Car {tail}\n2 7 Car {tail}\n9 7 Car {tail}"
    )
    _, images, counts = read(tmp_path)
    assert [len(image.boxes) for image in images.values()] == [1, 0, 1]
    assert {image.drive for image in images.values()} == {"0004"}
    assert counts == {"image-missing": 1}


@pytest.mark.parametrize(
    ("shape", "xyxy", "odd"),
    [
        ('<box label="car" xtl="10" ytl="20" xbr="30" ybr="24" rotation="90"/>',
         (18, 12, 22, 32), "box-rotated"),
        ('<polygon label="car" points="1.0,2.0;9.5,3.0;4.0,8.0"/>', (1, 2, 9.5, 8),
         "box-from-polygon"),
        ('<ellipse label="car" cx="20" cy="30" rx="5" ry="3"/>', (15, 27, 25, 33),
         "box-from-polygon"),
        ('<mask label="car" rle="1" left="3" top="4" width="10" height="5"/>', (3, 4, 13, 9),
         "box-from-mask"),
        ('<tag label="rain"/>', None, "label-without-box"),
        ('<box label="car" xtl="x" ytl="2" xbr="3" ybr="4"/>', None, "label-damaged"),
    ],
    ids=["rotated", "polygon", "ellipse", "mask", "tag", "no number"],
)  # fmt: skip
def test_shapes_of_cvat(
    shape: str, xyxy: tuple[float, ...] | None, odd: str, tmp_path: Path
) -> None:
    """The upright box around each; what has none is counted."""
    one_picture(tmp_path / "images")
    good = '<box label="car" occluded="1" xtl="1" ytl="2" xbr="3" ybr="4">'
    good += '<attribute name="difficult">true</attribute></box>'
    image = f'<image id="0" name="a.jpg" width="{WIDTH}" height="{HEIGHT}">{good}{shape}</image>'
    write_text(tmp_path / "annotations.xml", f"<annotations>{image}</annotations>")
    _, images, counts = read(tmp_path)
    first, *others = images["a"].boxes
    assert (first.difficult, first.occluded, counts) == (True, 1, {odd: 1})
    assert [box.xyxy for box in others] == [pytest.approx(one) for one in [xyxy] if one]


def test_tracks_of_cvat(tmp_path: Path) -> None:
    """A video is a drive; an object that is outside has no box; other frames are negatives."""
    for frame in range(3):
        one_picture(tmp_path / "images", f"frame_{frame:06d}.PNG")
    box = '<box frame="{}" outside="{}" occluded="0" keyframe="1" xtl="1" ytl="2" xbr="3" ybr="4"/>'
    track = "".join(box.format(*pair) for pair in ((0, 0), (1, 1), (8, 0)))
    write_text(
        tmp_path / "annotations.xml",
        "<annotations><meta><task><source>drive7.mp4</source></task></meta>"
        f'<track id="0" label="car">{track}</track></annotations>',
    )
    _, images, counts = read(tmp_path)
    assert [len(image.boxes) for image in images.values()] == [1, 0, 0]
    assert {image.drive for image in images.values()} == {"drive7"}
    assert counts == {"image-missing": 1}


def task(*regions: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A task of Label Studio's that was labelled once."""
    data = {"image": "/data/local-files/?d=images/a.jpg"}
    return {"id": 1, "data": data, "annotations": [{"result": list(regions)}], **more}


GOOD = region(("car", 9.6, 6.4, 19.2, 12.8))


def changed(**value: Any) -> dict[str, Any]:
    """A region with other values."""
    return {**GOOD, "value": {**GOOD["value"], **value}}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("odd_one", "xyxy", "odd"),
    [
        (changed(rotation=90, width=20, height=15), (0, 0.1, 0.1, 0.4), "box-rotated"),
        ({"type": "polygonlabels", "value": {"points": [[1, 2], [9, 3], [4, 8]],
          "polygonlabels": ["car"]}}, (0.01, 0.02, 0.09, 0.08), "box-from-polygon"),
        ({"type": "brushlabels", "value": {"rle": [1], "brushlabels": ["car"]}}, None,
         "label-without-box"),
        (changed(x=300), None, "box-looks-like-pixels"),
        (changed(x="left"), None, "label-damaged"),
    ],
    ids=["rotated", "polygon", "brush", "pixels", "no number"],
)  # fmt: skip
def test_regions_of_label_studio(
    odd_one: dict[str, Any], xyxy: tuple[float, ...] | None, odd: str, tmp_path: Path
) -> None:
    """Percent of the image, whatever the region; what is no box is counted."""
    one_picture(tmp_path / "images")
    write_json(tmp_path / "export.json", [task(GOOD, odd_one)])
    _, images, counts = read(tmp_path)
    first, *others = images["a"].boxes
    assert first.xyxy == pytest.approx((0.1, 0.1, 0.2, 0.2))
    assert counts == {odd: 1}
    assert [box.xyxy for box in others] == [pytest.approx(one, abs=1e-9) for one in [xyxy] if one]


def test_tasks_of_label_studio(tmp_path: Path) -> None:
    """The first annotator counts; who labelled nothing is left out; empty labels are a negative."""
    for name in ("a", "b", "c"):
        one_picture(tmp_path / "images", f"{name}.jpg")
    two = [{"result": [GOOD]}, {"result": [GOOD, GOOD]}, {"was_cancelled": True, "result": []}]
    tasks = [
        task(annotations=two),
        {"id": 2, "data": {"image": "http://host/data/upload/1/00aa11bb-b.jpg"}, "annotations": []},
        {"id": 3, "data": {"picture": "s3://bucket/c.jpg"}, "annotations": [{"result": []}]},
    ]
    write_json(tmp_path / "export.json", tasks)
    _, images, counts = read(tmp_path)
    assert {stem: len(image.boxes) for stem, image in images.items()} == {"a": 1, "c": 0}
    assert counts == {"annotators-several": 1, "image-unlabelled": 1}


def test_json_min_of_label_studio(tmp_path: Path) -> None:
    """Regions stand under the name of their control."""
    one_picture(tmp_path / "images")
    flat = {**GOOD["value"], "original_width": WIDTH, "original_height": HEIGHT}  # type: ignore[dict-item]
    write_json(tmp_path / "min.json", [{"id": 1, "image": "/data/upload/a.jpg", "label": [flat]}])
    dataset, images, counts = read(tmp_path)
    assert (dataset.kind, counts) == ("Label Studio", {})
    assert images["a"].boxes[0].xyxy == pytest.approx((0.1, 0.1, 0.2, 0.2))


def test_images_that_an_exif_tag_turns_are_written_upright(tmp_path: Path) -> None:
    """Labels were made on the upright picture; labels of the stored size stay with its pixels."""
    import io

    import numpy as np
    from PIL import Image

    from urbandet_ray.datasets.annotated_frames import frame_of
    from urbandet_ray.datasets.oddities import Tally
    from urbandet_ray.labels import LabelMap
    from urbandet_ray.records.images import decode_image

    sideways = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:, : WIDTH // 2] = 255  # the left half, which comes to be on top
    Image.fromarray(pixels).save(sideways, "JPEG", exif=exif, quality=95)
    for size_wh, turned in ((None, True), ((HEIGHT, WIDTH), True), ((WIDTH, HEIGHT), False)):
        image, tally = AnnotatedImage("a.jpg", "a.jpg", (), size_wh=size_wh), Tally()
        frame = frame_of(image, sideways.getvalue(), LabelMap({1: "car"}), tally)
        assert frame is not None
        assert ("image-upright" in tally.counts) == turned
        assert frame.size_wh == ((HEIGHT, WIDTH) if turned else (WIDTH, HEIGHT))
        decoded = decode_image(frame.encoded)
        assert decoded[2, -3].mean() > 200 if turned else decoded[2, 2].mean() > 200


def test_the_rows_of_the_small_set_are_shares() -> None:
    """What the tests write is what YOLO documents."""
    assert yolo_rows((("person", 0, 0, WIDTH, HEIGHT),)) == "1 0.5 0.5 1.0 1.0\n"


def test_a_folder_of_images_alone_is_no_dataset(tmp_path: Path) -> None:
    """What is expected is said."""
    write_pictures(tmp_path)
    with pytest.raises(InputError, match="holds no labels of a format that is read here"):
        read(tmp_path)
