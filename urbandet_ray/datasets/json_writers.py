"""Writes datasets in JSON: COCO's instances and Label Studio's tasks."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from urbandet_ray.datasets.annotated import LabelledBox
from urbandet_ray.datasets.exported import IMAGES, ExportDesk, ExportedImage, flags_of


class CocoWriter:
    """annotations/instances_PART.json; predictions have a score beside the box.

    What COCO has no key for stands under the names that an import reads: segment, camera,
    timestamp_us of an image; difficult, truncated, occluded of an annotation.
    """

    takes_unlabelled = False

    def __init__(self, desk: ExportDesk) -> None:
        self._desk = desk
        self._images: dict[str, list[dict[str, Any]]] = {}
        self._annotations: dict[str, list[dict[str, Any]]] = {}
        self._ids = {name: class_id for class_id, name in desk.labels.names.items()}

    def add(self, image: ExportedImage) -> None:
        """Its labels, in the words of the format."""
        images = self._images.setdefault(image.part, [])
        annotations = self._annotations.setdefault(image.part, [])
        width, height = image.size_wh
        image_id = len(images) + 1
        images.append(
            {"id": image_id, "file_name": image.name, "width": width, "height": height}
            | image.place
        )
        for box in image.boxes:
            annotations.append(self._annotation(box, image_id, len(annotations) + 1))

    def _annotation(self, box: LabelledBox, image_id: int, label_id: int) -> dict[str, Any]:
        x0, y0, x1, y1 = box.xyxy
        known: dict[str, Any] = {
            "id": label_id,
            "image_id": image_id,
            "category_id": self._ids[box.class_name],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": (x1 - x0) * (y1 - y0) if box.area_px is None else box.area_px,
            "iscrowd": int(box.crowd),
        }
        more = {"truncated": box.truncated, "occluded": box.occluded, "score": box.score}
        known |= {key: value for key, value in more.items() if value is not None}
        return known | ({"difficult": 1} if box.difficult else {})

    def finish(self) -> None:
        """A file a part."""
        categories = [{"id": class_id, "name": name} for name, class_id in self._ids.items()]
        for part, images in self._images.items():
            content = {
                "images": images,
                "annotations": self._annotations[part],
                "categories": categories,
            }
            name = f"annotations/instances{part and f'_{part}'}.json"
            self._desk.write(name, json.dumps(content).encode())


class LabelStudioWriter:
    """tasks.json to import, with labels as annotations and a run's boxes as predictions.

    Images are named as files of local storage whose root is the export's folder.
    https://labelstud.io/guide/predictions
    """

    takes_unlabelled = True

    def __init__(self, desk: ExportDesk) -> None:
        self._desk = desk
        self._tasks: list[dict[str, Any]] = []

    def add(self, image: ExportedImage) -> None:
        """A task; without annotations where nobody labelled the image."""
        data: dict[str, Any] = {
            "image": f"/data/local-files/?d={quote(f'{IMAGES}/{image.name}')}",
            **image.place,
            **({"split": image.part} if image.part else {}),
        }
        task: dict[str, Any] = {"data": data}
        regions = [self._region(box, image, at) for at, box in enumerate(image.boxes)]
        scores = [box.score for box in image.boxes if box.score is not None]
        if scores:
            best = max(scores)
            task["predictions"] = [{"model_version": "urbandet", "score": best, "result": regions}]
        elif image.labelled:
            task["annotations"] = [{"result": regions}]
        self._tasks.append(task)

    def _region(self, box: LabelledBox, image: ExportedImage, at: int) -> dict[str, Any]:
        width, height = image.size_wh
        x0, y0, x1, y1 = box.xyxy
        flags = flags_of(box)
        return {
            "id": f"box{at}",
            "type": "rectanglelabels",
            "from_name": "label",
            "to_name": "image",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {
                "x": x0 / width * 100,
                "y": y0 / height * 100,
                "width": (x1 - x0) / width * 100,
                "height": (y1 - y0) / height * 100,
                "rotation": 0,
                "rectanglelabels": [box.class_name],
            },
            **({"score": box.score} if box.score is not None else {}),
            **({"meta": flags} if flags else {}),
        }

    def finish(self) -> None:
        """The tasks, and the labelling interface for their classes."""
        from xml.sax.saxutils import quoteattr

        labels = "".join(f"<Label value={quoteattr(n)}/>" for n in self._desk.labels.names.values())
        self._desk.write(
            "label_config.xml",
            f'<View><Image name="image" value="$image"/><RectangleLabels name="label" '
            f'toName="image">{labels}</RectangleLabels></View>\n'.encode(),
        )
        self._desk.write("tasks.json", json.dumps(self._tasks).encode())
