"""One small set of labelled images, written by hand in each format as its documentation has it."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from urbandet_ray.records.images import encode_jpeg

WIDTH, HEIGHT = 96, 64
Box = tuple[str, float, float, float, float]
CLASSES = ("car", "person", "bus")
BOXES: Mapping[str, tuple[Box, ...]] = {
    "oak_0001": (("car", 3, 5, 33, 25.5), ("person", 40.25, 8, 52, 40)),
    "oak_0002": (("car", 6, 5, 36, 25),),
    "oak_0003": (),
    "elm_0001": (("bus", 0, 0, 96, 64),),
    "elm_0002": (("bus", 10, 12, 60, 50), ("person", 70, 20, 80, 45), ("car", 1, 2, 3, 4)),
    "elm_0003": (("car", 20, 30, 40, 60),),
}
"""Corners in pixels of each image; one holds nothing."""


def picture(seed: int, size_wh: tuple[int, int] = (WIDTH, HEIGHT)) -> bytes:
    """A JPEG of its own."""
    width, height = size_wh
    noise = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3), np.uint8)
    return encode_jpeg(noise.repeat(8, axis=0).repeat(8, axis=1))


def write_pictures(folder: Path) -> None:
    """The images of the set."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(BOXES):
        (folder / f"{name}.jpg").write_bytes(picture(seed))


def write_text(path: Path, text: str) -> None:
    """A file with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_json(path: Path, content: object) -> None:
    """A JSON file with its folders."""
    write_text(path, json.dumps(content))


def coco_content() -> dict[str, list[dict[str, object]]]:
    """COCO's instances of the set, with gaps between the ids."""
    images, annotations = [], []
    for image_id, (name, boxes) in enumerate(BOXES.items(), start=100):
        images.append(
            {"id": image_id, "file_name": f"{name}.jpg", "width": WIDTH, "height": HEIGHT}
        )
        for class_name, x0, y0, x1, y1 in boxes:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": CLASSES.index(class_name) * 2 + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": at * 2 + 1, "name": name} for at, name in enumerate(CLASSES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_coco(folder: Path) -> None:
    """As the COCO download has it."""
    write_pictures(folder / "val2017")
    write_json(folder / "annotations" / "instances_val2017.json", coco_content())


def yolo_rows(boxes: tuple[Box, ...]) -> str:
    """A label file."""
    return "".join(
        f"{CLASSES.index(name)} {(x0 + x1) / 2 / WIDTH!r} {(y0 + y1) / 2 / HEIGHT!r} "
        f"{(x1 - x0) / WIDTH!r} {(y1 - y0) / HEIGHT!r}\n"
        for name, x0, y0, x1, y1 in boxes
    )


def write_yolo(folder: Path) -> None:
    """Ultralytics' folders: images/val, labels/val, data.yaml."""
    write_pictures(folder / "images" / "val")
    for name, boxes in BOXES.items():
        if boxes:
            write_text(folder / "labels" / "val" / f"{name}.txt", yolo_rows(boxes))
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(CLASSES))
    yaml = f"path: ../datasets/gone\ntrain: images/val\nval: images/val\nnames:\n{names}"
    write_text(folder / "data.yaml", yaml.replace("train: images/val\n", ""))


def write_darknet(folder: Path) -> None:
    """Darknet's obj.data, with a list of images and the labels beside them."""
    write_pictures(folder / "obj_train_data")
    for name, boxes in BOXES.items():
        write_text(folder / "obj_train_data" / f"{name}.txt", yolo_rows(boxes))
    write_text(folder / "obj.names", "\n".join(CLASSES) + "\n")
    write_text(folder / "train.txt", "".join(f"data/obj_train_data/{one}.jpg\n" for one in BOXES))
    write_text(
        folder / "obj.data",
        "classes = 3\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n",
    )


def voc_xml(name: str, boxes: tuple[Box, ...], extra: str = "") -> str:
    """One of VOC's files."""
    objects = "".join(
        f"<object><name>{name}</name><pose>Left</pose><truncated>0</truncated>"
        f"<difficult>0</difficult><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax>"
        f"<ymax>{y1}</ymax></bndbox></object>"
        for name, x0, y0, x1, y1 in boxes
    )
    return (
        f"<annotation><folder>VOC</folder><filename>{name}.jpg</filename><size><width>{WIDTH}"
        f"</width><height>{HEIGHT}</height><depth>3</depth></size>{objects}{extra}</annotation>"
    )


def write_voc(folder: Path) -> None:
    """VOC's devkit."""
    write_pictures(folder / "JPEGImages")
    for name, boxes in BOXES.items():
        write_text(folder / "Annotations" / f"{name}.xml", voc_xml(name, boxes))
    write_text(folder / "ImageSets" / "Main" / "val.txt", "\n".join(BOXES) + "\n")


def write_bdd(folder: Path) -> None:
    """BDD100K's detection labels."""
    write_pictures(folder / "images" / "100k" / "val")
    content = [
        {
            "name": f"{name}.jpg",
            "attributes": {"weather": "clear"},
            "timestamp": 10000,
            "labels": [
                {
                    "id": str(at),
                    "category": class_name,
                    "attributes": {"occluded": False, "truncated": at == 0},
                    "box2d": {"x1": x0, "y1": y0, "x2": x1, "y2": y1},
                }
                for at, (class_name, x0, y0, x1, y1) in enumerate(boxes)
            ],
        }
        for name, boxes in BOXES.items()
    ]
    write_json(folder / "labels" / "det_20" / "det_val.json", content)


def write_kitti(folder: Path) -> None:
    """KITTI's object benchmark."""
    write_pictures(folder / "training" / "image_2")
    for name, boxes in BOXES.items():
        rows = [
            f"{kind} 0.25 2 -1.57 {x0} {y0} {x1} {y1} 1.5 1.6 3.9 1 2 20 0.1\n"
            for kind, x0, y0, x1, y1 in boxes
        ]
        write_text(folder / "training" / "label_2" / f"{name}.txt", "".join(rows))


def write_cvat(folder: Path) -> None:
    """CVAT for images 1.1."""
    write_pictures(folder / "images")
    labels = "".join(f"<label><name>{one}</name></label>" for one in CLASSES)
    images = "".join(
        f'<image id="{at}" name="{name}.jpg" width="{WIDTH}" height="{HEIGHT}">'
        + "".join(
            f'<box label="{kind}" source="manual" occluded="0" xtl="{x0}" ytl="{y0}" xbr="{x1}" '
            f'ybr="{y1}" z_order="0"></box>'
            for kind, x0, y0, x1, y1 in boxes
        )
        + "</image>"
        for at, (name, boxes) in enumerate(BOXES.items())
    )
    text = (
        '<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><task>'
        f"<labels>{labels}</labels></task></meta>{images}</annotations>"
    )
    write_text(folder / "annotations.xml", text)


def region(box: Box) -> dict[str, object]:
    """A rectangle of Label Studio's, in percent."""
    name, x0, y0, x1, y1 = box
    return {
        "id": "r1",
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "value": {
            "x": x0 / WIDTH * 100,
            "y": y0 / HEIGHT * 100,
            "width": (x1 - x0) / WIDTH * 100,
            "height": (y1 - y0) / HEIGHT * 100,
            "rotation": 0,
            "rectanglelabels": [name],
        },
    }


def write_label_studio(folder: Path) -> None:
    """Label Studio's JSON, of images that were uploaded."""
    write_pictures(folder / "images")
    tasks = [
        {
            "id": at,
            "data": {"image": f"/data/upload/3/0a1b2c3d-{name}.jpg"},
            "annotations": [{"id": at, "was_cancelled": False, "result": list(map(region, boxes))}],
            "predictions": [],
        }
        for at, (name, boxes) in enumerate(BOXES.items(), start=1)
    ]
    write_json(folder / "project-3.json", tasks)


WRITERS: Mapping[str, Callable[[Path], None]] = {
    "COCO": write_coco,
    "YOLO": write_yolo,
    "YOLO of Darknet": write_darknet,
    "Pascal VOC": write_voc,
    "BDD100K": write_bdd,
    "KITTI": write_kitti,
    "CVAT": write_cvat,
    "Label Studio": write_label_studio,
}
"""What writes the set in each format."""
