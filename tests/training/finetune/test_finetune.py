"""Fine-tuning: heads by name land where they should, and what does not fit is said."""

import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import enliven, tiny_ssd

from urbandet_ray.errors import ConfigError, LabelError, ModelError
from urbandet_ray.labels import STREET_LABELS, LabelMap
from urbandet_ray.models import odapi
from urbandet_ray.models.classes import parse_model_labels
from urbandet_ray.models.pipeline_config import read_pipeline
from urbandet_ray.models.zoo import model_config_path
from urbandet_ray.training.finetune import restore_for_finetuning
from urbandet_ray.training.finetune.heads import class_rows
from urbandet_ray.training.finetune.pyramid_levels import bifpn_nodes
from urbandet_ray.training.finetune.rows import (
    PRIOR_LOGIT,
    RowLayout,
    class_shares,
    map_rows,
    silence_rows,
)
from urbandet_ray.training.odapi_model import OdApiModel

# read while tests are collected, so before any of them imports TensorFlow into this process
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

OLD = parse_model_labels("???\nperson\nbicycle\ncar\n???\nbus\ndog\n", "old.txt")
"""Ids 1, 2, 3, 5 and 6."""
RENAMES = {"car": "vehicle", "bus": "vehicle", "person": "pedestrian", "bicycle": "cyclist"}
OLD_CLASSES, NEW_CLASSES, ANCHORS = 6, 5, 4


def test_map_rows_of_anchors_with_background() -> None:
    """An SSD's head: in every anchor's group background stays first and classes move."""
    old = np.array([[0, 1, 2, 3, 100, 101, 102, 103]], np.float32)  # 2 anchors x (1 + 3)
    new = np.full((1, 6), -1, np.float32)  # 2 x (1 + 2)
    layouts = RowLayout(3, anchors=2, background=1), RowLayout(2, anchors=2, background=1)
    got = map_rows(old, new, {1: {3: 1.0}}, *layouts)
    assert got.tolist() == [[0, 3, -1, 100, 103, -1]]
    assert new.max() == -1


def test_map_rows_of_boxes_per_class() -> None:
    """Faster R-CNN's box head: four numbers a class, no background, shares added up."""
    old = np.arange(12, dtype=np.float32)  # 3 classes x 4
    got = map_rows(
        old,
        np.zeros(8, np.float32),
        {2: {1: 0.5, 3: 0.5}},
        RowLayout(3, width=4),
        RowLayout(2, width=4),
    )
    assert got.tolist() == [0, 0, 0, 0, 4, 5, 6, 7]


def test_map_rows_of_a_heatmap() -> None:
    """CenterNet's head: a channel a class and nothing else, kernels of any rank."""
    old = np.stack([np.full((1, 1, 4), value, np.float32) for value in (7, 8, 9)], axis=-1)
    layouts = RowLayout(3), RowLayout(4)
    got = map_rows(old, np.zeros((1, 1, 4, 4), np.float32), {1: {2: 1.0}, 4: {3: 1.0}}, *layouts)
    assert got[0, 0, 0].tolist() == [8, 0, 0, 9]


def test_map_rows_refuses_ids_without_a_row() -> None:
    """On either side, saying whose number of classes is too small."""
    row = np.zeros(3, np.float32)
    layouts = RowLayout(3), RowLayout(3)
    with pytest.raises(LabelError, match="the model has 3 classes, none with id 4: num_classes"):
        map_rows(row, row, {4: {1: 1.0}}, *layouts)
    with pytest.raises(LabelError, match="the checkpoint has 3 classes, none with id 9"):
        map_rows(row, row, {1: {9: 1.0}}, *layouts)


def test_rows_without_a_source_are_silenced() -> None:
    """In every anchor's group; background and mapped classes stay."""
    row = np.array([5, 1, 2, 3] * 2, np.float32)
    got = silence_rows(row, RowLayout(3, anchors=2, background=1), {1: {1: 1.0}}, PRIOR_LOGIT)
    assert got == pytest.approx([5, 1, PRIOR_LOGIT, PRIOR_LOGIT] * 2)


def test_class_table_by_name() -> None:
    """Renamed classes meet, equal names meet without, and a new class may have none."""
    new = LabelMap({1: "vehicle", 3: "dog", 4: "tram"})
    table = class_shares(OLD, new, {"car": "vehicle", "bus": "vehicle"})
    assert table == {1: {3: 0.6, 5: pytest.approx(0.4)}, 3: {6: 1.0}}


def test_first_named_class_weighs_most() -> None:
    """The order is that of the mapping, not of the ids."""
    table = class_shares(OLD, LabelMap({1: "vehicle"}), {"bus": "vehicle", "car": "vehicle"})
    assert list(table[1]) == [5, 3]


def make(classes: int) -> OdApiModel:
    """A tiny SSD with its variables."""
    model = OdApiModel(tiny_ssd(classes))
    model.build(1)
    return model


def head_of(model: OdApiModel) -> dict[str, Any]:
    """The class head's variables by their layer's name for them."""
    rows = class_rows(model.trackable, "ssd")
    found = [one for one in model.variables if id(one) in rows]
    return {one.name.rsplit("/", 1)[1].split(":")[0]: one for one in found}


def class_values(variable: Any, classes: int) -> np.ndarray:
    """[anchors, 1 + classes], one number a row."""
    values = variable.numpy().reshape(-1, variable.shape[-1])[0]
    return np.asarray(values.reshape(-1, 1 + classes))


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> tuple[OdApiModel, str]:
    """A model whose class rows hold their own id (background 0), and its checkpoint."""
    model = make(OLD_CLASSES)
    for variable in head_of(model).values():
        rows = np.broadcast_to(np.arange(1 + OLD_CLASSES), (*variable.shape[:-1], ANCHORS, 7))
        variable.assign(rows.reshape(variable.shape))
    tf = odapi.open_odapi().tf
    path = tmp_path_factory.mktemp("old") / "ckpt"
    return model, tf.train.Checkpoint(model=model.trackable).save(str(path))


@pytest.fixture(scope="module")
def new() -> OdApiModel:
    """A model for the course's ids 1, 2, 4, with a fifth row."""
    return make(NEW_CLASSES)


@pytest.mark.train
def test_heads_by_name(old: tuple[OdApiModel, str], new: OdApiModel) -> None:
    """Rows come from the old classes, background and everything else from the same place."""
    labels = LabelMap({**STREET_LABELS.names, 5: "tram"})
    report = restore_for_finetuning(new, old[1], old_labels=OLD, new_labels=labels, renames=RENAMES)
    weights, shares = head_of(new), class_shares(OLD, labels, RENAMES)[1]
    vehicle = sum(old_id * share for old_id, share in shares.items())
    assert set(weights) == {"pointwise_kernel", "bias"}
    for anchor in class_values(weights["bias"], NEW_CLASSES):
        assert anchor == pytest.approx([0, vehicle, 1, PRIOR_LOGIT, 2, PRIOR_LOGIT])
    for anchor in class_values(weights["pointwise_kernel"], NEW_CLASSES):
        assert anchor == pytest.approx([0, vehicle, 1, 0, 2, 0])
    heads = {id(one) for one in weights.values()}
    for ours, theirs in zip(new.variables, old[0].variables, strict=True):
        assert id(ours) in heads or np.array_equal(ours.numpy(), theirs.numpy()), ours.name
    assert (report.mapped, report.random) == (2, 0)
    assert report.copied == len(new.variables) - 2


def boxes_of(model: OdApiModel) -> Any:
    """What the network says of a picture of noise, as decoded corners."""
    tf = odapi.open_odapi().tf
    pixels = np.random.default_rng(3).uniform(-1, 1, (1, 64, 64, 3)).astype(np.float32)
    network = model.trackable
    network._is_training = False
    found = network.predict(tf.constant(pixels), tf.constant([[64, 64, 3]]))
    return network._batch_decode(found["box_encodings"], found["anchors"])[0].numpy()


def config_of(scale: float, coder: float = 1.0, ratios: int = 0) -> Any:
    """A tiny SSD's config with other anchors, or another coder."""
    config = tiny_ssd(OLD_CLASSES)
    anchors = config.model.ssd.anchor_generator.multiscale_anchor_generator
    anchors.anchor_scale *= scale
    if ratios:
        anchors.aspect_ratios[0] *= ratios
    for name in ("y_scale", "x_scale", "height_scale", "width_scale"):
        one = config.model.ssd.box_coder.faster_rcnn_box_coder
        setattr(one, name, getattr(one, name) * coder)
    return config


@pytest.mark.train
@pytest.mark.parametrize(("scale", "coder"), [(0.5, 1.0), (2.0, 1.0), (0.75, 2.0), (1.0, 1.0)])
def test_boxes_stay_where_anchors_are_scaled(
    old: tuple[OdApiModel, str], scale: float, coder: float
) -> None:
    """The box head is rescaled exactly; shapes alone would keep it and move every box."""
    model = OdApiModel(config_of(scale, coder))
    model.build(1)
    report = restore_for_finetuning(
        model,
        old[1],
        old_labels=OLD,
        new_labels=LabelMap({1: "car"}),
        old_model=tiny_ssd(OLD_CLASSES).model,
    )
    np.testing.assert_allclose(boxes_of(model), boxes_of(old[0]), rtol=1e-4, atol=1e-4)
    assert ("so is its box head" in report.to_text()) == (scale != 1)


def with_levels(config: Any, low: int, high: int) -> Any:
    """The config with a pyramid of these levels."""
    ssd = config.model.ssd
    extractor = ssd.feature_extractor
    pyramid = extractor.bifpn if extractor.HasField("bifpn") else extractor.fpn
    for one in (pyramid, ssd.anchor_generator.multiscale_anchor_generator):
        one.min_level, one.max_level = low, high
    return config


def stir(model: OdApiModel) -> None:
    """Give every variable, moving averages too, values that no other has."""
    rng = np.random.default_rng(4)
    for variable in model.variables:
        variable.assign(variable.numpy() + rng.uniform(0.01, 0.1, variable.shape))


def started_from(old: OdApiModel, old_config: Any, config: Any, folder: Path) -> OdApiModel:
    """A model of the config that starts from another's checkpoint, and says so of its levels."""
    saved = odapi.open_odapi().tf.train.Checkpoint(model=old.trackable).save(str(folder / "ckpt"))
    model = OdApiModel(config)
    model.build(1)
    report = restore_for_finetuning(
        model, saved, old_labels=OLD, new_labels=OLD.names, old_model=old_config.model
    )
    assert "layers are matched by level" in report.to_text()
    return model


@pytest.mark.train
@pytest.mark.parametrize("now", [(4, 5), (3, 7)])
def test_levels_that_both_have_say_the_same(tmp_path: Path, now: tuple[int, int]) -> None:
    """Of a top-down pyramid: boxes of the levels that a model keeps are the checkpoint's."""
    was = (3, 5)
    old_config = with_levels(tiny_ssd(OLD_CLASSES), *was)
    old = OdApiModel(old_config)
    old.build(1)
    stir(old)
    new = started_from(old, old_config, with_levels(tiny_ssd(OLD_CLASSES), *now), tmp_path)
    places = [ANCHORS * (64 >> level) ** 2 for level in range(3, 8)]
    boxes, old_boxes = boxes_of(new)[0], boxes_of(old)[0]
    low = max(now[0], 3)
    both = sum(places[low - 3 : 5 - 3 + 1])  # levels low to 5
    first = sum(places[was[0] - 3 : low - 3])
    assert len(old_boxes) == sum(places[:3])
    assert np.abs(old_boxes[first : first + both] - boxes[:both]).max() < 1e-5


@pytest.mark.parametrize("levels", [(3, 7), (4, 6), (2, 8)])
def test_nodes_of_a_bifpn_are_those_of_the_od_api(levels: tuple[int, int]) -> None:
    """In its order, which is what a checkpoint's lists have."""
    odapi.open_odapi()
    pyramids = importlib.import_module(
        "object_detection.models.bidirectional_feature_pyramid_generators"
    )
    made = pyramids._create_bifpn_node_config(2, 64, *levels, min(levels[1], 5))
    assert bifpn_nodes(*levels, 2) == [node["name"] for node in made]


@pytest.mark.train
@pytest.mark.long
def test_a_bifpn_is_matched_by_level(tmp_path: Path) -> None:
    """Its nodes lie in another order where there are more levels; their names say the level."""

    def config(low: int, high: int) -> Any:
        one = read_pipeline(model_config_path("efficientdet_d0_512")).message
        one.model.ssd.num_classes = OLD_CLASSES
        size = one.model.ssd.image_resizer.keep_aspect_ratio_resizer
        size.min_dimension = size.max_dimension = 256
        return with_levels(one, low, high)

    def nodes(model: OdApiModel) -> dict[str, list[np.ndarray]]:
        stage = model.trackable._feature_extractor._bifpn_stage
        return {
            node["name"]: [weights for layer in block for weights in layer.get_weights()]
            for node, block in zip(
                stage.bifpn_node_config, stage.node_post_combine_block, strict=True
            )
        }

    old = OdApiModel(config(3, 7))
    old.build(1)
    stir(old)
    new = started_from(old, config(3, 7), config(4, 6), tmp_path)
    before, after = nodes(old), nodes(new)
    assert len(after) == 3 * 4 + 1
    for name, weights in after.items():
        assert all(map(np.array_equal, weights, before[name])), name


@pytest.mark.train
def test_a_box_head_of_other_anchors_is_not_kept(old: tuple[OdApiModel, str]) -> None:
    """Of the same shapes, but another aspect ratio: nothing of either head."""
    model = OdApiModel(config_of(1.0, ratios=3))
    model.build(1)
    report = restore_for_finetuning(
        model,
        old[1],
        old_labels=OLD,
        new_labels=LabelMap({1: "car"}),
        old_model=tiny_ssd(OLD_CLASSES).model,
    )
    assert report.mapped == 0
    assert {one.part: one.random for one in report.parts}["box head"] > 0
    assert "the checkpoint's anchors are others than the model's" in report.to_text()


@pytest.mark.train
@pytest.mark.parametrize(
    ("scales", "base", "kept"),
    [
        ((0.0625, 0.125, 0.25, 0.5, 1.0), 192, True),
        ((0.05, 0.125, 0.25, 0.5, 1.0), 256, False),
    ],
)
def test_region_proposals_stay_where_anchors_are_scaled(
    proposals: OdApiModel, tmp_path: Path, scales: tuple[float, ...], base: int, kept: bool
) -> None:
    """Or their heads start random where scales differ by several factors: shapes are the same."""
    tf = odapi.open_odapi().tf
    saved = tf.train.Checkpoint(model=proposals.trackable).save(str(tmp_path / "ckpt"))
    config = rcnn_config()
    anchors = config.model.faster_rcnn.first_stage_anchor_generator.grid_anchor_generator
    anchors.scales[:], anchors.height, anchors.width = scales, base, base
    model = OdApiModel(config)
    model.build(1)
    report = restore_for_finetuning(
        model, saved, old_labels=OLD, new_labels=OLD.names, old_model=rcnn_config().model
    ).to_text()
    before, inside_before = proposals_of(proposals)
    after, inside_after = proposals_of(model)
    both = inside_before & inside_after  # what reaches over the edge is cut to the image
    assert both.sum() > 100
    assert np.allclose(before[both], after[both], rtol=1e-4, atol=1e-3) == kept
    if not kept:
        assert "so its head of region proposals says nothing here: it starts random" in report


@pytest.fixture(scope="module")
def proposals() -> OdApiModel:
    """A Faster R-CNN's first stage."""
    model = OdApiModel(rcnn_config())
    model.build(1)
    enliven(model)
    return model


def rcnn_config() -> Any:
    """At 128 px, of its first stage alone."""
    config = read_pipeline(model_config_path("faster_rcnn_resnet50_v1_640")).message
    rcnn = config.model.faster_rcnn
    rcnn.num_classes, rcnn.number_of_stages = OLD_CLASSES, 1
    size = rcnn.image_resizer.keep_aspect_ratio_resizer
    size.min_dimension = size.max_dimension = 128
    return config


def proposals_of(model: OdApiModel) -> tuple[Any, Any]:
    """Decoded boxes [px] of all anchors for a picture of noise, and which anchors are inside it."""
    tf = odapi.open_odapi().tf
    pixels = np.random.default_rng(3).uniform(-100, 100, (1, 128, 128, 3)).astype(np.float32)
    network = model.trackable
    network._is_training = False
    found = network.predict(tf.constant(pixels), tf.constant([[128, 128, 3]]))
    codes, anchors = found["rpn_box_encodings"], found["anchors"]
    inside = ((anchors.numpy() > 0) & (anchors.numpy() < 128)).all(axis=1)
    return network._batch_decode_boxes(codes[:, :, None], anchors[None])[0].numpy(), inside


@pytest.mark.train
def test_report_reads_well(old: tuple[OdApiModel, str], new: OdApiModel) -> None:
    """Totals, parts, and where each class came from."""
    labels = LabelMap({1: "pedestrian", 2: "tram"})
    text = restore_for_finetuning(
        new, old[1], old_labels=OLD, new_labels=labels, renames={"person": "pedestrian"}
    ).to_text()
    assert " variables copied, 2 mapped, 0 left random\n" in text
    assert "  class head " in text
    assert "\n  pedestrian <- person\n" in text
    assert "tram has no old class: its row starts empty, at a score of 0.01" in text
    assert "id 3 is no class of the label map" in text


@pytest.mark.train
def test_same_number_of_classes_is_mapped_too(old: tuple[OdApiModel, str]) -> None:
    """Rows follow names even where the shapes would fit as they are."""
    model = make(OLD_CLASSES)
    restore_for_finetuning(
        model, old[1], old_labels=OLD, new_labels=LabelMap({1: "car"}), renames=None
    )
    assert class_values(head_of(model)["bias"], OLD_CLASSES)[:, 1].tolist() == [3] * ANCHORS


@pytest.mark.train
def test_odapis_detection_kind(old: tuple[OdApiModel, str], new: OdApiModel) -> None:
    """The feature extractor arrives, the predictor stays as it was."""
    before = head_of(new)["bias"].numpy()
    report = restore_for_finetuning(new, old[1], "detection")
    by_part = {part.part: part for part in report.parts}
    assert by_part["feature extractor"].random == 0
    assert by_part["class head"].copied == by_part["box head"].copied == 0
    assert np.array_equal(head_of(new)["bias"].numpy(), before)


@pytest.mark.train
def test_what_does_not_fit_leaves_the_model_alone(
    old: tuple[OdApiModel, str], new: OdApiModel
) -> None:
    """Type full with other classes: a message, and no variable half way."""
    before = [one.numpy() for one in new.variables]
    with pytest.raises(ModelError, match=r"does not fit the model as a full checkpoint .*doctor"):
        restore_for_finetuning(new, old[1], "full")
    assert all(map(np.array_equal, before, [one.numpy() for one in new.variables]))


@pytest.mark.train
def test_another_architecture(new: OdApiModel, tmp_path: Path) -> None:
    """A checkpoint of which next to nothing fits is refused."""
    tf = odapi.open_odapi().tf
    path = tf.train.Checkpoint(model=tf.Module(), step=tf.Variable(3)).save(str(tmp_path / "ckpt"))
    with pytest.raises(ModelError, match=r"fits 0 of the model's \d+ variables: .*another arch"):
        restore_for_finetuning(
            new, path, old_labels=OLD, new_labels=LabelMap({1: "car"}), renames=None
        )


@pytest.mark.train
def test_no_checkpoint(new: OdApiModel, tmp_path: Path) -> None:
    """A prefix without files is named, with what a prefix is."""
    with pytest.raises(ModelError, match=r"no readable checkpoint at .*absent .*ckpt-0, with"):
        restore_for_finetuning(new, str(tmp_path / "absent"), "detection")


@pytest.mark.train
@pytest.mark.parametrize(
    ("kind", "said"),
    [("heads", r"the checkpoint's classes: .*fine_tune\.labels"), ("all", "give one of heads")],
)
def test_what_must_be_said(
    old: tuple[OdApiModel, str], new: OdApiModel, kind: str, said: str
) -> None:
    """Heads by name without the old classes, and an unknown kind."""
    with pytest.raises(ConfigError, match=said):
        restore_for_finetuning(new, old[1], kind, new_labels=STREET_LABELS)


@pytest.mark.train
def test_under_a_strategy(old: tuple[OdApiModel, str]) -> None:
    """Variables made for several replicas are filled from outside of them."""
    tf = odapi.open_odapi().tf
    strategy = tf.distribute.MirroredStrategy(["/cpu:0"])
    with strategy.scope():
        model = make(NEW_CLASSES)
        restore_for_finetuning(
            model, old[1], old_labels=OLD, new_labels=LabelMap({1: "car"}), renames=None
        )
    assert class_values(head_of(model)["bias"], NEW_CLASSES)[:, 1].tolist() == [3] * ANCHORS
