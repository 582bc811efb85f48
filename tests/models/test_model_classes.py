"""Label lists, mappings and the lookup table between a model's classes and ours."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from urbandet_ray.errors import LabelError
from urbandet_ray.labels import STREET_LABELS
from urbandet_ray.models.classes import (
    builtin_mapping_text,
    builtin_mappings,
    check_mapping_keys,
    class_table,
    parse_model_labels,
    read_mapping,
)

COCO = "person\nbicycle\ncar\nmotorcycle\nairplane\nbus\ntrain\ntruck\n"


def test_a_list_that_opens_with_background_counts_from_it():
    """In the classic COCO list "???" is the background: both habits give a class the same id."""
    plain, classic = parse_model_labels(COCO, "a"), parse_model_labels("???\n" + COCO, "b")
    assert plain.names == classic.names
    assert plain.names.names[1] == "person"
    assert (plain.length, classic.length) == (8, 8)


def test_holes_in_a_list_keep_their_place():
    """A "???" line further down, or at the end, holds a class without a name."""
    labels = parse_model_labels("person\n???\ncar\n???\n", "list")
    assert dict(labels.names.names) == {1: "person", 3: "car"}
    assert labels.length == 4


def test_a_pbtxt_keeps_its_own_ids():
    """label_map.pbtxt ids are the model's ids, gaps included."""
    labels = parse_model_labels(STREET_LABELS.to_pbtxt(), "label_map.pbtxt")
    assert labels.names == STREET_LABELS
    assert labels.length == 4


def test_coco_to_street_maps_the_seven_classes():
    """The built-in mapping turns COCO's traffic into ours and drops the rest."""
    renames = read_mapping(builtin_mapping_text("coco-to-street"), "coco-to-street")
    table = class_table(parse_model_labels(COCO, "coco"), STREET_LABELS, renames, 8)
    assert table.ids.tolist() == [0, 2, 4, 1, 1, 0, 1, 0, 1]
    assert "coco-to-street" in builtin_mappings()
    assert builtin_mapping_text("../loading") is None


@pytest.mark.parametrize(
    ("kept", "ids"),
    [
        (["vehicle"], [0, 0, 0, 1, 1, 0, 1, 0, 1]),
        (["pedestrian"], [0, 2, 0, 0, 0, 0, 0, 0, 0]),
        (["cyclist", "pedestrian"], [0, 2, 4, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_classes_to_keep(kept: list[str], ids: list[int]):
    """By the names of ours; all others are dropped, as those that nothing maps."""
    renames = read_mapping(builtin_mapping_text("coco-to-street"), "coco-to-street")
    table = class_table(parse_model_labels(COCO, "coco"), STREET_LABELS, renames, 8, kept)
    assert table.ids.tolist() == ids


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (["car"], "no class 'car' in the label map; it has: vehicle, pedestrian, cyclist"),
        (["vehicle", "Cyclist"], "no class 'Cyclist' in the label map"),
        (["cyclist"], r"none of the classes to keep \(cyclist\): it finds pedestrian, vehicle"),
    ],
)
def test_classes_to_keep_that_are_none(kept: list[str], message: str):
    """The message has the list to choose from."""
    labels = parse_model_labels("vehicle\npedestrian", "list")
    with pytest.raises(LabelError, match=message):
        class_table(labels, STREET_LABELS, None, 2, kept)


def test_a_label_map_shorter_than_the_model_is_refused():
    """A list of three for a model of ninety is caught when the model is loaded."""
    labels = parse_model_labels("vehicle\npedestrian\ncyclist", "labels.txt")
    with pytest.raises(LabelError, match=r"90 classes \(index 0 to 89\).*labels.txt ends at id 3"):
        class_table(labels, STREET_LABELS, None, 90)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no mapping; expected lines such as `car: vehicle`"),
        ("- car\n- bus", "holds no mapping"),
        ("car: [vehicle]", r"got `car: \['vehicle'\]`"),
        ("3: vehicle", "got `3: vehicle`"),
        ("car: {", "is no YAML"),
    ],
)
def test_a_mapping_that_is_none_is_refused(text, message):
    """What was got and what a mapping looks like are in the message."""
    with pytest.raises(LabelError, match=message):
        read_mapping(text, "m.yaml")


def test_a_misspelt_class_in_a_mapping_is_named_with_the_nearest():
    """`bicicle: cyclist` would silently drop every cyclist."""
    labels = parse_model_labels(COCO, "coco.txt")
    with pytest.raises(LabelError, match="no class 'bicicle'; did you mean 'bicycle'"):
        check_mapping_keys({"bicicle": "cyclist"}, labels, "m.yaml")
    with pytest.raises(LabelError, match=r"no class 'zzz': take names from coco\.txt"):
        check_mapping_keys({"zzz": "cyclist"}, labels, "m.yaml")


@given(st.lists(st.sampled_from(["???", "a", "b", "c", "d", "e"]), min_size=1, unique=True))
def test_list_positions_survive(lines):
    """Whatever the holes, a class's id is its line, counted from 0 after a background line."""
    lines = ["vehicle", *lines]
    for first, offset in (([], 1), (["???"], 0)):
        listed = first + [line for line in lines if not first or line != "???"]
        labels = parse_model_labels("\n".join(listed), "list")
        for class_id, name in labels.names.names.items():
            assert listed[class_id - offset] == name
        assert labels.length == len(listed) - 1 + offset
