"""A model of one's own: docs/examples/centre_net.py, trained as the OD API's models are."""

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import EXAMPLES
from drives import frame_image, square_of, write_drive

from urbandet_ray.boxes import boxes_from_yxyx_norm, boxes_to_yxyx_norm, iou_matrix
from urbandet_ray.config import TrainConfig, load_config
from urbandet_ray.errors import ConfigError, ModelError
from urbandet_ray.labels import STREET_LABELS
from urbandet_ray.storage import Storage

pytestmark = pytest.mark.train
STEPS, SIZE_WH = 32, (64, 48)


@pytest.fixture(autouse=True)
def centre_net(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The example's module, found as PYTHONPATH=docs/examples has it found."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("centre_net")


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drive to learn from and one to be judged by."""
    folder = tmp_path_factory.mktemp("records")
    for name, count in (("train/a", 20), ("val/b", 5)):
        (folder / name).parent.mkdir()
        write_drive(folder / f"{name}.tfrecord", count)
    (folder / "label_map.pbtxt").write_text(STREET_LABELS.to_pbtxt())
    return folder


def settings(records: Path, run: Path, **more: object) -> dict[str, Any]:
    """What a model of one's own needs to be told, and a small Ray."""
    return {
        "model": "centre_net:build",
        "data": str(records),
        "output": str(run),
        "steps": STEPS,
        "batch.per_worker": 4,
        "schedule.rate": 0.005,
        "optimizer.kind": "adam",
        "augmentation.preset": "flip",
        "evaluation.every": STEPS,
        "checkpoint.every": 4,
        "workers.cpus": 1,
        "ray.object_store_mb": 80,
        **more,
    }


@pytest.fixture(scope="module")
def batch() -> tuple[list[dict[str, Any]], np.ndarray]:
    """Four frames as `example` gets them, and their squares in pixels, [4, 4] xyxy."""
    numbers = (0, 6, 12, 18)
    squares = np.array([square_of(number) for number in numbers], np.float32)
    images = [
        {
            "image": frame_image(number).astype(np.float32),
            "groundtruth_boxes": boxes_to_yxyx_norm(square, SIZE_WH),
            "groundtruth_classes": np.array([1], np.int64),
            "groundtruth_weights": np.ones(1, np.float32),
            "groundtruth_is_crowd": np.zeros(1, bool),
        }
        for number, square in zip(numbers, squares, strict=True)
    ]
    return images, squares


def examples(model: Any, images: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Features and labels of a batch."""
    from urbandet_ray.models.odapi import open_odapi

    tf = open_odapi().tf
    made = [model.example({k: tf.constant(v) for k, v in image.items()}) for image in images]
    return tuple(  # type: ignore[return-value]
        {name: tf.stack([one[part][name] for one in made]) for name in made[0][part]}
        for part in (0, 1)
    )


def test_detections_keep_the_contract(centre_net: Any, batch: Any) -> None:
    """Fixed shapes, float32, best first, boxes in [0, 1], classes from 0: of random weights too."""
    model = centre_net.CentreNet(3, (64, 96))
    model.build(4)
    model.trainable_variables[-1].assign([0.0, 0.0, 2.0, 2.0])  # boxes that reach over the edges
    features, _ = examples(model, batch[0])
    found = {name: value.numpy() for name, value in model.detect(features).items()}
    boxes, scores = found["detection_boxes"], found["detection_scores"]
    assert {name: value.shape for name, value in found.items()} == {
        "detection_boxes": (4, 100, 4),
        "detection_scores": (4, 100),
        "detection_classes": (4, 100),
    }
    assert {value.dtype for value in found.values()} == {np.dtype(np.float32)}
    assert (np.diff(scores, axis=1) <= 0).all()
    assert (scores >= 0).all()
    assert (boxes >= 0).all()
    assert (boxes <= 1).all()
    assert (boxes[..., :2] <= boxes[..., 2:]).all()
    assert set(np.unique(found["detection_classes"])) <= {0.0, 1.0, 2.0}


def test_it_finds_the_boxes_that_it_was_shown(centre_net: Any, batch: Any) -> None:
    """The trainer's own step on one batch; before it, the boxes are not found."""
    from urbandet_ray.models.odapi import open_odapi
    from urbandet_ray.training.optimisation.optimizers import make_optimizer
    from urbandet_ray.training.optimisation.step import make_step

    tf = open_odapi().tf
    tf.random.set_seed(1)
    model = centre_net.CentreNet(3, (64, 96))
    model.build(4)
    images, squares = batch
    features, labels = examples(model, images)

    def overlaps() -> np.ndarray:
        """Of the best detection with the square, frame by frame; 0 where it is no vehicle."""
        found = model.detect(features)
        boxes = boxes_from_yxyx_norm(found["detection_boxes"][:, 0].numpy(), SIZE_WH)
        is_vehicle = found["detection_classes"][:, 0].numpy() == 0
        return np.diag(iou_matrix(boxes, squares)) * is_vehicle

    assert overlaps().max() < 0.5
    optimizer = make_optimizer("adam")
    variables, strategy = tuple(model.trainable_variables), tf.distribute.get_strategy()
    step = make_step(model, optimizer, variables, strategy, clip_norm=0.0)
    losses = []
    for rate in [0.01] * 40 + [0.001] * 20:
        optimizer.learning_rate.assign(rate)
        losses.append(step([(features, labels)]).figures()[0]["total"])
    assert losses[-1] < 0.1 * losses[0]
    assert overlaps().min() > 0.5
    assert model.detect(features)["detection_scores"][:, 0].numpy().min() > 0.3


def test_crowds_and_boxes_without_weight_are_not_learnt(centre_net: Any, batch: Any) -> None:
    """What is left comes first, the rest is filled up with class -1."""
    model = centre_net.CentreNet(3, (64, 96))
    boxes = np.array([[0, 0, 0.1, 0.1], [0.2, 0.2, 0.3, 0.3], [0.5, 0.5, 0.9, 0.9]], np.float32)
    image = {
        **batch[0][0],
        "groundtruth_boxes": boxes,
        "groundtruth_classes": np.array([1, 2, 3], np.int64),
        "groundtruth_weights": np.array([0, 1, 1], np.float32),
        "groundtruth_is_crowd": np.array([False, True, False]),
    }
    features, labels = examples(model, [image])
    assert features["image"].shape == (1, 64, 96, 3)
    assert labels["classes"][0].numpy().tolist() == [2] + [-1] * 99
    assert labels["boxes"][0, 0].numpy() == pytest.approx(boxes[2])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "nonsense:build",
            r"nonsense does not import \(No module named 'nonsense'\): expected my_",
        ),
        ("centre_net:nothing", r"centre_net has no nothing to call: expected my_package\.module"),
        ("centre_net:STRIDE", r"centre_net has no STRIDE to call"),
        ("centre_net", r"model is 'centre_net': expected my_package\.module:build"),
        (":build", r"model is ':build': expected"),
        (".centre_net:build", r"\.centre_net does not import"),
    ],
)
def test_a_wrong_model_name_is_told_before_anything_starts(
    records: Path, tmp_path: Path, name: str, message: str
) -> None:
    """No Ray, and no run folder that the right name would then not fit."""
    from urbandet_ray.commands.train import train

    given = settings(records, tmp_path / "run", model=name)
    with pytest.raises(ConfigError, match=message):
        train(load_config(TrainConfig, None, given))
    assert not (tmp_path / "run").exists()


def test_the_seed_decides_the_first_weights(records: Path, tmp_path: Path) -> None:
    """The same seed the same weights, another seed others."""
    from urbandet_ray.training.building import build
    from urbandet_ray.training.place import Place
    from urbandet_ray.training.planning import plan_run

    def weights(seed: int) -> list[np.ndarray]:
        config = load_config(TrainConfig, None, settings(records, tmp_path / "run", seed=seed))
        built = build(plan_run(config, Storage()), Place())
        return [one.numpy() for one in built.trained.variables]

    first = weights(3)
    assert all(np.array_equal(a, b) for a, b in zip(first, weights(3), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, weights(4), strict=True))


def test_it_starts_from_a_checkpoint_that_fits_and_from_no_other(
    centre_net: Any, records: Path, tmp_path: Path
) -> None:
    """Whatever is not in it would stay random without a word."""
    from urbandet_ray.models.odapi import open_odapi
    from urbandet_ray.training.building import start_weights
    from urbandet_ray.training.planning import plan_run

    tf = open_odapi().tf
    old, new, other = (centre_net.CentreNet(classes, (64, 96)) for classes in (3, 3, 4))
    for model in (old, new, other):
        model.build(1)
    tf.train.Checkpoint(model=old.trackable).write(str(tmp_path / "old/ckpt-7"))
    given = settings(records, tmp_path / "run", **{"fine_tune.checkpoint": str(tmp_path / "old")})
    plan = plan_run(load_config(TrainConfig, None, given), Storage())
    assert start_weights(plan, new, tmp_path) == f"weights of {tmp_path / 'old/ckpt-7'}"
    for one, same in zip(new.trainable_variables, old.trainable_variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), same.numpy())
    with pytest.raises(ModelError, match=r"ckpt-7 does not fit the model \(.*same model"):
        start_weights(plan, other, tmp_path)
    with pytest.raises(ModelError, match=r"ckpt-9 does not fit the model"):
        start_weights(replace(plan, fine_tune=str(tmp_path / "old/ckpt-9")), new, tmp_path)
